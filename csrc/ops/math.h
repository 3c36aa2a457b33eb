// Vector maths on any V with the surface of the SIMD wrappers (float and double): the same bits on
// every instruction set, on the CPU and in CUDA device code.
//
// Built of exactly rounded operations only (+ - * / fma and bit moves): no tables, no branches, no
// library calls. Signed zeros, denormals, infinities and NaN give what C's libm gives (which NaN is
// not promised); results overflow to infinity and underflow gradually. Where denormals are flushed,
// they count as zero and the errors below grow by less than one ulp.
//
// Largest error found, in units in the last place of the exact result:
//              float   double         float: every pattern; double: 18 million arguments
//   exp        0.99    0.98           (tests/cpp/test_math.cpp, --exhaustive)
//   expm1      0.91    1.07
//   log        0.83    0.88
//   log1p      0.84    0.89
//   tanh       0.78    1.07
//   sigmoid    0.98    0.96
//   softplus   0.99    1.00
//   erf        0.95    1.01
//   logistic   2.7     2.8            the cheaper sigmoid and its complement
//   normal     5.5     8.9            cdf; 1.4 and 1.8 for x > -0.68. The density: 2.1 and 2.3
#pragma once

#include "ops/fbp_fn.h"
#include "ops/lane.h"  // also makes shl<n>(v) and shr<n>(v) parse as template calls

