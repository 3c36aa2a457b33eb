// AVX2 with FMA: the 64-byte virtual vector is two ymm registers, lo (lanes 0 to L/2-1) and hi. A
// mask is a pair of vectors of all ones or all zeros.
//
// Surface and semantics as in avx512.h. The two halves are named members, not an array, so that g++
// keeps them in registers.
#pragma once

#include <cstddef>
#include <cstdint>

#include <immintrin.h>

#include "ops/fbp_fn.h"

namespace fastbp::avx2 {

template <class T> struct Vec;
template <class T> struct Mask;
template <class T> struct Bits;

template <> struct Mask<float> { __m256 lo, hi; };
template <> struct Mask<double> { __m256d lo, hi; };

template <> struct Bits<float> {
  __m256i lo, hi;
  Bits() = default;
  FBP_FN Bits(__m256i l, __m256i h) : lo(l), hi(h) {}
  FBP_FN explicit Bits(std::int64_t x) : lo(_mm256_set1_epi32(static_cast<int>(x))), hi(lo) {}
};

template <> struct Bits<double> {
  __m256i lo, hi;
  Bits() = default;
  FBP_FN Bits(__m256i l, __m256i h) : lo(l), hi(h) {}
  FBP_FN explicit Bits(std::int64_t x) : lo(_mm256_set1_epi64x(x)), hi(lo) {}
};

// Lanes below n, as maskload and maskstore want them: the sign bit of each element.
FBP_FN __m256i first_epi32(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
FBP_FN __m256i first_epi64(int n) {
  return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3));
}

FBP_FN __m256 load_part(const float* p, int n) { return _mm256_maskload_ps(p, first_epi32(n)); }
FBP_FN __m256d load_part(const double* p, int n) { return _mm256_maskload_pd(p, first_epi64(n)); }

// The first n lanes of one register, 0 <= n < its lanes, in pieces of halving length: a masked store takes a dozen
// clocks on Zen to Zen 3, and nothing that is read again soon can be taken from it.
FBP_FN void store_part(float* p, int n, __m256 v) {
  __m128 x = _mm256_castps256_ps128(v);
  if (n & 4) {
    _mm_storeu_ps(p, x);
    x = _mm256_extractf128_ps(v, 1);
    p += 4;
  }
  if (n & 2) {
    _mm_storel_pi(reinterpret_cast<__m64*>(p), x);
    x = _mm_movehl_ps(x, x);
    p += 2;
  }
  if (n & 1) _mm_store_ss(p, x);
}
FBP_FN void store_part(double* p, int n, __m256d v) {
  __m128d x = _mm256_castpd256_pd128(v);
  if (n & 2) {
    _mm_storeu_pd(p, x);
    x = _mm256_extractf128_pd(v, 1);
    p += 2;
  }
  if (n & 1) _mm_store_sd(p, x);
}

template <> struct Vec<float> {
  using scalar = float;
  static constexpr int lanes = 16;
  __m256 lo, hi;
  Vec() = default;
  FBP_FN Vec(__m256 l, __m256 h) : lo(l), hi(h) {}
  FBP_FN explicit Vec(float x) : lo(_mm256_set1_ps(x)), hi(lo) {}
  FBP_FN static Vec load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  FBP_FN static Vec load_n(const float* p, int n) {
    return {load_part(p, n), load_part(p + 8, n - 8)};
  }
  FBP_FN void store(float* p) const {
    _mm256_storeu_ps(p, lo);
    _mm256_storeu_ps(p + 8, hi);
  }
  FBP_FN void store_n(float* p, int n) const {
    if (n >= lanes) return store(p);
    if (n < 8) return store_part(p, n, lo);
    _mm256_storeu_ps(p, lo);
    store_part(p + 8, n - 8, hi);
  }
};

