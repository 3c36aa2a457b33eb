// The kernels for scalar: the generic sources, compiled with this ISA's flags over its vector
// wrapper.
#define FBP_ISA scalar
#include "kernels/cpu/simd/scalar.h"

namespace fastbp::scalar {
static constexpr int kTileRows[] = {2};  // blocking.h
static constexpr int kHalfTileRows = 0;
static constexpr bool kUpdatesGoAlong = false;
template <class T> using Item = Lane<T>;  // elementwise.inl
}  // namespace fastbp::scalar

#include "kernels/cpu/table.inl"
