// The kernels for avx2: the generic sources, compiled with this ISA's flags over its vector
// wrapper.
#define FBP_ISA avx2
#include "kernels/cpu/simd/avx2.h"

namespace fastbp::avx2 {
static constexpr int kTileRows[] = {6};  // blocking.h
static constexpr int kHalfTileRows = 12;
static constexpr bool kUpdatesGoAlong = false;
template <class T> using Item = Vec<T>;  // elementwise.inl
}  // namespace fastbp::avx2

#include "kernels/cpu/table.inl"
