// Register tile and panel sizes of the GEMM, per ISA, with the arithmetic behind them. They never change a result.
//
// A micro-kernel holds a tile of kRows x kVectors virtual vectors (64 bytes each) of C in registers, and needs one row of B
// (kVectors) and one broadcast of A beside it:
//   avx512  6 x 4 zmm: 24 accumulators + 4 of B + 1 of A = 29 of 32. 24 FMAs for 4 + 6 loads: FMA-bound at 1 FMA, 2 loads a clock.
//   avx2    6 x 1 (two ymm): 12 + 2 + 1 = 15 of 16. 12 FMAs for 2 + 6 loads.
//   neon    5 x 1 (four q): 20 + 4 + 1 = 25 of 32.
//   scalar  2 x 1: nothing stays in registers; small enough to stay in L1.
#pragma once

#include "core/types.h"

namespace fastbp {

template <int Rows, int Vectors> struct Tile {
  static constexpr int rows = Rows;
  static constexpr int vectors = Vectors;
};

// Chunks of k (kernel_table.h) that share one B panel: 3 x 384 x 256 bytes = 288 KiB stay in a 1 MiB L2 beside A's rows.
inline constexpr index_t kChunksPerPanel = 3;

// B is read in place where its rows are contiguous, until its panel spreads over more pages than the L1 TLB has entries
// (64 of 4 KiB on Zen and Core); then a packed copy pays as soon as a few row tiles read it again.
inline constexpr index_t kInPlaceBytes = 64 * 4096;
inline constexpr index_t kRowTilesToPack = 8;

}  // namespace fastbp
