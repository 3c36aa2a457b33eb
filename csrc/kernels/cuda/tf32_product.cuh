// The products of tensor_gemm.cuh of float32 operands that are rounded to TF32, to nearest, ties away
// from zero, as they come from shared memory (train/tf32.h).
//
// Per step of 8 along k a warp reads (64 + 64) x 8 values for 32 instructions. Rows of a slab are as far
// apart as leaves the 32 values of a fragment's register in different banks: t + 20 g where k runs along
// the rows, g + 136 t where it does not.
#pragma once

#include "kernels/cuda/tensor_gemm.cuh"
#include "kernels/cuda/train/tf32.h"

namespace fastbp {
namespace cuda {
namespace {

constexpr int kTf32Depth = 16;
constexpr int kTf32Group = 4;  // values of a copy
constexpr int kTf32AlongK = kTf32Depth + 4, kTf32Across = kTensorTile + 8;
constexpr int kTf32Slab = kTensorTile * kTf32AlongK;  // the larger of the two ways
static_assert(kTf32Depth * kTf32Across <= kTf32Slab, "a slab holds either");

// One operand: its tile's first row or column is `first` of `count`; k runs along its rows, or
// across them.
template <bool along_k> struct Tf32Operand {
  Tf32Matrix x;
  index_t first, count;

  // As TensorOperand::fetch: by four values where those are 16 bytes in a row, else one by one.
  FBP_DEVICE void fetch(float* slab, index_t p, index_t end) const {
    if (x.row % kTf32Group == 0 && reinterpret_cast<std::uintptr_t>(x.at) % 16 == 0)
      fetch_by<kTf32Group>(slab, p, end);
    else
      fetch_by<1>(slab, p, end);
  }

  // The value of row (column) i and place p of the slab, rounded.
  FBP_DEVICE std::uint32_t at(const float* slab, int i, int p) const {
    return to_tf32(slab[along_k ? i * kTf32AlongK + p : p * kTf32Across + i]);
  }

 private:
  template <int group> FBP_DEVICE void fetch_by(float* slab, index_t p, index_t end) const {
    constexpr int groups = (along_k ? kTf32Depth : kTensorTile) / group;
    FBP_UNROLL(4)
    for (int e = threadIdx.x; e < kTensorTile * kTf32Depth / group; e += kTensorThreads) {
      const int row = e / groups, col = e % groups * group;
      const index_t i = along_k ? first + row : p + row, j = along_k ? p + col : first + col;
      const index_t rows = along_k ? count : end, cols = along_k ? end : count;
      const index_t left = i < rows ? cols - j : 0;
      const int values = left <= 0 ? 0 : left < group ? int(left) : group;
      const float* const from = values ? x.at + i * x.row + j : x.at;
      float* const to = slab + row * (along_k ? kTf32AlongK : kTf32Across) + col;
      if constexpr (group == 1)
        copy_async_4(to, from, values * int(sizeof(float)));
      else
        copy_async_16(to, from, values * int(sizeof(float)));
    }
  }
};

// k along the rows of A, and of B, or across them.
template <bool a_along_k, bool b_along_k> struct Tf32Product {
  using Args = Tf32Args;
  using Element = float;
  using A = Tf32Operand<a_along_k>;
  using B = Tf32Operand<b_along_k>;
  static constexpr int depth = kTf32Depth, slab = kTf32Slab;

  FBP_DEVICE static void add(const Args&, WarpSums& sums, const A& a, const B& b,
                             const float* slab_a, const float* slab_b, int i0, int j0) {
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    FBP_UNROLL(1)
    for (int p = 0; p < kTf32Depth; p += 8) {
      std::uint32_t x[kWarpTile / 16][4];
      FBP_UNROLL(4)
      for (int i = 0; i < kWarpTile / 16; ++i) {
        FBP_UNROLL(4)
        for (int e = 0; e < 4; ++e)
          x[i][e] = a.at(slab_a, i0 + 16 * i + g + e % 2 * 8, p + t + e / 2 * 4);
      }
      FBP_UNROLL(8)
      for (int j = 0; j < kWarpTile / 8; ++j) {
        const int col = j0 + 8 * j + g;
        const std::uint32_t y[2] = {b.at(slab_b, col, p + t), b.at(slab_b, col, p + t + 4)};
        FBP_UNROLL(4)
        for (int i = 0; i < kWarpTile / 16; ++i) multiply_tf32(sums[i][j], x[i], y);
      }
    }
  }
};

}  // namespace
}  // namespace cuda
}  // namespace fastbp
