// How the tests of the vector maths measure: inputs to sweep, error in units in the last place
// against a more precise reference, and equality between a whole vector and single lanes.
#pragma once

#include <algorithm>

#include "isa.h"

// The type that references for T are computed in: at least 11 bits more.
template <class T> struct Wider;
template <> struct Wider<float> { using type = double; };
template <> struct Wider<double> { using type = long double; };
template <class T> using Wide = typename Wider<T>::type;

// |y - want| in units in the last place of want in T; infinite if NaN, infinity or sign is wrong.
template <class T> double ulp_error(T y, Wide<T> want) {
  using limits = std::numeric_limits<T>;
  const double wrong = std::numeric_limits<double>::infinity();
  if (std::isnan(want) || std::isnan(y)) return std::isnan(want) && std::isnan(y) ? 0 : wrong;
  if (std::isinf(want)) return y == want ? 0 : wrong;
  if (y == 0 && std::signbit(y) != std::signbit(want)) return wrong;
  // Infinity, and all beyond T's range, stands for the power of two at which T overflows.
  const Wide<T> overflow = std::ldexp(Wide<T>(1), limits::max_exponent);
  const Wide<T> got = std::min(std::max(Wide<T>(y), -overflow), overflow);
  want = std::min(std::max(want, -overflow), overflow);
  int exponent = 0;
  std::frexp(want, &exponent);
  exponent = std::min(std::max(exponent, limits::min_exponent), limits::max_exponent);
  return static_cast<double>(std::ldexp(std::abs(got - want), limits::digits - exponent));
}

// The largest error of a sweep and where it is.
template <class T> struct Worst {
  double error = 0;
  T x = 0;
  void see(T at, double e) {
    if (!(e <= error)) error = e, x = at;
  }
};

inline std::uint64_t next_random(std::uint64_t& state) {  // splitmix64
  std::uint64_t z = state += 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

// Special values, the neighbours of every place where a formula changes, a stride through the bit
// patterns, and numbers of ordinary size; as many on every instruction set, in the same order.
template <class T> std::vector<T> sweep(std::size_t patterns, std::size_t ordinary) {
  using limits = std::numeric_limits<T>;
  std::vector<T> xs = special_values<T>();
  for (double edge : {0.25,
                      0.34657359027997264,
                      0.4142135623730951,
                      0.5,
                      0.6875,
                      0.6931471805599453,
                      0.7071067811865476,
                      1.0,
                      1.0397207708399179,
                      1.125,
                      1.4142135623730951,
                      2.0,
                      4.0,
                      6.0,
                      9.010913,
                      10.0,
                      14.5,
                      16.635532,
                      17.328679,
                      19.061547,
                      20.0,
                      24.0,
                      37.42995,
                      39.0,
                      40.0,
                      50.0,
                      87.33654475,
                      88.72283905,
                      89.0,
                      103.972084,
                      110.0,
                      708.3964185,
                      709.7827129,
                      710.0,
                      745.1332191,
                      800.0})
    for (double sign : {1.0, -1.0}) {
      T up = T(sign * edge), down = up;
      for (int i = 0; i < 12; ++i) {
        xs.push_back(up = std::nextafter(up, limits::infinity()));
        xs.push_back(down = std::nextafter(down, -limits::infinity()));
      }
    }
  using word = typename fastbp::LaneWord<T>::type;
  const word stride = static_cast<word>(~word{0} / patterns) | 1;
  for (std::size_t i = 0; i < patterns; ++i)
    xs.push_back(value_of<T>(static_cast<word>(i * stride)));
  std::uint64_t state = 1;
  const double scales[] = {1, 3, 10, 40, 110, 750};
  for (std::size_t i = 0; i < ordinary; ++i) {
    const double unit = static_cast<double>(next_random(state) >> 11) * 0x1p-52 - 1;
    xs.push_back(static_cast<T>(i % 7 == 6 ? 1 + unit * 0.75 : unit * scales[i % 7]));
  }
  while (xs.size() % 16 != 0) xs.push_back(1);
  return xs;
}

// y = f(x) by whole vectors; hashed, and compared with the same formula on single lanes.
template <class T, class F> std::vector<T> evaluate(const std::vector<T>& xs, F f) {
  using V = isa::Vec<T>;
  std::vector<T> ys(xs.size());
  bool lanes_agree = true;
  for (std::size_t i = 0; i < xs.size(); i += V::lanes) f(V::load(&xs[i])).store(&ys[i]);
  for (std::size_t i = 0; i < xs.size(); ++i) {
    lanes_agree &= same(ys[i], f(Lane<T>(xs[i])).v);
    fbp_hash.add(ys[i]);
  }
  FBP_EXPECT(lanes_agree);
  return ys;
}
