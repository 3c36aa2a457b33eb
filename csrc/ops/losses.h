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

// What a loss is unless it says otherwise.
struct LossDefaults {
  static constexpr bool elementwise = true;
  static constexpr LossMean mean = LossMean::over_elements;
  // The loss's one number: its name, "" where it has none; its usual value; it lies above 0, or may
  // be 0 where that is the usual value, and below param_high.
  static constexpr const char* parameter = "";
  static constexpr double default_param = 0;
  static constexpr double param_high = __builtin_inf();
  // Targets, all finite, lie between these.
  static constexpr double target_low = -__DBL_MAX__;
  static constexpr double target_high = __DBL_MAX__;
  // Outputs above it answer yes, targets above 1/2 too; NaN where outputs are no such answers.
  static constexpr double threshold = __builtin_nan("");
};

// Mean squared error: mean (y - t)^2.
struct Mse : LossDefaults {
  static constexpr const char* name = "mse";
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
struct HalfSse : LossDefaults {
  static constexpr const char* name = "half_sse";
  static constexpr LossMean mean = LossMean::none;
  template <class V> FBP_FN static V value(V y, V t, V) {
    using T = typename V::scalar;
    const V e = y - t;
    return e * e * V(T(0.5));
  }
  template <class V> FBP_FN static V gradient(V y, V t, V) { return y - t; }
};

// Mean absolute error; the gradient at y == t is 0.
struct Mae : LossDefaults {
  static constexpr const char* name = "mae";
  template <class V> FBP_FN static V value(V y, V t, V) { return abs(y - t); }
  template <class V> FBP_FN static V gradient(V y, V t, V) {
    using T = typename V::scalar;
    const V e = y - t;
    // e itself, not 0, where e is zero or NaN: NaN goes on.
    return select(e == V(T(0)), e, select(is_nan(e), e, copysign(V(T(1)), e)));
  }
};

// Huber (1964): e^2 / 2 for |e| <= delta, delta (|e| - delta / 2) beyond.
struct Huber : LossDefaults {
  static constexpr const char* name = "huber";
  static constexpr const char* parameter = "delta";
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

// Quantile or pinball loss (Koenker and Bassett 1978): q (t - y) where the output is too small, (1 -
// q)(y - t) where it is too large; the gradient at y == t is 0. Least for the q-quantile of t.
struct Quantile : LossDefaults {
  static constexpr const char* name = "quantile";
  static constexpr const char* parameter = "quantile";
  static constexpr double default_param = 0.5;
  static constexpr double param_high = 1;
  template <class V> FBP_FN static V value(V y, V t, V q) {
    using T = typename V::scalar;
    const V e = y - t;
    return select(e < V(T(0)), -q, V(T(1)) - q) * e;  // of infinite e too
  }
  template <class V> FBP_FN static V gradient(V y, V t, V q) {
    using T = typename V::scalar;
    const V e = y - t, zero(T(0));
    return select(e < zero, -q, select(e > zero, V(T(1)) - q, e));
  }
};

// Negative log-likelihood of counts t under Poisson's law, without log t!: y - t log y of rates y,
// which are kept off 0 by 1e-7.
struct Poisson : LossDefaults {
  static constexpr const char* name = "poisson";
  static constexpr double target_low = 0;
  template <class V> FBP_FN static V clip(V y) {
    const V low(typename V::scalar(1e-7));
    return select(y < low, low, y);
  }
  template <class V> FBP_FN static V value(V y, V t, V) {
    const V rate = clip(y);
    return fnma(t, log(rate), rate);
  }
  template <class V> FBP_FN static V gradient(V y, V t, V) {
    return V(typename V::scalar(1)) - t / clip(y);
  }
};

// The same of the rates' logarithms: exp(z) - t z.
struct PoissonWithLogRate : LossDefaults {
  static constexpr const char* name = "poisson_with_log_rate";
  static constexpr double target_low = 0;
  template <class V> FBP_FN static V value(V z, V t, V) { return fnma(t, z, exp(z)); }
  template <class V> FBP_FN static V gradient(V z, V t, V) { return exp(z) - t; }
};

// max(0, 1 - s y) with s = 1 for targets above 1/2 and -1 for the others; the gradient at the kink
// is 0.
struct Hinge : LossDefaults {
  static constexpr const char* name = "hinge";
  static constexpr double target_low = -1;
  static constexpr double target_high = 1;
  static constexpr double threshold = 0;
  template <class V> FBP_FN static V sign(V t) {
    using T = typename V::scalar;
    return select(t > V(T(0.5)), V(T(1)), V(T(-1)));
  }
  // The second argument of max comes out where one is NaN.
  template <class V> FBP_FN static V value(V y, V t, V) {
    using T = typename V::scalar;
    return max(V(T(0)), fnma(sign(t), y, V(T(1))));
  }
  template <class V> FBP_FN static V gradient(V y, V t, V) {
    using T = typename V::scalar;
    const V s = sign(t), margin = fnma(s, y, V(T(1)));
    return select(is_nan(margin), margin, select(margin > V(T(0)), -s, V(T(0))));
  }
};

// The hinge's square: smooth at the kink.
struct SquaredHinge : LossDefaults {
  static constexpr const char* name = "squared_hinge";
  static constexpr double target_low = -1;
  static constexpr double target_high = 1;
  static constexpr double threshold = 0;
  template <class V> FBP_FN static V value(V y, V t, V param) {
    const V margin = Hinge::value(y, t, param);
    return margin * margin;
  }
  template <class V> FBP_FN static V gradient(V y, V t, V param) {
    return V(typename V::scalar(-2)) * Hinge::sign(t) * Hinge::value(y, t, param);
  }
};

// A target, with a share of it given to yes and no alike.
template <class V> FBP_FN V smoothed(V t, V smoothing) {
  return fma(smoothing, V(typename V::scalar(0.5)) - t, t);
}

// Binary cross-entropy of probabilities: -t log p - (1 - t) log(1 - p), with p kept off 0 and 1 by
// 1e-7 so that a saturated output has a finite loss and a gradient.
struct BinaryCrossEntropy : LossDefaults {
  static constexpr const char* name = "binary_cross_entropy";
  static constexpr const char* parameter = "label_smoothing";
  static constexpr double param_high = 1;
  static constexpr double target_low = 0;
  static constexpr double target_high = 1;
  static constexpr double threshold = 0.5;
  template <class V> FBP_FN static V clip(V y) {
    using T = typename V::scalar;
    const V low(T(1e-7)), high(T(1) - T(1e-7));
    return select(y < low, low, select(y > high, high, y));
  }
  template <class V> FBP_FN static V value(V y, V target, V smoothing) {
    using T = typename V::scalar;
    const V p = clip(y), t = smoothed(target, smoothing), one(T(1));
    return -(t * log(p) + (one - t) * log1p(-p));
  }
  template <class V> FBP_FN static V gradient(V y, V t, V smoothing) {
    using T = typename V::scalar;
    const V p = clip(y), one(T(1));
    return (p - smoothed(t, smoothing)) / (p * (one - p));
  }
};

// Binary cross-entropy of logits: max(z, 0) - z t + log(1 + exp(-|z|)), which cannot overflow;
// gradient sigmoid(z) - t.
struct BinaryCrossEntropyWithLogits : LossDefaults {
  static constexpr const char* name = "binary_cross_entropy_with_logits";
  static constexpr const char* parameter = "label_smoothing";
  static constexpr double param_high = 1;
  static constexpr double target_low = 0;
  static constexpr double target_high = 1;
  static constexpr double threshold = 0;
  // softplus(z) = max(z, 0) + log(1 + exp(-|z|))
  template <class V> FBP_FN static V value(V z, V t, V smoothing) {
    return softplus(z) - z * smoothed(t, smoothing);
  }
  template <class V> FBP_FN static V gradient(V z, V t, V smoothing) {
    return sigmoid(z) - smoothed(t, smoothing);
  }
};

// Cross-entropy of softmax(logits) with class numbers or rows of weights t: logsumexp(z) sum(t) -
// sum(t z). With label smoothing s, of K classes, t becomes (1 - s) t + s / K.
struct SoftmaxCrossEntropy : LossDefaults {
  static constexpr const char* name = "softmax_cross_entropy";
  static constexpr const char* parameter = "label_smoothing";
  static constexpr double param_high = 1;
  static constexpr double target_low = 0;
  static constexpr bool elementwise = false;
  static constexpr LossMean mean = LossMean::over_rows;
};

#define FBP_LOSSES(X)                                                                              \
  X(Mse)                                                                                           \
  X(HalfSse)                                                                                       \
  X(Mae)                                                                                           \
  X(Huber)                                                                                         \
  X(Quantile)                                                                                      \
  X(Poisson)                                                                                       \
  X(PoissonWithLogRate)                                                                            \
  X(Hinge)                                                                                         \
  X(SquaredHinge) X(BinaryCrossEntropy) X(BinaryCrossEntropyWithLogits) X(SoftmaxCrossEntropy)

#define FBP_COUNT(name) +1
inline constexpr int kLossCount = 0 FBP_LOSSES(FBP_COUNT);
#undef FBP_COUNT

}  // namespace fastbp
