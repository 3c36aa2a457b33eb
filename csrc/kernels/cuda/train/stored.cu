#include "kernels/cuda/train/stored.h"

#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/train/with_shadow.cuh"

namespace fastbp {
namespace cuda {
namespace {

// The epilogue of the kernels that make products themselves, for each element of z.
template <class Epilogue>
__global__ void __launch_bounds__(kElementThreads)
    stored_kernel(const float* z, index_t z_row, index_t rows, index_t cols, Epilogue epilogue) {
  for_each_element(rows, cols, [&](index_t i, index_t j) { epilogue(i, j, Lf(z[i * z_row + j])); });
}

template <class Inner>
cudaError_t launch_stored(const float* z, index_t z_row, index_t rows, index_t cols,
                          const Inner& inner, Shadow shadow, cudaStream_t stream) {
  const ElementGrid shape(rows, cols);
  FBP_LAUNCH(stored_kernel<WithShadow<Inner>>, shape.grid, shape.block, 0, stream)
  (z, z_row, rows, cols, WithShadow<Inner>{inner, shadow});
  return cudaGetLastError();
}

}  // namespace

cudaError_t stored_forward(const float* z, index_t z_row, index_t rows, index_t cols,
                           int activation, const ActivationTile<float>& tile, Shadow y,
                           cudaStream_t stream) {
  const Forward<float> inner{nullptr, 0, activation, tile};
  return launch_stored(z, z_row, rows, cols, inner, y, stream);
}

cudaError_t stored_delta(index_t rows, index_t cols, int activation,
                         const ActivationTile<float>& tile, Shadow dz, cudaStream_t stream) {
  return launch_stored(tile.out, tile.out_row, rows, cols, Backward<float>{activation, tile}, dz,
                       stream);
}

cudaError_t stored_update(const float* gradient, index_t rows, index_t cols, int optimizer,
                          const Parameters<float>& to, const StepTable<float>& steps, Shadow w,
                          cudaStream_t stream) {
  const Update<float> inner{to, cols, optimizer, steps};
  return launch_stored(gradient, cols, rows, cols, inner, w, stream);
}

}  // namespace cuda
}  // namespace fastbp
