// Activations and their derivatives on matrices, denormals kept; contracts in kernels.h.
#include "kernels/cuda/activations.cuh"

namespace fastbp {
namespace cuda {

template <class T>
cudaError_t activation_forward(int activation, const ElementwiseArgs<T>& args,
                               cudaStream_t stream) {
  return launch_forward(activation, args, stream);
}

template <class T>
cudaError_t activation_backward(int activation, const ElementwiseArgs<T>& args,
                                cudaStream_t stream) {
  return launch_backward(activation, args, stream);
}

#define FBP_INSTANTIATE(T)                                                                         \
  template cudaError_t activation_forward(int, const ElementwiseArgs<T>&, cudaStream_t);           \
  template cudaError_t activation_backward(int, const ElementwiseArgs<T>&, cudaStream_t);
FBP_INSTANTIATE(float)
FBP_INSTANTIATE(double)
#undef FBP_INSTANTIATE

}  // namespace cuda
}  // namespace fastbp
