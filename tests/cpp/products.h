// What the tests of matrix products share: matrices between pages that fault, shapes around the sizes at which kernels
// change their way, a product with all its arguments, and the sums that it must have.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "check.h"
#include "kernels/gemm_kernel.h"
#include "kernels/kernel_table.h"

namespace products {

using namespace fastbp;

inline std::uint64_t random_state = 1;
inline std::uint32_t random_word() {
  random_state = random_state * 6364136223846793005u + 1442695040888963407u;
  return static_cast<std::uint32_t>(random_state >> 33);
}
template <class T> T random_value() { return T(random_word() % 20011) / T(9973) - T(1); }
inline index_t one_of(const std::vector<index_t>& values) {
  return values[random_word() % values.size()];
}

// Values that end, or begin, where a step beyond faults.
template <class T> class Guarded {
 public:
  explicit Guarded(index_t count) : count_(count) {
    static const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(T);
    const std::size_t inside = (bytes + page - 1) / page * page;
    size_ = inside + 2 * page;
    void* map = mmap(nullptr, size_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    map_ = static_cast<char*>(map);
    if (map == MAP_FAILED || (inside && mprotect(map_ + page, inside, PROT_READ | PROT_WRITE) != 0))
      throw std::bad_alloc();
    const bool at_end = random_word() % 4 > 0;
    values_ = reinterpret_cast<T*>(map_ + page + (at_end ? inside - bytes : 0));
  }
  Guarded(const Guarded& other) : Guarded(other.count_) {
    std::copy(other.begin(), other.end(), values_);
  }
  Guarded& operator=(const Guarded&) = delete;
  ~Guarded() { munmap(map_, size_); }
  T* begin() const { return values_; }
  T* end() const { return values_ + count_; }

 private:
  index_t count_;
  std::size_t size_ = 0;
  char* map_ = nullptr;
  T* values_ = nullptr;
};

// Gaps between lines hold a mark.
template <class T> struct Matrix {
  index_t lines, length, stride;
  Guarded<T> values;
  static constexpr T kMark = T(-77);

  Matrix(index_t lines_, index_t length_, index_t gap)
      : lines(lines_), length(length_), stride(length_ + gap),
        values(lines_ > 0 ? (lines_ - 1) * stride + length_ : 0) {
    std::fill(values.begin(), values.end(), kMark);
  }
  T* line(index_t i) { return values.begin() + i * stride; }
  void fill(T (*value)() = random_value<T>) {
    for (index_t i = 0; i < lines; ++i)
      for (index_t j = 0; j < length; ++j) line(i)[j] = value();
  }
  bool gaps_are_intact() {
    for (index_t i = 0; i + 1 < lines; ++i)
      for (index_t j = length; j < stride; ++j)
        if (line(i)[j] != kMark) return false;
    return true;
  }
  bool operator==(const Matrix& other) const {
    return std::memcmp(values.begin(), other.values.begin(),
                       static_cast<std::size_t>(lines * stride) * sizeof(T)) == 0;
  }
};

struct Shape {
  index_t m, n, k;
  bool a_by_columns = false, b_by_columns = false;
  index_t a_gap = 0, b_gap = 0, c_gap = 0;
  bool bias = false;
  index_t workers = 1, chunk = 0;
};

// Sums of chunks, each by fused multiply-adds in order, the first one from the bias.
template <class T> T expected(const GemmArgs<T>& g, index_t i, index_t j) {
  T total = g.bias ? g.bias[j] : T(0);
  const index_t chunk = g.chunk ? g.chunk : k_chunk(g.k);
  for (index_t p = 0; p < g.k; p += chunk) {
    T sum = p == 0 ? total : T(0);
    for (index_t q = p; q < g.k && q < p + chunk; ++q)
      sum = std::fma(g.a[i * g.a_row + q * g.a_col], g.b[q * g.b_row + j * g.b_col], sum);
    total = p == 0 ? sum : total + sum;
  }
  return total;
}

// The operands of a product, and its arguments, all workers' scratch memory included.
template <class T> struct Product {
  Shape s;
  GemmKernel<T> kernel;
  Matrix<T> a, b, c;
  Guarded<T> bias;
  struct Free {
    void operator()(T* p) const { ::operator delete[](p, std::align_val_t(64)); }
  };
  std::unique_ptr<T, Free> scratch;
  GemmArgs<T> args;

  Product(const Shape& shape, const GemmKernel<T>& kernel_, T (*value)() = random_value<T>)
      : s(shape), kernel(kernel_),
        a(s.a_by_columns ? s.k : s.m, s.a_by_columns ? s.m : s.k, s.a_gap),
        b(s.b_by_columns ? s.n : s.k, s.b_by_columns ? s.k : s.n, s.b_gap), c(s.m, s.n, s.c_gap),
        bias(s.bias ? s.n : 0),
        scratch(static_cast<T*>(::operator new[](
            static_cast<std::size_t>(kernel.scratch) * sizeof(T), std::align_val_t(64)))) {
    a.fill(value), b.fill(value);
    for (T& start : bias) start = value();
    args.m = s.m, args.n = s.n, args.k = s.k, args.chunk = s.chunk;
    args.a = a.values.begin(), args.b = b.values.begin(), args.c = c.values.begin();
    args.a_row = s.a_by_columns ? 1 : a.stride, args.a_col = s.a_by_columns ? a.stride : 1;
    args.b_row = s.b_by_columns ? 1 : b.stride, args.b_col = s.b_by_columns ? b.stride : 1;
    args.c_row = c.stride;
    args.bias = s.bias ? bias.begin() : nullptr;
    args.scratch = scratch.get();
  }
  void run() {
    for (index_t id = 0; id < s.workers; ++id) kernel.run(args, {id, s.workers});
  }
  void say(const char* what) const {
    std::printf("%s, %zu bytes: m %td n %td k %td, by columns %d %d, gaps %td %td %td, bias %d, "
                "%td workers, chunk %td\n",
                what, sizeof(T), s.m, s.n, s.k, s.a_by_columns, s.b_by_columns, s.a_gap, s.b_gap,
                s.c_gap, s.bias, s.workers, s.chunk);
  }
  void check(const char* what, Matrix<T>& found) {
    bool same = found.gaps_are_intact();
    for (index_t i = 0; i < s.m; ++i)
      for (index_t j = 0; j < s.n; ++j) {
        const T want = expected(args, i, j);
        same &= std::memcmp(&want, found.line(i) + j, sizeof want) == 0;
      }
    FBP_EXPECT(same);
    if (!same) say(what);
  }
};

// Sizes around vectors, tiles and panels; k around what is short, a block of 16 and a chunk.
inline Shape random_shape(index_t most_work) {
  static const std::vector<index_t> sides = {1,  2,  3,  4,  5,  6,  7,  8,   9,  11, 12,
                                             13, 15, 16, 17, 23, 24, 25, 31,  32, 33, 47,
                                             48, 49, 63, 64, 65, 80, 97, 128, 130};
  static const std::vector<index_t> depths = {0,  1,   2,   3,   4,   5,   8,   12,
                                              13, 15,  16,  17,  31,  33,  63,  64,
                                              65, 100, 256, 257, 300, 513, 600, 1100};
  static const std::vector<index_t> gaps = {0, 0, 1, 5, 16};
  Shape s{};
  do {
    s.m = one_of(sides), s.n = one_of(sides), s.k = one_of(depths);
  } while (s.m * s.n * s.k > most_work);
  const std::uint32_t bits = random_word();
  s.a_by_columns = bits & 1, s.b_by_columns = bits & 2, s.bias = bits & 4;
  s.a_gap = one_of(gaps), s.b_gap = one_of(gaps), s.c_gap = one_of(gaps);
  s.workers = one_of({1, 1, 2, 3});
  s.chunk = one_of({0, 0, 0, 16, 48, 256});
  return s;
}

}  // namespace products
