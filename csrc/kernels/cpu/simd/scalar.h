// Portable scalar code: the 64-byte virtual vector is an array of 16 float or 8 double lanes,
// worked on in plain loops.
//
// The honest baseline (compiled with auto-vectorisation off) and the definition of what the other
// wrappers compute: every operation is Lane's, lane by lane. Without -mfma, fma is libm's, slow and
// exact.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/fbp_fn.h"
#include "ops/lane.h"

namespace fastbp::scalar {

template <class T> struct Mask { LaneMask<T> a[64 / sizeof(T)]; };

template <class T> struct Bits {
  static constexpr int lanes = 64 / sizeof(T);
  LaneBits<T> a[lanes];
  Bits() = default;
  FBP_FN explicit Bits(std::int64_t x) {
    for (int i = 0; i < lanes; ++i) a[i] = LaneBits<T>(x);
  }
};

template <class T> struct Vec {
  using scalar = T;
  static constexpr int lanes = 64 / sizeof(T);
  Lane<T> a[lanes];
  Vec() = default;
  FBP_FN explicit Vec(T x) {
    for (int i = 0; i < lanes; ++i) a[i] = Lane<T>(x);
  }
  FBP_FN static Vec load(const T* p) {
    Vec r;
    for (int i = 0; i < lanes; ++i) r.a[i] = Lane<T>(p[i]);
    return r;
  }
  FBP_FN static Vec load_n(const T* p, int n) {
    Vec r;
    for (int i = 0; i < lanes; ++i) r.a[i] = Lane<T>(i < n ? p[i] : T(0));
    return r;
  }
  FBP_FN void store(T* p) const {
    for (int i = 0; i < lanes; ++i) p[i] = a[i].v;
  }
  FBP_FN void store_n(T* p, int n) const {
    for (int i = 0; i < lanes && i < n; ++i) p[i] = a[i].v;
  }
};

// A Lane operation on every lane: the result's type, the operands' type, the name and the call.
#define FBP_SCALAR_UNARY(R, A, name, call)                                                         \
  template <class T> FBP_FN R<T> name(A<T> a) {                                                    \
    R<T> r;                                                                                        \
    for (int i = 0; i < Vec<T>::lanes; ++i) r.a[i] = call;                                         \
    return r;                                                                                      \
  }
#define FBP_SCALAR_BINARY(R, A, name, call)                                                        \
  template <class T> FBP_FN R<T> name(A<T> a, A<T> b) {                                            \
    R<T> r;                                                                                        \
    for (int i = 0; i < Vec<T>::lanes; ++i) r.a[i] = call;                                         \
    return r;                                                                                      \
  }

// Bit patterns.
FBP_SCALAR_UNARY(Bits, Vec, to_bits, to_bits(a.a[i]))
FBP_SCALAR_UNARY(Vec, Bits, from_bits, from_bits(a.a[i]))
FBP_SCALAR_BINARY(Bits, Bits, operator+, a.a[i] + b.a[i])
FBP_SCALAR_BINARY(Bits, Bits, operator-, a.a[i] - b.a[i])
FBP_SCALAR_BINARY(Bits, Bits, operator&, a.a[i] & b.a[i])
FBP_SCALAR_BINARY(Bits, Bits, operator|, a.a[i] | b.a[i])
FBP_SCALAR_BINARY(Bits, Bits, operator^, a.a[i] ^ b.a[i])
FBP_FN void mul_wide(Bits<float> a, std::uint32_t m, Bits<float>* high, Bits<float>* low) {
  for (int i = 0; i < Bits<float>::lanes; ++i) mul_wide(a.a[i], m, &high->a[i], &low->a[i]);
}
template <int n, class T> FBP_FN Bits<T> shl(Bits<T> a) {
  for (int i = 0; i < Vec<T>::lanes; ++i) a.a[i].b <<= n;
  return a;
}
template <int n, class T> FBP_FN Bits<T> shr(Bits<T> a) {
  for (int i = 0; i < Vec<T>::lanes; ++i) a.a[i].b >>= n;
  return a;
}

// Arithmetic.
FBP_SCALAR_BINARY(Vec, Vec, operator+, a.a[i] + b.a[i])
FBP_SCALAR_BINARY(Vec, Vec, operator-, a.a[i] - b.a[i])
FBP_SCALAR_BINARY(Vec, Vec, operator*, a.a[i] * b.a[i])
FBP_SCALAR_BINARY(Vec, Vec, operator/, a.a[i] / b.a[i])
FBP_SCALAR_BINARY(Vec, Vec, min, min(a.a[i], b.a[i]))
FBP_SCALAR_BINARY(Vec, Vec, max, max(a.a[i], b.a[i]))
FBP_SCALAR_BINARY(Vec, Vec, copysign, copysign(a.a[i], b.a[i]))
FBP_SCALAR_UNARY(Vec, Vec, operator-, -a.a[i])
FBP_SCALAR_UNARY(Vec, Vec, sqrt, sqrt(a.a[i]))
FBP_SCALAR_UNARY(Vec, Vec, abs, abs(a.a[i]))
FBP_SCALAR_UNARY(Vec, Vec, round_even, round_even(a.a[i]))
template <class T> FBP_FN Vec<T> fma(Vec<T> a, Vec<T> b, Vec<T> c) {
  for (int i = 0; i < Vec<T>::lanes; ++i) c.a[i] = fma(a.a[i], b.a[i], c.a[i]);
  return c;
}
template <class T> FBP_FN Vec<T> fnma(Vec<T> a, Vec<T> b, Vec<T> c) {
  for (int i = 0; i < Vec<T>::lanes; ++i) c.a[i] = fnma(a.a[i], b.a[i], c.a[i]);
  return c;
}

// Comparisons and masks.
FBP_SCALAR_BINARY(Mask, Vec, operator<, a.a[i] < b.a[i])
FBP_SCALAR_BINARY(Mask, Vec, operator<=, a.a[i] <= b.a[i])
FBP_SCALAR_BINARY(Mask, Vec, operator>, a.a[i] > b.a[i])
FBP_SCALAR_BINARY(Mask, Vec, operator>=, a.a[i] >= b.a[i])
FBP_SCALAR_BINARY(Mask, Vec, operator==, a.a[i] == b.a[i])
FBP_SCALAR_UNARY(Mask, Vec, is_nan, is_nan(a.a[i]))
FBP_SCALAR_BINARY(Mask, Mask, operator&, a.a[i] & b.a[i])
FBP_SCALAR_BINARY(Mask, Mask, operator|, a.a[i] | b.a[i])
FBP_SCALAR_UNARY(Mask, Mask, operator!, !a.a[i])
template <class T> FBP_FN bool any(Mask<T> m) {
  bool r = false;
  for (int i = 0; i < Vec<T>::lanes; ++i) r |= m.a[i].m;
  return r;
}
template <class T> FBP_FN bool all(Mask<T> m) {
  bool r = true;
  for (int i = 0; i < Vec<T>::lanes; ++i) r &= m.a[i].m;
  return r;
}
template <class T> FBP_FN int count(Mask<T> m) {
  int r = 0;
  for (int i = 0; i < Vec<T>::lanes; ++i) r += m.a[i].m;
  return r;
}
template <class T> FBP_FN Vec<T> select(Mask<T> m, Vec<T> t, Vec<T> f) {
  for (int i = 0; i < Vec<T>::lanes; ++i) f.a[i] = select(m.a[i], t.a[i], f.a[i]);
  return f;
}

// Lane i of v[j] = p[i * row + j].
template <class T>
FBP_FN void load_transposed(const T* p, std::ptrdiff_t row, Vec<T> (&v)[64 / sizeof(T)]) {
  for (int i = 0; i < Vec<T>::lanes; ++i, p += row)
    for (int j = 0; j < Vec<T>::lanes; ++j) v[j].a[i] = Lane<T>(p[j]);
}

// The same of the first `cols` rows and `depth` columns in memory; the other lanes are 0.
template <class T>
FBP_FN void load_part_transposed(const T* p, std::ptrdiff_t row, int depth, int cols,
                                 Vec<T> (&v)[64 / sizeof(T)]) {
  for (int j = 0; j < Vec<T>::lanes; ++j)
    for (int i = 0; i < Vec<T>::lanes; ++i)
      v[j].a[i] = Lane<T>(i < cols && j < depth ? p[i * row + j] : T(0));
}
FBP_FN void load_transposed_n(const float* p, std::ptrdiff_t row, int depth, int cols,
                              Vec<float> (&v)[16]) {
  load_part_transposed(p, row, depth, cols, v);
}
FBP_FN void load_transposed_n(const double* p, std::ptrdiff_t row, int depth, int cols,
                              Vec<double> (&v)[8]) {
  load_part_transposed(p, row, depth, cols, v);
}

#undef FBP_SCALAR_UNARY
#undef FBP_SCALAR_BINARY

// Reductions: lane i with lane i + L/2, then i + L/4, ...
template <class T> FBP_FN T reduce_add(Vec<T> a) {
  for (int half = Vec<T>::lanes / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) a.a[i] = a.a[i] + a.a[i + half];
  return a.a[0].v;
}
template <class T> FBP_FN T reduce_max(Vec<T> a) {
  for (int half = Vec<T>::lanes / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) a.a[i] = max(a.a[i], a.a[i + half]);
  return a.a[0].v;
}

// As in ymm.inl.
template <class T> struct Narrow {
  using scalar = T;
  static constexpr int lanes = 4, depth = 4;
  Lane<T> a[lanes];
  Narrow() = default;
  FBP_FN explicit Narrow(T x) {
    for (int i = 0; i < lanes; ++i) a[i] = Lane<T>(x);
  }
  FBP_FN static Narrow load(const T* p) {
    Narrow r;
    for (int i = 0; i < lanes; ++i) r.a[i] = Lane<T>(p[i]);
    return r;
  }
  FBP_FN void store(T* p) const {
    for (int i = 0; i < lanes; ++i) p[i] = a[i].v;
  }
};
template <class T> FBP_FN Narrow<T> operator+(Narrow<T> a, Narrow<T> b) {
  for (int i = 0; i < Narrow<T>::lanes; ++i) a.a[i] = a.a[i] + b.a[i];
  return a;
}
template <class T> FBP_FN Narrow<T> fma(Narrow<T> a, Narrow<T> b, Narrow<T> c) {
  for (int i = 0; i < Narrow<T>::lanes; ++i) c.a[i] = fma(a.a[i], b.a[i], c.a[i]);
  return c;
}
template <class T>
FBP_FN void load_rows(const T* p, const std::ptrdiff_t (&at)[4], Narrow<T> (&v)[4]) {
  for (int c = 0; c < 4; ++c)
    for (int i = 0; i < 4; ++i) v[c].a[i] = Lane<T>(p[at[i] + c]);
}

}  // namespace fastbp::scalar
