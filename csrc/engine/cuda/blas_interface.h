// The part of cuBLASLt's C interface that products use, declared here so that no build needs its
// headers; tests/test_cublaslt_header.py holds it against them where they are installed. Matrices are
// column-major there. Names after the first are the header's, without their prefixes.
#pragma once

#include <cstddef>
#include <cstdint>

struct CUstream_st;  // a cudaStream_t points to it

namespace fastbp {
namespace cuda {
namespace lt {

using Handle = struct LtContext*;
using Description = struct LtMatmulDescription*;
using Layout = struct LtMatrixLayout*;
using Preference = struct LtMatmulPreference*;

enum Status : int { kSuccess = 0, kInvalidValue = 7, kExecutionFailed = 13, kNotSupported = 15 };
enum DataType : int { kFloat32 = 0, kFloat16 = 2, kBfloat16 = 14 };
enum ComputeType : int { kComputeFloat32 = 68, kComputeTf32 = 77 };
enum Operation : std::int32_t { kPlain = 0, kTransposed = 1 };

enum DescriptionAttribute : int {
  kOperationOfA = 3,
  kOperationOfB = 4,
  kEpilogue = 7,
  kBiasPointer = 8,
  kAuxPointer = 11,
  kAuxLeadingDimension = 12
};

enum Epilogue : std::uint32_t {
  kDefault = 1,
  kBias = 4,
  kReluBias = 6,        // max(x + bias, 0)
  kGeluBias = 36,       // of x + bias, by its approximation with tanh
  kReluAuxBias = 134,   // a bit for each element too: whether it is positive
  kGeluAuxBias = 164,   // x + bias too
  kReluBackward = 136,  // x where the bit is set, else 0
  kGeluBackward = 192,  // x times the derivative at aux
  kSumsOfA = 256        // the sums of A over k too, to the place of the bias
};

enum PreferenceAttribute : int {
  kMostWorkspace = 1,
  kReductionSchemes = 3,
  kLeastAlignmentOfA = 5,
  kLeastAlignmentOfB = 6,
  kLeastAlignmentOfC = 7,
  kLeastAlignmentOfD = 8
};
// Of sums that are split along k: kept in float32, and added up by a kernel of their own.
inline constexpr std::uint32_t kReductionInComputeType = 2;

struct Algorithm { std::uint64_t data[8]; };
struct Heuristic {
  Algorithm algorithm;
  std::size_t workspace;
  Status state;
  float waves;
  int reserved[4];
};

// name, result, parameters
#define FBP_BLAS_FUNCTIONS(X)                                                                      \
  X(GetVersion, std::size_t, ())                                                                   \
  X(Create, Status, (Handle*))                                                                     \
  X(MatmulDescCreate, Status, (Description*, ComputeType, DataType))                               \
  X(MatmulDescDestroy, Status, (Description))                                                      \
  X(MatmulDescSetAttribute, Status, (Description, DescriptionAttribute, const void*, std::size_t)) \
  X(MatrixLayoutCreate, Status, (Layout*, DataType, std::uint64_t, std::uint64_t, std::int64_t))   \
  X(MatrixLayoutDestroy, Status, (Layout))                                                         \
  X(MatmulPreferenceCreate, Status, (Preference*))                                                 \
  X(MatmulPreferenceDestroy, Status, (Preference))                                                 \
  X(MatmulPreferenceSetAttribute, Status,                                                          \
    (Preference, PreferenceAttribute, const void*, std::size_t))                                   \
  X(MatmulAlgoGetHeuristic, Status,                                                                \
    (Handle, Description, Layout, Layout, Layout, Layout, Preference, int, Heuristic*, int*))      \
  X(Matmul, Status,                                                                                \
    (Handle, Description, const void*, const void*, Layout, const void*, Layout, const void*,      \
     const void*, Layout, void*, Layout, const Algorithm*, void*, std::size_t, CUstream_st*))

struct Functions {
#define FBP_POINTER(name, result, parameters) result(*name) parameters = nullptr;
  FBP_BLAS_FUNCTIONS(FBP_POINTER)
#undef FBP_POINTER
};

}  // namespace lt
}  // namespace cuda
}  // namespace fastbp
