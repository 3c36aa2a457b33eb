// The kernels for neon: the generic sources, compiled with this ISA's flags over its vector
// wrapper.
#define FBP_ISA neon
#include "kernels/cpu/simd/neon.h"

namespace fastbp::neon {
static constexpr int kTileRows[] = {5};  // blocking.h
static constexpr int kHalfTileRows = 0;
static constexpr bool kUpdatesGoAlong = false;
template <class T> using Item = Vec<T>;  // elementwise.inl
}  // namespace fastbp::neon

#include "kernels/cpu/table.inl"
