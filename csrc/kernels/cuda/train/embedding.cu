// Tables of vectors read by number.
#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/train/norms.h"
#include "kernels/cuda/train/sink.cuh"

namespace fastbp {
namespace cuda {
namespace {

// Blocks that share a table's gradient: two for each multiprocessor of the largest GPUs.
constexpr index_t kTableBlocks = 264;

// The entry that x names; -1 where it names none.
template <class T> FBP_FN index_t entry_of(const EmbeddingArgs<T>& args, T x) {
  return x >= T(0) && x < T(args.entries) ? index_t(x) : -1;
}

template <class T>
__global__ void __launch_bounds__(kElementThreads) embedding_kernel(EmbeddingArgs<T> args) {
  for_each_element(args.rows, args.inputs * args.width, [&](index_t i, index_t k) {
    const index_t entry = entry_of(args, args.x[i * args.x_row + k / args.width]);
    args.y[i * args.y_row + k] =
        entry >= 0 ? args.table[entry * args.width + k % args.width] : T(__builtin_nan(""));
  });
}

// A block has the entries e with e % gridDim.x == blockIdx.x, and a thread columns of theirs: it goes
// through all numbers of the batch, some at once into shared memory, and adds what is the block's to
// its columns, in order.
template <class T>
__global__ void __launch_bounds__(kElementThreads)
    embedding_gradient_kernel(EmbeddingArgs<T> args, GradientSink<T> to) {
  FBP_SHARED(index_t, entries);
  const index_t all = args.rows * args.inputs, width = args.width;
  for (index_t e = blockIdx.x; e < args.entries; e += gridDim.x)
    for (index_t k = threadIdx.x; k < width; k += kElementThreads)
      to.gradient[e * width + k] = T(0);
  for (index_t begin = 0; begin < all; begin += kElementThreads) {
    const index_t mine = begin + threadIdx.x;
    if (mine < all) {
      const index_t entry =
          entry_of(args, args.x[mine / args.inputs * args.x_row + mine % args.inputs]);
      entries[threadIdx.x] = entry >= 0 && entry % gridDim.x == blockIdx.x ? entry : -1;
    }
    __syncthreads();
    const int count = int(all - begin < kElementThreads ? all - begin : kElementThreads);
    for (int n = 0; n < count; ++n) {
      const index_t entry = entries[n];
      if (entry < 0) continue;
      const index_t i = (begin + n) / args.inputs, j = (begin + n) % args.inputs;
      const T* const d = args.d + i * args.d_row + j * width;
      T* const sum = to.gradient + entry * width;
      FBP_UNROLL(1)
      for (index_t k = threadIdx.x; k < width; k += kElementThreads)
        (Lane<T>(sum[k]) + Lane<T>(d[k])).store(sum + k);
    }
    __syncthreads();
  }
  if (to.optimizer < 0) return;
  for (index_t e = blockIdx.x; e < args.entries; e += gridDim.x) {
    FBP_UNROLL(1)
    for (index_t k = threadIdx.x; k < width; k += kElementThreads)
      sink(to, e * width + k, Lane<T>(to.gradient[e * width + k]));
  }
}

}  // namespace

template <class T> cudaError_t embedding(const EmbeddingArgs<T>& args, cudaStream_t stream) {
  const ElementGrid shape(args.rows, args.inputs * args.width);
  FBP_LAUNCH(embedding_kernel<T>, shape.grid, shape.block, 0, stream)(args);
  return cudaGetLastError();
}

template <class T>
cudaError_t embedding_gradient(const EmbeddingArgs<T>& args, const GradientSink<T>& to,
                               cudaStream_t stream) {
  const index_t blocks = args.entries < kTableBlocks ? args.entries : kTableBlocks;
  FBP_LAUNCH(embedding_gradient_kernel<T>, dim3(unsigned(blocks)), dim3(kElementThreads),
             kElementThreads * sizeof(index_t), stream)(args, to);
  return cudaGetLastError();
}

template cudaError_t embedding(const EmbeddingArgs<float>&, cudaStream_t);
template cudaError_t embedding(const EmbeddingArgs<double>&, cudaStream_t);
template cudaError_t embedding_gradient(const EmbeddingArgs<float>&, const GradientSink<float>&,
                                        cudaStream_t);
template cudaError_t embedding_gradient(const EmbeddingArgs<double>&, const GradientSink<double>&,
                                        cudaStream_t);

}  // namespace cuda
}  // namespace fastbp
