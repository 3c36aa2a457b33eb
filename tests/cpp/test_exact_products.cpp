// build: emulated -DFASTBP_EMULATION -O0
// Exact products on the emulated device: every kind of tile, with every number of groups, gives the bits of
// a plain loop, whatever the operands' layout; and which kind is taken for what. (Under the sanitizers in
// .ci/sanitize: with them it takes a minute.)
#include <cstdint>
#include <cstring>
#include <vector>

#include "check.h"
#include "device_memory.h"
#include "kernels/cuda/epilogues.cuh"
#include "kernels/cuda/gemm.cuh"

using namespace fastbp;
using namespace fastbp::cuda;

namespace {

template <class T> std::vector<T> random_values(std::size_t size, std::uint32_t seed) {
  std::vector<T> values(size);
  for (T& value : values) {
    seed = seed * 1664525u + 1013904223u;
    value = seed >> 28 == 0 ? T(-0.0) : T(std::int32_t(seed)) / T(1 << 30);
  }
  return values;
}

template <class T>
std::vector<T> plain(const GemmArgs<T>& g, const std::vector<T>& a, const std::vector<T>& b,
                     const std::vector<T>& bias) {
  std::vector<T> c(std::size_t(g.m * g.n));
  const index_t chunk = g.chunk > 0 ? g.chunk : k_chunk(g.k);
  for (index_t i = 0; i < g.m; ++i)
    for (index_t j = 0; j < g.n; ++j) {
      Lane<T> total;
      index_t p = 0;
      do {
        Lane<T> sum(p == 0 && g.bias ? bias[std::size_t(j)] : T(0));
        const bool first = p == 0;
        for (const index_t end = p + chunk < g.k ? p + chunk : g.k; p < end; ++p)
          sum = fma(Lane<T>(a[std::size_t(i * g.a_row + p * g.a_col)]),
                    Lane<T>(b[std::size_t(p * g.b_row + j * g.b_col)]), sum);
        total = first ? sum : total + sum;
      } while (p < g.k);
      c[std::size_t(i * g.n + j)] = total.v;
    }
  return c;
}

struct Case { index_t m, n, k, chunk, apart; };  // apart: values between rows of the operands

template <int number, Dense dense_a, Dense dense_b, class T>
void expect_plain(const GemmArgs<T>& g, const std::vector<T>& wanted) {
  for (int groups = 1; groups <= kGemmShape<T>[number].groups; ++groups) {
    Device<T> c(wanted.size());
    const StorePart<T> store{c.data(), g.n, 0};
    FBP_EXPECT((launch_shape<number, dense_a, dense_b>(g, store, 1, groups, nullptr)) ==
               cudaSuccess);
    FBP_EXPECT(cudaStreamSynchronize(nullptr) == cudaSuccess);
    FBP_EXPECT(std::memcmp(c.values().data(), wanted.data(), wanted.size() * sizeof(T)) == 0);
  }
}

template <Dense dense_a, Dense dense_b, class T> void test_case(const Case& of) {
  constexpr bool a_along = dense_a == Dense::along_k, b_along = dense_b == Dense::along_k;
  const std::size_t spread = 4 * std::size_t((of.m + of.n + 8) * (of.k + 8));
  const Device<T> a(random_values<T>(spread, 1)), b(random_values<T>(spread, 2)),
      bias(random_values<T>(std::size_t(of.n), 3));
  GemmArgs<T> g;
  g.m = of.m, g.n = of.n, g.k = of.k, g.chunk = of.chunk;
  g.a = a.data(), g.b = b.data(), g.bias = of.m % 2 ? bias.data() : nullptr;
  g.a_row = a_along ? of.k + of.apart : 1, g.a_col = a_along ? 1 : of.m + of.apart;
  g.b_row = b_along ? 1 : of.n + of.apart, g.b_col = b_along ? of.k + of.apart : 1;
  if (dense_a == Dense::either) g.a_row = 2 * of.k + 1, g.a_col = 2;
  const std::vector<T> wanted = plain(g, a.values(), b.values(), bias.values());
  expect_plain<kLargeGemm, dense_a, dense_b>(g, wanted);
  expect_plain<kMiddleGemm, dense_a, dense_b>(g, wanted);
  expect_plain<kSmallGemm, dense_a, dense_b>(g, wanted);
}

template <class T> void test_tiles() {
  constexpr Case cases[] = {{1, 1, 0, 0, 0},      {16, 16, 64, 0, 0},  {17, 33, 65, 20, 3},
                            {128, 64, 40, 16, 0}, {33, 64, 70, 16, 4}, {5, 20, 530, 0, 0}};
  for (const Case& of : cases) {
    test_case<Dense::along_k, Dense::across, T>(of);
    test_case<Dense::along_k, Dense::along_k, T>(of);
    test_case<Dense::across, Dense::across, T>(of);
    test_case<Dense::either, Dense::either, T>(of);
  }
}

// On a GPU of 132 multiprocessors.
GemmChoice choice(index_t m, index_t n, index_t k, bool apart = false) {
  const index_t chunk = k_chunk(k);
  return choose_gemm<float>(m, n, chunk, parts_of(k, chunk), apart, 132);
}

void test_choice() {
  FBP_EXPECT(choice(4096, 4096, 4096).shape == kLargeGemm);
  FBP_EXPECT(choice(512, 512, 512).shape == kMiddleGemm);
  FBP_EXPECT(choice(512, 512, 512).groups == 2);
  FBP_EXPECT(choice(128, 256, 784).shape == kSmallGemm);
  FBP_EXPECT(choice(128, 256, 784).groups == 4);
  FBP_EXPECT(choice(128, 10, 128).shape == kSmallGemm);
  FBP_EXPECT(choice(128, 10, 128).groups == 1);
  FBP_EXPECT(choice(65, 64, 65536, true).groups == 1);
}

}  // namespace

int main() {
  test_tiles<float>();
  test_tiles<double>();
  test_choice();
  return fbp_test_result();
}
