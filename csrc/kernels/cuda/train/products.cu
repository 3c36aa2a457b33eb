// The matrix products of a training step, each with what follows it.
#include "kernels/cuda/epilogues.cuh"
#include "kernels/cuda/gemm.cuh"
#include "kernels/cuda/train/kernels.h"

namespace fastbp {
namespace cuda {

index_t product_blocks(index_t m, index_t n) {
  return gemm_tiles(kGemmShape<float>[kSmallGemm], m, n);
}
index_t product_chunks_at_once() { return kGemmShape<float>[kSmallGemm].groups; }

template <class T>
cudaError_t forward_product(const GemmArgs<T>& args, int activation, const ActivationTile<T>& tile,
                            cudaStream_t stream) {
  return launch_gemm<Dense::along_k, Dense::across>(
      args, Forward<T>{args.c, args.c_row, activation, tile}, 1, stream);
}

template <class T>
cudaError_t delta_product(const GemmArgs<T>& args, int activation, const ActivationTile<T>& tile,
                          cudaStream_t stream) {
  return launch_gemm<Dense::along_k, Dense::along_k>(args, Backward<T>{activation, tile}, 1,
                                                     stream);
}

template <class T>
cudaError_t update_product(const GemmArgs<T>& args, int optimizer, const Parameters<T>& to,
                           const StepTable<T>& steps, cudaStream_t stream) {
  return launch_gemm<Dense::across, Dense::across>(
      args, Update<T>{to, args.c_row, optimizer, steps}, 1, stream);
}

template <class T>
cudaError_t store_product(const GemmArgs<T>& args, index_t parts, index_t part,
                          cudaStream_t stream) {
  return launch_gemm<Dense::across, Dense::across>(args, StorePart<T>{args.c, args.c_row, part},
                                                   parts, stream);
}

#define FBP_INSTANTIATE(T)                                                                         \
  template cudaError_t forward_product(const GemmArgs<T>&, int, const ActivationTile<T>&,          \
                                       cudaStream_t);                                              \
  template cudaError_t delta_product(const GemmArgs<T>&, int, const ActivationTile<T>&,            \
                                     cudaStream_t);                                                \
  template cudaError_t update_product(const GemmArgs<T>&, int, const Parameters<T>&,               \
                                      const StepTable<T>&, cudaStream_t);                          \
  template cudaError_t store_product(const GemmArgs<T>&, index_t, index_t, cudaStream_t);
FBP_INSTANTIATE(float)
FBP_INSTANTIATE(double)
#undef FBP_INSTANTIATE

}  // namespace cuda
}  // namespace fastbp
