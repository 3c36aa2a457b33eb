// build: per-isa
// The vector maths: largest error over a sweep within the bounds that ops/math.h states, special
// values as libm's, the same bits in vectors and single lanes, and nothing lost when denormals are
// flushed. `--exhaustive` measures all 2^32 floats instead, `--exhaustive 17` every 17th run of 16.

#include <cstdlib>

#include "accuracy.h"
#include "backend/denormals.h"
#include "ops/math.h"
#include "ops/vector_functions.h"

// Name, bound in ulp for float and for double: the table of ops/math.h, rounded up.
#define FBP_BOUNDS(X)                                                                              \
  X(exp, 1.0, 1.0)                                                                                 \
  X(expm1, 1.0, 1.1)                                                                               \
  X(log, 1.0, 1.0)                                                                                 \
  X(log1p, 1.0, 1.0)                                                                               \
  X(tanh, 1.0, 1.1)                                                                                \
  X(sigmoid, 1.0, 1.1)                                                                             \
  X(softplus, 1.0, 1.1)                                                                            \
  X(erf, 1.0, 1.1)

namespace reference {

template <class R> R exp(R x) { return std::exp(x); }
template <class R> R expm1(R x) { return std::expm1(x); }
template <class R> R log(R x) { return std::log(x); }
template <class R> R log1p(R x) { return std::log1p(x); }
template <class R> R tanh(R x) { return std::tanh(x); }
template <class R> R erf(R x) { return std::erf(x); }
template <class R> R sigmoid(R x) {
  return x < 0 ? std::exp(x) / (1 + std::exp(x)) : 1 / (1 + std::exp(-x));
}
template <class R> R softplus(R x) {
  if (std::isinf(x)) return x > 0 ? x : 0;
  return (x > 0 ? x : R(0)) + std::log1p(std::exp(-std::abs(x)));
}

}  // namespace reference

template <class T> constexpr std::size_t kPatterns = sizeof(T) == 4 ? 400000 : 60000;
template <class T> constexpr std::size_t kOrdinary = sizeof(T) == 4 ? 50000 : 100000;

// f must be within `bound` ulp of `want`; with denormals flushed, within one more where neither x
// nor the result is near the denormals.
template <class T, class F, class Want>
void test_function(const char* name, double bound, F f, Want want) {
  const std::vector<T> xs = sweep<T>(kPatterns<T>, kOrdinary<T>);
  const std::vector<T> ys = evaluate(xs, f);
  std::vector<T> flushed(xs.size());
  {
    const fastbp::FpControlScope flush(fastbp::kFlushDenormals);
    using V = isa::Vec<T>;
    for (std::size_t i = 0; i < xs.size(); i += V::lanes) f(V::load(&xs[i])).store(&flushed[i]);
  }
  for (const T y : flushed) fbp_hash.add(y);
  if constexpr (kMeasures) {
    Worst<T> worst, worst_flushed;
    const T small = 4 * std::numeric_limits<T>::min();
    for (std::size_t i = 0; i < xs.size(); ++i) {
      const Wide<T> expected = want(Wide<T>(xs[i]));
      worst.see(xs[i], ulp_error(ys[i], expected));
      if (!(std::abs(xs[i]) < small) && !(std::abs(expected) < small))
        worst_flushed.see(xs[i], ulp_error(flushed[i], expected));
    }
    std::printf("%-9s %-6s %.3f ulp at %.17g\n", name, sizeof(T) == 4 ? "float" : "double",
                worst.error, static_cast<double>(worst.x));
    FBP_EXPECT(worst.error <= bound);
    FBP_EXPECT(worst_flushed.error <= bound + 1);
  }
  const T inf = std::numeric_limits<T>::infinity();
  for (T x : {T(0), -T(0), T(1), T(-1), inf, -inf, std::numeric_limits<T>::quiet_NaN()}) {
    const T expected = static_cast<T>(want(Wide<T>(x)));
    const bool exact = expected == 0 || std::isinf(expected) || std::isnan(expected);
    if (exact) FBP_EXPECT(same(f(Lane<T>(x)).v, expected));
  }
}

// Every float, or one run of 16 neighbours in `step`. All these functions increase; `reversed`
// counts the neighbours whose results do not.
template <class F, class Want> void measure_all(const char* name, F f, Want want, unsigned step) {
  using V = isa::Vec<float>;
  Worst<float> worst;
  long above_half = 0, reversed = 0;
  float x[V::lanes], y[V::lanes];
  for (std::uint64_t first = 0; first < (std::uint64_t{1} << 32); first += step * V::lanes) {
    for (int i = 0; i < V::lanes; ++i)
      x[i] = value_of<float>(static_cast<std::uint32_t>(first + unsigned(i)));
    f(V::load(x)).store(y);
    for (int i = 0; i < V::lanes; ++i) {
      const double error = ulp_error(y[i], want(double(x[i])));
      worst.see(x[i], error);
      above_half += error > 0.5;
      if (i > 0) reversed += x[i] < 0 ? y[i] > y[i - 1] : y[i] < y[i - 1];
    }
  }
  std::printf("%-9s %.4f ulp at %a, %ld above half, %ld reversed\n", name, worst.error,
              double(worst.x), above_half, reversed);
  std::fflush(stdout);
}

int main(int count, char** arguments) {
  const bool exhaustive = count > 1 && std::strcmp(arguments[1], "--exhaustive") == 0;
  const unsigned step = count > 2 ? static_cast<unsigned>(std::atoi(arguments[2])) : 1;
#define FBP_TEST(name, float_bound, double_bound)                                                  \
  {                                                                                                \
    const auto f = [](auto x) { return fastbp::name(x); };                                         \
    const auto want = [](auto x) { return reference::name(x); };                                   \
    if (exhaustive) {                                                                              \
      measure_all(#name, f, want, step);                                                           \
    } else {                                                                                       \
      test_function<float>(#name, float_bound, f, want);                                           \
      test_function<double>(#name, double_bound, f, want);                                         \
    }                                                                                              \
  }
  FBP_BOUNDS(FBP_TEST)
#define FBP_COUNT_BOUND(name, float_bound, double_bound) +1
  FBP_EXPECT((0 FBP_BOUNDS(FBP_COUNT_BOUND)) == fastbp::kVectorFunctionCount);
  return fbp_isa_result();
}
