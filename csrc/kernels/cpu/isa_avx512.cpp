// The kernels for avx512: the generic sources, compiled with this ISA's flags over its vector
// wrapper.
#define FBP_ISA avx512
#include "kernels/cpu/simd/avx512.h"

namespace fastbp::avx512 {
static constexpr int kTileRows[] = {16, 12, 8, 6};  // blocking.h
static constexpr int kHalfTileRows = 0;
static constexpr bool kUpdatesGoAlong = true;
template <class T> using Item = Vec<T>;  // elementwise.inl
}  // namespace fastbp::avx512

#include "kernels/cpu/table.inl"
