// AVX-512 (F, VL, DQ, BW): the 64-byte virtual vector is one zmm register; a mask is a k register.
//
// Surface and semantics are those of every header in this folder: min(a,b) = a<b ? a : b (so b when
// either is NaN), round_even is right for any magnitude, load_n and store_n touch the first n
// elements only, load_transposed(p, row, v) makes lane i of v[j] p[i * row + j], and reductions add
// lane i to lane i + L/2, then i + L/4, ... so that all instruction sets give the same bits. Which
// NaN comes out of an operation (sign, payload) is not promised.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(FASTBP_EMULATE_AVX512)
#include "emulation/avx512.h"
#else
// g++ 12 (gcc.gnu.org/PR105593) warns about "__Y is used uninitialized" inside its own AVX-512
// headers.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
#endif

#include "ops/fbp_fn.h"

namespace fastbp::avx512 {

template <class T> struct Vec;
template <class T> struct Mask;
template <class T> struct Bits;

template <> struct Mask<float> { __mmask16 m; };
template <> struct Mask<double> { __mmask8 m; };

template <> struct Bits<float> {
  __m512i b;
  Bits() = default;
  FBP_FN explicit Bits(__m512i x) : b(x) {}
  FBP_FN explicit Bits(std::int64_t x) : b(_mm512_set1_epi32(static_cast<int>(x))) {}
};

template <> struct Bits<double> {
  __m512i b;
  Bits() = default;
  FBP_FN explicit Bits(__m512i x) : b(x) {}
  FBP_FN explicit Bits(std::int64_t x) : b(_mm512_set1_epi64(x)) {}
};

template <> struct Vec<float> {
  using scalar = float;
  static constexpr int lanes = 16;
  __m512 v;
  Vec() = default;
  FBP_FN explicit Vec(__m512 x) : v(x) {}
  FBP_FN explicit Vec(float x) : v(_mm512_set1_ps(x)) {}
  FBP_FN static Vec load(const float* p) { return Vec(_mm512_loadu_ps(p)); }
  FBP_FN static Vec load_n(const float* p, int n) {
    return Vec(_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), p));
  }
  FBP_FN void store(float* p) const { _mm512_storeu_ps(p, v); }
  FBP_FN void store_n(float* p, int n) const {
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1), v);
  }
};

template <> struct Vec<double> {
  using scalar = double;
  static constexpr int lanes = 8;
  __m512d v;
  Vec() = default;
  FBP_FN explicit Vec(__m512d x) : v(x) {}
  FBP_FN explicit Vec(double x) : v(_mm512_set1_pd(x)) {}
  FBP_FN static Vec load(const double* p) { return Vec(_mm512_loadu_pd(p)); }
  FBP_FN static Vec load_n(const double* p, int n) {
    return Vec(_mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << n) - 1), p));
  }
  FBP_FN void store(double* p) const { _mm512_storeu_pd(p, v); }
  FBP_FN void store_n(double* p, int n) const {
    _mm512_mask_storeu_pd(p, static_cast<__mmask8>((1u << n) - 1), v);
  }
};

// The first n values for one ymm register, 0 <= n < its lanes.
FBP_FN __m256 load_part(const float* p, int n) {
  return _mm256_maskz_loadu_ps(static_cast<__mmask8>((1u << n) - 1), p);
}
FBP_FN __m256d load_part(const double* p, int n) {
  return _mm256_maskz_loadu_pd(static_cast<__mmask8>((1u << n) - 1), p);
}
FBP_FN void store_part(float* p, int n, __m256 v) {
  _mm256_mask_storeu_ps(p, static_cast<__mmask8>((1u << n) - 1), v);
}
FBP_FN void store_part(double* p, int n, __m256d v) {
  _mm256_mask_storeu_pd(p, static_cast<__mmask8>((1u << n) - 1), v);
}

using Vf = Vec<float>;
using Vd = Vec<double>;
using Mf = Mask<float>;
using Md = Mask<double>;
using Bf = Bits<float>;
using Bd = Bits<double>;

