// A cuBLASLt for the emulated device: the functions of csrc/engine/cuda/blas_interface.h as NVIDIA's
// documentation has them, in plain loops. It refuses what the documentation does not permit.
//
// FAKE_BLAS has words for what it does otherwise: "old" (says that it is 12.4), "no_handle",
// "no_algorithms", "fails" (every product), "slow", "slow_plain" (without an epilogue of its own),
// "slow_derivative" (relu's),
// "wrong" (sums without their last term), "idle" (writes nothing), "loses_nan" (in relu, as max(x, 0)
// does).
// fake_blas_calls(epilogue) counts products.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/cuda/blas_interface.h"

using namespace fastbp::cuda::lt;

extern "C" int fbp_emulation_enqueue(CUstream_st* stream, void (*work)(void*), void* argument);
extern "C" void fbp_emulation_spend(double microseconds);

namespace fastbp {
namespace cuda {
namespace lt {

struct LtContext { int nothing; };
struct LtMatmulDescription {
  ComputeType compute;
  Operation of_a = kPlain, of_b = kPlain;
  Epilogue epilogue = kDefault;
  float* bias = nullptr;
  void* aux = nullptr;
  std::int64_t aux_row = 0;
};
struct LtMatrixLayout {
  DataType type;
  std::uint64_t rows, cols;
  std::int64_t leading;
};
struct LtMatmulPreference {
  std::uint64_t workspace = 0;
  std::uint32_t schemes = 7, alignment[4] = {256, 256, 256, 256};
};

}  // namespace lt
}  // namespace cuda
}  // namespace fastbp

namespace {

constexpr std::size_t kWorkspaceOfAlgorithm[] = {0, 1024};

std::map<int, long long> calls;

bool told(const char* word) {
  const char* const words = std::getenv("FAKE_BLAS");
  return words &&
         (" " + std::string(words) + " ").find(" " + std::string(word) + " ") != std::string::npos;
}

float widened(std::uint16_t bits, DataType type) {
  if (type == kBfloat16) {
    const std::uint32_t wide = std::uint32_t(bits) << 16;
    float value;
    std::memcpy(&value, &wide, sizeof value);
    return value;
  }
  const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
  double value = std::ldexp(exponent ? 1024 + mantissa : mantissa, (exponent ? exponent : 1) - 25);
  if (exponent == 31) value = mantissa ? NAN : INFINITY;
  return float(bits >> 15 ? -value : value);
}

// To nearest, ties to even.
std::uint16_t rounded(float x, DataType type) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  if (type == kBfloat16)
    return std::isnan(x) ? 0x7fff : std::uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
  const std::uint16_t sign = std::uint16_t(bits >> 16 & 0x8000);
  const double size = std::fabs(double(x));
  if (std::isnan(x)) return 0x7fff;
  if (size < std::ldexp(1, -14)) return sign | std::uint16_t(std::nearbyint(std::ldexp(size, 24)));
  if (size >= 65520) return sign | 0x7c00;
  const int exponent = std::ilogb(size);
  // A carry goes on into the exponent.
  return std::uint16_t(sign + (exponent + 14) * 1024 +
                       int(std::nearbyint(std::ldexp(size, 10 - exponent))));
}

// float32 is rounded to TF32, to nearest and ties away from zero.
float element(const void* at, const LtMatrixLayout& layout, std::int64_t row, std::int64_t col) {
  const std::int64_t index = row + col * layout.leading;
  if (layout.type != kFloat32)
    return widened(static_cast<const std::uint16_t*>(at)[index], layout.type);
  std::uint32_t bits;
  std::memcpy(&bits, static_cast<const float*>(at) + index, sizeof bits);
  bits = (bits + 0x1000) & ~std::uint32_t(0x1fff);
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

double gelu(double x) {
  return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}
double gelu_derivative(double x) {
  const double u = std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x), t = std::tanh(u);
  return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * std::sqrt(2 / M_PI) * (1 + 3 * 0.044715 * x * x);
}

struct Product {
  LtMatmulDescription how;
  LtMatrixLayout a, b, d;
  const void *at_a, *at_b;
  void* at_d;

