// build: core/random.cpp
// Philox against Random123's published vectors; fills against their definition, element by element,
// at every start around a batch; normals against the normal distribution; permutations.
#include "core/random.h"

#include <cmath>
#include <cstring>
#include <vector>

#include "check.h"

using namespace fastbp;

namespace {

bool philox_gives(std::uint32_t counter_word, std::uint32_t key_word,
                  const std::uint32_t (&expected)[4]) {
  const std::uint32_t counter[4] = {counter_word, counter_word, counter_word, counter_word};
  const std::uint32_t key[2] = {key_word, key_word};
  std::uint32_t words[4];
  philox4x32(counter, key, words);
  return std::memcmp(words, expected, sizeof words) == 0;
}

// kat_vectors of the Random123 distribution, philox4x32 10.
void test_known_answers() {
  FBP_EXPECT(philox_gives(0, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  FBP_EXPECT(
      philox_gives(0xffffffff, 0xffffffff, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  const std::uint32_t counter[4] = {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344};
  const std::uint32_t key[2] = {0xa4093822, 0x299f31d0};
  const std::uint32_t expected[4] = {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1};
  std::uint32_t words[4];
  philox4x32(counter, key, words);
  FBP_EXPECT(std::memcmp(words, expected, sizeof words) == 0);
}

// The contract: element e uses block e / 4, word e % 4; normals use two words each.
template <class T> void test_fills() {
  const RandomStream stream{0x123456789abcdef0u, 7, 3};
  const double low = -0.3, high = 0.7, mean = 0.25, stddev = 1.5;
  const std::uint64_t starts[] = {
      0, 1, 2, 3, 4, 63, 64, 127, 128, 129, (std::uint64_t{1} << 34) - 2};
  for (const std::uint64_t first : starts) {
    for (const index_t n : {0, 1, 2, 3, 5, 64, 65, 127, 128, 131, 300}) {
      std::vector<T> uniform(static_cast<std::size_t>(n) + 1, T(-9));
      std::vector<T> normal(static_cast<std::size_t>(n) + 1, T(-9));
      random_uniform(uniform.data(), n, low, high, stream, first);
      random_normal(normal.data(), n, mean, stddev, stream, first);
      FBP_EXPECT(uniform.back() == T(-9) && normal.back() == T(-9));
      bool uniform_right = true, normal_right = true;
      for (index_t i = 0; i < n; ++i) {
        const std::uint64_t e = first + static_cast<std::uint64_t>(i);
        const auto at = static_cast<std::size_t>(i);
        std::uint32_t w[4];
        random_block(stream, e / 4, w);
        uniform_right &= uniform[at] == T(low + (high - low) * uniform01(w[e % 4]));
        random_block(stream, e / 2, w);
        const double z = normal_of_words(w[2 * (e % 2)], w[2 * (e % 2) + 1]);
        normal_right &= normal[at] == T(mean + stddev * z);
      }
      FBP_EXPECT(uniform_right);
      FBP_EXPECT(normal_right);
    }
  }
}

void test_uniform_range() {
  FBP_EXPECT(uniform01(0) == 0x1p-25);
  FBP_EXPECT(uniform01(0xffffffff) == 1 - 0x1p-25);
  FBP_EXPECT(uniform01(0x7fffffff) + uniform01(0x80000000) == 1);
}

// Phi(z) must give the uniform back. The quantile's relative error (below 1e-15) moves the tail
// probability by z^2 as much, at most 69 times; erfc adds 4 ulp of its own with the same factor.
void test_normal_quantile() {
  const std::uint32_t ends[] = {0, 1, 2, 0xffffffff};
  for (int i = 0; i < 4096; ++i) {
    const std::uint32_t high = static_cast<std::uint32_t>(i) << 20;
    for (const std::uint32_t low : ends) {
      const double z = normal_of_words(high, low);
      FBP_EXPECT(normal_of_words(~high, ~low) == -z);
      const double u =
          (static_cast<double>(high >> 5) * 0x1p26 + static_cast<double>(low >> 6)) * 0x1p-53 +
          0x1p-54;
      const double tail = u < 0.5 ? u : 1 - u;
      FBP_EXPECT(std::fabs(std::erfc(std::fabs(z) * std::sqrt(0.5)) / 2 - tail) <=
                 2e-15 * (1 + z * z) * tail + 0x1p-53 * (u > 0.5));
    }
  }
  FBP_EXPECT(normal_of_words(0, 0) < -8.2 && normal_of_words(0, 0) > -8.3);
}

// Mean, variance and fourth moment of a million normals, within 5 standard deviations.
void test_normal_moments() {
  const index_t n = 1000000;
  std::vector<double> z(static_cast<std::size_t>(n));
  random_normal(z.data(), n, 0, 1, {2024, 0, 1});
  double m1 = 0, m2 = 0, m4 = 0;
  for (const double v : z) {
    m1 += v;
    m2 += v * v;
    m4 += v * v * v * v;
  }
  const double root = std::sqrt(static_cast<double>(n));
  FBP_EXPECT(std::fabs(m1 / n) < 5 / root);
  FBP_EXPECT(std::fabs(m2 / n - 1) < 5 * std::sqrt(2.0) / root);
  FBP_EXPECT(std::fabs(m4 / n - 3) < 5 * std::sqrt(96.0) / root);
}

void test_permutation() {
  for (const index_t n : {0, 1, 2, 3, 4, 5, 63, 127, 128, 129, 257, 1000}) {
    std::vector<std::int64_t> order(static_cast<std::size_t>(n)), plain(order);
    random_permutation(order.data(), n, 99, 3);
    for (index_t i = 0; i < n; ++i) plain[static_cast<std::size_t>(i)] = i;
    for (index_t i = n - 1; i > 0; --i) {
      std::uint32_t words[4];
      const auto e = static_cast<std::uint64_t>(i);
      random_block({99, 3, static_cast<std::uint32_t>(Purpose::shuffle)}, e / 4, words);
      std::swap(plain[e], plain[(words[e % 4] * (e + 1)) >> 32]);
    }
    FBP_EXPECT(order == plain);
  }
}

}  // namespace

int main() {
  test_known_answers();
  test_fills<float>();
  test_fills<double>();
  test_uniform_range();
  test_normal_quantile();
  test_normal_moments();
  test_permutation();
  return fbp_test_result();
}
