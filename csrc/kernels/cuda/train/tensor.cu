// The products of a training step on tensor cores, each with what follows it, and shadows of what
// other kernels make.
#include "kernels/cuda/train/tensor.h"

#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/half_product.cuh"
#include "kernels/cuda/train/wide.h"
#include "kernels/cuda/train/with_shadow.cuh"

namespace fastbp {
namespace cuda {
namespace {

struct alignas(16) FourFloats { float value[4]; };

__global__ void __launch_bounds__(kElementThreads)
    shadow_kernel(const float* x, index_t x_row, index_t rows, index_t cols, Shadow to) {
  for_each_element(rows, cols,
                   [&](index_t i, index_t j) { store_shadow(to, i, j, x[i * x_row + j]); });
}

// The same of rows that begin at multiples of 16 bytes, their length a multiple of 4.
__global__ void __launch_bounds__(kElementThreads)
    shadow_4_kernel(const float* x, index_t x_row, index_t rows, index_t cols, Shadow to) {
  for_each_element(rows, cols / 4, [&](index_t i, index_t j) {
    const FourFloats from = *reinterpret_cast<const FourFloats*>(x + i * x_row + 4 * j);
    store_shadow_4(to, i, 4 * j, from.value);
  });
}

__global__ void __launch_bounds__(kElementThreads)
    shadow_ones_kernel(Shadow to, index_t col, index_t rows) {
  for_each_element(rows, 1, [&](index_t i, index_t) { store_shadow(to, i, col, 1); });
}

}  // namespace

index_t tensor_blocks(index_t m, index_t n) { return tensor_tiles(m, n); }

cudaError_t tensor_forward(const TensorArgs& args, int activation,
                           const ActivationTile<float>& tile, Shadow y, cudaStream_t stream) {
  if (const int processors = wide_processors(args))
    return wide_forward(args, activation, tile, y, processors, stream);
  const Forward<float> inner{args.c, args.c_row, activation, tile};
  return launch_tensor<HalfProduct<true, false>>(
      args, WithShadow<Forward<float>>{inner, y, !tile.out}, args.k, 1, stream);
}

cudaError_t tensor_delta(const TensorArgs& args, int activation, const ActivationTile<float>& tile,
                         Shadow dz, cudaStream_t stream) {
  if (const int processors = wide_processors(args))
    return wide_delta(args, activation, tile, dz, processors, stream);
  const Backward<float> inner{activation, tile};
  return launch_tensor<HalfProduct<true, true>>(
      args, WithShadow<Backward<float>>{inner, dz, !tile.out}, args.k, 1, stream);
}

cudaError_t tensor_update(const TensorArgs& args, int optimizer, const Parameters<float>& to,
                          const StepTable<float>& steps, Shadow w, cudaStream_t stream) {
  if (const int processors = wide_processors(args))
    return wide_update(args, optimizer, to, steps, w, processors, stream);
  const Update<float> inner{to, args.c_row, optimizer, steps};
  return launch_tensor<HalfProduct<false, false>>(args, WithShadow<Update<float>>{inner, w}, args.k,
                                                  1, stream);
}

cudaError_t tensor_store(const TensorArgs& args, index_t chunk, index_t parts, index_t part,
                         cudaStream_t stream) {
  if (const int processors = wide_processors(args, parts))
    return wide_store(args, parts, part, processors, stream);
  return launch_tensor<HalfProduct<false, false>>(args, StorePart<float>{args.c, args.c_row, part},
                                                  parts > 1 ? chunk : args.k, parts, stream);
}

cudaError_t write_shadow(const float* x, index_t x_row, index_t rows, index_t cols, Shadow to,
                         cudaStream_t stream) {
  if (rows <= 0 || cols <= 0) return cudaSuccess;
  const bool by_fours = reinterpret_cast<std::uintptr_t>(x) % 16 == 0 && x_row % 4 == 0 &&
                        cols % 4 == 0 && reinterpret_cast<std::uintptr_t>(to.at) % 8 == 0;
  const ElementGrid shape(rows, by_fours ? cols / 4 : cols);
  const auto kernel = by_fours ? shadow_4_kernel : shadow_kernel;
  FBP_LAUNCH(kernel, shape.grid, shape.block, 0, stream)(x, x_row, rows, cols, to);
  return cudaGetLastError();
}

cudaError_t write_shadow_ones(Shadow to, index_t col, index_t rows, cudaStream_t stream) {
  const ElementGrid shape(rows, 1);
  FBP_LAUNCH(shadow_ones_kernel, shape.grid, shape.block, 0, stream)(to, col, rows);
  return cudaGetLastError();
}

}  // namespace cuda
}  // namespace fastbp