// Bit patterns.
FBP_FN Bf to_bits(Vf a) { return Bf(_mm512_castps_si512(a.v)); }
FBP_FN Bd to_bits(Vd a) { return Bd(_mm512_castpd_si512(a.v)); }
FBP_FN Vf from_bits(Bf a) { return Vf(_mm512_castsi512_ps(a.b)); }
FBP_FN Vd from_bits(Bd a) { return Vd(_mm512_castsi512_pd(a.b)); }
FBP_FN Bf operator+(Bf a, Bf b) { return Bf(_mm512_add_epi32(a.b, b.b)); }
FBP_FN Bd operator+(Bd a, Bd b) { return Bd(_mm512_add_epi64(a.b, b.b)); }
FBP_FN Bf operator-(Bf a, Bf b) { return Bf(_mm512_sub_epi32(a.b, b.b)); }
FBP_FN Bd operator-(Bd a, Bd b) { return Bd(_mm512_sub_epi64(a.b, b.b)); }
FBP_FN Bf operator&(Bf a, Bf b) { return Bf(_mm512_and_si512(a.b, b.b)); }
FBP_FN Bd operator&(Bd a, Bd b) { return Bd(_mm512_and_si512(a.b, b.b)); }
FBP_FN Bf operator|(Bf a, Bf b) { return Bf(_mm512_or_si512(a.b, b.b)); }
FBP_FN Bd operator|(Bd a, Bd b) { return Bd(_mm512_or_si512(a.b, b.b)); }
FBP_FN Bf operator^(Bf a, Bf b) { return Bf(_mm512_xor_si512(a.b, b.b)); }
FBP_FN Bd operator^(Bd a, Bd b) { return Bd(_mm512_xor_si512(a.b, b.b)); }
// The 64-bit products of the lanes with m: their upper and their lower halves.
FBP_FN void mul_wide(Bf a, std::uint32_t m, Bf* high, Bf* low) {
  const __m512i factor = _mm512_set1_epi32(static_cast<int>(m));
  const __m512i even = _mm512_mul_epu32(a.b, factor);
  const __m512i odd = _mm512_mul_epu32(_mm512_shuffle_epi32(a.b, _MM_PERM_DDBB), factor);
  *high = Bf(_mm512_mask_shuffle_epi32(odd, 0x5555, even, _MM_PERM_DDBB));
  *low = Bf(_mm512_mask_shuffle_epi32(even, 0xaaaa, odd, _MM_PERM_CCAA));
}
template <int n> FBP_FN Bf shl(Bf a) { return Bf(_mm512_slli_epi32(a.b, n)); }
template <int n> FBP_FN Bd shl(Bd a) { return Bd(_mm512_slli_epi64(a.b, n)); }
template <int n> FBP_FN Bf shr(Bf a) { return Bf(_mm512_srli_epi32(a.b, n)); }
template <int n> FBP_FN Bd shr(Bd a) { return Bd(_mm512_srli_epi64(a.b, n)); }

