#include "kernels/cuda/train/lengths.h"

#include "kernels/cuda/elements.cuh"

namespace fastbp {
namespace cuda {
namespace {

template <class T>
__global__ void __launch_bounds__(kElementThreads)
    close_up_kernel(const T* x, index_t x_row, SequenceRows at, index_t cols,
                    const std::int64_t* lengths, T* closed) {
  for_each_element(at.all(), cols, [&](index_t row, index_t j) {
    index_t i, t;
    at.find(row, &i, &t);
    if (t < index_t(lengths[i]))
      closed[closed_row(at, lengths, i, t) * cols + j] = x[row * x_row + j];
  });
}

template <class T>
__global__ void __launch_bounds__(kElementThreads)
    open_up_kernel(const T* closed, SequenceRows at, index_t cols, const std::int64_t* lengths,
                   T* x, index_t x_row) {
  for_each_element(at.all(), cols, [&](index_t row, index_t j) {
    index_t i, t;
    at.find(row, &i, &t);
    const bool counts = t < index_t(lengths[i]);
    x[row * x_row + j] = counts ? closed[closed_row(at, lengths, i, t) * cols + j] : T(0);
  });
}

}  // namespace

template <class T>
cudaError_t close_up(const T* x, index_t x_row, const SequenceRows& at, index_t cols,
                     const std::int64_t* lengths, T* closed, cudaStream_t stream) {
  const ElementGrid shape(at.all(), cols);
  FBP_LAUNCH(close_up_kernel<T>, shape.grid, shape.block, 0, stream)
  (x, x_row, at, cols, lengths, closed);
  return cudaGetLastError();
}

template <class T>
cudaError_t open_up(const T* closed, const SequenceRows& at, index_t cols,
                    const std::int64_t* lengths, T* x, index_t x_row, cudaStream_t stream) {
  const ElementGrid shape(at.all(), cols);
  FBP_LAUNCH(open_up_kernel<T>, shape.grid, shape.block, 0, stream)
  (closed, at, cols, lengths, x, x_row);
  return cudaGetLastError();
}

#define FBP_INSTANTIATE(T)                                                                         \
  template cudaError_t close_up(const T*, index_t, const SequenceRows&, index_t,                   \
                                const std::int64_t*, T*, cudaStream_t);                            \
  template cudaError_t open_up(const T*, const SequenceRows&, index_t, const std::int64_t*, T*,    \
                               index_t, cudaStream_t);
FBP_INSTANTIATE(float)
FBP_INSTANTIATE(double)
#undef FBP_INSTANTIATE

}  // namespace cuda
}  // namespace fastbp
