// Matrix product on tensor cores with an epilogue, as a template (train/tensor.h).
//
// A block of four warps makes a tile of 128 x 128 outputs, each warp 64 x 64 in registers: per step
// of 16 along k a warp reads (64 + 64) x 16 values for 32 instructions. Slabs of 32 along k come by
// cp.async, three under way at once. They lie in shared memory as they lie in global memory, and
// ldmatrix, transposing where k does not run along the rows, makes the fragments (ptx.cuh).
#pragma once

#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/train/tensor.h"
#include "ops/lane.h"

namespace fastbp {
namespace cuda {
namespace {

constexpr int kTensorTile = 128;
constexpr int kTensorDepth = 32;  // of a slab, along k
constexpr int kTensorThreads = 128;
constexpr int kTensorStages = 3;
constexpr int kWarpTile = 64;
// From one row of a slab to the next: 16 bytes more than there are, so that the eight rows that
// ldmatrix reads are in different banks.
constexpr int kPitchAlongK = kTensorDepth + kShadowGroup;
constexpr int kPitchAcross = kTensorTile + kShadowGroup;
constexpr int kSlab = kTensorTile * kPitchAlongK;  // the larger of the two ways
static_assert(kTensorDepth * kPitchAcross <= kSlab, "a slab holds either");
constexpr int kResultPitch = kTensorTile + 4;  // of the tile of sums, floats
constexpr std::size_t kSlabBytes = std::size_t(2) * kTensorStages * kSlab * sizeof(std::uint16_t);
constexpr std::size_t kResultBytes = sizeof(float) * kTensorTile * kResultPitch;
constexpr std::size_t kTensorSharedBytes = kSlabBytes > kResultBytes ? kSlabBytes : kResultBytes;

// One operand: its tile's first row or column is `first` of `count`; k runs along its rows, or
// across them.
template <bool along_k> struct TensorOperand {
  Shadow x;
  index_t first, count;

  // Begins to copy p .. p + 32 (zeros from `end` on) of the tile into the slab.
  FBP_DEVICE void fetch(std::uint16_t* slab, index_t p, index_t end) const {
    constexpr int groups = (along_k ? kTensorDepth : kTensorTile) / int(kShadowGroup);
    FBP_UNROLL(4)
    for (int e = threadIdx.x; e < kTensorTile * kTensorDepth / kShadowGroup; e += kTensorThreads) {
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

// A warp's sums: 4 x 8 fragments of 16 x 8.
using WarpSums = float[kWarpTile / 16][kWarpTile / 8][4];

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
  for (int p = 0; p < kTensorDepth; p += 16) {
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

// epilogue(i, j, z) for every element z of C = A B + bias. Block row y of the grid sums over chunk y
// of k alone.
template <bool a_along_k, bool b_along_k, class Epilogue>
__global__ void __launch_bounds__(kTensorThreads)
    tensor_gemm_kernel(TensorArgs g, index_t chunk, Epilogue epilogue) {
  FBP_SHARED(std::uint16_t, slabs);
  const index_t tiles_across = ceil_div(g.n, kTensorTile);
  const index_t i0 = blockIdx.x / tiles_across * kTensorTile;
  const index_t j0 = blockIdx.x % tiles_across * kTensorTile;
  const TensorOperand<a_along_k> a{g.a, i0, g.m};
  const TensorOperand<b_along_k> b{g.b, j0, g.n};
  const index_t begin = blockIdx.y * chunk;
  const index_t end = begin + chunk < g.k ? begin + chunk : g.k;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int wi = warp % 2 * kWarpTile, wj = warp / 2 * kWarpTile;

  const auto fetch = [&](index_t slab) {
    std::uint16_t* const to = slabs + slab % kTensorStages * 2 * kSlab;
    const index_t p = begin + slab * kTensorDepth;
    if (p < end) {
      a.fetch(to, p, end);
      b.fetch(to + kSlab, p, end);
    }
    copy_async_commit();
  };
  FBP_UNROLL(1)
  for (int s = 0; s < kTensorStages - 1; ++s) fetch(s);

  WarpSums sums;
  FBP_UNROLL(8)
  for (int j = 0; j < kWarpTile / 8; ++j) {
    FBP_UNROLL(2)
    for (int e = 0; e < 2; ++e) {
      const index_t col = j0 + wj + 8 * j + lane % 4 * 2 + e;
      const float start = g.bias && col < g.n ? g.bias[col] : 0.0f;
      FBP_UNROLL(4)
      for (int i = 0; i < kWarpTile / 16; ++i) sums[i][j][e] = sums[i][j][e + 2] = start;
    }
  }
  const index_t count = ceil_div(end - begin, kTensorDepth);
  FBP_UNROLL(1)
  for (index_t s = 0; s < count; ++s) {
    copy_async_wait<kTensorStages - 2>();
    __syncthreads();  // slab s is there for all, and nobody reads slab s - 1 any more
    fetch(s + kTensorStages - 1);
    const std::uint16_t* const slab = slabs + s % kTensorStages * 2 * kSlab;
    if (g.a.kind == Half::float16)
      add_slab<Half::float16>(sums, a, b, slab, slab + kSlab, wi, wj);
    else
      add_slab<Half::bfloat16>(sums, a, b, slab, slab + kSlab, wi, wj);
  }
  copy_async_wait<0>();
  __syncthreads();

  // By way of shared memory: whole rows, and one copy of the epilogue in the code.
  float* const tile = reinterpret_cast<float*>(slabs);
  FBP_UNROLL(4)
  for (int i = 0; i < kWarpTile / 16; ++i) {
    FBP_UNROLL(8)
    for (int j = 0; j < kWarpTile / 8; ++j) {
      FBP_UNROLL(4)
      for (int e = 0; e < 4; ++e)
        tile[(wi + 16 * i + lane / 4 + e / 2 * 8) * kResultPitch + wj + 8 * j + lane % 4 * 2 +
             e % 2] = sums[i][j][e];
    }
  }
  __syncthreads();
  FBP_UNROLL(1)
  for (int e = threadIdx.x; e < kTensorTile * kTensorTile; e += kTensorThreads) {
    const int row = e / kTensorTile, col = e % kTensorTile;
    if (i0 + row < g.m && j0 + col < g.n)
      epilogue(i0 + row, j0 + col, Lf(tile[row * kResultPitch + col]));
  }
}

inline index_t tensor_tiles(index_t m, index_t n) {
  return ceil_div(m, kTensorTile) * ceil_div(n, kTensorTile);
}

// `chunk` of k for each of `parts` rows of blocks.
template <bool a_along_k, bool b_along_k, class Epilogue>
cudaError_t launch_tensor(const TensorArgs& args, const Epilogue& epilogue, index_t chunk,
                          index_t parts, cudaStream_t stream) {
  if (args.m <= 0 || args.n <= 0) return cudaSuccess;
  const index_t tiles = tensor_tiles(args.m, args.n);
  if (tiles > kMaxGridX || parts > kMaxGridY) return cudaErrorInvalidConfiguration;
  const auto tensor_gemm = tensor_gemm_kernel<a_along_k, b_along_k, Epilogue>;
  const cudaError_t error = cudaFuncSetAttribute(
      tensor_gemm, cudaFuncAttributeMaxDynamicSharedMemorySize, int(kTensorSharedBytes));
  if (error != cudaSuccess) return error;
  FBP_LAUNCH(tensor_gemm, dim3(unsigned(tiles), unsigned(parts)), dim3(kTensorThreads),
             kTensorSharedBytes, stream)(args, chunk, epilogue);
  return cudaGetLastError();
}

}  // namespace
}  // namespace cuda
}  // namespace fastbp