  std::int64_t k() const { return std::int64_t(how.of_a == kPlain ? a.cols : a.rows); }
  // The operands widened: k by rows of D, columns of D by k.
  std::vector<float> all_of_a() const {
    std::vector<float> values;
    for (std::int64_t t = 0; t < k(); ++t)
      for (std::int64_t i = 0; i < std::int64_t(d.rows); ++i)
        values.push_back(how.of_a == kPlain ? element(at_a, a, i, t) : element(at_a, a, t, i));
    return values;
  }
  std::vector<float> all_of_b() const {
    std::vector<float> values;
    for (std::int64_t j = 0; j < std::int64_t(d.cols); ++j)
      for (std::int64_t t = 0; t < k(); ++t)
        values.push_back(how.of_b == kPlain ? element(at_b, b, t, j) : element(at_b, b, j, t));
    return values;
  }
  unsigned char* mask(std::int64_t i, std::int64_t j) const {
    return static_cast<unsigned char*>(how.aux) + (j * how.aux_row + i) / 8;
  }
  float finish(std::int64_t i, std::int64_t j, float x) const {
    const unsigned char bit = static_cast<unsigned char>(1 << i % 8);
    float* const beside = static_cast<float*>(how.aux) + j * how.aux_row + i;
    switch (how.epilogue) {
    case kBias:
      return x + how.bias[i];
    case kReluBias:
    case kReluAuxBias: {
      const float z = x + how.bias[i];
      if (how.epilogue == kReluAuxBias) {
        unsigned char& byte = *mask(i, j);
        byte = static_cast<unsigned char>(z > 0 ? byte | bit : byte & ~bit);
      }
      return z > 0 || (std::isnan(z) && !told("loses_nan")) ? z : 0;
    }
    case kReluBackward:
      return *mask(i, j) & bit ? x : 0;
    case kGeluBias:
      return float(gelu(double(x) + how.bias[i]));
    case kGeluAuxBias:
      *beside = x + how.bias[i];
      return float(gelu(*beside));
    case kGeluBackward:
      return float(x * gelu_derivative(*beside));
    default:
      return x;
    }
  }

  void store(std::size_t at, float x) const {
    if (d.type == kFloat32)
      static_cast<float*>(at_d)[at] = x;
    else
      static_cast<std::uint16_t*>(at_d)[at] = rounded(x, d.type);
  }
  void make() const {
    const std::size_t depth = std::size_t(k()), rows = d.rows;
    const std::vector<float> in_a = all_of_a(), in_b = all_of_b();
    const std::size_t terms = told("wrong") ? depth - 1 : depth;
    std::vector<float> sums(rows);
    for (std::size_t j = 0; j < d.cols; ++j) {
      std::fill(sums.begin(), sums.end(), 0.0f);
      for (std::size_t t = 0; t < terms; ++t)
        for (std::size_t i = 0; i < rows; ++i) sums[i] += in_a[t * rows + i] * in_b[j * depth + t];
      for (std::size_t i = 0; i < rows; ++i)
        store(i + j * std::size_t(d.leading), finish(std::int64_t(i), std::int64_t(j), sums[i]));
    }
    if (how.epilogue != kSumsOfA) return;
    std::fill_n(how.bias, rows, 0.0f);
    for (std::size_t t = 0; t < depth; ++t)
      for (std::size_t i = 0; i < rows; ++i) how.bias[i] += in_a[t * rows + i];
  }
};

void run(void* argument) {
  const Product& product = **static_cast<std::shared_ptr<Product>*>(argument);
  const bool plain = product.how.epilogue == kDefault || product.how.epilogue == kBias;
  fbp_emulation_spend(told("slow") || (plain && told("slow_plain")) ||
                              (product.how.epilogue == kReluBackward && told("slow_derivative"))
                          ? 1000
                          : 10);
  if (!told("idle")) product.make();
}

bool is_aligned(const void* at, std::size_t bytes) {
  return reinterpret_cast<std::uintptr_t>(at) % bytes == 0;
}

// Whether the documentation has such a product.
bool permitted(const LtMatmulDescription& how, const LtMatrixLayout& a, const LtMatrixLayout& b,
               const LtMatrixLayout& c, const LtMatrixLayout& d) {
  const auto inner_a = how.of_a == kPlain ? a.cols : a.rows;
  const auto inner_b = how.of_b == kPlain ? b.rows : b.cols;
  const auto outer_a = how.of_a == kPlain ? a.rows : a.cols;
  const auto outer_b = how.of_b == kPlain ? b.cols : b.rows;
  if (inner_a != inner_b || outer_a != d.rows || outer_b != d.cols) return false;
  const bool reads_vector = how.epilogue & kBias || how.epilogue == kSumsOfA;
  if (a.type != b.type || c.type != d.type || c.leading != d.leading) return false;
  // The vector has the result's type.
  if (d.type != kFloat32 && (d.type != a.type || reads_vector)) return false;
  if ((a.type == kFloat32) != (how.compute == kComputeTf32)) return false;
  for (const LtMatrixLayout* layout : {&a, &b, &d})
    if (layout->leading < std::int64_t(layout->rows)) return false;
  const bool masks = how.epilogue == kReluAuxBias || how.epilogue == kReluBackward;
  const bool beside = how.epilogue == kGeluAuxBias || how.epilogue == kGeluBackward;
  if (masks || beside) {
    if (!how.aux || how.aux_row % (masks ? 128 : 8) || how.aux_row < std::int64_t(d.rows) ||
        !is_aligned(how.aux, 16))
      return false;
  }
  return !reads_vector || (how.bias && is_aligned(how.bias, 16));
}

template <class T> Status take(T& to, const void* value, std::size_t bytes) {
  if (bytes != sizeof to) return kInvalidValue;
  std::memcpy(&to, value, bytes);
  return kSuccess;
}

}  // namespace