// Arithmetic.
FBP_FN Vf operator+(Vf a, Vf b) { return Vf(_mm512_add_ps(a.v, b.v)); }
FBP_FN Vd operator+(Vd a, Vd b) { return Vd(_mm512_add_pd(a.v, b.v)); }
FBP_FN Vf operator-(Vf a, Vf b) { return Vf(_mm512_sub_ps(a.v, b.v)); }
FBP_FN Vd operator-(Vd a, Vd b) { return Vd(_mm512_sub_pd(a.v, b.v)); }
FBP_FN Vf operator*(Vf a, Vf b) { return Vf(_mm512_mul_ps(a.v, b.v)); }
FBP_FN Vd operator*(Vd a, Vd b) { return Vd(_mm512_mul_pd(a.v, b.v)); }
FBP_FN Vf operator/(Vf a, Vf b) { return Vf(_mm512_div_ps(a.v, b.v)); }
FBP_FN Vd operator/(Vd a, Vd b) { return Vd(_mm512_div_pd(a.v, b.v)); }
FBP_FN Vf operator-(Vf a) { return Vf(_mm512_xor_ps(a.v, _mm512_set1_ps(-0.0f))); }
FBP_FN Vd operator-(Vd a) { return Vd(_mm512_xor_pd(a.v, _mm512_set1_pd(-0.0))); }
FBP_FN Vf fma(Vf a, Vf b, Vf c) { return Vf(_mm512_fmadd_ps(a.v, b.v, c.v)); }
FBP_FN Vd fma(Vd a, Vd b, Vd c) { return Vd(_mm512_fmadd_pd(a.v, b.v, c.v)); }
FBP_FN Vf fnma(Vf a, Vf b, Vf c) { return Vf(_mm512_fnmadd_ps(a.v, b.v, c.v)); }
FBP_FN Vd fnma(Vd a, Vd b, Vd c) { return Vd(_mm512_fnmadd_pd(a.v, b.v, c.v)); }
FBP_FN Vf min(Vf a, Vf b) { return Vf(_mm512_min_ps(a.v, b.v)); }
FBP_FN Vd min(Vd a, Vd b) { return Vd(_mm512_min_pd(a.v, b.v)); }
FBP_FN Vf max(Vf a, Vf b) { return Vf(_mm512_max_ps(a.v, b.v)); }
FBP_FN Vd max(Vd a, Vd b) { return Vd(_mm512_max_pd(a.v, b.v)); }
FBP_FN Vf sqrt(Vf a) { return Vf(_mm512_sqrt_ps(a.v)); }
FBP_FN Vd sqrt(Vd a) { return Vd(_mm512_sqrt_pd(a.v)); }
FBP_FN Vf round_even(Vf a) {
  return Vf(_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
FBP_FN Vd round_even(Vd a) {
  return Vd(_mm512_roundscale_pd(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
FBP_FN Vf abs(Vf a) { return from_bits(to_bits(a) & Bf(0x7fffffff)); }
FBP_FN Vd abs(Vd a) { return from_bits(to_bits(a) & Bd(0x7fffffffffffffff)); }
FBP_FN Vf copysign(Vf mag,
                   Vf sign) {  // 0xd8: the third operand's bit chooses between the first two
  const __m512i m = to_bits(mag).b, s = to_bits(sign).b;
  return from_bits(Bf(_mm512_ternarylogic_epi32(m, s, _mm512_set1_epi32(INT32_MIN), 0xd8)));
}
FBP_FN Vd copysign(Vd mag, Vd sign) {
  const __m512i m = to_bits(mag).b, s = to_bits(sign).b;
  return from_bits(Bd(_mm512_ternarylogic_epi64(m, s, _mm512_set1_epi64(INT64_MIN), 0xd8)));
}

// Comparisons (false when either side is NaN) and masks.
FBP_FN Mf operator<(Vf a, Vf b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
FBP_FN Md operator<(Vd a, Vd b) { return {_mm512_cmp_pd_mask(a.v, b.v, _CMP_LT_OQ)}; }
FBP_FN Mf operator<=(Vf a, Vf b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LE_OQ)}; }
FBP_FN Md operator<=(Vd a, Vd b) { return {_mm512_cmp_pd_mask(a.v, b.v, _CMP_LE_OQ)}; }
FBP_FN Mf operator>(Vf a, Vf b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ)}; }
FBP_FN Md operator>(Vd a, Vd b) { return {_mm512_cmp_pd_mask(a.v, b.v, _CMP_GT_OQ)}; }
FBP_FN Mf operator>=(Vf a, Vf b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GE_OQ)}; }
FBP_FN Md operator>=(Vd a, Vd b) { return {_mm512_cmp_pd_mask(a.v, b.v, _CMP_GE_OQ)}; }
FBP_FN Mf operator==(Vf a, Vf b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ)}; }
FBP_FN Md operator==(Vd a, Vd b) { return {_mm512_cmp_pd_mask(a.v, b.v, _CMP_EQ_OQ)}; }
FBP_FN Mf is_nan(Vf a) { return {_mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q)}; }
FBP_FN Md is_nan(Vd a) { return {_mm512_cmp_pd_mask(a.v, a.v, _CMP_UNORD_Q)}; }
// The k-register intrinsics: plain & | ~ on the integers made g++ 12 go through general registers.
FBP_FN Mf operator&(Mf a, Mf b) { return {_kand_mask16(a.m, b.m)}; }
FBP_FN Md operator&(Md a, Md b) { return {_kand_mask8(a.m, b.m)}; }
FBP_FN Mf operator|(Mf a, Mf b) { return {_kor_mask16(a.m, b.m)}; }
FBP_FN Md operator|(Md a, Md b) { return {_kor_mask8(a.m, b.m)}; }
FBP_FN Mf operator!(Mf a) { return {_knot_mask16(a.m)}; }
FBP_FN Md operator!(Md a) { return {_knot_mask8(a.m)}; }
FBP_FN bool any(Mf a) { return a.m != 0; }
FBP_FN bool any(Md a) { return a.m != 0; }
FBP_FN bool all(Mf a) { return a.m == 0xffff; }
FBP_FN bool all(Md a) { return a.m == 0xff; }
FBP_FN int count(Mf a) { return __builtin_popcount(a.m); }
FBP_FN int count(Md a) { return __builtin_popcount(a.m); }
FBP_FN Vf select(Mf m, Vf t, Vf f) { return Vf(_mm512_mask_blend_ps(m.m, f.v, t.v)); }
FBP_FN Vd select(Md m, Vd t, Vd f) { return Vd(_mm512_mask_blend_pd(m.m, f.v, t.v)); }

