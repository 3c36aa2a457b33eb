// The products of tensor.h by the wgmma and TMA of compute capability 9.0, for matrices of whole tiles
// and more. Called by those functions; the same arguments, shadows and results, sums in another order.
#pragma once

#include "kernels/cuda/train/tensor.h"

namespace fastbp {
namespace cuda {

// Multiprocessors of the calling thread's device where it makes products of this size so; else 0.
int wide_processors(const TensorArgs& args, index_t parts = 1);

cudaError_t wide_forward(const TensorArgs& args, int activation, const ActivationTile<float>& tile,
                         Shadow y, int processors, cudaStream_t stream);
cudaError_t wide_delta(const TensorArgs& args, int activation, const ActivationTile<float>& tile,
                       Shadow dz, int processors, cudaStream_t stream);
cudaError_t wide_update(const TensorArgs& args, int optimizer, const Parameters<float>& to,
                        const StepTable<float>& steps, Shadow w, int processors,
                        cudaStream_t stream);
// The chunks of the parts are the kernel's own.
cudaError_t wide_store(const TensorArgs& args, index_t parts, index_t part, int processors,
                       cudaStream_t stream);

}  // namespace cuda
}  // namespace fastbp
