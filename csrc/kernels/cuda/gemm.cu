// Matrix product with bias and activation, denormals kept; contract in kernels.h.
#include "kernels/cuda/epilogues.cuh"
#include "kernels/cuda/gemm.cuh"
#include "kernels/cuda/kernels.h"

namespace fastbp {
namespace cuda {

template <class T>
cudaError_t gemm(const GemmArgs<T>& args, int activation, const ActivationTile<T>& tile,
                 cudaStream_t stream) {
  const bool store_c = activation == kNoActivation || !args.discard_c;
  const Forward<T> epilogue{store_c ? args.c : nullptr, args.c_row, activation, tile};
  return launch_gemm<Dense::either, Dense::either>(args, epilogue, 1, stream);
}

template cudaError_t gemm(const GemmArgs<float>&, int, const ActivationTile<float>&, cudaStream_t);
template cudaError_t gemm(const GemmArgs<double>&, int, const ActivationTile<double>&,
                          cudaStream_t);

}  // namespace cuda
}  // namespace fastbp
