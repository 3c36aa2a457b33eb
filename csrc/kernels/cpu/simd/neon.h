// AArch64 Advanced SIMD: the 64-byte virtual vector is four q registers. A mask is four vectors of
// all ones or all zeros.
//
// Surface and semantics as in avx512.h. min and max are a compare and a select: FMIN and FMINNM
// treat NaN and zeros of either sign differently from x86.
#pragma once

#include <cstddef>
#include <cstdint>

#include <arm_neon.h>

#include "ops/fbp_fn.h"

namespace fastbp::neon {

template <class T> struct Vec;
template <class T> struct Mask;
template <class T> struct Bits;

template <> struct Mask<float> { uint32x4_t q0, q1, q2, q3; };
template <> struct Mask<double> { uint64x2_t q0, q1, q2, q3; };

template <> struct Bits<float> {
  uint32x4_t q0, q1, q2, q3;
  Bits() = default;
  FBP_FN Bits(uint32x4_t a, uint32x4_t b, uint32x4_t c, uint32x4_t d)
      : q0(a), q1(b), q2(c), q3(d) {}
  FBP_FN explicit Bits(std::int64_t x)
      : q0(vdupq_n_u32(static_cast<std::uint32_t>(x))), q1(q0), q2(q0), q3(q0) {}
};

template <> struct Bits<double> {
  uint64x2_t q0, q1, q2, q3;
  Bits() = default;
  FBP_FN Bits(uint64x2_t a, uint64x2_t b, uint64x2_t c, uint64x2_t d)
      : q0(a), q1(b), q2(c), q3(d) {}
  FBP_FN explicit Bits(std::int64_t x)
      : q0(vdupq_n_u64(static_cast<std::uint64_t>(x))), q1(q0), q2(q0), q3(q0) {}
};

template <> struct Vec<float> {
  using scalar = float;
  static constexpr int lanes = 16;
  float32x4_t q0, q1, q2, q3;
  Vec() = default;
  FBP_FN Vec(float32x4_t a, float32x4_t b, float32x4_t c, float32x4_t d)
      : q0(a), q1(b), q2(c), q3(d) {}
  FBP_FN explicit Vec(float x) : q0(vdupq_n_f32(x)), q1(q0), q2(q0), q3(q0) {}
  FBP_FN static Vec load(const float* p) {
    return {vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)};
  }
  FBP_FN static Vec load_n(const float* p, int n) {
    float t[lanes] = {};
    for (int i = 0; i < n; ++i) t[i] = p[i];
    return load(t);
  }
  FBP_FN void store(float* p) const {
    vst1q_f32(p, q0);
    vst1q_f32(p + 4, q1);
    vst1q_f32(p + 8, q2);
    vst1q_f32(p + 12, q3);
  }
  FBP_FN void store_n(float* p, int n) const {
    float t[lanes];
    store(t);
    for (int i = 0; i < n; ++i) p[i] = t[i];
  }
};

template <> struct Vec<double> {
  using scalar = double;
  static constexpr int lanes = 8;
  float64x2_t q0, q1, q2, q3;
  Vec() = default;
  FBP_FN Vec(float64x2_t a, float64x2_t b, float64x2_t c, float64x2_t d)
      : q0(a), q1(b), q2(c), q3(d) {}
  FBP_FN explicit Vec(double x) : q0(vdupq_n_f64(x)), q1(q0), q2(q0), q3(q0) {}
  FBP_FN static Vec load(const double* p) {
    return {vld1q_f64(p), vld1q_f64(p + 2), vld1q_f64(p + 4), vld1q_f64(p + 6)};
  }
  FBP_FN static Vec load_n(const double* p, int n) {
    double t[lanes] = {};
    for (int i = 0; i < n; ++i) t[i] = p[i];
    return load(t);
  }
  FBP_FN void store(double* p) const {
    vst1q_f64(p, q0);
    vst1q_f64(p + 2, q1);
    vst1q_f64(p + 4, q2);
    vst1q_f64(p + 6, q3);
  }
  FBP_FN void store_n(double* p, int n) const {
    double t[lanes];
    store(t);
    for (int i = 0; i < n; ++i) p[i] = t[i];
  }
};

