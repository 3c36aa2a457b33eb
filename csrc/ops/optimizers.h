// The optimizers, once. Formulas are PyTorch's (2.x documentation of torch.optim), per element of
// the parameters: w parameter, g gradient, s[] the optimizer's slots, h the step's
// hyper-parameters.
//
// prepare() turns the user's hyper-parameters and the powers of step t = 1, 2, ... into h, in
// double; update() is the kernel. weight_decay adds weight_decay * w to g, except in AdamW, which
// shrinks w itself. Adding an optimizer: a struct here, an entry in FBP_OPTIMIZERS, its twin in
// python/fastbp/reference/optimizers.py and its dataclass in python/fastbp/optimizers.py.
#pragma once

#include <cstdint>

#include "ops/fbp_fn.h"

namespace fastbp {

// A user's hyper-parameters; each optimizer reads the ones its `hyper` list names.
struct Hyper {
  double learning_rate = 0;
  double momentum = 0;
  double rho = 0;
  double beta_1 = 0;
  double beta_2 = 0;
  double epsilon = 0;
  double weight_decay = 0;
};

// beta_1^t and beta_2^t of step t, as running products: multiplied once a step, and rounded alike
// everywhere, which the C library's pow does not promise. Below 2^-60 a power counts as 0, for 1 -
// beta^t is then 1 in float64.
struct BetaPowers {
  std::int64_t t = 0;
  double beta_1 = 0, beta_2 = 0;  // the bases
  double power_1 = 1, power_2 = 1;