template <> struct Vec<double> {
  using scalar = double;
  static constexpr int lanes = 8;
  __m256d lo, hi;
  Vec() = default;
  FBP_FN Vec(__m256d l, __m256d h) : lo(l), hi(h) {}
  FBP_FN explicit Vec(double x) : lo(_mm256_set1_pd(x)), hi(lo) {}
  FBP_FN static Vec load(const double* p) { return {_mm256_loadu_pd(p), _mm256_loadu_pd(p + 4)}; }
  FBP_FN static Vec load_n(const double* p, int n) {
    return {load_part(p, n), load_part(p + 4, n - 4)};
  }
  FBP_FN void store(double* p) const {
    _mm256_storeu_pd(p, lo);
    _mm256_storeu_pd(p + 4, hi);
  }
  FBP_FN void store_n(double* p, int n) const {
    if (n >= lanes) return store(p);
    if (n < 4) return store_part(p, n, lo);
    _mm256_storeu_pd(p, lo);
    store_part(p + 4, n - 4, hi);
  }
};

using Vf = Vec<float>;
using Vd = Vec<double>;
using Mf = Mask<float>;
using Md = Mask<double>;
using Bf = Bits<float>;
using Bd = Bits<double>;

// The intrinsic on both halves of a (, b (, c)); a trailing argument is the immediate.
#define FBP_BOTH1(op) {op(a.lo), op(a.hi)}
#define FBP_BOTH1I(op, imm) {op(a.lo, imm), op(a.hi, imm)}
#define FBP_BOTH2(op) {op(a.lo, b.lo), op(a.hi, b.hi)}
#define FBP_BOTH2I(op, imm) {op(a.lo, b.lo, imm), op(a.hi, b.hi, imm)}
#define FBP_BOTH3(op) {op(a.lo, b.lo, c.lo), op(a.hi, b.hi, c.hi)}

// Bit patterns.
FBP_FN Bf to_bits(Vf a) { return FBP_BOTH1(_mm256_castps_si256); }
FBP_FN Bd to_bits(Vd a) { return FBP_BOTH1(_mm256_castpd_si256); }
FBP_FN Vf from_bits(Bf a) { return FBP_BOTH1(_mm256_castsi256_ps); }
FBP_FN Vd from_bits(Bd a) { return FBP_BOTH1(_mm256_castsi256_pd); }
FBP_FN Bf operator+(Bf a, Bf b) { return FBP_BOTH2(_mm256_add_epi32); }
FBP_FN Bd operator+(Bd a, Bd b) { return FBP_BOTH2(_mm256_add_epi64); }
FBP_FN Bf operator-(Bf a, Bf b) { return FBP_BOTH2(_mm256_sub_epi32); }
FBP_FN Bd operator-(Bd a, Bd b) { return FBP_BOTH2(_mm256_sub_epi64); }
FBP_FN Bf operator&(Bf a, Bf b) { return FBP_BOTH2(_mm256_and_si256); }
FBP_FN Bd operator&(Bd a, Bd b) { return FBP_BOTH2(_mm256_and_si256); }
FBP_FN Bf operator|(Bf a, Bf b) { return FBP_BOTH2(_mm256_or_si256); }
FBP_FN Bd operator|(Bd a, Bd b) { return FBP_BOTH2(_mm256_or_si256); }
FBP_FN Bf operator^(Bf a, Bf b) { return FBP_BOTH2(_mm256_xor_si256); }
FBP_FN Bd operator^(Bd a, Bd b) { return FBP_BOTH2(_mm256_xor_si256); }
FBP_FN void mul_wide(__m256i a, __m256i m, __m256i* high, __m256i* low) {
  const __m256i even = _mm256_mul_epu32(a, m);
  const __m256i odd = _mm256_mul_epu32(_mm256_shuffle_epi32(a, 0xf5), m);
  *high = _mm256_blend_epi32(_mm256_shuffle_epi32(even, 0xf5), odd, 0xaa);
  *low = _mm256_blend_epi32(even, _mm256_shuffle_epi32(odd, 0xa0), 0xaa);
}
FBP_FN void mul_wide(Bf a, std::uint32_t m, Bf* high, Bf* low) {
  const __m256i factor = _mm256_set1_epi32(static_cast<int>(m));
  mul_wide(a.lo, factor, &high->lo, &low->lo);
  mul_wide(a.hi, factor, &high->hi, &low->hi);
}
template <int n> FBP_FN Bf shl(Bf a) { return FBP_BOTH1I(_mm256_slli_epi32, n); }
template <int n> FBP_FN Bd shl(Bd a) { return FBP_BOTH1I(_mm256_slli_epi64, n); }
template <int n> FBP_FN Bf shr(Bf a) { return FBP_BOTH1I(_mm256_srli_epi32, n); }
template <int n> FBP_FN Bd shr(Bd a) { return FBP_BOTH1I(_mm256_srli_epi64, n); }

