// Packing for the tiles of AMX. k goes by chunks, each filled up with zeros to whole steps of 32 values.
//
//   A   strips of 32 rows: [strip][step][row][pair], so that a tile is 1 KiB from end to end, in the order in which it is read
//   B   slabs of 32 columns: [slab][step][pair][column]

static constexpr index_t kStripRows = 2 * amx::kTileLines;
static constexpr index_t kSlabColumns = 2 * kLanes;
static constexpr index_t kStepPairs = 2 * amx::kTileLines * kLanes;  // of a strip, and of a slab

// Rows of A that are contiguous in k; `strip`: pairs of one.
static void pack_rows_of_a(const float* a, index_t a_row, index_t k, index_t rows, index_t strip,
                           Pair* packed) {
  for (index_t i = 0; i < rows; ++i, a += a_row) {
    Pair* to = packed + i / kStripRows * strip + i % kStripRows * kLanes;
    for (index_t p = 0; p < k; p += amx::kTileDepth, to += kStepPairs)
      _mm512_store_si512(to, pairs_of_run(a + p, k - p));
  }
}

// 16 rows by 32 values of k, of an A whose columns are contiguous: value (i, p) at a[i + p * a_col]. Transposed in registers.
FBP_FN static void pack_tile_of_a(const float* a, index_t a_col, index_t k, __mmask16 rows,
                                  __m512i interleaved, Pair* tile) {
  Words block[kLanes];
#pragma GCC unroll 16
  for (int q = 0; q < kLanes; ++q) {
    const float* even = a + 2 * q * a_col;
    _mm_prefetch(reinterpret_cast<const char*>(even + amx::kTileDepth * a_col), _MM_HINT_T0);
    _mm_prefetch(reinterpret_cast<const char*>(even + (amx::kTileDepth + 1) * a_col), _MM_HINT_T0);
    const __m512 x = 2 * q < k ? _mm512_maskz_loadu_ps(rows, even) : _mm512_setzero_ps();
    const __m512 y =
        2 * q + 1 < k ? _mm512_maskz_loadu_ps(rows, even + a_col) : _mm512_setzero_ps();
    block[q].v = _mm512_castsi512_ps(pairs_of_rows(x, y, interleaved));
  }
  transpose(block);
#pragma GCC unroll 16
  for (int r = 0; r < kLanes; ++r) _mm512_store_ps(tile + r * kLanes, block[r].v);
}

// Such an A, two strips side by side: its rows in memory are often a page apart.
static void pack_columns_of_a(const float* a, index_t a_col, index_t k, index_t rows, index_t strip,
                              Pair* packed) {
  const __m512i interleaved = _mm512_load_si512(kInterleaved);
  for (index_t band = 0; band < rows; band += 2 * kStripRows)
    for (index_t p = 0; p < k; p += amx::kTileDepth)
      for (index_t i = band; i < rows && i < band + 2 * kStripRows; i += amx::kTileLines)
        pack_tile_of_a(a + i + p * a_col, a_col, k - p, first_lanes(rows - i), interleaved,
                       packed + i / kStripRows * strip + p / amx::kTileDepth * kStepPairs +
                           i % kStripRows * kLanes);
}

// Up to four vectors of columns of B; `slab`: pairs of one.
static void pack_slabs(const float* b, index_t b_row, index_t b_col, index_t k, index_t cols,
                       index_t slab, Pair* packed) {
  const int vectors = int(parts_of(cols, kLanes));
  pack_panel(b, b_row, b_col, k, cols, vectors, {kSlabColumns, slab}, packed);
  const index_t end = parts_of(k, amx::kTileDepth) * kStepPairs;
  for (int v = 0; v < vectors; v += 2)
    for (index_t at = (k + 1) / 2 * kSlabColumns; at < end; at += kLanes)
      _mm512_store_si512(packed + v / 2 * slab + at, _mm512_setzero_si512());
}