using Vf = Vec<float>;
using Vd = Vec<double>;
using Mf = Mask<float>;
using Md = Mask<double>;
using Bf = Bits<float>;
using Bd = Bits<double>;

// The intrinsic on each of the four registers of a (, b (, c)); FBP_EACH1I passes a constant on.
#define FBP_EACH1(op) {op(a.q0), op(a.q1), op(a.q2), op(a.q3)}
#define FBP_EACH1I(op, imm) {op(a.q0, imm), op(a.q1, imm), op(a.q2, imm), op(a.q3, imm)}
#define FBP_EACH2(op) {op(a.q0, b.q0), op(a.q1, b.q1), op(a.q2, b.q2), op(a.q3, b.q3)}
#define FBP_EACH3(op)                                                                              \
  {op(a.q0, b.q0, c.q0), op(a.q1, b.q1, c.q1), op(a.q2, b.q2, c.q2), op(a.q3, b.q3, c.q3)}

// Bit patterns. A shift by 0 has no encoding for the right shift, so it is none at all.
FBP_FN Bf to_bits(Vf a) { return FBP_EACH1(vreinterpretq_u32_f32); }
FBP_FN Bd to_bits(Vd a) { return FBP_EACH1(vreinterpretq_u64_f64); }
FBP_FN Vf from_bits(Bf a) { return FBP_EACH1(vreinterpretq_f32_u32); }
FBP_FN Vd from_bits(Bd a) { return FBP_EACH1(vreinterpretq_f64_u64); }
FBP_FN Bf operator+(Bf a, Bf b) { return FBP_EACH2(vaddq_u32); }
FBP_FN Bd operator+(Bd a, Bd b) { return FBP_EACH2(vaddq_u64); }
FBP_FN Bf operator-(Bf a, Bf b) { return FBP_EACH2(vsubq_u32); }
FBP_FN Bd operator-(Bd a, Bd b) { return FBP_EACH2(vsubq_u64); }
FBP_FN Bf operator&(Bf a, Bf b) { return FBP_EACH2(vandq_u32); }
FBP_FN Bd operator&(Bd a, Bd b) { return FBP_EACH2(vandq_u64); }
FBP_FN Bf operator|(Bf a, Bf b) { return FBP_EACH2(vorrq_u32); }
FBP_FN Bd operator|(Bd a, Bd b) { return FBP_EACH2(vorrq_u64); }
FBP_FN Bf operator^(Bf a, Bf b) { return FBP_EACH2(veorq_u32); }
FBP_FN Bd operator^(Bd a, Bd b) { return FBP_EACH2(veorq_u64); }
FBP_FN void mul_wide(uint32x4_t a, std::uint32_t m, uint32x4_t* high, uint32x4_t* low) {
  const uint32x4_t first = vreinterpretq_u32_u64(vmull_n_u32(vget_low_u32(a), m));
  const uint32x4_t second = vreinterpretq_u32_u64(vmull_n_u32(vget_high_u32(a), m));
  *high = vuzp2q_u32(first, second);
  *low = vuzp1q_u32(first, second);
}
FBP_FN void mul_wide(Bf a, std::uint32_t m, Bf* high, Bf* low) {
  mul_wide(a.q0, m, &high->q0, &low->q0);
  mul_wide(a.q1, m, &high->q1, &low->q1);
  mul_wide(a.q2, m, &high->q2, &low->q2);
  mul_wide(a.q3, m, &high->q3, &low->q3);
}
template <int n> FBP_FN Bf shl(Bf a) { return FBP_EACH1I(vshlq_n_u32, n); }
template <int n> FBP_FN Bd shl(Bd a) { return FBP_EACH1I(vshlq_n_u64, n); }
template <int n> FBP_FN Bf shr(Bf a) {
  if constexpr (n == 0)
    return a;
  else
    return FBP_EACH1I(vshrq_n_u32, n);
}
template <int n> FBP_FN Bd shr(Bd a) {
  if constexpr (n == 0)
    return a;
  else
    return FBP_EACH1I(vshrq_n_u64, n);
}

