#include "core/random.h"

#include <cmath>
#include <cstring>

namespace fastbp {

namespace {

constexpr int kWordsPerBlock = 4;

// Ten rounds of Philox4x32 on counters c[word][lane].
template <int lanes>
void philox_rounds(std::uint32_t (&c)[kWordsPerBlock][lanes], std::uint32_t k0, std::uint32_t k1) {
  for (int round = 0; round < 10; ++round) {
    for (int i = 0; i < lanes; ++i) {
      const std::uint64_t p0 = std::uint64_t{0xD2511F53} * c[0][i],
                          p1 = std::uint64_t{0xCD9E8D57} * c[2][i];
      c[0][i] = static_cast<std::uint32_t>(p1 >> 32) ^ c[1][i] ^ k0;
      c[1][i] = static_cast<std::uint32_t>(p1);
      c[2][i] = static_cast<std::uint32_t>(p0 >> 32) ^ c[3][i] ^ k1;
      c[3][i] = static_cast<std::uint32_t>(p0);
    }
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
}

// c[0] + c[1] x + c[2] x^2 + ...; every product and sum is rounded.
template <int n> double horner(const double (&c)[n], double x) {
  double value = c[n - 1];
  for (int i = n - 2; i >= 0; --i) value = value * x + c[i];
  return value;
}

// Natural logarithm of normal x > 0, within 2 ulp away from 1.
// x = m 2^e with sqrt(1/2) <= m < sqrt(2); log m = 2 s (1 + s^2/3 + s^4/5 + ...) with
// s = (m - 1) / (m + 1). For s^2 <= 0.0295 the first term left out is below 1e-18.
double exact_log(double x) {
  static constexpr double series[] = {1.0,      1.0 / 3,  1.0 / 5,  1.0 / 7,  1.0 / 9, 1.0 / 11,
                                      1.0 / 13, 1.0 / 15, 1.0 / 17, 1.0 / 19, 1.0 / 21};
  constexpr double ln2 = 0.693147180559945309417, sqrt_half = 0.707106781186547524401;
  std::uint64_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  int e = static_cast<int>(bits >> 52) - 1022;
  bits = (bits & 0x000fffffffffffffu) | 0x3fe0000000000000u;  // 1/2 <= m < 1
  double m;
  std::memcpy(&m, &bits, sizeof m);
  if (m < sqrt_half) {
    m *= 2;
    --e;
  }
  const double s = (m - 1) / (m + 1);
  return e * ln2 + 2 * s * horner(series, s * s);
}

// Normal quantile: algorithm AS 241, PPND16 (Wichura, Applied Statistics 37, 1988), relative error
// about 1e-16. Numerator and denominator in 0.180625 - q^2, and in r - 1.6 or r - 5 with
// r = sqrt(-log tail).
constexpr double kCentreTop[] = {3.3871328727963666080e0, 1.3314166789178437745e2,
                                 1.9715909503065514427e3, 1.3731693765509461125e4,
                                 4.5921953931549871457e4, 6.7265770927008700853e4,
                                 3.3430575583588128105e4, 2.5090809287301226727e3};
constexpr double kCentreBottom[] = {1.0,
                                    4.2313330701600911252e1,
                                    6.8718700749205790830e2,
                                    5.3941960214247511077e3,
                                    2.1213794301586595867e4,
                                    3.9307895800092710610e4,
                                    2.8729085735721942674e4,
                                    5.2264952788528545610e3};
constexpr double kTailTop[] = {1.42343711074968357734e0,  4.63033784615654529590e0,
                               5.76949722146069140550e0,  3.64784832476320460504e0,
                               1.27045825245236838258e0,  2.41780725177450611770e-1,
                               2.27238449892691845833e-2, 7.74545014278341407640e-4};
constexpr double kTailBottom[] = {1.0,
                                  2.05319162663775882187e0,
                                  1.67638483018380384940e0,
                                  6.89767334985100004550e-1,
                                  1.48103976427480074590e-1,
                                  1.51986665636164571966e-2,
                                  5.47593808499534494600e-4,
                                  1.05075007164441684324e-9};
constexpr double kFarTop[] = {6.65790464350110377720e0,  5.46378491116411436990e0,
                              1.78482653991729133580e0,  2.96560571828504891230e-1,
                              2.65321895265761230930e-2, 1.24266094738807843860e-3,
                              2.71155556874348757815e-5, 2.01033439929228813265e-7};
constexpr double kFarBottom[] = {1.0,
                                 5.99832206555887937690e-1,
                                 1.36929880922735805310e-1,
                                 1.48753612908506148525e-2,
                                 7.86869131145613259100e-4,
                                 1.84631831751005468180e-5,
                                 1.42151175831644588870e-7,
                                 2.04426310338993978564e-15};

// 2^54 (u - 1/2) for the uniform u = (53 bits of the two words + 1/2) 2^-53: odd, magnitude below
// 2^53.
std::int64_t odd_of_words(std::uint32_t high, std::uint32_t low) {
  const std::int64_t bits = (std::int64_t{high >> 5} << 26) | (low >> 6);
  return 2 * bits + 1 - (std::int64_t{1} << 53);
}

// z with Phi(z) = 1/2 + odd / 2^54. Both q = odd / 2^54 and the tail 1/2 - |q| are exact.
constexpr double kCentre = 0.425;
double centre_quantile(double q) {  // for |q| <= kCentre; finite beyond
  const double x = 0.180625 - q * q;
  return q * (horner(kCentreTop, x) / horner(kCentreBottom, x));
}
double tail_quantile(std::int64_t odd) {
  const std::int64_t tail = (std::int64_t{1} << 53) - (odd < 0 ? -odd : odd);
  const double r = std::sqrt(-exact_log(static_cast<double>(tail) * 0x1p-54));
  const double z = r <= 5 ? horner(kTailTop, r - 1.6) / horner(kTailBottom, r - 1.6)
                          : horner(kFarTop, r - 5) / horner(kFarBottom, r - 5);
  return odd < 0 ? -z : z;
}

// The standard normals of a batch of words. The centre's formula is taken for all, without
// branches, so that it vectorises; the 15 % in the tails are done again.
void normal_batch(const std::uint32_t (&words)[kBatchWords], double (&z)[kBatchWords / 2]) {
  std::int64_t odd[kBatchWords / 2];
  double q[kBatchWords / 2];
  for (int i = 0; i < kBatchWords / 2; ++i) {
    odd[i] = odd_of_words(words[2 * i], words[2 * i + 1]);
    q[i] = static_cast<double>(odd[i]) * 0x1p-54;
  }
  for (int i = 0; i < kBatchWords / 2; ++i) z[i] = centre_quantile(q[i]);
  for (int i = 0; i < kBatchWords / 2; ++i)
    if (q[i] < -kCentre || q[i] > kCentre) z[i] = tail_quantile(odd[i]);
}

void uniform_batch(const std::uint32_t (&words)[kBatchWords], double (&u)[kBatchWords]) {
  for (int i = 0; i < kBatchWords; ++i) u[i] = uniform01(words[i]);
}

// out[i] = base + scale v, v = element first + i of the sequence, i < n. values(words, v) turns a
// batch of words into `count` elements.
template <int count, class T, class Values>
void fill(T* out, index_t n, double base, double scale, const RandomStream& stream,
          std::uint64_t first, Values values) {
  std::uint32_t drawn[kBatchWords], words[kBatchWords];
  double v[count];
  std::uint64_t batch = first / count;
  int k = static_cast<int>(first % count);
  for (index_t i = 0; i < n; ++batch, k = 0) {
    random_batch(stream, batch, drawn);
    for (int b = 0; b < kBatchBlocks; ++b)
      for (int w = 0; w < kWordsPerBlock; ++w)
        words[b * kWordsPerBlock + w] = drawn[w * kBatchBlocks + b];
    values(words, v);
    for (; k < count && i < n; ++k, ++i) out[i] = static_cast<T>(base + scale * v[k]);
  }
}

}  // namespace

// 32 blocks are enough for the compiler to keep the loop over them and use vectors (g++ 12, SSE2: half
// the time of 8, which it unrolls).
void random_batch(const RandomStream& stream, std::uint64_t batch, std::uint32_t* words) {
  std::uint32_t c[kWordsPerBlock][kBatchBlocks];
  for (int i = 0; i < kBatchBlocks; ++i) {
    const std::uint64_t block = batch * kBatchBlocks + static_cast<std::uint64_t>(i);
    c[0][i] = static_cast<std::uint32_t>(block);
    c[1][i] = static_cast<std::uint32_t>(block >> 32);
    c[2][i] = stream.stream;
    c[3][i] = stream.purpose;
  }
  philox_rounds(c, static_cast<std::uint32_t>(stream.seed),
                static_cast<std::uint32_t>(stream.seed >> 32));
  std::memcpy(words, c, sizeof c);
}

void philox4x32(const std::uint32_t counter[4], const std::uint32_t key[2],
                std::uint32_t words[4]) {
  std::uint32_t c[kWordsPerBlock][1] = {{counter[0]}, {counter[1]}, {counter[2]}, {counter[3]}};
  philox_rounds(c, key[0], key[1]);
  for (int w = 0; w < kWordsPerBlock; ++w) words[w] = c[w][0];
}

void random_block(const RandomStream& stream, std::uint64_t block, std::uint32_t words[4]) {
  const std::uint32_t counter[4] = {static_cast<std::uint32_t>(block),
                                    static_cast<std::uint32_t>(block >> 32), stream.stream,
                                    stream.purpose};
  const std::uint32_t key[2] = {static_cast<std::uint32_t>(stream.seed),
                                static_cast<std::uint32_t>(stream.seed >> 32)};
  philox4x32(counter, key, words);
}

double normal_of_words(std::uint32_t high, std::uint32_t low) {
  const std::int64_t odd = odd_of_words(high, low);
  const double q = static_cast<double>(odd) * 0x1p-54;
  return -kCentre <= q && q <= kCentre ? centre_quantile(q) : tail_quantile(odd);
}

template <class T>
void random_uniform(T* out, index_t n, double low, double high, const RandomStream& stream,
                    std::uint64_t first) {
  fill<kBatchWords>(out, n, low, high - low, stream, first, uniform_batch);
}

template <class T>
void random_normal(T* out, index_t n, double mean, double stddev, const RandomStream& stream,
                   std::uint64_t first) {
  fill<kBatchWords / 2>(out, n, mean, stddev, stream, first, normal_batch);
}

template void random_uniform(float*, index_t, double, double, const RandomStream&, std::uint64_t);
template void random_uniform(double*, index_t, double, double, const RandomStream&, std::uint64_t);
template void random_normal(float*, index_t, double, double, const RandomStream&, std::uint64_t);
template void random_normal(double*, index_t, double, double, const RandomStream&, std::uint64_t);

void random_permutation(std::int64_t* order, index_t n, std::uint64_t seed, std::uint32_t epoch,
                        RandomBatch draw) {
  const RandomStream stream{seed, epoch, static_cast<std::uint32_t>(Purpose::shuffle)};
  for (index_t i = 0; i < n; ++i) order[i] = i;
  alignas(64) std::uint32_t words[kBatchWords];
  for (index_t end = n; end > 1;) {
    const index_t begin = (end - 1) / kBatchWords * kBatchWords;
    draw(stream, static_cast<std::uint64_t>(begin / kBatchWords), words);
    for (index_t i = end - 1; i >= begin && i > 0; --i) {
      const auto k = static_cast<std::uint64_t>(i - begin);
      const std::uint64_t word = words[k % kWordsPerBlock * kBatchBlocks + k / kWordsPerBlock];
      const std::uint64_t j = (word * static_cast<std::uint64_t>(i + 1)) >> 32;
      const std::int64_t swapped = order[i];
      order[i] = order[j];
      order[j] = swapped;
    }
    end = begin;
  }
}

}  // namespace fastbp
