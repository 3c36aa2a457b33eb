// What the tests that are built once per instruction set share: the wrapper under test as `isa`,
// and a hash of all results, which has to be the same on every instruction set.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <string_view>
#include <vector>

#include "check.h"

#define FBP_TEST_QUOTE(text) #text
#define FBP_TEST_NAME(name) FBP_TEST_QUOTE(name)
// clang-format off: it would put spaces around the slashes
#define FBP_TEST_HEADER(name) FBP_TEST_QUOTE(kernels/cpu/simd/name.h)
// clang-format on
#include FBP_TEST_HEADER(FBP_TEST_ISA)
#include "ops/lane.h"

namespace isa = fastbp::FBP_TEST_ISA;
// How near results are to the exact ones is measured where everybody runs: that the other
// instruction sets have the same bits, the hash says.
constexpr bool kMeasures = FBP_TEST_NAME(FBP_TEST_ISA) == std::string_view("scalar");
using fastbp::Lane;
using fastbp::shl;
using fastbp::shr;

template <class T> typename fastbp::LaneWord<T>::type bits_of(T x) {
  typename fastbp::LaneWord<T>::type word;
  std::memcpy(&word, &x, sizeof x);
  return word;
}

template <class T> T value_of(typename fastbp::LaneWord<T>::type word) {
  T x;
  std::memcpy(&x, &word, sizeof x);
  return x;
}

// Equal in every bit; which NaN it is does not matter.
template <class T> bool same(T a, T b) {
  return bits_of(a) == bits_of(b) || (std::isnan(a) && std::isnan(b));
}

// FNV-1a over the results' words, every NaN alike.
struct Hash {
  std::uint64_t state = 0xcbf29ce484222325;
  template <class T> void add(T x) {
    state = (state ^ (std::isnan(x) ? 0x7ff : bits_of(x))) * 0x100000001b3;
  }
};
inline Hash fbp_hash;

inline int fbp_isa_result() {
  const int status = fbp_test_result();
  std::printf("HASH %016llx\n", static_cast<unsigned long long>(fbp_hash.state));
  return status;
}

// Zeros, denormals, thresholds of rounding, infinities, NaN and ordinary numbers.
template <class T> std::vector<T> special_values() {
  using limits = std::numeric_limits<T>;
  const T whole = T(1) / limits::epsilon();  // from here on every number is an integer
  const T half_ulp = limits::epsilon() / 4;
  std::vector<T> values = {0,
                           limits::denorm_min(),
                           limits::min() / 2,
                           limits::min(),
                           limits::epsilon(),
                           half_ulp,
                           T(0.3),
                           T(0.5),
                           T(0.5) - half_ulp,
                           T(0.5) + limits::epsilon(),
                           1,
                           T(1.5),
                           2,
                           T(2.5),
                           T(3.5),
                           T(88.75),
                           T(709.8),
                           whole / 2 - T(0.5),
                           whole / 2 + T(0.5),
                           whole - 1,
                           whole,
                           whole * 2 + 2,
                           limits::max() / 2,
                           limits::max(),
                           limits::infinity(),
                           limits::quiet_NaN()};
  const std::size_t n = values.size();
  for (std::size_t i = 0; i < n; ++i) values.push_back(-values[i]);
  return values;
}
