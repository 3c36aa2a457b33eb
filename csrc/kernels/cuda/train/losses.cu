// Losses and metrics of a batch (losses.cuh), one kernel each.
#include "kernels/cuda/losses.cuh"

namespace fastbp {
namespace cuda {
namespace {

// Where the running batch's sums go.
FBP_FN double* place_of(const BlockSums& to) { return to.sums + to.counter->batch * to.blocks; }

template <class T, class Loss, bool weighted>
__global__ void __launch_bounds__(kLossThreads)
    elementwise_loss_kernel(LossArgs<T> args, BlockSums to) {
  FBP_SHARED(T, values);
  elementwise_loss_rows<T, Loss, weighted>(args, index_t(blockIdx.x) * (kLossThreads / kLanes<T>),
                                           values, place_of(to));
}

template <class T, bool weighted>
__global__ void __launch_bounds__(kLossThreads)
    narrow_softmax_kernel(LossArgs<T> args, BlockSums to) {
  FBP_SHARED(T, values);
  const index_t row = index_t(blockIdx.x) * kLossThreads + threadIdx.x;
  narrow_softmax_rows<T, weighted>(args, row, values, place_of(to));
}

// One block is enough: where ptxas may choose, it aims at more and spills in float64 (sm_120).
template <class T, bool weighted>
__global__ void __launch_bounds__(kWideThreads<T>, 1)
    wide_softmax_kernel(LossArgs<T> args, BlockSums to) {
  FBP_SHARED(T, values);
  wide_softmax_rows<T, weighted>(args, index_t(blockIdx.x) * kLossBlockRows, values, place_of(to));
}

template <class T>
__global__ void __launch_bounds__(kLossThreads) metric_kernel(MetricArgs<T> args, BlockSums to) {
  FBP_SHARED(double, values);
  const index_t row = index_t(blockIdx.x) * kLossThreads + threadIdx.x;
  metric_of_rows(args, row, values, place_of(to));
}

// The kernel of a loss that has a value for each element; null for those of whole rows.
template <class T, class Loss, bool weighted>
constexpr auto elementwise_kernel() -> void (*)(LossArgs<T>, BlockSums) {
  if constexpr (Loss::elementwise)
    return elementwise_loss_kernel<T, Loss, weighted>;
  else
    return nullptr;
}

dim3 blocks_of(index_t items, index_t each) { return dim3(unsigned(ceil_div(items, each))); }

template <class T, bool weighted>
cudaError_t launch_loss(int loss, const LossArgs<T>& args, const BlockSums& to,
                        cudaStream_t stream) {
  constexpr std::size_t bytes = kLossThreads * sizeof(T);
  const index_t blocks = loss_blocks(args.rows);
#define FBP_KERNEL(L) elementwise_kernel<T, L, weighted>(),
  static constexpr void (*kernels[])(LossArgs<T>, BlockSums) = {FBP_LOSSES(FBP_KERNEL)};
#undef FBP_KERNEL
  if (kernels[loss])
    FBP_LAUNCH(kernels[loss], blocks_of(blocks, kLossThreads / kLanes<T>), dim3(kLossThreads),
               bytes, stream)(args, to);
  else if (args.cols <= kLanes<T>)
    FBP_LAUNCH((narrow_softmax_kernel<T, weighted>), blocks_of(args.rows, kLossThreads),
               dim3(kLossThreads), bytes, stream)(args, to);
  else
    FBP_LAUNCH((wide_softmax_kernel<T, weighted>), blocks_of(blocks, 1), dim3(kWideThreads<T>),
               kWideValues<T> * sizeof(T), stream)(args, to);
  return cudaGetLastError();
}

}  // namespace

template <class T>
cudaError_t loss(int loss, const LossArgs<T>& args, const BlockSums& to, cudaStream_t stream) {
  return args.weight ? launch_loss<T, true>(loss, args, to, stream)
                     : launch_loss<T, false>(loss, args, to, stream);
}

template <class T>
cudaError_t metric(const MetricArgs<T>& args, const BlockSums& to, cudaStream_t stream) {
  FBP_LAUNCH(metric_kernel<T>, blocks_of(args.rows, kLossThreads), dim3(kLossThreads),
             kLossThreads * sizeof(double), stream)(args, to);
  return cudaGetLastError();
}

#define FBP_INSTANTIATE(T)                                                                         \
  template cudaError_t loss(int, const LossArgs<T>&, const BlockSums&, cudaStream_t);              \
  template cudaError_t metric(const MetricArgs<T>&, const BlockSums&, cudaStream_t);
FBP_INSTANTIATE(float)
FBP_INSTANTIATE(double)
#undef FBP_INSTANTIATE

}  // namespace cuda
}  // namespace fastbp