// Arithmetic.
FBP_FN Vf operator+(Vf a, Vf b) { return FBP_BOTH2(_mm256_add_ps); }
FBP_FN Vd operator+(Vd a, Vd b) { return FBP_BOTH2(_mm256_add_pd); }
FBP_FN Vf operator-(Vf a, Vf b) { return FBP_BOTH2(_mm256_sub_ps); }
FBP_FN Vd operator-(Vd a, Vd b) { return FBP_BOTH2(_mm256_sub_pd); }
FBP_FN Vf operator*(Vf a, Vf b) { return FBP_BOTH2(_mm256_mul_ps); }
FBP_FN Vd operator*(Vd a, Vd b) { return FBP_BOTH2(_mm256_mul_pd); }
FBP_FN Vf operator/(Vf a, Vf b) { return FBP_BOTH2(_mm256_div_ps); }
FBP_FN Vd operator/(Vd a, Vd b) { return FBP_BOTH2(_mm256_div_pd); }
FBP_FN Vf operator-(Vf a) { return FBP_BOTH1I(_mm256_xor_ps, _mm256_set1_ps(-0.0f)); }
FBP_FN Vd operator-(Vd a) { return FBP_BOTH1I(_mm256_xor_pd, _mm256_set1_pd(-0.0)); }
FBP_FN Vf fma(Vf a, Vf b, Vf c) { return FBP_BOTH3(_mm256_fmadd_ps); }
FBP_FN Vd fma(Vd a, Vd b, Vd c) { return FBP_BOTH3(_mm256_fmadd_pd); }
FBP_FN Vf fnma(Vf a, Vf b, Vf c) { return FBP_BOTH3(_mm256_fnmadd_ps); }
FBP_FN Vd fnma(Vd a, Vd b, Vd c) { return FBP_BOTH3(_mm256_fnmadd_pd); }
FBP_FN Vf min(Vf a, Vf b) { return FBP_BOTH2(_mm256_min_ps); }
FBP_FN Vd min(Vd a, Vd b) { return FBP_BOTH2(_mm256_min_pd); }
FBP_FN Vf max(Vf a, Vf b) { return FBP_BOTH2(_mm256_max_ps); }
FBP_FN Vd max(Vd a, Vd b) { return FBP_BOTH2(_mm256_max_pd); }
FBP_FN Vf sqrt(Vf a) { return FBP_BOTH1(_mm256_sqrt_ps); }
FBP_FN Vd sqrt(Vd a) { return FBP_BOTH1(_mm256_sqrt_pd); }
FBP_FN Vf abs(Vf a) { return from_bits(to_bits(a) & Bf(0x7fffffff)); }
FBP_FN Vd abs(Vd a) { return from_bits(to_bits(a) & Bd(0x7fffffffffffffff)); }
FBP_FN Vf copysign(Vf mag, Vf sign) {
  return from_bits(to_bits(abs(mag)) | (to_bits(sign) & to_bits(Vf(-0.0f))));
}
FBP_FN Vd copysign(Vd mag, Vd sign) {
  return from_bits(to_bits(abs(mag)) | (to_bits(sign) & to_bits(Vd(-0.0))));
}
FBP_FN Vf round_even(Vf a) {
  return FBP_BOTH1I(_mm256_round_ps, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
FBP_FN Vd round_even(Vd a) {
  return FBP_BOTH1I(_mm256_round_pd, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

// Comparisons (false when either side is NaN) and masks.
FBP_FN Mf operator<(Vf a, Vf b) { return FBP_BOTH2I(_mm256_cmp_ps, _CMP_LT_OQ); }
FBP_FN Md operator<(Vd a, Vd b) { return FBP_BOTH2I(_mm256_cmp_pd, _CMP_LT_OQ); }
FBP_FN Mf operator<=(Vf a, Vf b) { return FBP_BOTH2I(_mm256_cmp_ps, _CMP_LE_OQ); }
FBP_FN Md operator<=(Vd a, Vd b) { return FBP_BOTH2I(_mm256_cmp_pd, _CMP_LE_OQ); }
FBP_FN Mf operator>(Vf a, Vf b) { return FBP_BOTH2I(_mm256_cmp_ps, _CMP_GT_OQ); }
FBP_FN Md operator>(Vd a, Vd b) { return FBP_BOTH2I(_mm256_cmp_pd, _CMP_GT_OQ); }
FBP_FN Mf operator>=(Vf a, Vf b) { return FBP_BOTH2I(_mm256_cmp_ps, _CMP_GE_OQ); }
FBP_FN Md operator>=(Vd a, Vd b) { return FBP_BOTH2I(_mm256_cmp_pd, _CMP_GE_OQ); }
FBP_FN Mf operator==(Vf a, Vf b) { return FBP_BOTH2I(_mm256_cmp_ps, _CMP_EQ_OQ); }
FBP_FN Md operator==(Vd a, Vd b) { return FBP_BOTH2I(_mm256_cmp_pd, _CMP_EQ_OQ); }
FBP_FN Mf operator&(Mf a, Mf b) { return FBP_BOTH2(_mm256_and_ps); }
FBP_FN Md operator&(Md a, Md b) { return FBP_BOTH2(_mm256_and_pd); }
FBP_FN Mf operator|(Mf a, Mf b) { return FBP_BOTH2(_mm256_or_ps); }
FBP_FN Md operator|(Md a, Md b) { return FBP_BOTH2(_mm256_or_pd); }
FBP_FN Mf operator!(Mf a) {
  return FBP_BOTH1I(_mm256_xor_ps, _mm256_castsi256_ps(_mm256_set1_epi32(-1)));
}
FBP_FN Md operator!(Md a) {
  return FBP_BOTH1I(_mm256_xor_pd, _mm256_castsi256_pd(_mm256_set1_epi32(-1)));
}
FBP_FN Mf is_nan(Vf a) {
  return {_mm256_cmp_ps(a.lo, a.lo, _CMP_UNORD_Q), _mm256_cmp_ps(a.hi, a.hi, _CMP_UNORD_Q)};
}
FBP_FN Md is_nan(Vd a) {
  return {_mm256_cmp_pd(a.lo, a.lo, _CMP_UNORD_Q), _mm256_cmp_pd(a.hi, a.hi, _CMP_UNORD_Q)};
}
FBP_FN bool any(Mf a) { return _mm256_movemask_ps(_mm256_or_ps(a.lo, a.hi)) != 0; }
FBP_FN bool any(Md a) { return _mm256_movemask_pd(_mm256_or_pd(a.lo, a.hi)) != 0; }
FBP_FN bool all(Mf a) { return _mm256_movemask_ps(_mm256_and_ps(a.lo, a.hi)) == 0xff; }
FBP_FN bool all(Md a) { return _mm256_movemask_pd(_mm256_and_pd(a.lo, a.hi)) == 0xf; }
FBP_FN int count(Mf a) {
  return __builtin_popcount(
      static_cast<unsigned>(_mm256_movemask_ps(a.lo) | _mm256_movemask_ps(a.hi) << 8));
}
FBP_FN int count(Md a) {
  return __builtin_popcount(
      static_cast<unsigned>(_mm256_movemask_pd(a.lo) | _mm256_movemask_pd(a.hi) << 4));
}
FBP_FN Vf select(Mf m, Vf t, Vf f) {
  return {_mm256_blendv_ps(f.lo, t.lo, m.lo), _mm256_blendv_ps(f.hi, t.hi, m.hi)};
}
FBP_FN Vd select(Md m, Vd t, Vd f) {
  return {_mm256_blendv_pd(f.lo, t.lo, m.lo), _mm256_blendv_pd(f.hi, t.hi, m.hi)};
}

#undef FBP_BOTH1
#undef FBP_BOTH1I
#undef FBP_BOTH2
#undef FBP_BOTH2I
#undef FBP_BOTH3

// Transposition of lanes x lanes blocks: loads put rows half a register apart, the rest is shuffles
// within 128 bits.
FBP_FN __m256 load_halves(const float* p, const float* q) {
  return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p)), _mm_loadu_ps(q), 1);
}
FBP_FN __m256d load_halves(const double* p, const double* q) {
  return _mm256_insertf128_pd(_mm256_castpd128_pd256(_mm_loadu_pd(p)), _mm_loadu_pd(q), 1);
}
// to[c] = column c of eight rows.
FBP_FN void transpose_half(const float* p, std::ptrdiff_t row, __m256 (&to)[4]) {
  __m256 x[4];
  for (int r = 0; r < 4; ++r) x[r] = load_halves(p + r * row, p + (r + 4) * row);
  const __m256d a = _mm256_castps_pd(_mm256_unpacklo_ps(x[0], x[1]));
  const __m256d b = _mm256_castps_pd(_mm256_unpacklo_ps(x[2], x[3]));
  const __m256d c = _mm256_castps_pd(_mm256_unpackhi_ps(x[0], x[1]));
  const __m256d d = _mm256_castps_pd(_mm256_unpackhi_ps(x[2], x[3]));
  to[0] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, b));
  to[1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, b));
  to[2] = _mm256_castpd_ps(_mm256_unpacklo_pd(c, d));
  to[3] = _mm256_castpd_ps(_mm256_unpackhi_pd(c, d));
}
FBP_FN void load_transposed(const float* p, std::ptrdiff_t row, Vf (&v)[16]) {
  for (int j = 0; j < 16; j += 4) {
    __m256 lo[4], hi[4];
    transpose_half(p + j, row, lo);
    transpose_half(p + 8 * row + j, row, hi);
    for (int c = 0; c < 4; ++c) v[j + c] = Vf(lo[c], hi[c]);
  }
}
FBP_FN void load_transposed(const double* p, std::ptrdiff_t row, Vd (&v)[8]) {
  for (int j = 0; j < 8; j += 2) {
    const double* q = p + j;
    const __m256d a = load_halves(q, q + 2 * row), b = load_halves(q + row, q + 3 * row);
    const __m256d c = load_halves(q + 4 * row, q + 6 * row);
    const __m256d d = load_halves(q + 5 * row, q + 7 * row);
    v[j] = Vd(_mm256_unpacklo_pd(a, b), _mm256_unpacklo_pd(c, d));
    v[j + 1] = Vd(_mm256_unpackhi_pd(a, b), _mm256_unpackhi_pd(c, d));
  }
}

