// The activations: y = f(z) and dz = dy f'(z), written once for every instruction set and CUDA.
//
// To add one: a struct here, a row in FBP_ACTIVATIONS, and the same in the Python reference. The
// enum, kernels, bindings, validation, tests and benchmarks follow from the list.
//
// `saves` is what backward reads besides dy: nothing, the input z, or the output y, in which case z
// may be overwritten. NaN in z gives NaN in y; infinities give the limits of f and f'.
//
// Errors in ulp of the exact result, plus multiples of the machine epsilon (2^-23, 2^-52), held by
// tests/cpp/test_activations.cpp; those of f' include what saving the rounded y costs:
//               f                  f'
//   leaky_relu  0.5 ulp            exact, as all of identity and relu
//   sigmoid     1 ulp              2 ulp + eps/4
//   tanh        1.1 ulp            2 ulp + eps/2
//   softplus    1 ulp              2 ulp
//   elu         1.1 ulp            1.5 ulp + eps/4
//   gelu        2 ulp + eps/5      2 ulp + 3/4 eps
//   gelu_tanh   2 ulp + eps/5      2 ulp + 3/4 eps
//   silu        2 ulp              2 ulp + 3/4 eps
//   mish        3.5 ulp            2 ulp + 3/4 eps
// In the lower tails gelu keeps 7 (10) ulp down to where Phi(z) is denormal; gelu_tanh loses about
// 3 |2u| ulp there, for the rounding of u in e^2u.
#pragma once

#include <type_traits>

#include "ops/fbp_fn.h"
#include "ops/math.h"

namespace fastbp {

enum class Saves { None, Input, Output };

struct Identity {
  static constexpr const char* name = "identity";
  static constexpr Saves saves = Saves::None;
  static constexpr double default_param = 0;
  template <class V> FBP_FN static V forward(V z, V) { return z; }
  template <class V> FBP_FN static V backward(V, V dy, V) { return dy; }
};

// max(z, 0); f'(0) = 0.
struct Relu {
  static constexpr const char* name = "relu";
  static constexpr Saves saves = Saves::Output;
  static constexpr double default_param = 0;
  template <class V> FBP_FN static V forward(V z, V) { return max(V(0), z); }
  template <class V> FBP_FN static V backward(V y, V dy, V) { return select(y <= V(0), V(0), dy); }
};

// z, or slope z for z <= 0; slope > 0, so that y has the sign of z. f'(0) = slope.
struct LeakyRelu {
  static constexpr const char* name = "leaky_relu";
  static constexpr Saves saves = Saves::Output;
  static constexpr double default_param = 0.01;
  template <class V> FBP_FN static V forward(V z, V slope) {
    return select(z > V(0), z, z * slope);
  }
  template <class V> FBP_FN static V backward(V y, V dy, V slope) {
    return select(y > V(0), dy, dy * slope);
  }
};

// f' = y (1 - y).
struct Sigmoid {
  static constexpr const char* name = "sigmoid";
  static constexpr Saves saves = Saves::Output;
  static constexpr double default_param = 0;
  template <class V> FBP_FN static V forward(V z, V) { return sigmoid(z); }
  template <class V> FBP_FN static V backward(V y, V dy, V) { return dy * (y * (V(1) - y)); }
};

// f' = 1 - y^2, rounded once.
struct Tanh {
  static constexpr const char* name = "tanh";
  static constexpr Saves saves = Saves::Output;
  static constexpr double default_param = 0;
  template <class V> FBP_FN static V forward(V z, V) { return tanh(z); }
  template <class V> FBP_FN static V backward(V y, V dy, V) { return dy * fnma(y, y, V(1)); }
};

// log(1 + e^z); f' = sigmoid(z) = 1 - e^-y.
struct Softplus {
  static constexpr const char* name = "softplus";
  static constexpr Saves saves = Saves::Output;
  static constexpr double default_param = 0;
  template <class V> FBP_FN static V forward(V z, V) { return softplus(z); }
  template <class V> FBP_FN static V backward(V y, V dy, V) { return dy * -expm1(-y); }
};

// z, or alpha (e^z - 1) for z <= 0; alpha >= 0. f' = 1 or y + alpha; f'(0) = alpha.
struct Elu {
  static constexpr const char* name = "elu";
  static constexpr Saves saves = Saves::Output;
  static constexpr double default_param = 1;
  template <class V> FBP_FN static V forward(V z, V alpha) {
    return select(z > V(0), z, alpha * expm1(z));
  }
  template <class V> FBP_FN static V backward(V y, V dy, V alpha) {
    return dy * select(y > V(0), V(1), y + alpha);
  }
};

namespace math {

// Past these bounds the factors of z below are 0 or 1 exactly: keeps 0 * infinity out of products.
template <class V> FBP_FN V at_least(V z, typename V::scalar low) { return max(V(low), z); }
template <class V> FBP_FN V within(V z, typename V::scalar m) { return max(V(-m), min(V(m), z)); }

}  // namespace math

// z Phi(z), Phi the normal distribution; f' = Phi(z) + z Phi'(z).
struct Gelu {
  static constexpr const char* name = "gelu";
  static constexpr Saves saves = Saves::Input;
  static constexpr double default_param = 0;
  template <class V> FBP_FN static V forward(V z, V) {
    return math::at_least(z, -40) * normal(z).cdf;
  }
  template <class V> FBP_FN static V backward(V z, V dy, V) {
    const auto n = normal(z);
    return dy * fma(math::within(z, 40), n.density, n.cdf);
  }
};

// z (1 + tanh u)/2 = z sigmoid(2u), u = sqrt(2/pi) (z + 0.044715 z^3).
struct GeluTanh {
  static constexpr const char* name = "gelu_tanh";
  static constexpr Saves saves = Saves::Input;
  static constexpr double default_param = 0;
  template <class V> FBP_FN static V forward(V z, V) {
    return math::at_least(z, -24) * sigmoid(z * slope(z, 1));
  }
  template <class V> FBP_FN static V backward(V z, V dy, V) {
    const V x = math::within(z, 24);
    const auto s = logistic(x * slope(x, 1));
    return dy * fma(x * slope(x, 3), s.value * s.complement, s.value);
  }

