// Activations and their derivatives on matrices; contracts in kernels.h, formulas in
// ops/activations.h.
#include "kernels/cuda/kernels.h"
#include "ops/activations.h"
#include "ops/lane.h"

namespace fastbp {
namespace cuda {
namespace {

// Four to eight blocks fill the 1024 to 2048 thread slots of an SM; up to 64 registers a thread,
// all of them fit.
constexpr int kElementThreads = 256;

// Calls body(i, j) for every element, threadIdx.x and blockIdx.x along a row. The grid may be
// smaller than the matrix.
template <class Body> FBP_FN void for_each_element(index_t rows, index_t cols, Body body) {
  for (index_t i = index_t(blockIdx.y) * blockDim.y + threadIdx.y; i < rows;
       i += index_t(gridDim.y) * blockDim.y) {
    // A thread has few elements, usually one; an unrolled loop would begin with a 64-bit division.
    FBP_UNROLL(1)
    for (index_t j = index_t(blockIdx.x) * blockDim.x + threadIdx.x; j < cols;
         j += index_t(gridDim.x) * blockDim.x)
      body(i, j);
  }
}

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

// Blocks as wide as a row, up to kElementThreads, and as high as that leaves threads for. Matrices
// without gaps between their rows are one long row.
template <class T>
cudaError_t launch(Kernel<T> kernel, ElementwiseArgs<T> args, cudaStream_t stream) {
  if (args.rows <= 0 || args.cols <= 0) return cudaSuccess;
  const bool reads_saved = args.tile.saved != nullptr;
  if (args.x_row == args.cols && args.tile.out_row == args.cols &&
      (!reads_saved || args.tile.saved_row == args.cols)) {
    args.cols *= args.rows;
    args.rows = 1;
  }
  int width = 1;
  while (width < kElementThreads && width < args.cols) width *= 2;
  const dim3 block(width, kElementThreads / width);
  const index_t across = ceil_div(args.cols, block.x), down = ceil_div(args.rows, block.y);
  const dim3 grid(unsigned(across < kMaxGridX ? across : kMaxGridX),
                  unsigned(down < kMaxGridY ? down : kMaxGridY));
  FBP_LAUNCH(kernel, grid, block, 0, stream)(args);
  return cudaGetLastError();
}

}  // namespace

template <class T>
cudaError_t activation_forward(int activation, const ElementwiseArgs<T>& args,
                               cudaStream_t stream) {
#define FBP_KERNEL(A) forward_kernel<T, A>,
  static constexpr Kernel<T> kernels[] = {FBP_ACTIVATIONS(FBP_KERNEL)};
#undef FBP_KERNEL
  return launch(kernels[activation], args, stream);
}

template <class T>
cudaError_t activation_backward(int activation, const ElementwiseArgs<T>& args,
                                cudaStream_t stream) {
#define FBP_KERNEL(A) backward_kernel<T, A>,
  static constexpr Kernel<T> kernels[] = {FBP_ACTIVATIONS(FBP_KERNEL)};
#undef FBP_KERNEL
  return launch(kernels[activation], args, stream);
}

#define FBP_INSTANTIATE(T)                                                                         \
  template cudaError_t activation_forward(int, const ElementwiseArgs<T>&, cudaStream_t);           \
  template cudaError_t activation_backward(int, const ElementwiseArgs<T>&, cudaStream_t);
FBP_INSTANTIATE(float)
FBP_INSTANTIATE(double)
#undef FBP_INSTANTIATE

}  // namespace cuda
}  // namespace fastbp
