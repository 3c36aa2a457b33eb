// Activations and their derivatives on matrices, as templates: contracts in kernels.h, formulas in
// ops/activations.h. Included by the files that instantiate them, each compiled with its own
// treatment of denormals: hence no symbol leaves them.
#pragma once

#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/kernels.h"
#include "ops/activations.h"
#include "ops/lane.h"

namespace fastbp {
namespace cuda {
namespace {

template <class T, class Activation>
__global__ void __launch_bounds__(kElementThreads) forward_kernel(ElementwiseArgs<T> args) {
  const ActivationTile<T> tile = args.tile;
  for_each_element(args.rows, args.cols, [&](index_t i, index_t j) {
    const Lane<T> z(args.x[i * args.x_row + j]);
    Activation::forward(z, Lane<T>(tile.param)).store(tile.out + i * tile.out_row + j);
  });
}

template <class T, class Activation>
__global__ void __launch_bounds__(kElementThreads) backward_kernel(ElementwiseArgs<T> args) {
  const ActivationTile<T> tile = args.tile;
  for_each_element(args.rows, args.cols, [&](index_t i, index_t j) {
    const Lane<T> dy(args.x[i * args.x_row + j]);
    // An activation that saves nothing reads nothing.
    const Lane<T> saved =
        Activation::saves == Saves::None ? dy : Lane<T>(tile.saved[i * tile.saved_row + j]);
    Activation::backward(saved, dy, Lane<T>(tile.param)).store(tile.out + i * tile.out_row + j);
  });
}

template <class T> using Kernel = void (*)(ElementwiseArgs<T>);

// Matrices without gaps between their rows are one long row.
template <class T>
cudaError_t launch(Kernel<T> kernel, ElementwiseArgs<T> args, cudaStream_t stream) {
  if (args.rows <= 0 || args.cols <= 0) return cudaSuccess;
  const bool reads_saved = args.tile.saved != nullptr;
  if (args.x_row == args.cols && args.tile.out_row == args.cols &&
      (!reads_saved || args.tile.saved_row == args.cols)) {
    args.cols *= args.rows;
    args.rows = 1;
  }
  const ElementGrid shape(args.rows, args.cols);
  FBP_LAUNCH(kernel, shape.grid, shape.block, 0, stream)(args);
  return cudaGetLastError();
}

template <class T>
cudaError_t launch_forward(int activation, const ElementwiseArgs<T>& args, cudaStream_t stream) {
#define FBP_KERNEL(A) forward_kernel<T, A>,
  static constexpr Kernel<T> kernels[] = {FBP_ACTIVATIONS(FBP_KERNEL)};
#undef FBP_KERNEL
  return launch(kernels[activation], args, stream);
}

template <class T>
cudaError_t launch_backward(int activation, const ElementwiseArgs<T>& args, cudaStream_t stream) {
#define FBP_KERNEL(A) backward_kernel<T, A>,
  static constexpr Kernel<T> kernels[] = {FBP_ACTIVATIONS(FBP_KERNEL)};
#undef FBP_KERNEL
  return launch(kernels[activation], args, stream);
}

}  // namespace
}  // namespace cuda
}  // namespace fastbp
