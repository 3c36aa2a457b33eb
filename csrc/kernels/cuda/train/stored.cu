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

// The same of a z in parts, `apart` values apart.
template <class Epilogue>
__global__ void __launch_bounds__(kElementThreads)
    parts_kernel(const float* z, index_t parts, index_t apart, index_t rows, index_t cols,
                 Epilogue epilogue) {
  for_each_element(rows, cols, [&](index_t i, index_t j) {
    const float* const at = z + i * cols + j;
    Lf sum(at[0]);
    FBP_UNROLL(4)
    for (index_t p = 1; p < parts; ++p) sum = sum + Lf(at[p * apart]);
    epilogue(i, j, sum);
  });
}

template <class Inner>
cudaError_t launch_stored(const float* z, index_t z_row, index_t rows, index_t cols,
                          const Inner& inner, Shadow shadow, bool alone, cudaStream_t stream) {
  const ElementGrid shape(rows, cols);
  FBP_LAUNCH(stored_kernel<WithShadow<Inner>>, shape.grid, shape.block, 0, stream)
  (z, z_row, rows, cols, WithShadow<Inner>{inner, shadow, alone});
  return cudaGetLastError();
}

}  // namespace

cudaError_t stored_forward(const float* z, index_t z_row, index_t rows, index_t cols,
                           int activation, const ActivationTile<float>& tile, Shadow y,
                           cudaStream_t stream) {
  const Forward<float> inner{nullptr, 0, activation, tile};
  return launch_stored(z, z_row, rows, cols, inner, y, !tile.out, stream);
}

cudaError_t stored_delta(const float* dy, index_t dy_row, index_t rows, index_t cols,
                         int activation, const ActivationTile<float>& tile, Shadow dz,
                         cudaStream_t stream) {
  return launch_stored(dy, dy_row, rows, cols, Backward<float>{activation, tile}, dz, !tile.out,
                       stream);
}

cudaError_t stored_update(const float* gradient, index_t parts, index_t apart, index_t rows, index_t cols, int optimizer,
                          const Parameters<float>& to, const StepTable<float>& steps, Shadow w,
                          cudaStream_t stream) {
  const Update<float> inner{to, cols, optimizer, steps};
  if (parts == 1) return launch_stored(gradient, cols, rows, cols, inner, w, false, stream);
  const ElementGrid shape(rows, cols);
  FBP_LAUNCH(parts_kernel<WithShadow<Update<float>>>, shape.grid, shape.block, 0, stream)
  (gradient, parts, apart, rows, cols, WithShadow<Update<float>>{inner, w});
  return cudaGetLastError();
}

}  // namespace cuda
}  // namespace fastbp
