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

template <> struct Vec<float> {
  using scalar = float;
  static constexpr int lanes = 16;
  __m256 lo, hi;
  Vec() = default;
  FBP_FN Vec(__m256 l, __m256 h) : lo(l), hi(h) {}
  FBP_FN explicit Vec(float x) : lo(_mm256_set1_ps(x)), hi(lo) {}
  FBP_FN static Vec load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
  FBP_FN static Vec load_n(const float* p, int n) {
    return {_mm256_maskload_ps(p, first_epi32(n)), _mm256_maskload_ps(p + 8, first_epi32(n - 8))};
  }
  FBP_FN void store(float* p) const {
    _mm256_storeu_ps(p, lo);
    _mm256_storeu_ps(p + 8, hi);
  }
  FBP_FN void store_n(float* p, int n) const {
    _mm256_maskstore_ps(p, first_epi32(n), lo);
    _mm256_maskstore_ps(p + 8, first_epi32(n - 8), hi);
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
    return {_mm256_maskload_pd(p, first_epi64(n)), _mm256_maskload_pd(p + 4, first_epi64(n - 4))};
  }
  FBP_FN void store(double* p) const {
    _mm256_storeu_pd(p, lo);
    _mm256_storeu_pd(p + 4, hi);
  }
  FBP_FN void store_n(double* p, int n) const {
    _mm256_maskstore_pd(p, first_epi64(n), lo);
    _mm256_maskstore_pd(p + 4, first_epi64(n - 4), hi);
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

// Transposition of lanes x lanes blocks, by their quarters.
FBP_FN void transpose(__m256* const (&x)[8]) {
  __m256d t[8];
  for (int i = 0; i < 8; i += 4)
    for (int h = 0; h < 2; ++h) {
      const __m256 a = *x[i + 2 * h], b = *x[i + 2 * h + 1];
      t[i + h] = _mm256_castps_pd(_mm256_unpacklo_ps(a, b));
      t[i + h + 2] = _mm256_castps_pd(_mm256_unpackhi_ps(a, b));
    }
  for (int c = 0; c < 4; ++c) {
    const int i = c / 2 * 2;
    const auto pick = [c](__m256d a, __m256d b) {
      return _mm256_castpd_ps(c % 2 ? _mm256_unpackhi_pd(a, b) : _mm256_unpacklo_pd(a, b));
    };
    const __m256 a = pick(t[i], t[i + 1]), b = pick(t[i + 4], t[i + 5]);
    *x[c] = _mm256_permute2f128_ps(a, b, 0x20), *x[c + 4] = _mm256_permute2f128_ps(a, b, 0x31);
  }
}
FBP_FN void transpose(__m256d* const (&x)[4]) {
  const __m256d a = _mm256_unpacklo_pd(*x[0], *x[1]), b = _mm256_unpackhi_pd(*x[0], *x[1]);
  const __m256d c = _mm256_unpacklo_pd(*x[2], *x[3]), d = _mm256_unpackhi_pd(*x[2], *x[3]);
  *x[0] = _mm256_permute2f128_pd(a, c, 0x20), *x[1] = _mm256_permute2f128_pd(b, d, 0x20);
  *x[2] = _mm256_permute2f128_pd(a, c, 0x31), *x[3] = _mm256_permute2f128_pd(b, d, 0x31);
}
template <class T> FBP_FN void transpose(Vec<T> (&x)[64 / sizeof(T)]) {
  using Half = decltype(x[0].lo);
  constexpr int half = 32 / sizeof(T);
  Half *low[2][half], *high[2][half];
  for (int i = 0; i < half; ++i)
    for (int h = 0; h < 2; ++h)
      low[h][i] = &x[h * half + i].lo, high[h][i] = &x[h * half + i].hi;
  for (int h = 0; h < 2; ++h) transpose(low[h]), transpose(high[h]);
  for (int i = 0; i < half; ++i) {
    const Half swapped = x[i].hi;
    x[i].hi = x[half + i].lo, x[half + i].lo = swapped;
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

}  // namespace fastbp::avx2