namespace fastbp {
namespace math {

// c0 + c1 x + c2 x^2 + ..., in FMA.
template <class V> FBP_FN V horner(V, typename V::scalar c0) { return V(c0); }
template <class V, class... C> FBP_FN V horner(V x, typename V::scalar c0, C... rest) {
  return fma(horner(x, rest...), x, V(c0));
}

// ln 2 = ln2_hi + ln2_lo; ln2_hi has 16 (42) bits, so n * ln2_hi is exact for every exponent n.
// Adding `magic` rounds to an integer n and leaves n + exponent bias in the low bits of the sum.
template <class T> struct Constants;
template <> struct Constants<float> {
  static constexpr int mantissa_bits = 23;
  static constexpr float log2e = 0x1.715476p+0f, ln2_hi = 0x1.62e4p-1f, ln2_lo = 0x1.7f7d1cp-20f;
  static constexpr float magic = 0x1.8p23f + 127;
  static constexpr float max_exp = 110;  // exp(-110) = 0 and exp(110) = inf, with room to spare
  static constexpr float shift = 64;     // 2^n for any such n is the product of two normal
  static constexpr float up = 0x1p64f;   // numbers, 2^(n-shift) * up or 2^(n+shift) * down
  static constexpr float down = 0x1p-64f;
};
template <> struct Constants<double> {
  static constexpr int mantissa_bits = 52;
  static constexpr double log2e = 0x1.71547652b82fep+0, ln2_hi = 0x1.62e42fefa38p-1,
                          ln2_lo = 0x1.ef35793c7673p-45;
  static constexpr double magic = 0x1.8p52 + 1023;
  static constexpr double max_exp = 800;
  static constexpr double shift = 512;
  static constexpr double up = 0x1p512, down = 0x1p-512;
};

template <class V> using K = Constants<typename V::scalar>;
template <class V> inline constexpr bool is_float = sizeof(typename V::scalar) == 4;

// 2^n from t = magic + n; n + bias must be a normal exponent.
template <class V> FBP_FN V pow2(V t) { return from_bits(shl<K<V>::mantissa_bits>(to_bits(t))); }

// x = n ln 2 + r + c with |r| <= ln(2)/2, |c| <= ulp(r)/2, t = magic + n. |x| <= max_exp.
template <class V> struct ExpSplit { V t, r, c; };
template <class V> FBP_FN ExpSplit<V> exp_split(V x) {
  const V t = fma(x, V(K<V>::log2e), V(K<V>::magic));
  const V n = t - V(K<V>::magic);
  const V high = fnma(n, V(K<V>::ln2_hi), x);  // exact
  const V r = fnma(n, V(K<V>::ln2_lo), high);
  return {t, r, fnma(n, V(K<V>::ln2_lo), high - r)};
}

// (e^r - 1 - r) / r^2 on |r| <= ln(2)/2; minimax for the relative error of e^r - 1: 2^-30 (2^-60).
template <class V> FBP_FN V exp_series(V r) {
  if constexpr (is_float<V>)
    return horner(r, 0x1p-1f, 0x1.555554p-3f, 0x1.5554dp-5f, 0x1.11122ap-7f, 0x1.6d7214p-10f,
                  0x1.a032a6p-13f);
  else
    return horner(r, 0x1p-1, 0x1.5555555555559p-3, 0x1.555555555553fp-5, 0x1.111111110f6d2p-7,
                  0x1.6c16c16c1f0a8p-10, 0x1.a01a01afd75ebp-13, 0x1.a01a017bbc28dp-16,
                  0x1.71ddf87500205p-19, 0x1.27e536395c5dcp-22, 0x1.af5e877dc79d3p-26,
                  0x1.1ee880bc4bac2p-29);
}

// An unevaluated sum: lo is what hi has lost by rounding.
template <class V> struct Sum { V hi, lo; };
// a + b for |a| >= |b| or a == 0.
template <class V> FBP_FN Sum<V> fast_sum(V a, V b) {
  const V hi = a + b;
  return {hi, (a - hi) + b};
}
template <class V> FBP_FN Sum<V> any_sum(V a, V b) {
  const V hi = a + b, b_part = hi - a;
  return {hi, (a - (hi - b_part)) + (b - b_part)};
}

// e^-a = 2^n (1 + p + lost) for a >= 0, clamped to max_exp; scale = 2^(n + shift), always normal.
template <class V> struct ExpNegative { V p, scale, lost; };
template <class V> FBP_FN ExpNegative<V> exp_negative(V a) {
  const ExpSplit<V> e = exp_split(-min(V(K<V>::max_exp), a));
  return {fma(e.r * e.r, exp_series(e.r), e.r), pow2(e.t + V(K<V>::shift)), e.c};
}

// (e^x - 1)/2 as a sum. Half, so that the greatest finite results do not overflow on the way.
// For negative x, where tanh's division follows and takes the cancellation away, two cheaper steps.
template <bool x_is_negative, class V> FBP_FN Sum<V> half_expm1(V x) {
  const ExpSplit<V> e = exp_split(x);
  const V s = pow2(e.t - V(1)), r2 = e.r * e.r, q = exp_series(e.r);
  const V p = x_is_negative ? r2 * q : fma(r2, q, e.c);
  const Sum<V> m = x_is_negative ? fast_sum(V(-0.5f), s) : any_sum(V(-0.5f), s);
  const V hi = fma(s, e.r, m.hi);
  return {hi, fma(s, p, fma(s, e.r, m.hi - hi) + m.lo)};
}

// more + log(1 + f) - f, for f in [sqrt(1/2) - 1, 1/2]. Float: a polynomial, 2^-28 relative to
// log(1 + f). Double: with s = f/(2 + f), log(1 + f) = 2 atanh(s); that odd series is cheaper than
// 20 terms in f.
template <class V> FBP_FN V log1p_rest(V f, V more) {
  const V f2 = f * f;
  if constexpr (is_float<V>) {
    const V p =
        horner(f, -0x1p-1f, 0x1.55554cp-2f, -0x1.0000b6p-2f, 0x1.99a2f6p-3f, -0x1.551306p-3f,
               0x1.23250ep-3f, -0x1.02cd6ap-3f, 0x1.f0d494p-4f, -0x1.ac4e7p-4f, 0x1.89bad8p-5f);
    return fma(f2, p, more);
  } else {
    const V s = f / (V(2) + f), z = s * s, half = V(0.5) * f2;
    const V p = horner(z, 0x1.555555555554fp-1, 0x1.999999999c0f7p-2, 0x1.24924921ec0aep-2,
                       0x1.c71c7488db7c0p-3, 0x1.745c4c7a4cc45p-3, 0x1.3b358bc2810ebp-3,
                       0x1.0dcf126d1ca0ap-3, 0x1.1b69f5618b481p-3);
    return fma(s, fma(z, p, half), more - half);
  }
}

// x = 2^k (1 + f), 1 + f in [sqrt(1/2), sqrt(2)); x positive and normal (else k, f mean nothing).
template <class V> struct LogSplit { V k, f; };
template <class V> FBP_FN LogSplit<V> log_split(V x) {
  using B = decltype(to_bits(x));
  constexpr int m = K<V>::mantissa_bits;
  constexpr std::int64_t one = is_float<V> ? 0x3f800000 : 0x3ff0000000000000;
  constexpr std::int64_t root = is_float<V> ? 0x3f3504f3 : 0x3fe6a09e667f3bcd;   // sqrt(1/2)
  constexpr std::int64_t two_m = is_float<V> ? 0x4b000000 : 0x4330000000000000;  // 2^m
  const B b = to_bits(x) + B(one - root);
  const V k = from_bits(shr<m>(b) | B(two_m)) - (from_bits(B(two_m)) + V(is_float<V> ? 127 : 1023));
  return {k, from_bits((b & B((std::int64_t{1} << m) - 1)) + B(root)) - V(1)};
}

// k ln 2 + f.
template <class V> FBP_FN Sum<V> log_sum(V k, V f) {
  const Sum<V> s = fast_sum(k * V(K<V>::ln2_hi), f);
  return {s.hi, fma(k, V(K<V>::ln2_lo), s.lo)};
}

// e^(x^2/2) Q(x), Q the upper tail of the normal distribution, for 0 <= x <= 14.5 (39): a rational
// function of positive terms, minimax to 2^-26 (2^-54) relative.
template <class V> FBP_FN V scaled_normal_tail(V x) {
  if constexpr (is_float<V>) {
    const V n = horner(x, 0x1p-1f, 0x1.c0d078p-2f, 0x1.77440ap-3f, 0x1.4cde20p-5f, 0x1.0dc430p-8f);
    const V d = horner(x, 0x1p+0f, 0x1.acaa6cp+0f, 0x1.33d74ap+0f, 0x1.e0bdp-2f, 0x1.a136dp-4f,
                       0x1.52191cp-7f);
    return n / d;
  } else {
    const V n = horner(x, 0x1p-1, 0x1.a7e86ca1fd329p-1, 0x1.5bfa038cb4295p-1, 0x1.6df2a55122b5cp-2,
                       0x1.0e751b1c2c3f1p-3, 0x1.243a61f8a887ap-5, 0x1.d2e1068e78e5ep-8,
                       0x1.109b85fb8e3fap-10, 0x1.bf19a171a9fc9p-14, 0x1.d4464d389bae7p-18,
                       0x1.e194d8be3b4a9p-23);
    const V d = horner(x, 0x1p+0, 0x1.3a154b204f729p+1, 0x1.6897263180465p+1, 0x1.0032aebad7c72p+1,
                       0x1.f5d98437d8ba8p-1, 0x1.64b665026f564p-2, 0x1.78c9884c54200p-4,
                       0x1.28eeb1a3ace03p-6, 0x1.57f495b8c2386p-9, 0x1.18c49395e9b2bp-12,
                       0x1.257295c96b60ep-16, 0x1.2dc95213b65a5p-21);
    return n / d;
  }
}

template <class V> FBP_FN V infinity() {
  return from_bits(decltype(to_bits(V()))(is_float<V> ? 0x7f800000 : 0x7ff0000000000000));
}

// inside where x > low and x < inf, else: -inf at low, NaN below it, x at inf and NaN.
template <class V> FBP_FN V log_domain(V x, V low, V inside) {
  const V inf = infinity<V>();
  const V at_low = select(x == low, -inf, x);
  const V outside = select(x < low, inf - inf, at_low);
  return select((x > low) & (x < inf), inside, outside);
}

}  // namespace math

// e^x.
template <class V> FBP_FN V exp(V x) {
  using K = math::K<V>;
  const V y = max(V(-K::max_exp), min(V(K::max_exp), x));
  const auto e = math::exp_split(y);
  const V p = fma(e.r * e.r, math::exp_series(e.r), e.r);
  const auto negative = y < V(0);
  const V s = math::pow2(e.t + select(negative, V(K::shift), V(-K::shift)));
  return fma(s, p, s) * select(negative, V(K::down), V(K::up));
}

// e^x - 1, accurate near 0.
template <class V> FBP_FN V expm1(V x) {
  constexpr bool f = math::is_float<V>;  // the bounds: e^x overflows; e^x < ulp(1)/4
  const V y = max(V(f ? -20 : -40), min(V(f ? 89 : 710), x));
  const auto h = math::half_expm1<false>(y);
  const V half = h.hi + h.lo;
  return select(abs(x) < V(f ? 0x1p-26f : 0x1p-55), x, half + half);
}

// Natural logarithm; -inf at both zeros, NaN below.
template <class V> FBP_FN V log(V x) {
  using S = typename V::scalar;
  constexpr bool f = math::is_float<V>;
  const auto denormal = x < V(S(f ? 0x1p-126 : 0x1p-1022));
  const auto s = math::log_split(select(denormal, x * V(f ? 0x1p25 : 0x1p54), x));
  const V k = s.k - select(denormal, V(f ? 25 : 54), V(0));
  const auto sum = math::log_sum(k, s.f);
  return math::log_domain(x, V(0), sum.hi + math::log1p_rest(s.f, sum.lo));
}

// log(1 + x), accurate near 0; -inf at -1, NaN below.
template <class V> FBP_FN V log1p(V x) {
  using K = math::K<V>;
  const auto u = math::any_sum(V(1), x);
  const auto s = math::log_split(u.hi);
  // 1 + f = (u.hi + u.lo) / 2^k. The bound on k keeps 2^-k normal; u.lo is nothing long before.
  const V lost = u.lo * math::pow2(V(K::magic) - min(s.k, V(100)));
  const auto f = math::fast_sum(s.f, lost);
  const auto sum = math::log_sum(s.k, f.hi);
  const V y = sum.hi + math::log1p_rest(f.hi, sum.lo + fnma(f.hi, f.lo, f.lo));
  return math::log_domain(x, V(-1), copysign(y, x));
}

// With h = (e^-2|x| - 1)/2, -tanh|x| = h / (1 + h) =: q, and one Newton step, as 1/(1 + h) = 1 - q.
template <class V> FBP_FN V tanh(V x) {
  const V a = min(V(math::is_float<V> ? 10 : 20), abs(x));  // tanh rounds to 1
  const auto m = math::half_expm1<true>(a * V(-2));
  const auto h = math::fast_sum(m.hi, m.lo);
  const auto d = math::fast_sum(V(1), h.hi);
  const V q = h.hi / d.hi;
  const V missing = fnma(q, d.hi, h.hi) + fnma(q, d.lo + h.lo, h.lo);
  return copysign(fma(missing, V(1) - q, q), x);
}

// 1 / (1 + e^-x). With e = e^-|x|: 1/(1 + e), or e/(1 + e) for x < 0, corrected by its remainder.
template <class V> FBP_FN V sigmoid(V x) {
  using K = math::K<V>;
  const auto negative = x < V(0);
  const auto e = math::exp_negative(abs(x));
  const V s = e.scale * V(K::down);
  const auto m = math::fast_sum(V(1), e.p);  // e^-|x| = s m
  const V d = fma(s, m.hi, V(1));
  const V d_lost = fma(s, m.lo, fma(s, m.hi, V(1) - d));
  const V n = select(negative, m.hi, V(1)), n_lost = select(negative, m.lo, V(0));
  const V inverse = V(1) / d, q = n * inverse;
  const V y = fma(fnma(q, d, n) + fnma(q, d_lost, n_lost), inverse, q);
  return select(negative, (y * e.scale) * V(K::down), y);
}

// log(1 + e^x) = max(x, 0) + log1p(e), e = e^-|x|. For e > 1/2, 1 + e = 2 (1 + (e - 1)/2), exactly.
template <class V> FBP_FN V softplus(V x) {
  using K = math::K<V>;
  const auto n = math::exp_negative(abs(x));
  const auto m = math::fast_sum(V(1), n.p);
  const V e = (m.hi * n.scale) * V(K::down), e_lost = ((m.lo + n.lost) * n.scale) * V(K::down);
  const auto big = e > V(0.5f);
  const V f = select(big, fma(e, V(0.5f), V(-0.5f)), e);
  const V f_lost = select(big, V(0.5f) * e_lost, e_lost);
  const auto base = math::fast_sum(select(big, V(K::ln2_hi), V(0)), max(V(0), x));
  const auto sum = math::fast_sum(base.hi, f);
  const V ln2_lo = select(big, V(K::ln2_lo), V(0));
  const V low = (base.lo + sum.lo) + (ln2_lo + fnma(f, f_lost, f_lost));
  const V y = sum.hi + math::log1p_rest(f, low);
  return select(x > V(50), x, y);  // there e^-x < ulp(x)/2, and inf - inf is avoided
}

// The error function: x + x P(x^2 - 3/4) near 0, 1 - 2 Q(sqrt(2) |x|) beyond, Q the normal tail.
template <class V> FBP_FN V erf(V x) {
  using S = typename V::scalar;
  constexpr bool f = math::is_float<V>;
  const V a = min(V(f ? 4 : 6), abs(x));  // erf rounds to 1
  const V z = a * a, z_lost = fma(a, a, -z);
  const V w = z - V(0.75f);  // rounding errors of P grow with |w|: centred, both ends have as much
  V p;
  if constexpr (f)
    p = math::horner(w, -0x1.9a0bbp-4f, -0x1.f4eac4p-3f, 0x1.121992p-4f, -0x1.efd198p-7f,
                     0x1.7526acp-9f, -0x1.dd7a12p-12f, 0x1.0cb7f6p-14f, -0x1.0ae43cp-17f);
  else
    p = math::horner(w, -0x1.9a0bafec7a26ep-4, -0x1.f4eac5302d05dp-3, 0x1.12198a34afc8cp-4,
                     -0x1.efd13dd1a9d25p-7, 0x1.7530755dfe1ddp-9, -0x1.dd9dff98d5ba0p-12,
                     0x1.09046f510f63ap-14, -0x1.03381d41a4de2p-17, 0x1.c4f4957df6d3bp-21,
                     -0x1.65644b44897fbp-24, 0x1.00fc5d0c348aap-27, -0x1.535f0b5e18bb9p-31,
                     0x1.a1f3abae45237p-35, -0x1.e3e049f8cca67p-39);
  const auto e = math::exp_split(-z);
  const V s = math::pow2(e.t + V(1)), r = e.r - z_lost;
  const V twice = fma(s, fma(r * r, math::exp_series(r), r), s);  // 2 e^-(a^2)
  const V tail = math::scaled_normal_tail(a * V(S(f ? 0x1.6a09e6p+0 : 0x1.6a09e667f3bcdp+0)));
  return select(a < V(1.125f), fma(x, p, x), copysign(fnma(twice, tail, V(1)), x));
}

// The sigmoid and what it lacks to 1, each with full relative accuracy (about 3 ulp): for products
// such as x sigmoid(x), and derivatives.
template <class V> struct Logistic { V value, complement; };
template <class V> FBP_FN Logistic<V> logistic(V x) {
  const auto n = math::exp_negative(abs(x));
  const V e = fma(n.scale, n.p, n.scale) * V(math::K<V>::down);
  const V high = V(1) / (V(1) + e), low = e * high;
  const auto negative = x < V(0);
  return {select(negative, low, high), select(negative, high, low)};
}

// The normal distribution at x: cdf, relatively accurate in the lower tail too, and density.
template <class V> struct Normal { V cdf, density; };
template <class V> FBP_FN Normal<V> normal(V x) {
  using K = math::K<V>;
  using S = typename V::scalar;
  constexpr bool f = math::is_float<V>;
  const V a = min(V(f ? 14.5f : 39), abs(x));  // the density underflows to 0
  const V z = a * a, z_lost = fma(a, a, -z);
  const auto e = math::exp_split(z * V(-0.5f));
  const V r = fma(z_lost, V(-0.5f), e.r);
  const V p = fma(r * r, math::exp_series(r), r);
  const V s = math::pow2(e.t + V(K::shift));
  const V density = (fma(s, p, s) * V(S(f ? 0x1.988454p-2f : 0x1.9884533d43651p-2))) * V(K::down);
  const V t = math::scaled_normal_tail(a) * s;
  const V tail = fma(t, p, t) * V(K::down);
  V slope;  // (cdf - 1/2) / x near 0, where 1 - tail would cost accuracy
  if constexpr (f)
    slope = math::horner(z, 0x1.988454p-2f, -0x1.105824p-4f, 0x1.46c6p-7f, -0x1.35c1ccp-10f,
                         0x1.b252f8p-14f);
  else
    slope = math::horner(z, 0x1.9884533d4365p-2, -0x1.1058377e2ce7bp-4, 0x1.46d0429762204p-7,
                         -0x1.37403f6816103p-10, 0x1.e42b0b5b31fcep-14, -0x1.3ce8a83eea3a3p-17,
                         0x1.6579a827b66e7p-21, -0x1.602a2c5d21e6ep-25, 0x1.1712d3e9cceaep-29);
  const V outer = select(x < V(0), tail, V(1) - tail);
  return {select(a < V(0.6875f), fma(x, slope, V(0.5f)), outer), density};
}

}  // namespace fastbp
