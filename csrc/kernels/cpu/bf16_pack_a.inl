// Packing A for VDPBF16PS.

// `rows` rows of A, contiguous in k, each to `stride` pairs.
static void pack_rows_of_a(const float* a, index_t a_row, index_t k, index_t rows, index_t stride,
                           Pair* packed) {
  for (index_t i = 0; i < rows; ++i, a += a_row, packed += stride)
    for (index_t p = 0; p < k; p += 2 * kLanes)
      _mm512_store_si512(packed + p / 2, pairs_of_run(a + p, k - p));
}

// Columns of A are contiguous in the rows: value (i, p) at a[i + p * a_col]. Interleaves up to kBandRows rows of several
// register tiles in a buffer in L1, then hands each tile its rows. Whole vectors are stored: what a tile's last row of
// pairs writes too much, the next one overwrites, and the last one puts into kTilePadding.
static constexpr index_t kBandRows = 64, kBandPairs = 16;
static constexpr index_t kTilePadding = kLanes;

template <int Stored>  // pairs that a store moves: 8 or 16
FBP_FN static void hand_out(const Pair* band, index_t pairs, index_t height, Pair* tile) {
  for (index_t q = 0; q < pairs; ++q, band += kBandRows + kLanes, tile += height) {
    if (Stored == 8)
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(tile),
                          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(band)));
    else
      _mm512_storeu_si512(tile, _mm512_loadu_si512(band));
  }
}

static void pack_band(const float* a, index_t a_col, index_t k, index_t rows, const index_t* height,
                      int tiles, Pair* packed) {
  const __m512i interleaved = _mm512_load_si512(kInterleaved);
  const index_t all_pairs = (k + 1) / 2;
  alignas(64) Pair band[kBandPairs * (kBandRows + kLanes)];
  for (index_t q = 0; q < all_pairs; q += kBandPairs) {
    const index_t pairs = all_pairs - q < kBandPairs ? all_pairs - q : kBandPairs;
    for (index_t r = 0; r < pairs; ++r) {
      const index_t p = 2 * (q + r);
      const float* even = a + p * a_col;
      const float* odd = p + 1 < k ? even + a_col : even;
      const __mmask16 odd_there = p + 1 < k ? __mmask16(0xffff) : __mmask16(0);
      for (index_t i = 0; i < rows; i += kLanes) {
        const __mmask16 there = first_lanes(rows - i);
        _mm_prefetch(reinterpret_cast<const char*>(even + kRowsAhead * a_col + i), _MM_HINT_T0);
        _mm_prefetch(reinterpret_cast<const char*>(odd + kRowsAhead * a_col + i), _MM_HINT_T0);
        _mm512_store_si512(band + r * (kBandRows + kLanes) + i,
                           pairs_of_rows(_mm512_maskz_loadu_ps(there, even + i),
                                         _mm512_maskz_loadu_ps(there & odd_there, odd + i),
                                         interleaved));
      }
    }
    index_t first = 0;
    Pair* tile = packed;
    for (int t = 0; t < tiles; ++t) {
      if (height[t] <= 8)
        hand_out<8>(band + first, pairs, height[t], tile + q * height[t]);
      else
        hand_out<16>(band + first, pairs, height[t], tile + q * height[t]);
      first += height[t];
      tile += height[t] * all_pairs + kTilePadding;
    }
  }
}
