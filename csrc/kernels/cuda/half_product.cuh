// The products of tensor_gemm.cuh of operands of 16 bits (train/tensor.h).
//
// Per step of 16 along k a warp reads (64 + 64) x 16 values for 32 instructions. ldmatrix, transposing
// where k does not run along the rows, makes the fragments (ptx.cuh).
#pragma once

#include "kernels/cuda/tensor_gemm.cuh"
#include "kernels/cuda/train/tensor.h"

namespace fastbp {
namespace cuda {
namespace {

constexpr int kHalfDepth = 32;  // of a slab, along k
// From one row of a slab to the next: 16 bytes more than there are, so that the eight rows that
// ldmatrix reads are in different banks.
constexpr int kPitchAlongK = kHalfDepth + kShadowGroup;
constexpr int kPitchAcross = kTensorTile + kShadowGroup;
constexpr int kHalfSlab = kTensorTile * kPitchAlongK;  // the larger of the two ways
static_assert(kHalfDepth * kPitchAcross <= kHalfSlab, "a slab holds either");

// One operand: its tile's first row or column is `first` of `count`; k runs along its rows, or
// across them.
template <bool along_k> struct TensorOperand {
  Shadow x;
  index_t first, count;

  // Begins to copy p .. p + 32 (zeros from `end` on) of the tile into the slab.
  FBP_DEVICE void fetch(std::uint16_t* slab, index_t p, index_t end) const {
    constexpr int groups = (along_k ? kHalfDepth : kTensorTile) / int(kShadowGroup);
    FBP_UNROLL(4)
    for (int e = threadIdx.x; e < kTensorTile * kHalfDepth / kShadowGroup; e += kTensorThreads) {
      const int row = e / groups, col = e % groups * int(kShadowGroup);
      const index_t i = along_k ? first + row : p + row, j = along_k ? p + col : first + col;
      const index_t rows = along_k ? count : end, cols = along_k ? end : count;
      const index_t left = i < rows ? cols - j : 0;
      const int values = left <= 0 ? 0 : left < kShadowGroup ? int(left) : int(kShadowGroup);
      const std::uint16_t* const from = values ? x.at + i * x.row + j : x.at;
      copy_async_16(slab + row * (along_k ? kPitchAlongK : kPitchAcross) + col, from,
                    values * int(sizeof(std::uint16_t)));
    }
  }

  // The 16 x 16 part of the slab at (i, p) as four 8 x 8 matrices, i and then p running fastest from
  // one to the next (`i_first`), or the other way round.
  template <bool i_first>
  FBP_DEVICE void load(std::uint32_t (&r)[4], const std::uint16_t* slab, int i, int p) const {
    const int lane = threadIdx.x % 32, inner = lane / 8 % 2 * 8, outer = lane / 16 * 8;
    i += i_first ? inner : outer;
    p += i_first ? outer : inner;
    if constexpr (along_k)
      load_matrices(r, slab + (i + lane % 8) * kPitchAlongK + p);
    else
      load_matrices_transposed(r, slab + (p + lane % 8) * kPitchAcross + i);
  }
};

template <Half kind>
FBP_DEVICE void multiply(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  if constexpr (kind == Half::float16)
    multiply_f16(d, a, b);
  else
    multiply_bf16(d, a, b);
}

template <Half kind, bool a_along_k, bool b_along_k>
FBP_DEVICE void add_slab(WarpSums& sums, const TensorOperand<a_along_k>& a,
                         const TensorOperand<b_along_k>& b, const std::uint16_t* slab_a,
                         const std::uint16_t* slab_b, int i0, int j0) {
  FBP_UNROLL(2)
  for (int p = 0; p < kHalfDepth; p += 16) {
    std::uint32_t x[kWarpTile / 16][4];
    FBP_UNROLL(4)
    for (int i = 0; i < kWarpTile / 16; ++i) a.template load<true>(x[i], slab_a, i0 + 16 * i, p);
    FBP_UNROLL(4)
    for (int j = 0; j < kWarpTile / 16; ++j) {
      std::uint32_t y[4];
      b.template load<false>(y, slab_b, j0 + 16 * j, p);
      const std::uint32_t low[2] = {y[0], y[1]}, high[2] = {y[2], y[3]};
      FBP_UNROLL(4)
      for (int i = 0; i < kWarpTile / 16; ++i) {
        multiply<kind>(sums[i][2 * j], x[i], low);
        multiply<kind>(sums[i][2 * j + 1], x[i], high);
      }
    }
  }
}

// k along the rows of A, and of B, or across them.
template <bool a_along_k, bool b_along_k> struct HalfProduct {
  using Args = TensorArgs;
  using Element = std::uint16_t;
  using A = TensorOperand<a_along_k>;
  using B = TensorOperand<b_along_k>;
  static constexpr int depth = kHalfDepth, slab = kHalfSlab;

  FBP_DEVICE static void add(const Args& g, WarpSums& sums, const A& a, const B& b,
                             const Element* slab_a, const Element* slab_b, int i0, int j0) {
    if (g.a.kind == Half::float16)
      add_slab<Half::float16>(sums, a, b, slab_a, slab_b, i0, j0);
    else
      add_slab<Half::bfloat16>(sums, a, b, slab_a, slab_b, i0, j0);
  }
};

}  // namespace
}  // namespace cuda
}  // namespace fastbp
