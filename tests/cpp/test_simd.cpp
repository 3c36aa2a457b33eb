// build: per-isa
// The surface of one SIMD wrapper, and of Lane, against plain loops: every operation on all pairs
// of special values, partial loads and stores against guard pages, reduction order.

#include <sys/mman.h>
#include <unistd.h>

#include "isa.h"

template <class V> using Scalar = typename V::scalar;

// One vector whose lane i holds values[(first + i * step) % size].
template <class V> struct Input {
  Scalar<V> lane[V::lanes];
  Input(const std::vector<Scalar<V>>& values, std::size_t first, std::size_t step) {
    for (int i = 0; i < V::lanes; ++i)
      lane[i] = values[(first + static_cast<std::size_t>(i) * step) % values.size()];
  }
  V load() const { return V::load(lane); }
};

// Every lane of `got` is what `want` gives for that lane.
template <class V, class Want> bool lanes_are(V got, Want want) {
  Scalar<V> out[V::lanes];
  got.store(out);
  bool right = true;
  for (int i = 0; i < V::lanes; ++i) {
    right &= same(out[i], static_cast<Scalar<V>>(want(i)));
    fbp_hash.add(out[i]);
  }
  return right;
}

template <class V> void test_unary(const Input<V>& x) {
  const V a = x.load();
  FBP_EXPECT(lanes_are(-a, [&](int i) { return -x.lane[i]; }));
  FBP_EXPECT(lanes_are(abs(a), [&](int i) { return std::fabs(x.lane[i]); }));
  FBP_EXPECT(lanes_are(sqrt(a), [&](int i) { return std::sqrt(x.lane[i]); }));
  FBP_EXPECT(lanes_are(round_even(a), [&](int i) { return std::nearbyint(x.lane[i]); }));
  FBP_EXPECT(lanes_are(from_bits(to_bits(a)), [&](int i) { return x.lane[i]; }));
  FBP_EXPECT(
      lanes_are(select(is_nan(a), V(1), V(0)), [&](int i) { return std::isnan(x.lane[i]); }));
}

template <class V> void test_binary(const Input<V>& x, const Input<V>& y) {
  using T = Scalar<V>;
  const V a = x.load(), b = y.load(), one(1), zero(0);
  const auto &p = x.lane, &q = y.lane;
  FBP_EXPECT(lanes_are(a + b, [&](int i) { return p[i] + q[i]; }));
  FBP_EXPECT(lanes_are(a - b, [&](int i) { return p[i] - q[i]; }));
  FBP_EXPECT(lanes_are(a * b, [&](int i) { return p[i] * q[i]; }));
  FBP_EXPECT(lanes_are(a / b, [&](int i) { return p[i] / q[i]; }));
  FBP_EXPECT(lanes_are(min(a, b), [&](int i) { return p[i] < q[i] ? p[i] : q[i]; }));
  FBP_EXPECT(lanes_are(max(a, b), [&](int i) { return p[i] > q[i] ? p[i] : q[i]; }));
  FBP_EXPECT(lanes_are(copysign(a, b), [&](int i) { return std::copysign(p[i], q[i]); }));
  FBP_EXPECT(lanes_are(select(a < b, one, zero), [&](int i) { return p[i] < q[i]; }));
  FBP_EXPECT(lanes_are(select(a <= b, one, zero), [&](int i) { return p[i] <= q[i]; }));
  FBP_EXPECT(lanes_are(select(a > b, one, zero), [&](int i) { return p[i] > q[i]; }));
  FBP_EXPECT(lanes_are(select(a >= b, one, zero), [&](int i) { return p[i] >= q[i]; }));
  FBP_EXPECT(lanes_are(select(a == b, one, zero), [&](int i) { return p[i] == q[i]; }));
  FBP_EXPECT(lanes_are(select(a < b, a, b), [&](int i) { return p[i] < q[i] ? p[i] : q[i]; }));
  const auto less = a < b, small = b < one;
  const auto in_both = [&](int i) { return p[i] < q[i] && q[i] < T(1); };
  const auto in_one = [&](int i) { return p[i] < q[i] || q[i] < T(1); };
  FBP_EXPECT(lanes_are(select(less & small, one, zero), in_both));
  FBP_EXPECT(lanes_are(select(less | small, one, zero), in_one));
  FBP_EXPECT(lanes_are(select(!less, one, zero), [&](int i) { return !(p[i] < q[i]); }));
  int lanes = 0;
  for (int i = 0; i < V::lanes; ++i) lanes += p[i] < q[i];
  FBP_EXPECT(any(less) == (lanes > 0));
  FBP_EXPECT(all(less) == (lanes == V::lanes));
  FBP_EXPECT(count(less) == lanes);
}