#define FAKE(result, name) extern "C" __attribute__((visibility("default"))) result cublasLt##name

FAKE(std::size_t, GetVersion)() { return told("old") ? 120400 : 130100; }
FAKE(Status, Create)(Handle* handle) {
  if (told("no_handle")) return kExecutionFailed;
  *handle = new LtContext{0};
  return kSuccess;
}
FAKE(Status, MatmulDescCreate)(Description* made, ComputeType compute, DataType scale) {
  if (scale != kFloat32) return kNotSupported;
  *made = new LtMatmulDescription{compute};
  return kSuccess;
}
FAKE(Status, MatmulDescDestroy)(Description description) {
  delete description;
  return kSuccess;
}
FAKE(Status, MatmulDescSetAttribute)(Description to, DescriptionAttribute what, const void* value,
                                     std::size_t bytes) {
  switch (what) {
  case kOperationOfA:
    return take(to->of_a, value, bytes);
  case kOperationOfB:
    return take(to->of_b, value, bytes);
  case kEpilogue:
    return take(to->epilogue, value, bytes);
  case kBiasPointer:
    return take(to->bias, value, bytes);
  case kAuxPointer:
    return take(to->aux, value, bytes);
  case kAuxLeadingDimension:
    return take(to->aux_row, value, bytes);
  }
  return kInvalidValue;
}
FAKE(Status, MatrixLayoutCreate)(Layout* made, DataType type, std::uint64_t rows,
                                 std::uint64_t cols, std::int64_t leading) {
  *made = new LtMatrixLayout{type, rows, cols, leading};
  return kSuccess;
}
FAKE(Status, MatrixLayoutDestroy)(Layout layout) {
  delete layout;
  return kSuccess;
}
FAKE(Status, MatmulPreferenceCreate)(Preference* made) {
  *made = new LtMatmulPreference;
  return kSuccess;
}
FAKE(Status, MatmulPreferenceDestroy)(Preference preference) {
  delete preference;
  return kSuccess;
}
FAKE(Status, MatmulPreferenceSetAttribute)(Preference to, PreferenceAttribute what,
                                           const void* value, std::size_t bytes) {
  if (what == kMostWorkspace) return take(to->workspace, value, bytes);
  if (what == kReductionSchemes) return take(to->schemes, value, bytes);
  if (what < kLeastAlignmentOfA || what > kLeastAlignmentOfD) return kInvalidValue;
  return take(to->alignment[what - kLeastAlignmentOfA], value, bytes);
}
FAKE(Status, MatmulAlgoGetHeuristic)(Handle handle, Description how, Layout a, Layout b, Layout c,
                                     Layout d, Preference preference, int wanted,
                                     Heuristic* results, int* found) {
  *found = 0;
  if (!handle || !permitted(*how, *a, *b, *c, *d)) return kInvalidValue;
  if (told("no_algorithms")) return kNotSupported;
  for (std::uint64_t number = 0; number < 2 && *found < wanted; ++number) {
    if (kWorkspaceOfAlgorithm[number] > preference->workspace) continue;
    results[*found] = {};
    results[*found].algorithm.data[0] = number;
    // What the algorithm may assume of the four addresses.
    for (int i = 0; i < 4; ++i) results[*found].algorithm.data[1 + i] = preference->alignment[i];
    results[(*found)++].workspace = kWorkspaceOfAlgorithm[number];
  }
  return *found ? kSuccess : kNotSupported;
}
FAKE(Status, Matmul)(Handle handle, Description how, const void* alpha, const void* at_a, Layout a,
                     const void* at_b, Layout b, const void* beta, const void* at_c, Layout c,
                     void* at_d, Layout d, const Algorithm* algorithm, void* workspace,
                     std::size_t bytes, CUstream_st* stream) {
  if (!handle || !permitted(*how, *a, *b, *c, *d)) return kInvalidValue;
  if (*static_cast<const float*>(alpha) != 1 || *static_cast<const float*>(beta) != 0)
    return kNotSupported;
  const void* const places[] = {at_a, at_b, at_c, at_d};
  for (int i = 0; i < 4; ++i)
    if (!is_aligned(places[i], algorithm->data[1 + i])) return kInvalidValue;
  if (kWorkspaceOfAlgorithm[algorithm->data[0]] > bytes || !is_aligned(workspace, 256))
    return kInvalidValue;
  if (told("fails")) return kExecutionFailed;
  ++calls[int(how->epilogue)];
  auto* const product =
      new std::shared_ptr<Product>(new Product{*how, *a, *b, *d, at_a, at_b, at_d});
  // A recorded product is run again with each replay: it is kept to the end of the process.
  return fbp_emulation_enqueue(stream, run, product) == 0 ? kSuccess : kExecutionFailed;
}

extern "C" __attribute__((visibility("default"))) long long fake_blas_calls(int epilogue) {
  return calls[epilogue];
}
