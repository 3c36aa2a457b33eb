// What follows a product in a kernel of its own, over the sums that another library has stored; with
// the shadow, where there is one, of what it makes.
#pragma once

#include "kernels/cuda/train/tensor.h"

namespace fastbp {
namespace cuda {

// tile.out = f(z), z (rows, cols); which may be tile.out. tile.out null: the shadow alone, also below.
cudaError_t stored_forward(const float* z, index_t z_row, index_t rows, index_t cols,
                           int activation, const ActivationTile<float>& tile, Shadow y,
                           cudaStream_t stream);
// tile.out = dy f'(tile.saved); dy may be tile.out.
cudaError_t stored_delta(const float* dy, index_t dy_row, index_t rows, index_t cols,
                         int activation, const ActivationTile<float>& tile, Shadow dz,
                         cudaStream_t stream);
// relu's derivative on dz, which lies rounded, by the rounded outputs: what is 0 among them is so in
// float32 too, where rounding does not shorten the range (bfloat16).
cudaError_t stored_relu_delta(index_t rows, index_t cols, Shadow dz, Shadow y, cudaStream_t stream);
// Parameters (rows, cols) updated by their gradient, which is contiguous as they are: of `parts` of the
// sum, `apart` values apart, added up in order.
cudaError_t stored_update(const float* gradient, index_t parts, index_t apart, index_t rows,
                          index_t cols, int optimizer, const Parameters<float>& to,
                          const StepTable<float>& steps, Shadow w, cudaStream_t stream);

}  // namespace cuda
}  // namespace fastbp
