// Matrix product with an epilogue, as a template: numerics in kernels/args.h. Included by the files
// that instantiate it, each compiled with its own treatment of denormals: hence no symbol leaves
// them.
//
// A block makes one tile of C. Its threads fetch a slab of A and of B into shared memory, each adds
// the slab's products to its 4 x 4 outputs in registers, and so on along k. No thread shares a sum
// with another, so the order is the CPU's: along k by FMA within a chunk, chunk after chunk.
#pragma once

#include "kernels/cuda/launch.cuh"
#include "kernels/kernel_table.h"
#include "ops/lane.h"

namespace fastbp {
namespace cuda {
namespace {

// 64 x 64 outputs by 16 x 16 threads: each value in shared memory is used 64 times, and four
// neighbours are read at once.
constexpr int kTile = 64;
constexpr int kDepth = 16;  // of a slab, along k
constexpr int kSide = kTile / 4;
constexpr int kTileThreads = kSide * kSide;
// Quads from one row of a tile in shared memory to the next: one more than there are, so that a
// column is in many banks.
constexpr int kPitch = kSide + 1;

template <class T> struct alignas(16) Quad { T v[4]; };
// A thread's part of the tile: four rows from 4 * row on, four columns from 4 * col on.
template <class T> using Block = Lane<T>[4][4];

// slab[p][i] = x[i * i_step + p * p_step] for p < depth; zero for i >= count, for outputs that are
// not stored. Neighbouring threads go along p or i, whichever is dense in memory.
template <class T>
FBP_FN void fetch(Quad<T>* slab, const T* x, index_t i_step, index_t p_step, index_t count,
                  int depth) {
  const bool along_p = p_step == 1;
  const int thread = threadIdx.x;
  int p = along_p ? thread % kDepth : thread / kTile;
  int i = along_p ? thread / kDepth : thread % kTile;
  const int p_skip = along_p ? 0 : kTileThreads / kTile;
  const int i_skip = along_p ? kTileThreads / kDepth : 0;
  x += i * i_step + p * p_step;
  for (int e = 0; e < kTile * kDepth / kTileThreads;
       ++e, p += p_skip, i += i_skip, x += i_skip * i_step + p_skip * p_step)
    if (p < depth) slab[p * kPitch + i / 4].v[i % 4] = i < count ? *x : T(0);
}

// sum[r][c] += a[p][r] b[p][c] for p = 0, 1, ... depth - 1, in order.
template <class T>
FBP_FN void add_products(Block<T>& sum, const Quad<T>* a, const Quad<T>* b, int depth) {
  FBP_UNROLL(4)
  for (int p = 0; p < depth; ++p) {
    const Quad<T> x = a[p * kPitch], y = b[p * kPitch];
    for (int r = 0; r < 4; ++r)
      for (int c = 0; c < 4; ++c) sum[r][c] = fma(Lane<T>(x.v[r]), Lane<T>(y.v[c]), sum[r][c]);
  }
}

// The tile's outputs from shared memory to the epilogue: by whole rows, and with one copy of the
// epilogue in the code.
template <class T, class Epilogue>
FBP_FN void finish_tile(const GemmArgs<T>& g, index_t i0, index_t j0, const Quad<T>* sums,
                        const Epilogue& epilogue) {
  FBP_UNROLL(1)
  for (int e = threadIdx.x; e < kTile * kTile; e += kTileThreads) {
    const index_t i = i0 + e / kTile, j = j0 + e % kTile;
    if (i < g.m && j < g.n)
      epilogue(i, j, Lane<T>(sums[e / kTile * kPitch + e % kTile / 4].v[e % 4]));
  }
}

// epilogue(i, j, z) for every element z of C = A B + bias. Where the grid has several rows, block
// row y makes chunk y of the sum over k alone, and the epilogue is told by blockIdx.y.
//
// Two blocks on an SM (128 registers a thread), one in double: what fits without spilling.
template <class T, class Epilogue>
__global__ void __launch_bounds__(kTileThreads, sizeof(T) == 4 ? 2 : 1)
    gemm_kernel(GemmArgs<T> g, Epilogue epilogue) {
  FBP_SHARED(Quad<T>, slab_a);
  Quad<T>* const slab_b = slab_a + kDepth * kPitch;
  const index_t tiles_across = ceil_div(g.n, kTile);
  const index_t i0 = blockIdx.x / tiles_across * kTile;
  const index_t j0 = blockIdx.x % tiles_across * kTile;
  const int row = threadIdx.x / kSide, col = threadIdx.x % kSide;
  const index_t chunk = g.chunk > 0 ? g.chunk : k_chunk(g.k);
  const index_t begin = blockIdx.y * chunk;
  const index_t end = gridDim.y > 1 && begin + chunk < g.k ? begin + chunk : g.k;
  Block<T> sum, total;  // of this chunk, of the chunks before it
  index_t p = begin;
  do {
    const index_t chunk_end = p + chunk < end ? p + chunk : end;
    const bool first = p == begin;
    for (int c = 0; c < 4; ++c) {
      const index_t j = j0 + 4 * col + c;
      const Lane<T> start(p == 0 && g.bias && j < g.n ? g.bias[j] : T(0));
      for (int r = 0; r < 4; ++r) sum[r][c] = start;
    }
    for (; p < chunk_end; p += kDepth) {
      // Not beyond the chunk, not even with zeros: -0 + 0 * 0 is +0.
      const int depth = chunk_end - p < kDepth ? int(chunk_end - p) : kDepth;
      fetch(slab_a, g.a + i0 * g.a_row + p * g.a_col, g.a_row, g.a_col, g.m - i0, depth);
      fetch(slab_b, g.b + p * g.b_row + j0 * g.b_col, g.b_col, g.b_row, g.n - j0, depth);
      __syncthreads();
      add_products(sum, slab_a + row, slab_b + col, depth);
      __syncthreads();
    }
    p = chunk_end;
    for (int r = 0; r < 4; ++r)
      for (int c = 0; c < 4; ++c) total[r][c] = first ? sum[r][c] : total[r][c] + sum[r][c];
  } while (p < end);

  for (int r = 0; r < 4; ++r)
    for (int c = 0; c < 4; ++c) slab_a[(4 * row + r) * kPitch + col].v[c] = total[r][c].v;
  __syncthreads();
  finish_tile(g, i0, j0, slab_a, epilogue);
}

inline index_t gemm_tiles(index_t m, index_t n) { return ceil_div(m, kTile) * ceil_div(n, kTile); }

// Of GemmArgs are read: sizes, chunk, a, b, bias. `parts` rows of blocks: 1, or a block for every
// tile and chunk.
template <class T, class Epilogue>
cudaError_t launch_gemm(const GemmArgs<T>& args, const Epilogue& epilogue, index_t parts,
                        cudaStream_t stream) {
  if (args.m <= 0 || args.n <= 0) return cudaSuccess;
  const index_t tiles = gemm_tiles(args.m, args.n);
  // C alone would be 32 TiB; a batch, 16 million rows.
  if (tiles > kMaxGridX || parts > kMaxGridY) return cudaErrorInvalidConfiguration;
  // Two slabs, later the tile: the tile is larger.
  constexpr std::size_t shared_bytes =
      sizeof(Quad<T>) * kPitch * (kTile > 2 * kDepth ? kTile : 2 * kDepth);
  FBP_LAUNCH((gemm_kernel<T, Epilogue>), dim3(unsigned(tiles), unsigned(parts)), dim3(kTileThreads),
             shared_bytes, stream)(args, epilogue);
  return cudaGetLastError();
}

}  // namespace
}  // namespace cuda
}  // namespace fastbp