// Transposition of lanes x lanes blocks: first within the 128-bit parts of the registers, then of the
// parts. 64 and 24 shuffles, one a clock; loads of half rows, which spare a quarter of them, measured
// slower (20 % on a product with one column).
#define FBP_TRANSPOSE_PARTS(shuffle, v0, v1, v2, v3)                                               \
  {                                                                                                \
    const auto a = shuffle(v0, v1, 0x88), b = shuffle(v0, v1, 0xdd);                               \
    const auto c = shuffle(v2, v3, 0x88), d = shuffle(v2, v3, 0xdd);                               \
    v0 = shuffle(a, c, 0x88), v1 = shuffle(b, d, 0x88);                                            \
    v2 = shuffle(a, c, 0xdd), v3 = shuffle(b, d, 0xdd);                                            \
  }
// 4 x 4 blocks within the 128-bit parts of four registers.
FBP_FN void transpose_parts(__m512 x0, __m512 x1, __m512 x2, __m512 x3, Vf* v) {
  const __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(x0, x1));
  const __m512d b = _mm512_castps_pd(_mm512_unpacklo_ps(x2, x3));
  const __m512d c = _mm512_castps_pd(_mm512_unpackhi_ps(x0, x1));
  const __m512d d = _mm512_castps_pd(_mm512_unpackhi_ps(x2, x3));
  v[0].v = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
  v[1].v = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
  v[2].v = _mm512_castpd_ps(_mm512_unpacklo_pd(c, d));
  v[3].v = _mm512_castpd_ps(_mm512_unpackhi_pd(c, d));
}
FBP_FN void transpose(Vf (&v)[16]) {
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4)
    transpose_parts(v[i].v, v[i + 1].v, v[i + 2].v, v[i + 3].v, &v[i]);
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i)
    FBP_TRANSPOSE_PARTS(_mm512_shuffle_f32x4, v[i].v, v[i + 4].v, v[i + 8].v, v[i + 12].v)
}
FBP_FN void transpose(Vd (&v)[8]) {
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    const __m512d a = v[i].v, b = v[i + 1].v;
    v[i].v = _mm512_unpacklo_pd(a, b), v[i + 1].v = _mm512_unpackhi_pd(a, b);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i)
    FBP_TRANSPOSE_PARTS(_mm512_shuffle_f64x2, v[i].v, v[i + 2].v, v[i + 4].v, v[i + 6].v)
}
FBP_FN void load_transposed(const float* p, std::ptrdiff_t row, Vf (&v)[16]) {
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) v[i] = Vf::load(p + i * row);
  transpose(v);
}
FBP_FN void load_transposed(const double* p, std::ptrdiff_t row, Vd (&v)[8]) {
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) v[i] = Vd::load(p + i * row);
  transpose(v);
}
#undef FBP_TRANSPOSE_PARTS