// Masks and comparisons (false when either side is NaN).
FBP_FN Mf operator<(Vf a, Vf b) { return FBP_EACH2(vcltq_f32); }
FBP_FN Md operator<(Vd a, Vd b) { return FBP_EACH2(vcltq_f64); }
FBP_FN Mf operator<=(Vf a, Vf b) { return FBP_EACH2(vcleq_f32); }
FBP_FN Md operator<=(Vd a, Vd b) { return FBP_EACH2(vcleq_f64); }
FBP_FN Mf operator>(Vf a, Vf b) { return FBP_EACH2(vcgtq_f32); }
FBP_FN Md operator>(Vd a, Vd b) { return FBP_EACH2(vcgtq_f64); }
FBP_FN Mf operator>=(Vf a, Vf b) { return FBP_EACH2(vcgeq_f32); }
FBP_FN Md operator>=(Vd a, Vd b) { return FBP_EACH2(vcgeq_f64); }
FBP_FN Mf operator==(Vf a, Vf b) { return FBP_EACH2(vceqq_f32); }
FBP_FN Md operator==(Vd a, Vd b) { return FBP_EACH2(vceqq_f64); }
FBP_FN Mf operator&(Mf a, Mf b) { return FBP_EACH2(vandq_u32); }
FBP_FN Md operator&(Md a, Md b) { return FBP_EACH2(vandq_u64); }
FBP_FN Mf operator|(Mf a, Mf b) { return FBP_EACH2(vorrq_u32); }
FBP_FN Md operator|(Md a, Md b) { return FBP_EACH2(vorrq_u64); }
FBP_FN Mf operator!(Mf a) { return FBP_EACH1(vmvnq_u32); }
FBP_FN Md operator!(Md a) { return FBP_EACH1I(veorq_u64, vdupq_n_u64(~std::uint64_t{0})); }
FBP_FN Mf is_nan(Vf a) { return !(a == a); }
FBP_FN Md is_nan(Vd a) { return !(a == a); }
FBP_FN bool any(Mf a) {
  return vmaxvq_u32(vorrq_u32(vorrq_u32(a.q0, a.q1), vorrq_u32(a.q2, a.q3))) != 0;
}
FBP_FN bool any(Md a) {
  const uint64x2_t m = vorrq_u64(vorrq_u64(a.q0, a.q1), vorrq_u64(a.q2, a.q3));
  return vmaxvq_u32(vreinterpretq_u32_u64(m)) != 0;
}
FBP_FN bool all(Mf a) { return !any(!a); }
FBP_FN bool all(Md a) { return !any(!a); }
// A lane is -1 where it is true.
FBP_FN int count(Mf a) {
  const uint32x4_t sum = vaddq_u32(vaddq_u32(a.q0, a.q1), vaddq_u32(a.q2, a.q3));
  return -vaddvq_s32(vreinterpretq_s32_u32(sum));
}
FBP_FN int count(Md a) {
  const uint64x2_t sum = vaddq_u64(vaddq_u64(a.q0, a.q1), vaddq_u64(a.q2, a.q3));
  return -static_cast<int>(vaddvq_s64(vreinterpretq_s64_u64(sum)));
}
FBP_FN Vf select(Mf a, Vf b, Vf c) { return FBP_EACH3(vbslq_f32); }
FBP_FN Vd select(Md a, Vd b, Vd c) { return FBP_EACH3(vbslq_f64); }

