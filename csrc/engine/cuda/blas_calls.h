// Single products by cuBLASLt: C = A B of matrices in device memory, row-major as everything here; to
// the library, which is column-major, they are those of the transposed product.
#pragma once

#include <map>
#include <vector>

#include "core/types.h"
#include "engine/cuda/blas_library.h"
#include "kernels/cuda/launch.cuh"

namespace fastbp {
namespace cuda {

// How the operands lie: forward A (m, k), B (k, n); delta A (m, k), B (n, k); gradient A (k, m), B (k,
// n).
enum class BlasForm { forward, delta, gradient };

// A and B as they lie in memory, rows a_row and b_row values apart. float32 values are rounded to
// TF32.
struct BlasOperands {
  lt::DataType type = lt::kFloat32;
  const void *a = nullptr, *b = nullptr;
  index_t a_row = 0, b_row = 0;
};

// What the library does besides. vector (n): the bias, or where the sums of B over k go.
struct BlasEpilogue {
  lt::Epilogue kind = lt::kDefault;
  void* vector = nullptr;
  void* aux = nullptr;
  index_t aux_row = 0;
};

struct BlasProduct {
  BlasForm form = BlasForm::forward;
  index_t m = 0, n = 0, k = 0;
  BlasOperands in;
  BlasEpilogue epilogue;
  void* c = nullptr;
  index_t c_row = 0;
  lt::DataType c_type = lt::kFloat32;  // or that of 16-bit operands: sums are rounded once
};

// The products of one network, which lends them their workspace.
class BlasCalls {
 public:
  // How many algorithms the library is asked for at most.
  static constexpr int kAlgorithms = 3;

  BlasCalls() = default;
  ~BlasCalls() { forget(); }
  BlasCalls(const BlasCalls&) = delete;
  BlasCalls& operator=(const BlasCalls&) = delete;

  // Those of another service, or with another workspace, begin anew.
  void use(const BlasService& service, int device, void* workspace, std::size_t bytes);
  // Enqueues it, by the algorithm of that number. cudaErrorNotSupported where the library has none.
  cudaError_t run(const BlasProduct& product, int algorithm, cudaStream_t stream);

 private:
  struct Prepared {
    lt::Description description = nullptr;
    lt::Layout a = nullptr, b = nullptr, c = nullptr;
    std::vector<lt::Heuristic> algorithms;
  };
  using Key = std::vector<std::uint64_t>;

  void forget();
  Prepared& prepared(const BlasProduct& product);
  bool prepare(const BlasProduct& product, Prepared& to) const;
  bool ask(const BlasProduct& product, Prepared& to) const;
  bool set_pointers(const BlasProduct& product, const Prepared& to) const;
  void release(const Prepared& what) const;

  BlasService service_;
  lt::Handle handle_ = nullptr;
  void* workspace_ = nullptr;
  std::size_t workspace_bytes_ = 0;
  std::map<Key, Prepared> prepared_;
};

}  // namespace cuda
}  // namespace fastbp
