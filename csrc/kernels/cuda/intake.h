// Arrays that a caller has on the device, made into what networks read: contiguous, of their dtype, and
// with numbers that they may have.
#pragma once

#include "kernels/cuda/fastbp_cuda.h"
#include "kernels/cuda/launch.cuh"

namespace fastbp {
namespace cuda {

// As fbp_intake_args says; count is the number of elements. Where a number is not accepted, 1 is
// written to *wrong (device memory), which nobody else writes otherwise.
cudaError_t intake(const fbp_intake_args& args, index_t count, int* wrong, cudaStream_t stream);

// total (device memory) = the sum of x (n), each of at least 0, to within 1e-30 of itself before it is
// rounded.
cudaError_t sum(const double* x, index_t n, double* total, cudaStream_t stream);

}  // namespace cuda
}  // namespace fastbp