// Arithmetic.
FBP_FN Vf operator+(Vf a, Vf b) { return FBP_EACH2(vaddq_f32); }
FBP_FN Vd operator+(Vd a, Vd b) { return FBP_EACH2(vaddq_f64); }
FBP_FN Vf operator-(Vf a, Vf b) { return FBP_EACH2(vsubq_f32); }
FBP_FN Vd operator-(Vd a, Vd b) { return FBP_EACH2(vsubq_f64); }
FBP_FN Vf operator*(Vf a, Vf b) { return FBP_EACH2(vmulq_f32); }
FBP_FN Vd operator*(Vd a, Vd b) { return FBP_EACH2(vmulq_f64); }
FBP_FN Vf operator/(Vf a, Vf b) { return FBP_EACH2(vdivq_f32); }
FBP_FN Vd operator/(Vd a, Vd b) { return FBP_EACH2(vdivq_f64); }
FBP_FN Vf operator-(Vf a) { return FBP_EACH1(vnegq_f32); }
FBP_FN Vd operator-(Vd a) { return FBP_EACH1(vnegq_f64); }
FBP_FN Vf fma(Vf b, Vf c, Vf a) {
  return FBP_EACH3(vfmaq_f32);
}  // the intrinsic takes the addend first
FBP_FN Vd fma(Vd b, Vd c, Vd a) { return FBP_EACH3(vfmaq_f64); }
FBP_FN Vf fnma(Vf b, Vf c, Vf a) { return FBP_EACH3(vfmsq_f32); }
FBP_FN Vd fnma(Vd b, Vd c, Vd a) { return FBP_EACH3(vfmsq_f64); }
FBP_FN Vf min(Vf a, Vf b) { return select(a < b, a, b); }
FBP_FN Vd min(Vd a, Vd b) { return select(a < b, a, b); }
FBP_FN Vf max(Vf a, Vf b) { return select(a > b, a, b); }
FBP_FN Vd max(Vd a, Vd b) { return select(a > b, a, b); }
FBP_FN Vf sqrt(Vf a) { return FBP_EACH1(vsqrtq_f32); }
FBP_FN Vd sqrt(Vd a) { return FBP_EACH1(vsqrtq_f64); }
FBP_FN Vf abs(Vf a) { return FBP_EACH1(vabsq_f32); }
FBP_FN Vd abs(Vd a) { return FBP_EACH1(vabsq_f64); }
FBP_FN Vf round_even(Vf a) { return FBP_EACH1(vrndnq_f32); }
FBP_FN Vd round_even(Vd a) { return FBP_EACH1(vrndnq_f64); }
FBP_FN Vf copysign(Vf mag, Vf sign) {
  const Bf s = to_bits(Vf(-0.0f));
  return select(Mf{s.q0, s.q1, s.q2, s.q3}, sign, mag);
}
FBP_FN Vd copysign(Vd mag, Vd sign) {
  const Bd s = to_bits(Vd(-0.0));
  return select(Md{s.q0, s.q1, s.q2, s.q3}, sign, mag);
}

#undef FBP_EACH1
#undef FBP_EACH1I
#undef FBP_EACH2
#undef FBP_EACH3

// Transposition of lanes x lanes blocks, through L1: they are larger than the register file.
template <class T>
FBP_FN void load_transposed(const T* p, std::ptrdiff_t row, Vec<T> (&v)[64 / sizeof(T)]) {
  constexpr int lanes = Vec<T>::lanes;
  T columns[lanes][lanes];
  for (int i = 0; i < lanes; ++i)
    for (int j = 0; j < lanes; ++j) columns[j][i] = p[i * row + j];
  for (int j = 0; j < lanes; ++j) v[j] = Vec<T>::load(columns[j]);
}

