// Which kind of block makes an exact product (gemm.cuh): large tiles, which read each value from
// memory least often, or small ones, of which there are enough for all multiprocessors. No result
// depends on it.
#pragma once

#include "core/types.h"

namespace fastbp {
namespace cuda {

struct GemmShape {
  int rows, cols;  // of a tile
  int groups;      // of threads that may share a tile, by chunks of k
};
enum { kLargeGemm, kMiddleGemm, kSmallGemm, kGemmShapes };
template <class T>
inline constexpr GemmShape kGemmShape[kGemmShapes] = {{128, 64, 1}, {64, 32, 2}, {16, 16, 4}};
template <>
inline constexpr GemmShape kGemmShape<double>[kGemmShapes] = {
    {64, 64, 1}, {32, 32, 2}, {16, 16, 4}};

struct GemmChoice {
  int shape;
  int groups;
};

// Clocks of a multiprocessor for a product, by shape: of `full` multiply-adds each takes one clock's
// share while blocks are many; a step along k of a block alone takes `alone` clocks, most of them
// waiting. Measured on an H100.
struct GemmClocks { double full, alone; };
inline constexpr GemmClocks kGemmClocks[kGemmShapes] = {{72, 150}, {59, 58}, {32, 28}};

inline index_t gemm_tiles(const GemmShape& shape, index_t m, index_t n) {
  return ((m + shape.rows - 1) / shape.rows) * ((n + shape.cols - 1) / shape.cols);
}

// C (m, n), summed over `chunks` chunks of `chunk`, each chunk by blocks of its own where they are
// `apart`.
template <class T>
GemmChoice choose_gemm(index_t m, index_t n, index_t chunk, index_t chunks, bool apart,
                       int processors) {
  GemmChoice best{kLargeGemm, 1};
  double least = -1;
  for (int s = 0; s < kGemmShapes; ++s) {
    const GemmShape& shape = kGemmShape<T>[s];
    const index_t in_block = apart ? 1 : chunks;
    const index_t blocks = gemm_tiles(shape, m, n) * (apart ? chunks : 1);
    const double turns = double((blocks + processors - 1) / processors);
    const double work = turns * double(in_block * chunk) * shape.rows * shape.cols;
    const double busy = work / kGemmClocks[s].full;
    for (int groups = 1; groups <= shape.groups && groups <= in_block; ++groups) {
      const double rounds = double((in_block + groups - 1) / groups);
      const double waiting = rounds * double(chunk) * kGemmClocks[s].alone;
      const double clocks = busy > waiting ? busy : waiting;
      if (least >= 0 && clocks >= least) continue;
      least = clocks;
      best = {s, groups};
    }
  }
  return best;
}

}  // namespace cuda
}  // namespace fastbp