// The same of the first `cols` rows and `depth` columns in memory; lanes from `cols` on are 0, vectors from
// `depth` on anything. Up to 4 columns take 8 shuffles.
FBP_FN void load_transposed_n(const float* p, std::ptrdiff_t row, int depth, int cols,
                              Vf (&v)[16]) {
  const auto bits = static_cast<__mmask16>((1u << depth) - 1);
  const auto mask = [=](int i) { return static_cast<__mmask16>(i < cols ? bits : 0); };
  // A load of no lanes from memory that does not exist takes hundreds of clocks.
  const auto at = [=](int i) { return p + (i < cols ? i * row : 0); };
  if (depth > 4) {
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) v[i].v = _mm512_maskz_loadu_ps(mask(i), at(i));
    return transpose(v);
  }
  const auto part = [=](int i) {
    return _mm_maskz_loadu_ps(static_cast<__mmask8>(mask(i)), at(i));
  };
  __m512 rows[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    rows[i] = _mm512_castps128_ps512(part(i));
    rows[i] = _mm512_insertf32x4(rows[i], part(i + 4), 1);
    rows[i] = _mm512_insertf32x4(rows[i], part(i + 8), 2);
    rows[i] = _mm512_insertf32x4(rows[i], part(i + 12), 3);
  }
  transpose_parts(rows[0], rows[1], rows[2], rows[3], &v[0]);
}
FBP_FN void load_transposed_n(const double* p, std::ptrdiff_t row, int depth, int cols,
                              Vd (&v)[8]) {
  const auto bits = static_cast<__mmask8>((1u << depth) - 1);
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i)
    v[i].v = _mm512_maskz_loadu_pd(static_cast<__mmask8>(i < cols ? bits : 0),
                                   p + (i < cols ? i * row : 0));
  transpose(v);
}

// Reductions.
FBP_FN float reduce_add(Vf a) {
  const __m256 h8 = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 h4 = _mm_add_ps(_mm256_castps256_ps128(h8), _mm256_extractf128_ps(h8, 1));
  const __m128 h2 = _mm_add_ps(h4, _mm_movehl_ps(h4, h4));
  return _mm_cvtss_f32(_mm_add_ss(h2, _mm_movehdup_ps(h2)));
}
FBP_FN double reduce_add(Vd a) {
  const __m256d h4 = _mm256_add_pd(_mm512_castpd512_pd256(a.v), _mm512_extractf64x4_pd(a.v, 1));
  const __m128d h2 = _mm_add_pd(_mm256_castpd256_pd128(h4), _mm256_extractf128_pd(h4, 1));
  return _mm_cvtsd_f64(_mm_add_sd(h2, _mm_unpackhi_pd(h2, h2)));
}
FBP_FN float reduce_max(Vf a) {
  const __m256 h8 = _mm256_max_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 h4 = _mm_max_ps(_mm256_castps256_ps128(h8), _mm256_extractf128_ps(h8, 1));
  const __m128 h2 = _mm_max_ps(h4, _mm_movehl_ps(h4, h4));
  return _mm_cvtss_f32(_mm_max_ss(h2, _mm_movehdup_ps(h2)));
}
FBP_FN double reduce_max(Vd a) {
  const __m256d h4 = _mm256_max_pd(_mm512_castpd512_pd256(a.v), _mm512_extractf64x4_pd(a.v, 1));
  const __m128d h2 = _mm_max_pd(_mm256_castpd256_pd128(h4), _mm256_extractf128_pd(h4, 1));
  return _mm_cvtsd_f64(_mm_max_sd(h2, _mm_unpackhi_pd(h2, h2)));
}

#include "kernels/cpu/simd/ymm.inl"

}  // namespace fastbp::avx512
