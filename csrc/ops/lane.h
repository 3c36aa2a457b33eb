// One lane with the surface of the SIMD wrappers: the V of the formulas in CUDA device code, in
// scalar loops and tests.
//
// Device code uses the _rn intrinsics, which the compiler never contracts, so host and device agree
// in every bit but the sign and payload of NaN.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/fbp_fn.h"

namespace fastbp {

template <class T> struct LaneWord;
template <> struct LaneWord<float> { using type = std::uint32_t; };
template <> struct LaneWord<double> { using type = std::uint64_t; };

template <class T> struct LaneMask { bool m; };

template <class T> struct LaneBits {
  using word = typename LaneWord<T>::type;
  word b;
  LaneBits() = default;
  FBP_FN explicit LaneBits(std::int64_t x) : b(static_cast<word>(x)) {}
};

template <class T> struct Lane {
  using scalar = T;
  static constexpr int lanes = 1;
  T v;
  Lane() = default;
  FBP_FN explicit Lane(T x) : v(x) {}
  FBP_FN static Lane load(const T* p) { return Lane(*p); }
  FBP_FN static Lane load_n(const T* p, int n) { return Lane(n > 0 ? *p : T(0)); }
  FBP_FN void store(T* p) const { *p = v; }
  FBP_FN void store_n(T* p, int n) const {
    if (n > 0) *p = v;
  }
};

using Lf = Lane<float>;
using Ld = Lane<double>;

// Device code gets the first, host code the second; signatures stay the same, as nvcc asks.
#if defined(__CUDA_ARCH__)
#define FBP_LANE(device, host) device
#else
#define FBP_LANE(device, host) host
#endif

// Bit patterns.
template <class T> FBP_FN LaneBits<T> to_bits(Lane<T> a) {
  LaneBits<T> r;
  FBP_LANE(memcpy, __builtin_memcpy)(&r.b, &a.v, sizeof(T));
  return r;
}
template <class T> FBP_FN Lane<T> from_bits(LaneBits<T> a) {
  Lane<T> r;
  FBP_LANE(memcpy, __builtin_memcpy)(&r.v, &a.b, sizeof(T));
  return r;
}
template <class T> FBP_FN LaneBits<T> operator+(LaneBits<T> a, LaneBits<T> b) {
  a.b += b.b;
  return a;
}
template <class T> FBP_FN LaneBits<T> operator-(LaneBits<T> a, LaneBits<T> b) {
  a.b -= b.b;
  return a;
}
template <class T> FBP_FN LaneBits<T> operator&(LaneBits<T> a, LaneBits<T> b) {
  a.b &= b.b;
  return a;
}
template <class T> FBP_FN LaneBits<T> operator|(LaneBits<T> a, LaneBits<T> b) {
  a.b |= b.b;
  return a;
}
template <class T> FBP_FN LaneBits<T> operator^(LaneBits<T> a, LaneBits<T> b) {
  a.b ^= b.b;
  return a;
}
// The 64-bit product with m: its upper and its lower half.
FBP_FN void mul_wide(LaneBits<float> a, std::uint32_t m, LaneBits<float>* high,
                     LaneBits<float>* low) {
  const std::uint64_t product = std::uint64_t{a.b} * m;
  high->b = static_cast<std::uint32_t>(product >> 32);
  low->b = static_cast<std::uint32_t>(product);
}
template <int n, class T> FBP_FN LaneBits<T> shl(LaneBits<T> a) {
  a.b <<= n;
  return a;
}
template <int n, class T> FBP_FN LaneBits<T> shr(LaneBits<T> a) {
  a.b >>= n;
  return a;
}

// Arithmetic: every operation is rounded once, to nearest even.
FBP_FN Lf operator+(Lf a, Lf b) { return Lf(FBP_LANE(__fadd_rn(a.v, b.v), a.v + b.v)); }
FBP_FN Ld operator+(Ld a, Ld b) { return Ld(FBP_LANE(__dadd_rn(a.v, b.v), a.v + b.v)); }
FBP_FN Lf operator-(Lf a, Lf b) { return Lf(FBP_LANE(__fsub_rn(a.v, b.v), a.v - b.v)); }
FBP_FN Ld operator-(Ld a, Ld b) { return Ld(FBP_LANE(__dsub_rn(a.v, b.v), a.v - b.v)); }
FBP_FN Lf operator*(Lf a, Lf b) { return Lf(FBP_LANE(__fmul_rn(a.v, b.v), a.v * b.v)); }
FBP_FN Ld operator*(Ld a, Ld b) { return Ld(FBP_LANE(__dmul_rn(a.v, b.v), a.v * b.v)); }
FBP_FN Lf operator/(Lf a, Lf b) { return Lf(FBP_LANE(__fdiv_rn(a.v, b.v), a.v / b.v)); }
FBP_FN Ld operator/(Ld a, Ld b) { return Ld(FBP_LANE(__ddiv_rn(a.v, b.v), a.v / b.v)); }
FBP_FN Lf fma(Lf a, Lf b, Lf c) {
  return Lf(FBP_LANE(__fmaf_rn(a.v, b.v, c.v), __builtin_fmaf(a.v, b.v, c.v)));
}
FBP_FN Ld fma(Ld a, Ld b, Ld c) {
  return Ld(FBP_LANE(__fma_rn(a.v, b.v, c.v), __builtin_fma(a.v, b.v, c.v)));
}
FBP_FN Lf sqrt(Lf a) { return Lf(FBP_LANE(__fsqrt_rn(a.v), __builtin_sqrtf(a.v))); }
FBP_FN Ld sqrt(Ld a) { return Ld(FBP_LANE(__dsqrt_rn(a.v), __builtin_sqrt(a.v))); }
#undef FBP_LANE

template <class T> FBP_FN Lane<T> operator-(Lane<T> a) {
  return from_bits(to_bits(a) ^ to_bits(Lane<T>(T(-0.0))));
}
template <class T> FBP_FN Lane<T> fnma(Lane<T> a, Lane<T> b, Lane<T> c) { return fma(-a, b, c); }
template <class T> FBP_FN Lane<T> abs(Lane<T> a) { return from_bits(shr<1>(shl<1>(to_bits(a)))); }
template <class T> FBP_FN Lane<T> copysign(Lane<T> mag, Lane<T> sign) {
  return from_bits(to_bits(abs(mag)) | (to_bits(sign) & to_bits(Lane<T>(T(-0.0)))));
}
template <class T> FBP_FN Lane<T> min(Lane<T> a, Lane<T> b) { return a.v < b.v ? a : b; }
template <class T> FBP_FN Lane<T> max(Lane<T> a, Lane<T> b) { return a.v > b.v ? a : b; }

// Comparisons (false when either side is NaN) and masks.
template <class T> FBP_FN LaneMask<T> operator<(Lane<T> a, Lane<T> b) { return {a.v < b.v}; }
template <class T> FBP_FN LaneMask<T> operator<=(Lane<T> a, Lane<T> b) { return {a.v <= b.v}; }
template <class T> FBP_FN LaneMask<T> operator>(Lane<T> a, Lane<T> b) { return {a.v > b.v}; }
template <class T> FBP_FN LaneMask<T> operator>=(Lane<T> a, Lane<T> b) { return {a.v >= b.v}; }
template <class T> FBP_FN LaneMask<T> operator==(Lane<T> a, Lane<T> b) { return {a.v == b.v}; }
template <class T> FBP_FN LaneMask<T> is_nan(Lane<T> a) { return {a.v != a.v}; }
template <class T> FBP_FN LaneMask<T> operator&(LaneMask<T> a, LaneMask<T> b) {
  return {a.m && b.m};
}
template <class T> FBP_FN LaneMask<T> operator|(LaneMask<T> a, LaneMask<T> b) {
  return {a.m || b.m};
}
template <class T> FBP_FN LaneMask<T> operator!(LaneMask<T> a) { return {!a.m}; }
template <class T> FBP_FN bool any(LaneMask<T> a) { return a.m; }
template <class T> FBP_FN bool all(LaneMask<T> a) { return a.m; }
template <class T> FBP_FN int count(LaneMask<T> a) { return a.m ? 1 : 0; }
template <class T> FBP_FN Lane<T> select(LaneMask<T> m, Lane<T> t, Lane<T> f) {
  return m.m ? t : f;
}

// Nearest integer, ties to even. Adding 2^52 (2^23) to a smaller magnitude leaves no fraction bits;
// larger ones have none.
template <class T> FBP_FN Lane<T> round_even(Lane<T> a) {
  const Lane<T> big(sizeof(T) == 4 ? T(0x1p23) : T(0x1p52)), m = abs(a);
  return select(m < big, copysign((m + big) - big, a), a);
}

template <class T> FBP_FN T reduce_add(Lane<T> a) { return a.v; }
template <class T> FBP_FN T reduce_max(Lane<T> a) { return a.v; }

}  // namespace fastbp