// The sign of fma's addend and product, one rounding, infinity times zero plus NaN.
template <class V> void test_ternary(const Input<V>& x, const Input<V>& y, const Input<V>& z) {
  const V a = x.load(), b = y.load(), c = z.load();
  FBP_EXPECT(
      lanes_are(fma(a, b, c), [&](int i) { return std::fma(x.lane[i], y.lane[i], z.lane[i]); }));
  FBP_EXPECT(
      lanes_are(fnma(a, b, c), [&](int i) { return std::fma(-x.lane[i], y.lane[i], z.lane[i]); }));
}

template <class V> void test_bits(const Input<V>& x, const Input<V>& y) {
  using T = Scalar<V>;
  using B = decltype(to_bits(V()));
  const auto p = [&](int i) { return bits_of(x.lane[i]); };
  const auto q = [&](int i) { return bits_of(y.lane[i]); };
  using word = decltype(p(0));
  const B a = to_bits(x.load()), b = to_bits(y.load());
  FBP_EXPECT(lanes_are(from_bits(a + b), [&](int i) { return value_of<T>(p(i) + q(i)); }));
  FBP_EXPECT(lanes_are(from_bits(a - b), [&](int i) { return value_of<T>(p(i) - q(i)); }));
  FBP_EXPECT(lanes_are(from_bits(a & b), [&](int i) { return value_of<T>(p(i) & q(i)); }));
  FBP_EXPECT(lanes_are(from_bits(a | b), [&](int i) { return value_of<T>(p(i) | q(i)); }));
  FBP_EXPECT(lanes_are(from_bits(a ^ b), [&](int i) { return value_of<T>(p(i) ^ q(i)); }));
  FBP_EXPECT(lanes_are(from_bits(shl<1>(a)), [&](int i) { return value_of<T>(p(i) << 1); }));
  FBP_EXPECT(lanes_are(from_bits(shl<23>(a)), [&](int i) { return value_of<T>(p(i) << 23); }));
  FBP_EXPECT(lanes_are(from_bits(shr<1>(a)), [&](int i) { return value_of<T>(p(i) >> 1); }));
  FBP_EXPECT(lanes_are(from_bits(shr<23>(a)), [&](int i) { return value_of<T>(p(i) >> 23); }));
  FBP_EXPECT(lanes_are(from_bits(B(0x3f800001)), [&](int) { return value_of<T>(0x3f800001); }));
  FBP_EXPECT(lanes_are(from_bits(B(-2)), [&](int) { return value_of<T>(static_cast<word>(-2)); }));
}

// Lane i of vector j is value j of row i.
template <class V> void test_transposition(const std::vector<Scalar<V>>& values) {
  constexpr int row = V::lanes + 3;
  Scalar<V> rows[V::lanes * row];
  for (int i = 0; i < V::lanes * row; ++i)
    rows[i] = values[static_cast<std::size_t>(i * 5) % values.size()];
  V v[V::lanes];
  load_transposed(rows, row, v);
  for (int j = 0; j < V::lanes; ++j)
    FBP_EXPECT(lanes_are(v[j], [&](int i) { return rows[i * row + j]; }));
}

// Both halves of 64-bit products, of any bits.
void test_wide_products(const std::vector<float>& values) {
  using V = isa::Vec<float>;
  for (std::size_t i = 0; i < values.size(); ++i)
    for (const std::uint32_t factor : {0u, 1u, 3u, 0xd2511f53u, 0xcd9e8d57u, 0xffffffffu}) {
      const Input<V> x(values, i, 3);
      const auto product = [&](int lane) { return std::uint64_t(bits_of(x.lane[lane])) * factor; };
      decltype(to_bits(V())) high, low;
      mul_wide(to_bits(x.load()), factor, &high, &low);
      FBP_EXPECT(lanes_are(from_bits(high), [&](int lane) {
        return value_of<float>(static_cast<std::uint32_t>(product(lane) >> 32));
      }));
      FBP_EXPECT(lanes_are(from_bits(low), [&](int lane) {
        return value_of<float>(static_cast<std::uint32_t>(product(lane)));
      }));
    }
}

