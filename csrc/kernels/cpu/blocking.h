// Register tile and panel sizes of the GEMM, per ISA, with the arithmetic behind them. They never
// change a result.
//
// A micro-kernel holds a tile of rows x vectors of C in registers (virtual vectors of 64 bytes),
// and needs one row of B and one broadcast of A beside it. Narrow tiles have more rows: as many
// accumulators hide the latency, and fewer calls are made.
//   avx512  6 x 4, 8 x 3, 12 x 2, 16 x 1 zmm: 24 accumulators + 4 of B + 1 of A = 29 of 32.
//           24 FMAs for 4 + 6 loads: FMA-bound at one FMA and two loads a clock.
//   avx2    6 x 1 (two ymm each): 12 + 2 + 1 = 15 of 16. 12 FMAs for 2 + 6 loads.
//           12 x half of one where C, or its last panel, has no more columns than one ymm has lanes: 12 + 1 + 1.
//   neon    5 x 1 (four q each): 20 + 4 + 1 = 25 of 32.
//   scalar  2 x 1: nothing stays in registers; small enough to stay in L1.
// isa_<name>.cpp (avx512_tiles.inl) states the rows of the tile 1, 2, ... vectors wide as kTileRows, those of half a vector (Narrow<T>; 0 where
// there is none) as kHalfTileRows, and as kUpdatesGoAlong whether the
// widest leaves registers for an optimizer's update among its sums (gemm_update.inl): 32 - 24 of avx512.
#pragma once

#include "core/types.h"

namespace fastbp {

// Chunks of k (kernel_table.h) that share one B panel: 4 x 256 x 256 bytes = 256 KiB stay in a 1
// MiB L2 beside A's rows.
inline constexpr index_t kChunksPerPanel = 4;

// B is read in place where its rows are contiguous, until a chunk of its panel spreads over more than this; then a
// packed copy pays as soon as a few row tiles read it again. A panel several lines wide comes from L2 in any case, so that
// only its pages count, of which the L1 TLB has 64 (of 4 KiB, on Zen and Core); one a single line wide (16 KiB) stays
// in L1 if it is packed, while rows in place share few of its sets.
inline constexpr index_t kInPlaceBytes = 64 * 4096;
inline constexpr index_t kRowTilesToPack = 8;
inline constexpr index_t kNarrowInPlaceBytes = 8 * 4096;
inline constexpr index_t kRowTilesToPackNarrow = 4;

// So large a B, with rows of a page or more, is packed for few rows of A, too, beside narrow tiles: a panel one line wide
// has each line come from far.
inline constexpr index_t kWalkedBytes = 8 << 20;

// Beside wide tiles, where a core makes two products a clock (two_products.h), rows of A from which B is packed: by how its rows
// lie, and whether all of it stays in an L2 of 2 MiB (measured on Granite Rapids, docs/performance.md).
struct RowsToPack {
  struct { index_t near, far; } pages, straddling, aligned;
};
static constexpr RowsToPack kQuickRowsToPack{{48, 18}, {72, 36}, {512, 48}};

// There, too, panels of a B from memory that are packed at once, for so few rows of A.
inline constexpr index_t kStreamedPanels = kChunksPerPanel;
inline constexpr index_t kMostStreamedRows = 128;

// Bytes of each row of B that are packed at once, in several panels where they are narrow: rows that are pages apart
// cost a walk of the page table and a wait each.
inline constexpr index_t kPackedRowBytes = 256;

// Lines of 64 bytes that lie kSetSpan apart share one set of an L1 of 32 KiB and 8 ways (Zen, Core).
inline constexpr index_t kSetSpan = 4096;
inline constexpr index_t kSetWays = 8;

// Half an L2 of 1 MiB: what is read again from there while other things pass.
inline constexpr index_t kNearBytes = 512 * 1024;

// More than caches hold: memory delivers long rows faster than many pieces of them.
inline constexpr index_t kFarBytes = 16 << 20;

// Where A is packed: in blocks that stay in L2 beside the panel of B of kChunksPerBlock chunks,
// which is packed again for each of them. A block is made of strips of rows: beside wide tiles of kWideStripRows, a multiple of
// the rows of each of them; otherwise of one tile's rows, and then it may come from L3, read in one stream, but packing B
// again for smaller blocks costs more than that.
inline constexpr index_t kBlockBytes = 640 * 1024;
inline constexpr index_t kChunksPerBlock = 2;
inline constexpr index_t kWideStripRows = 48;
inline constexpr index_t kLeastPackedDepth = 32;  // beside narrow tiles

// Sums so short that writing C counts, where C does not fit the caches: beside wide tiles, for more than the sums;
// beside narrow ones, of which each writes a line of a page, and an A by rows. The rows of C that are then written
// side by side.
inline constexpr index_t kOuterDepth = 32;
inline constexpr index_t kNarrowOuterDepth = 128;
inline constexpr index_t kOuterBytes = 8 << 20;
inline constexpr index_t kOuterRows = 12;

// Kernels that narrow tiles update by blocks of so many rows (gemm_update_rows.inl): of kUpdatedBytes where sums are
// as short as that; with the sums' terms the time for them grows, not what is won, and then parameters and slots must
// come from far.
inline constexpr index_t kUpdateBlockRows = 48;
inline constexpr index_t kUpdatedBytes = 128 * 1024;
inline constexpr index_t kFarUpdatedBytes = 4 << 20;
inline constexpr index_t kFarUpdatedDepth = 128;

}  // namespace fastbp