// Reductions: lane i with lane i + L/2, then i + L/4, ...
FBP_FN float reduce_add(Vf a) {
  const __m256 h8 = _mm256_add_ps(a.lo, a.hi);
  const __m128 h4 = _mm_add_ps(_mm256_castps256_ps128(h8), _mm256_extractf128_ps(h8, 1));
  const __m128 h2 = _mm_add_ps(h4, _mm_movehl_ps(h4, h4));
  return _mm_cvtss_f32(_mm_add_ss(h2, _mm_movehdup_ps(h2)));
}
FBP_FN double reduce_add(Vd a) {
  const __m256d h4 = _mm256_add_pd(a.lo, a.hi);
  const __m128d h2 = _mm_add_pd(_mm256_castpd256_pd128(h4), _mm256_extractf128_pd(h4, 1));
  return _mm_cvtsd_f64(_mm_add_sd(h2, _mm_unpackhi_pd(h2, h2)));
}
FBP_FN float reduce_max(Vf a) {
  const __m256 h8 = _mm256_max_ps(a.lo, a.hi);
  const __m128 h4 = _mm_max_ps(_mm256_castps256_ps128(h8), _mm256_extractf128_ps(h8, 1));
  const __m128 h2 = _mm_max_ps(h4, _mm_movehl_ps(h4, h4));
  return _mm_cvtss_f32(_mm_max_ss(h2, _mm_movehdup_ps(h2)));
}
FBP_FN double reduce_max(Vd a) {
  const __m256d h4 = _mm256_max_pd(a.lo, a.hi);
  const __m128d h2 = _mm_max_pd(_mm256_castpd256_pd128(h4), _mm256_extractf128_pd(h4, 1));
  return _mm_cvtsd_f64(_mm_max_sd(h2, _mm_unpackhi_pd(h2, h2)));
}

#include "kernels/cpu/simd/ymm.inl"

}  // namespace fastbp::avx2