// Lane i with lane i + L/2, then i + L/4, ...; NaN and zeros as max leaves them.
template <class V> void test_reductions(const Input<V>& x) {
  using T = Scalar<V>;
  T sum[V::lanes], largest[V::lanes];
  for (int i = 0; i < V::lanes; ++i) sum[i] = largest[i] = x.lane[i];
  for (int half = V::lanes / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) {
      sum[i] += sum[i + half];
      largest[i] = largest[i] > largest[i + half] ? largest[i] : largest[i + half];
    }
  FBP_EXPECT(same(reduce_add(x.load()), sum[0]));
  FBP_EXPECT(same(reduce_max(x.load()), largest[0]));
  if (V::lanes > 1) fbp_hash.add(sum[0]), fbp_hash.add(largest[0]);
}

// A page of memory with an inaccessible page on each side.
struct GuardedPage {
  std::size_t size = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  char* mapping =
      static_cast<char*>(mmap(nullptr, 3 * size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  char* begin() const { return mapping + size; }
  char* end() const { return begin() + size; }
  GuardedPage() { FBP_EXPECT(mprotect(begin(), size, PROT_READ | PROT_WRITE) == 0); }
  ~GuardedPage() { munmap(mapping, 3 * size); }
};

// load_n and store_n of n lanes at `at`, which lies in `page` with an inaccessible page at one end.
template <class V> void test_partial_at(const GuardedPage& page, Scalar<V>* at, int n) {
  using T = Scalar<V>;
  T* const first = reinterpret_cast<T*>(page.begin());
  T* const last = reinterpret_cast<T*>(page.end());
  for (T* p = first; p < last; ++p) *p = T(p - first) + T(0.5);
  const V got = V::load_n(at, n);
  FBP_EXPECT(lanes_are(got, [&](int i) { return i < n ? at[i] : T(0); }));
  V(-7).store_n(at, n);
  bool right = true;
  for (T* p = first; p < last; ++p)
    right &= *p == (p >= at && p < at + n ? T(-7) : T(p - first) + T(0.5));
  FBP_EXPECT(right);
}

template <class V> void test_partial() {
  using T = Scalar<V>;
  const GuardedPage page;
  for (int n = 0; n <= V::lanes; ++n) {
    test_partial_at<V>(page, reinterpret_cast<T*>(page.end()) - n, n);
    test_partial_at<V>(page, reinterpret_cast<T*>(page.begin()), n);
    test_partial_at<V>(page, reinterpret_cast<T*>(page.begin()) + 3, n);
  }
  T* const unaligned = reinterpret_cast<T*>(page.begin()) + 1;
  for (int i = 0; i < V::lanes; ++i) unaligned[i] = T(i);
  (V::load(unaligned) + V(1)).store(unaligned + 1);
  bool right = unaligned[0] == T(0);
  for (int i = 0; i < V::lanes; ++i) right &= unaligned[i + 1] == T(i + 1);
  FBP_EXPECT(right);
}

template <class V> void test_surface() {
  using T = Scalar<V>;
  static_assert(V::lanes == 1 || V::lanes * sizeof(T) == 64, "the virtual vector is 64 bytes");
  const std::vector<T> values = special_values<T>();
  const std::size_t n = values.size();
  for (std::size_t i = 0; i < n; ++i) {
    const Input<V> x(values, i, 1);
    test_unary(x);
    test_reductions(x);
    test_reductions(Input<V>(values, i, 7));
    for (std::size_t j = 0; j < n; ++j) {
      const Input<V> y(values, i + j, 5);
      test_binary(x, y);
      test_bits(x, y);
      for (std::size_t k = 0; k < n; ++k) test_ternary(x, y, Input<V>(values, k, 3));
    }
  }
  test_partial<V>();
}

int main() {
  test_transposition<isa::Vec<float>>(special_values<float>());
  test_transposition<isa::Vec<double>>(special_values<double>());
  test_wide_products(special_values<float>());
  test_surface<isa::Vec<float>>();
  test_surface<isa::Vec<double>>();
  test_surface<Lane<float>>();
  test_surface<Lane<double>>();
  return fbp_isa_result();
}
