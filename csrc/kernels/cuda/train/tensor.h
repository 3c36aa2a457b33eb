// Products on tensor cores, with what follows them: operands bfloat16 (from compute capability 8.0 on)
// or float16 (from 7.5 on), sums float32.
//
// A network that trains so keeps everything in float32; beside each matrix that a product reads lies
// its shadow, the same values rounded to 16 bits, to nearest even. The kernel that makes
// the matrix writes the shadow too.
//
// All pointers but the structs themselves are device memory. Work is enqueued on `stream`; the
// result says whether it could be. The bits depend on shapes alone, but are not the CPU's.
#pragma once

#include "kernels/args.h"
#include "kernels/cuda/kernels.h"

namespace fastbp {
namespace cuda {

// A multiple of 16 bytes: what cp.async copies.
inline constexpr index_t kShadowGroup = 8;
FBP_FN constexpr index_t shadow_row(index_t cols) {
  return ceil_div(cols, kShadowGroup) * kShadowGroup;
}

enum class Half { bfloat16, float16 };

// The rounded bits of a matrix. `at` is a multiple of 16, `row` of kShadowGroup.
struct Shadow {
  std::uint16_t* at = nullptr;  // null: there is none
  index_t row = 0;
  Half kind = Half::bfloat16;

  // From a row and a column on, which a product reads only where it is a multiple of kShadowGroup.
  Shadow from(index_t first_row, index_t col = 0) const {
    return {at + first_row * row + col, row, kind};
  }
};

// C (m, n) = A B + bias, A and B of one kind. The product's form says how A and B lie.
struct TensorArgs {
  index_t m = 0, n = 0, k = 0;
  Shadow a, b;
  const float* bias = nullptr;  // (n), or null
  float* c = nullptr;
  index_t c_row = 0;
};

// A (m, k), B (k, n). As forward_product; y's shadow too where it has one, and alone where tile.out is
// null.
cudaError_t tensor_forward(const TensorArgs& args, int activation,
                           const ActivationTile<float>& tile, Shadow y, cudaStream_t stream);
// A (m, k), B (n, k). As delta_product; the shadow of tile.out too, or alone.
cudaError_t tensor_delta(const TensorArgs& args, int activation, const ActivationTile<float>& tile,
                         Shadow dz, cudaStream_t stream);
// A (k, m), B (k, n). As update_product; the shadow of the parameters too.
cudaError_t tensor_update(const TensorArgs& args, int optimizer, const Parameters<float>& to,
                          const StepTable<float>& steps, Shadow w, cudaStream_t stream);
// A (k, m), B (k, n). As store_product: each `chunk` of k apart.
cudaError_t tensor_store(const TensorArgs& args, index_t chunk, index_t parts, index_t part,
                         cudaStream_t stream);
index_t tensor_blocks(index_t m, index_t n);

// The shadow of x (rows, cols).
cudaError_t write_shadow(const float* x, index_t x_row, index_t rows, index_t cols, Shadow to,
                         cudaStream_t stream);
// Column `col` of the shadow = 1.
cudaError_t write_shadow_ones(Shadow to, index_t col, index_t rows, cudaStream_t stream);

}  // namespace cuda
}  // namespace fastbp