  // Goes on to step `target`; from the start where it is an earlier one or the bases are new.
  FBP_FN void advance(const Hyper& u, std::int64_t target) {
    if (target < t || u.beta_1 != beta_1 || u.beta_2 != beta_2)
      *this = {0, u.beta_1, u.beta_2, 1, 1};
    for (; t < target && (power_1 != 0 || power_2 != 0); ++t) {
      power_1 = next(power_1, beta_1);
      power_2 = next(power_2, beta_2);
    }
    t = target;
  }
  FBP_FN static double next(double power, double beta) {
    return power * beta < 0x1p-60 ? 0 : power * beta;
  }
};

// w -= lr g
struct Sgd {
  static constexpr const char* name = "sgd";
  static constexpr const char* hyper = "learning_rate weight_decay";
  static constexpr int slots = 0;
  FBP_FN static void prepare(const Hyper& u, const BetaPowers&, double* h) {
    h[0] = u.learning_rate;
    h[1] = u.weight_decay;
  }
  template <class V, class T> FBP_FN static V update(V w, V g, V*, const T* h) {
    g = fma(V(h[1]), w, g);
    return fnma(V(h[0]), g, w);
  }
};

// s = momentum s + g;  w -= lr s
struct Momentum {
  static constexpr const char* name = "momentum";
  static constexpr const char* hyper = "learning_rate momentum weight_decay";
  static constexpr int slots = 1;
  FBP_FN static void prepare(const Hyper& u, const BetaPowers&, double* h) {
    h[0] = u.learning_rate;
    h[1] = u.weight_decay;
    h[2] = u.momentum;
  }
  template <class V, class T> FBP_FN static V update(V w, V g, V* s, const T* h) {
    g = fma(V(h[1]), w, g);
    s[0] = fma(V(h[2]), s[0], g);
    return fnma(V(h[0]), s[0], w);
  }
};

// s = momentum s + g;  w -= lr (g + momentum s)
struct Nesterov {
  static constexpr const char* name = "nesterov";
  static constexpr const char* hyper = "learning_rate momentum weight_decay";
  static constexpr int slots = 1;
  FBP_FN static void prepare(const Hyper& u, const BetaPowers& p, double* h) {
    Momentum::prepare(u, p, h);
  }
  template <class V, class T> FBP_FN static V update(V w, V g, V* s, const T* h) {
    g = fma(V(h[1]), w, g);
    s[0] = fma(V(h[2]), s[0], g);
    return fnma(V(h[0]), fma(V(h[2]), s[0], g), w);
  }
};

// v = rho v + (1 - rho) g^2;  w -= lr g / (sqrt(v) + epsilon)
struct RmsProp {
  static constexpr const char* name = "rmsprop";
  static constexpr const char* hyper = "learning_rate rho epsilon weight_decay";
  static constexpr int slots = 1;
  FBP_FN static void prepare(const Hyper& u, const BetaPowers&, double* h) {
    h[0] = u.learning_rate;
    h[1] = u.weight_decay;
    h[2] = u.rho;
    h[3] = 1 - u.rho;
    h[4] = u.epsilon;
  }
  template <class V, class T> FBP_FN static V update(V w, V g, V* s, const T* h) {
    g = fma(V(h[1]), w, g);
    s[0] = fma(V(h[3]) * g, g, V(h[2]) * s[0]);
    return w - V(h[0]) * g / (sqrt(s[0]) + V(h[4]));
  }
};

// v += g^2;  w -= lr g / (sqrt(v) + epsilon)   (Duchi, Hazan and Singer 2011)
struct Adagrad {
  static constexpr const char* name = "adagrad";
  static constexpr const char* hyper = "learning_rate epsilon weight_decay";
  static constexpr int slots = 1;
  FBP_FN static void prepare(const Hyper& u, const BetaPowers&, double* h) {
    h[0] = u.learning_rate;
    h[1] = u.weight_decay;
    h[2] = u.epsilon;
  }
  template <class V, class T> FBP_FN static V update(V w, V g, V* s, const T* h) {
    g = fma(V(h[1]), w, g);
    s[0] = fma(g, g, s[0]);
    return w - V(h[0]) * g / (sqrt(s[0]) + V(h[2]));
  }
};

// m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;  w -= lr / (1 - b1^t) m / (sqrt(v / (1 - b2^t))
// + epsilon) (Kingma and Ba 2014). The root of the bias correction is taken once a step: sqrt(v) /
// sqrt(1 - b2^t).
struct Adam {
  static constexpr const char* name = "adam";
  static constexpr const char* hyper = "learning_rate beta_1 beta_2 epsilon weight_decay";
  static constexpr int slots = 2;
  FBP_FN static void prepare(const Hyper& u, const BetaPowers& p, double* h) {
    h[0] = u.learning_rate / (1 - p.power_1);
    h[1] = u.weight_decay;
    h[2] = u.beta_1;
    h[3] = 1 - u.beta_1;
    h[4] = u.beta_2;
    h[5] = 1 - u.beta_2;
    h[6] = 1 / __builtin_sqrt(1 - p.power_2);
    h[7] = u.epsilon;
  }
  template <class V, class T> FBP_FN static V update(V w, V g, V* s, const T* h) {
    return step(w, fma(V(h[1]), w, g), s, h);
  }
  template <class V, class T> FBP_FN static V step(V w, V g, V* s, const T* h) {
    s[0] = fma(V(h[3]), g, V(h[2]) * s[0]);
    s[1] = fma(V(h[5]) * g, g, V(h[4]) * s[1]);
    return w - V(h[0]) * s[0] / fma(sqrt(s[1]), V(h[6]), V(h[7]));
  }
};

// w -= lr weight_decay w, then Adam   (Loshchilov and Hutter 2017)
struct AdamW {
  static constexpr const char* name = "adamw";
  static constexpr const char* hyper = Adam::hyper;
  static constexpr int slots = 2;
  FBP_FN static void prepare(const Hyper& u, const BetaPowers& p, double* h) {
    Adam::prepare(u, p, h);
    h[1] = u.learning_rate * u.weight_decay;
  }
  template <class V, class T> FBP_FN static V update(V w, V g, V* s, const T* h) {
    return Adam::step(fnma(V(h[1]), w, w), g, s, h);
  }
};

#define FBP_OPTIMIZERS(X) X(Sgd) X(Momentum) X(Nesterov) X(RmsProp) X(Adagrad) X(Adam) X(AdamW)

#define FBP_COUNT(name) +1
inline constexpr int kOptimizerCount = 0 FBP_OPTIMIZERS(FBP_COUNT);
#undef FBP_COUNT

// Slots that the optimizer of that index uses.
inline int optimizer_slots(int optimizer) {
#define FBP_SLOTS(O) O::slots,
  constexpr int slots[] = {FBP_OPTIMIZERS(FBP_SLOTS)};
#undef FBP_SLOTS
  return slots[optimizer];
}

}  // namespace fastbp
