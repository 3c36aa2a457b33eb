// Functions of the caller's own in the place of an activation or of the loss (engine/host_functions.h). They
// read and write host memory: what they are given is copied there, what they return is copied back, each
// time with a wait for the device. So a pass that calls any is enqueued kernel by kernel, never recorded.
#pragma once

#include <vector>

#include "engine/cuda/resources.h"
#include "engine/host_functions.h"
#include "kernels/cuda/fastbp_cuda.h"
#include "kernels/cuda/train/kernels.h"

namespace fastbp {
namespace cuda {

// Thrown where such a function failed: the pass is given up.
struct GivenUp {};

template <class T> class HostCalls {
 public:
  fbp_host_functions functions{};

  // The call's pointers are memory of the device, as what it leaves.
  void activation(const HostActivation<T>& call, cudaStream_t stream);
  // The same; its block_loss is not read.
  void loss(const HostLoss<T>& call, const BlockSums& to, cudaStream_t stream);

 private:
  // Copies (host) that hold until the next call. What has been sent has arrived by then: a call begins
  // with a wait.
  std::vector<T> in_[3], out_;
  std::vector<double> blocks_;
  RunCounter counter_{};
};

extern template class HostCalls<float>;
extern template class HostCalls<double>;

}  // namespace cuda
}  // namespace fastbp
