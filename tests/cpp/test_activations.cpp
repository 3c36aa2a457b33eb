// build: per-isa
// Every activation and its derivative against the textbook formula in a wider type, within the
// bounds that ops/activations.h states; limits, NaN, and the same bits in vectors and single lanes.

#include <string>

#include "accuracy.h"
#include "ops/activations.h"

using namespace std::string_literals;
using fastbp::Saves;

namespace {

// f and f' as the textbook has them, but for rearrangements that avoid cancellation and overflow.
template <class R> R logistic(R z) {
  return z < 0 ? std::exp(z) / (1 + std::exp(z)) : 1 / (1 + std::exp(-z));
}
template <class R> R normal_cdf(R z) { return std::erfc(-z / std::sqrt(R(2))) / 2; }
template <class R> R normal_density(R z) {
  return std::exp(-z * z / 2) / std::sqrt(8 * std::atan(R(1)));
}
template <class R> R twice_u(R z) {
  return std::sqrt(2 / std::atan(R(1))) * (z + R(0.044715L) * z * z * z);
}

template <class R> R forward(const std::string& name, R z, R param) {
  if (name == "identity") return z;
  if (name == "relu") return z > 0 ? z : 0;
  if (name == "leaky_relu") return z > 0 ? z : param * z;
  if (name == "sigmoid") return logistic(z);
  if (name == "tanh") return std::tanh(z);
  if (name == "softplus") return std::max(z, R(0)) + std::log1p(std::exp(-std::abs(z)));
  if (name == "elu") return z > 0 ? z : param * std::expm1(z);
  if (name == "gelu") return z * normal_cdf(z);
  if (name == "gelu_tanh") return z * logistic(twice_u(z));
  if (name == "silu") return z * logistic(z);
  const R e = std::exp(-std::abs(z));
  return z < 0 ? z * e * (e + 2) / (e * (e + 2) + 2) : z * (1 + 2 * e) / (1 + 2 * e + 2 * e * e);
}

template <class R> R derivative(const std::string& name, R z, R param) {
  if (name == "identity") return 1;
  if (name == "relu") return z > 0 ? 1 : 0;
  if (name == "leaky_relu") return z > 0 ? 1 : param;
  if (name == "sigmoid") return logistic(z) * logistic(-z);
  if (name == "tanh") return 4 * logistic(2 * z) * logistic(-2 * z);
  if (name == "softplus") return logistic(z);
  if (name == "elu") return z > 0 ? 1 : param * std::exp(z);
  if (name == "gelu") return normal_cdf(z) + z * normal_density(z);
  if (name == "silu") return logistic(z) * (1 + z * logistic(-z));
  if (name == "gelu_tanh") {
    const R u = twice_u(z), slope = std::sqrt(2 / std::atan(R(1))) * (1 + 3 * R(0.044715L) * z * z);
    return logistic(u) * (1 + z * slope * logistic(-u));
  }
  const R e = std::exp(z), t = forward("mish"s, z, param) / z;
  return z == 0 ? R(0.6L) : t + z * (1 - t) * (1 + t) * e / (1 + e);
}

// |error| <= ulp units in the last place of the exact result + absolute * machine epsilon.
struct Bounds {
  const char* name;
  double ulp, absolute;
};
constexpr Bounds kForward[] = {
    {"identity", 0, 0},    {"relu", 0, 0},     {"leaky_relu", 0.5, 0}, {"sigmoid", 1, 0},
    {"tanh", 1.1, 0},      {"softplus", 1, 0}, {"elu", 1.1, 0},        {"gelu", 2, 0.2},
    {"gelu_tanh", 2, 0.2}, {"silu", 2, 0},     {"mish", 3.5, 0},
};
constexpr Bounds kDerivative[] = {
    {"identity", 0, 0},     {"relu", 0, 0},     {"leaky_relu", 0, 0}, {"sigmoid", 2, 0.25},
    {"tanh", 2, 0.5},       {"softplus", 2, 0}, {"elu", 1.5, 0.25},   {"gelu", 2, 0.75},
    {"gelu_tanh", 2, 0.75}, {"silu", 2, 0.75},  {"mish", 2, 0.75},
};

inline const Bounds& bounds_of(const Bounds (&table)[11], const char* name) {
  for (const Bounds& bounds : table)
    if (bounds.name == std::string(name)) return bounds;
  FBP_EXPECT(!"an activation without bounds");
  return table[0];
}

template <class R> using Formula = R (*)(const std::string& name, R z, R param);

// By how much the allowance is used up, at worst, for |z| <= 1000; 1 is all of it.
template <class T>
void check_accuracy(const char* what, const Bounds& bounds, const std::vector<T>& zs,
                    const std::vector<T>& ys, Formula<Wide<T>> formula, T param) {
  using limits = std::numeric_limits<T>;
  const std::string name = bounds.name;
  Worst<T> worst;
  for (std::size_t i = 0; i < zs.size(); ++i) {
    const Wide<T> z = zs[i];
    if (!(std::abs(z) <= 1000)) continue;
    const Wide<T> exact = formula(name, z, param);
    int exponent = 0;
    std::frexp(exact, &exponent);
    const Wide<T> ulp =
        std::ldexp(Wide<T>(1), std::max(exponent, limits::min_exponent) - limits::digits);
    // 1000 denorm_min: a factor sigmoid(z) below the least normal number has lost bits, times |z|.
    const Wide<T> allowed = bounds.ulp * ulp + bounds.absolute * limits::epsilon() +
                            (bounds.ulp > 1.1 ? 1000 * Wide<T>(limits::denorm_min()) : 0);
    const Wide<T> error = std::abs(Wide<T>(ys[i]) - exact);
    worst.see(zs[i], error == 0 ? 0 : static_cast<double>(error / allowed));
  }
  std::printf("%-10s %-10s %-6s uses %.2f of %.1f ulp + %.1f eps at %.9g\n", bounds.name, what,
              sizeof(T) == 4 ? "float" : "double", worst.error, bounds.ulp, bounds.absolute,
              static_cast<double>(worst.x));
  FBP_EXPECT(worst.error <= 1);
}

// Limits at both infinities, finite far out, NaN in, NaN out.
template <class A, class T> void check_ends(T param) {
  using limits = std::numeric_limits<T>;
  using V = Lane<T>;
  const std::string name = A::name;
  const T inf = limits::infinity(), nan = limits::quiet_NaN();
  const auto f = [&](T z) { return A::forward(V(z), V(param)).v; };
  const auto df = [&](T z) {
    const V saved = A::saves == Saves::Output ? A::forward(V(z), V(param)) : V(z);
    return A::backward(saved, V(1), V(param)).v;
  };
  const bool bounded = name == "sigmoid" || name == "tanh";
  const bool linear = name == "identity" || name == "leaky_relu";
  const T low = linear ? -inf : name == "tanh" ? T(-1) : name == "elu" ? -param : T(0);
  FBP_EXPECT(f(inf) == (bounded ? 1 : inf));
  FBP_EXPECT(f(-inf) == low);
  FBP_EXPECT(std::isnan(f(nan)));
  FBP_EXPECT(f(T(1e4)) == (bounded ? 1 : T(1e4)));
  FBP_EXPECT(linear ? f(T(-1e4)) < 0 && std::isfinite(f(T(-1e4))) : f(T(-1e4)) == low);
  for (T z : {T(1e4), limits::max(), inf}) {
    FBP_EXPECT(df(z) == (bounded ? 0 : 1));
    FBP_EXPECT(df(-z) == (linear ? f(T(-1)) / T(-1) : T(0)));
  }
  if (A::saves != Saves::None && name != "relu" && name != "leaky_relu")
    FBP_EXPECT(std::isnan(df(nan)));
  const bool keeps_zero = name != "sigmoid" && name != "softplus";
  if (keeps_zero) FBP_EXPECT(f(T(0)) == 0 && f(-T(0)) == 0);
}

template <class A, class T> void test_activation() {
  const T param = static_cast<T>(A::default_param);
  const std::vector<T> zs = sweep<T>(30000, 150000);
  const auto f = [=](auto z) { return A::forward(z, decltype(z)(param)); };
  const auto df = [=](auto z) {
    using V = decltype(z);
    return A::backward(A::saves == Saves::Output ? f(z) : z, V(1), V(param));
  };
  const std::vector<T> ys = evaluate(zs, f), slopes = evaluate(zs, df);
  if constexpr (kMeasures) {
    check_accuracy<T>("forward", bounds_of(kForward, A::name), zs, ys, forward, param);
    check_accuracy<T>("derivative", bounds_of(kDerivative, A::name), zs, slopes, derivative, param);
  }
  check_ends<A>(param);
  const auto scaled = [=](auto z) {
    return A::backward(z, decltype(z)(T(-3)), decltype(z)(param));
  };
  FBP_EXPECT(scaled(Lane<T>(T(0.5))).v ==
             T(-3) * A::backward(Lane<T>(T(0.5)), Lane<T>(1), Lane<T>(param)).v);
}

}  // namespace

int main() {
#define FBP_TEST(Activation)                                                                       \
  test_activation<fastbp::Activation, float>();                                                    \
  test_activation<fastbp::Activation, double>();
  FBP_ACTIVATIONS(FBP_TEST)
  return fbp_isa_result();
}
