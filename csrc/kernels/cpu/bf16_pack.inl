// Packing for the bfloat16 products: float32 is rounded to bfloat16 (nearest even) and laid out in pairs, the two values
// of k that are multiplied together. A pair is 32 bits, the smaller k in the lower half; an odd last k is paired with 0.
//
//   B          panel[q][column], q counting pairs: a row of whole vectors, zero behind the last column. In slabs of two
//              vectors, or in one
//   A by rows  row[q], rows one stride apart: values that follow each other in k are pairs as they are. To whole
//              vectors, zero behind the last k
//   A by cols  for VDPBF16PS tile[q][row], the rows of one register tile side by side (bf16_pack_a.inl); for AMX as by
//              rows (amx_gemm.inl)

using Pair = std::uint32_t;
static constexpr int kLanes = 16;
using Words = avx512::Vec<float>;  // 16 words of 32 bits, whatever they are

// Rows ahead that packing asks the memory for: rows are often a page apart, where the processor does not look ahead.
static constexpr index_t kRowsAhead = 12;

FBP_FN static __mmask16 first_lanes(index_t n) {
  return n >= kLanes ? __mmask16(0xffff) : n <= 0 ? __mmask16(0) : __mmask16((1u << n) - 1);
}

alignas(64) static constexpr std::uint16_t kInterleaved[32] = {
    0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
    8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};

// 16 pairs of an even row and the odd row behind it.
FBP_FN static __m512i pairs_of_rows(__m512 even, __m512 odd, __m512i interleaved) {
  return _mm512_permutexvar_epi16(interleaved, (__m512i)_mm512_cvtne2ps_pbh(odd, even));
}

// 16 pairs of 32 values that follow each other, `n` of them there.
FBP_FN static __m512i pairs_of_run(const float* p, index_t n) {
  if (n >= 2 * kLanes)
    return (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(p + kLanes), _mm512_loadu_ps(p));
  return (__m512i)_mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps(first_lanes(n - kLanes), p + kLanes),
                                      _mm512_maskz_loadu_ps(first_lanes(n), p));
}

// Where a panel's pairs lie: those of one q side by side, two vectors of them in a slab, in pairs.
struct PanelPlace {
  index_t row, slab;

  FBP_FN index_t at(int vector) const { return vector / 2 * slab + vector % 2 * kLanes; }
};

// panel[q][j] from rows of memory: the values (2q, j) and (2q + 1, j) at b[p * b_row + j].
template <int Vectors>
static void pack_panel_rows(const float* b, index_t b_row, index_t k, index_t cols,
                            PanelPlace place, Pair* panel) {
  const __m512i interleaved = _mm512_load_si512(kInterleaved);
  const __mmask16 last = first_lanes(cols - (Vectors - 1) * kLanes);
  for (index_t p = 0; p < k; p += 2, b += 2 * b_row, panel += place.row) {
    const float* odd_row = p + 1 < k ? b + b_row : b;
    const __mmask16 odd_there = p + 1 < k ? __mmask16(0xffff) : __mmask16(0);
#pragma GCC unroll 4
    for (int v = 0; v < Vectors; ++v) {
      const index_t at = v * kLanes;
      _mm_prefetch(reinterpret_cast<const char*>(b + kRowsAhead * b_row + at), _MM_HINT_T0);
      _mm_prefetch(reinterpret_cast<const char*>(b + (kRowsAhead + 1) * b_row + at), _MM_HINT_T0);
      const __mmask16 there = v == Vectors - 1 ? last : __mmask16(0xffff);
      const __m512 even = _mm512_maskz_loadu_ps(there, b + at);
      const __m512 odd = _mm512_maskz_loadu_ps(there & odd_there, odd_row + at);
      _mm512_store_si512(panel + place.at(v), pairs_of_rows(even, odd, interleaved));
    }
  }
}

// The same panel where columns are contiguous: value (p, j) at b[j * b_col + p]. Pairs follow each other in memory, so
// blocks of 16 columns by 16 pairs are transposed in registers.
static void pack_panel_columns(const float* b, index_t b_col, index_t k, index_t cols, int vectors,
                               PanelPlace place, Pair* panel) {
  const index_t pairs = (k + 1) / 2;
  for (int v = 0; v < vectors; ++v) {
    const index_t j = v * kLanes;
    Pair* const to = panel + place.at(v);
    for (index_t q = 0; q < pairs; q += kLanes) {
      Words block[kLanes];
#pragma GCC unroll 16
      for (int r = 0; r < kLanes; ++r) {
        const float* column = b + (j + r) * b_col + 2 * q;
        block[r].v = _mm512_castsi512_ps(j + r < cols ? pairs_of_run(column, k - 2 * q)
                                                      : _mm512_setzero_si512());
      }
      transpose(block);
      const index_t depth = pairs - q < kLanes ? pairs - q : kLanes;
      if (depth == kLanes) {
#pragma GCC unroll 16
        for (int r = 0; r < kLanes; ++r) _mm512_store_ps(to + (q + r) * place.row, block[r].v);
      } else {
        for (index_t r = 0; r < depth; ++r) _mm512_store_ps(to + (q + r) * place.row, block[r].v);
      }
    }
  }
}

static void pack_panel(const float* b, index_t b_row, index_t b_col, index_t k, index_t cols,
                       int vectors, PanelPlace place, Pair* panel) {
  using Pack = void (*)(const float*, index_t, index_t, index_t, PanelPlace, Pair*);
  static constexpr Pack by_rows[] = {pack_panel_rows<1>, pack_panel_rows<2>, pack_panel_rows<3>,
                                     pack_panel_rows<4>};
  if (b_col == 1)
    by_rows[vectors - 1](b, b_row, k, cols, place, panel);
  else
    pack_panel_columns(b, b_col, k, cols, vectors, place, panel);
}