 private:
  // 2u/z for times = 1, d(2u)/dz for times = 3.
  template <class V> FBP_FN static V slope(V z, int times) {
    using T = typename V::scalar;
    const T linear = T(1.5957691216057308);  // 2 sqrt(2/pi)
    const T cubic = T(0.07135481627260025);  // 0.044715 times that
    return fma(z * z, V(T(times) * cubic), V(linear));
  }
};

// z sigmoid(z); f' = s + z s (1 - s).
struct Silu {
  static constexpr const char* name = "silu";
  static constexpr Saves saves = Saves::Input;
  static constexpr double default_param = 0;
  template <class V> FBP_FN static V forward(V z, V) {
    return math::at_least(z, -math::K<V>::max_exp) * sigmoid(z);
  }
  template <class V> FBP_FN static V backward(V z, V dy, V) {
    const auto s = logistic(z);
    const V x = math::within(z, math::K<V>::max_exp);
    return dy * fma(x * s.value, s.complement, s.value);
  }
};

// z t, t = tanh(softplus(z)) = ((1 + E)^2 - 1) / ((1 + E)^2 + 1), E = e^z. In e = e^-|z|:
//   t = (1 + 2e) / (1 + 2e + 2e^2) for z >= 0, (e^2 + 2e) / (e^2 + 2e + 2) for z < 0;
//   f' = t + z t', t' = 4 (1 + e) e / denominator^2, times e more for z >= 0.
// All terms are positive: nothing cancels.
struct Mish {
  static constexpr const char* name = "mish";
  static constexpr Saves saves = Saves::Input;
  static constexpr double default_param = 0;
  template <class V> FBP_FN static V forward(V z, V) {
    const auto t = terms(z);
    return math::at_least(z, -math::K<V>::max_exp) * (t.numerator / t.denominator);
  }
  template <class V> FBP_FN static V backward(V z, V dy, V) {
    const auto t = terms(z);
    const V x = math::within(z, math::K<V>::max_exp);
    const V inverse = V(1) / t.denominator;
    const V e2 = select(z < V(0), t.e, t.e * t.e);
    const V slope = (V(4) * fma(t.e, e2, e2)) * (inverse * inverse);
    return dy * fma(x, slope, t.numerator * inverse);
  }

 private:
  template <class V> struct Terms { V e, numerator, denominator; };
  template <class V> FBP_FN static Terms<V> terms(V z) {
    const auto negative = z < V(0);
    const auto n = math::exp_negative(abs(z));
    const V e = fma(n.scale, n.p, n.scale) * V(math::K<V>::down);
    const V numerator = fma(e, V(2), select(negative, e * e, V(1)));
    return {e, numerator, numerator + select(negative, V(2), V(2) * (e * e))};
  }
};

#define FBP_ACTIVATIONS(X)                                                                         \
  X(Identity)                                                                                      \
  X(Relu) X(LeakyRelu) X(Sigmoid) X(Tanh) X(Softplus) X(Elu) X(Gelu) X(GeluTanh) X(Silu) X(Mish)

#define FBP_COUNT(name) +1
inline constexpr int kActivationCount = 0 FBP_ACTIVATIONS(FBP_COUNT);
#undef FBP_COUNT

// Where an activation stands in FBP_ACTIVATIONS.
template <class A> FBP_FN constexpr int activation_number() {
  int number = 0, found = -1;
#define FBP_FIND(B)                                                                                \
  if (std::is_same_v<A, B>) found = number;                                                        \
  ++number;
  FBP_ACTIVATIONS(FBP_FIND)
#undef FBP_FIND
  return found;
}

}  // namespace fastbp
