// Matrix product on tensor cores with an epilogue, as a template. Of which operands, says `Product`:
// half_product.cuh, tf32_product.cuh.
//
// A block of four warps makes a tile of 128 x 128 outputs, each warp 64 x 64 in registers, from slabs
// of some depth along k, which come by cp.async, three under way at once. They lie in shared memory as
// they lie in global memory.
#pragma once

#include "kernels/cuda/ptx.cuh"
#include "ops/lane.h"

namespace fastbp {
namespace cuda {
namespace {

constexpr int kTensorTile = 128;
constexpr int kTensorThreads = 128;
constexpr int kTensorStages = 3;
constexpr int kWarpTile = 64;
constexpr int kResultPitch = kTensorTile + 4;  // of the tile of sums, floats
constexpr std::size_t kResultBytes = sizeof(float) * kTensorTile * kResultPitch;

// What a block has: the slabs of A and B, later the tile.
template <class Product> constexpr std::size_t tensor_shared_bytes() {
  constexpr std::size_t slabs =
      2 * kTensorStages * Product::slab * sizeof(typename Product::Element);
  return slabs > kResultBytes ? slabs : kResultBytes;
}

// A warp's sums: 4 x 8 fragments of 16 x 8.
using WarpSums = float[kWarpTile / 16][kWarpTile / 8][4];

// epilogue(i, j, z) for every element z of C = A B + bias. Block row y of the grid sums over chunk y
// of k alone.
template <class Product, class Epilogue>
__global__ void __launch_bounds__(kTensorThreads)
    tensor_gemm_kernel(typename Product::Args g, index_t chunk, Epilogue epilogue) {
  using Element = typename Product::Element;
  constexpr int slab_size = Product::slab;
  FBP_SHARED(Element, slabs);
  const index_t tiles_across = ceil_div(g.n, kTensorTile);
  const index_t i0 = blockIdx.x / tiles_across * kTensorTile;
  const index_t j0 = blockIdx.x % tiles_across * kTensorTile;
  const typename Product::A a{g.a, i0, g.m};
  const typename Product::B b{g.b, j0, g.n};
  const index_t begin = blockIdx.y * chunk;
  const index_t end = begin + chunk < g.k ? begin + chunk : g.k;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int wi = warp % 2 * kWarpTile, wj = warp / 2 * kWarpTile;

  const auto fetch = [&](index_t slab) {
    Element* const to = slabs + slab % kTensorStages * 2 * slab_size;
    const index_t p = begin + slab * Product::depth;
    if (p < end) {
      a.fetch(to, p, end);
      b.fetch(to + slab_size, p, end);
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
  const index_t count = ceil_div(end - begin, Product::depth);
  FBP_UNROLL(1)
  for (index_t s = 0; s < count; ++s) {
    copy_async_wait<kTensorStages - 2>();
    __syncthreads();  // slab s is there for all, and nobody reads slab s - 1 any more
    fetch(s + kTensorStages - 1);
    const Element* const slab = slabs + s % kTensorStages * 2 * slab_size;
    Product::add(g, sums, a, b, slab, slab + slab_size, wi, wj);
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
template <class Product, class Epilogue>
cudaError_t launch_tensor(const typename Product::Args& args, const Epilogue& epilogue,
                          index_t chunk, index_t parts, cudaStream_t stream) {
  if (args.m <= 0 || args.n <= 0) return cudaSuccess;
  const index_t tiles = tensor_tiles(args.m, args.n);
  if (tiles > kMaxGridX || parts > kMaxGridY) return cudaErrorInvalidConfiguration;
  const auto tensor_gemm = tensor_gemm_kernel<Product, Epilogue>;
  constexpr std::size_t bytes = tensor_shared_bytes<Product>();
  const cudaError_t error =
      cudaFuncSetAttribute(tensor_gemm, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes));
  if (error != cudaSuccess) return error;
  FBP_LAUNCH(tensor_gemm, dim3(unsigned(tiles), unsigned(parts)), dim3(kTensorThreads), bytes,
             stream)(args, chunk, epilogue);
  return cudaGetLastError();
}

}  // namespace
}  // namespace cuda
}  // namespace fastbp
