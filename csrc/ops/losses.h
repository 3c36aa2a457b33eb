// The losses, once: what a network's output y is worth beside the target t, and the gradient of
// that with respect to y.
//
// An elementwise loss has value(y, t, param) and gradient(y, t, param); the kernels sum, average
// and vectorise. A row loss works on whole rows of logits (kernels/cpu/loss.inl). Adding an
// elementwise loss: a struct here, an entry in FBP_LOSSES and its twin in
// python/fastbp/reference/losses.py.
#pragma once

#include "ops/fbp_fn.h"
#include "ops/math.h"

namespace fastbp {

// What the sum over a batch of `rows` x `cols` outputs is divided by.
enum class LossMean { over_elements, over_rows, none };

// Mean squared error: mean (y - t)^2.
struct Mse {
  static constexpr const char* name = "mse";
  static constexpr bool elementwise = true;
  static constexpr LossMean mean = LossMean::over_elements;
  static constexpr double default_param = 0;
  template <class V> FBP_FN static V value(V y, V t, V) {
    const V e = y - t;
    return e * e;
  }
  template <class V> FBP_FN static V gradient(V y, V t, V) {
    const V e = y - t;
    return e + e;
  }
};

// Half the sum of squares, sum (y - t)^2 / 2, over outputs and batch: the loss of the textbooks'
// hand calculations.
struct HalfSse {
  static constexpr const char* name = "half_sse";
  static constexpr bool elementwise = true;
  static constexpr LossMean mean = LossMean::none;
  static constexpr double default_param = 0;
  template <class V> FBP_FN static V value(V y, V t, V) {
    using T = typename V::scalar;
    const V e = y - t;
    return e * e * V(T(0.5));
  }
  template <class V> FBP_FN static V gradient(V y, V t, V) { return y - t; }
};

// Mean absolute error; the gradient at y == t is 0.
struct Mae {
  static constexpr const char* name = "mae";
  static constexpr bool elementwise = true;
  static constexpr LossMean mean = LossMean::over_elements;
  static constexpr double default_param = 0;
  template <class V> FBP_FN static V value(V y, V t, V) { return abs(y - t); }
  template <class V> FBP_FN static V gradient(V y, V t, V) {
    using T = typename V::scalar;
    const V e = y - t;
    // e itself, not 0, where e is zero or NaN: NaN goes on.
    return select(e == V(T(0)), e, select(is_nan(e), e, copysign(V(T(1)), e)));
  }
};

// Huber (1964): e^2 / 2 for |e| <= delta, delta (|e| - delta / 2) beyond.
struct Huber {
  static constexpr const char* name = "huber";
  static constexpr bool elementwise = true;
  static constexpr LossMean mean = LossMean::over_elements;
  static constexpr double default_param = 1;
  template <class V> FBP_FN static V value(V y, V t, V delta) {
    using T = typename V::scalar;
    const V e = abs(y - t);
    const V half(T(0.5));
    return select(e > delta, delta * (e - delta * half), e * e * half);
  }
  template <class V> FBP_FN static V gradient(V y, V t, V delta) {
    const V e = y - t;
    return select(abs(e) > delta, copysign(delta, e), e);
  }
};

// Binary cross-entropy of probabilities: -t log p - (1 - t) log(1 - p), with p kept off 0 and 1 by
// 1e-7 so that a saturated output has a finite loss and a gradient.
struct BinaryCrossEntropy {
  static constexpr const char* name = "binary_cross_entropy";
  static constexpr bool elementwise = true;
  static constexpr LossMean mean = LossMean::over_elements;
  static constexpr double default_param = 0;
  template <class V> FBP_FN static V clip(V y) {
    using T = typename V::scalar;
    const V low(T(1e-7)), high(T(1) - T(1e-7));
    return select(y < low, low, select(y > high, high, y));
  }
  template <class V> FBP_FN static V value(V y, V t, V) {
    using T = typename V::scalar;
    const V p = clip(y), one(T(1));
    return -(t * log(p) + (one - t) * log1p(-p));
  }
  template <class V> FBP_FN static V gradient(V y, V t, V) {
    using T = typename V::scalar;
    const V p = clip(y), one(T(1));
    return (p - t) / (p * (one - p));
  }
};

// Binary cross-entropy of logits: max(z, 0) - z t + log(1 + exp(-|z|)), which cannot overflow;
// gradient sigmoid(z) - t.
struct BinaryCrossEntropyWithLogits {
  static constexpr const char* name = "binary_cross_entropy_with_logits";
  static constexpr bool elementwise = true;
  static constexpr LossMean mean = LossMean::over_elements;
  static constexpr double default_param = 0;
  // softplus(z) = max(z, 0) + log(1 + exp(-|z|))
  template <class V> FBP_FN static V value(V z, V t, V) { return softplus(z) - z * t; }
  template <class V> FBP_FN static V gradient(V z, V t, V) { return sigmoid(z) - t; }
};

// Cross-entropy of softmax(logits) with class numbers or rows of weights t: logsumexp(z) sum(t) -
// sum(t z).
struct SoftmaxCrossEntropy {
  static constexpr const char* name = "softmax_cross_entropy";
  static constexpr bool elementwise = false;
  static constexpr LossMean mean = LossMean::over_rows;
  static constexpr double default_param = 0;
};

#define FBP_LOSSES(X)                                                                              \
  X(Mse)                                                                                           \
  X(HalfSse)                                                                                       \
  X(Mae) X(Huber) X(BinaryCrossEntropy) X(BinaryCrossEntropyWithLogits) X(SoftmaxCrossEntropy)

#define FBP_COUNT(name) +1
inline constexpr int kLossCount = 0 FBP_LOSSES(FBP_COUNT);
#undef FBP_COUNT

}  // namespace fastbp