// Reductions: lane i with lane i + L/2, then i + L/4, ...
FBP_FN float reduce_add(Vf a) {
  const float32x4_t h4 = vaddq_f32(vaddq_f32(a.q0, a.q2), vaddq_f32(a.q1, a.q3));
  const float32x2_t h2 = vadd_f32(vget_low_f32(h4), vget_high_f32(h4));
  return vget_lane_f32(h2, 0) + vget_lane_f32(h2, 1);
}
FBP_FN double reduce_add(Vd a) {
  const float64x2_t h2 = vaddq_f64(vaddq_f64(a.q0, a.q2), vaddq_f64(a.q1, a.q3));
  return vgetq_lane_f64(h2, 0) + vgetq_lane_f64(h2, 1);
}
FBP_FN float reduce_max(Vf a) {
  const Vf h8 = max(a, Vf(a.q2, a.q3, a.q2, a.q3));
  const Vf h4 = max(h8, Vf(h8.q1, h8.q1, h8.q1, h8.q1));
  const float x0 = vgetq_lane_f32(h4.q0, 0), x1 = vgetq_lane_f32(h4.q0, 1);
  const float x2 = vgetq_lane_f32(h4.q0, 2), x3 = vgetq_lane_f32(h4.q0, 3);
  const float y0 = x0 > x2 ? x0 : x2, y1 = x1 > x3 ? x1 : x3;
  return y0 > y1 ? y0 : y1;
}
FBP_FN double reduce_max(Vd a) {
  const Vd h4 = max(a, Vd(a.q2, a.q3, a.q2, a.q3));
  const Vd h2 = max(h4, Vd(h4.q1, h4.q1, h4.q1, h4.q1));
  const double x0 = vgetq_lane_f64(h2.q0, 0), x1 = vgetq_lane_f64(h2.q0, 1);
  return x0 > x1 ? x0 : x1;
}

// As in ymm.inl, of one q register.
template <class T> struct Narrow;
template <> struct Narrow<float> {
  using scalar = float;
  static constexpr int lanes = 4, depth = 4;
  float32x4_t v;
  Narrow() = default;
  FBP_FN explicit Narrow(float32x4_t x) : v(x) {}
  FBP_FN explicit Narrow(float x) : v(vdupq_n_f32(x)) {}
  FBP_FN static Narrow load(const float* p) { return Narrow(vld1q_f32(p)); }
  FBP_FN void store(float* p) const { vst1q_f32(p, v); }
};
template <> struct Narrow<double> {
  using scalar = double;
  static constexpr int lanes = 2, depth = 2;
  float64x2_t v;
  Narrow() = default;
  FBP_FN explicit Narrow(float64x2_t x) : v(x) {}
  FBP_FN explicit Narrow(double x) : v(vdupq_n_f64(x)) {}
  FBP_FN static Narrow load(const double* p) { return Narrow(vld1q_f64(p)); }
  FBP_FN void store(double* p) const { vst1q_f64(p, v); }
};
FBP_FN Narrow<float> operator+(Narrow<float> a, Narrow<float> b) {
  return Narrow<float>(vaddq_f32(a.v, b.v));
}
FBP_FN Narrow<double> operator+(Narrow<double> a, Narrow<double> b) {
  return Narrow<double>(vaddq_f64(a.v, b.v));
}
FBP_FN Narrow<float> fma(Narrow<float> a, Narrow<float> b, Narrow<float> c) {
  return Narrow<float>(vfmaq_f32(c.v, a.v, b.v));
}
FBP_FN Narrow<double> fma(Narrow<double> a, Narrow<double> b, Narrow<double> c) {
  return Narrow<double>(vfmaq_f64(c.v, a.v, b.v));
}
FBP_FN void load_rows(const float* p, const std::ptrdiff_t (&at)[4], Narrow<float> (&v)[4]) {
  const float32x4_t x0 = vld1q_f32(p + at[0]), x1 = vld1q_f32(p + at[1]);
  const float32x4_t x2 = vld1q_f32(p + at[2]), x3 = vld1q_f32(p + at[3]);
  const float32x4_t a = vzip1q_f32(x0, x2), b = vzip1q_f32(x1, x3);
  const float32x4_t c = vzip2q_f32(x0, x2), d = vzip2q_f32(x1, x3);
  v[0].v = vzip1q_f32(a, b), v[1].v = vzip2q_f32(a, b);
  v[2].v = vzip1q_f32(c, d), v[3].v = vzip2q_f32(c, d);
}
FBP_FN void load_rows(const double* p, const std::ptrdiff_t (&at)[2], Narrow<double> (&v)[2]) {
  const float64x2_t x0 = vld1q_f64(p + at[0]), x1 = vld1q_f64(p + at[1]);
  v[0].v = vzip1q_f64(x0, x1), v[1].v = vzip2q_f64(x0, x1);
}

}  // namespace fastbp::neon
