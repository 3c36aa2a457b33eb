// Products on tensor cores of float32 matrices, whose values are rounded to TF32 (8 bits of exponent, 11
// of precision) on their way; sums are float32. From compute capability 8.0 on. Arguments and results as
// the functions of kernels.h of similar names; the bits depend on shapes alone, but are not the CPU's.
#pragma once

#include "kernels/args.h"
#include "kernels/cuda/kernels.h"

namespace fastbp {
namespace cuda {

// Rows `row` elements apart.
struct Tf32Matrix {
  const float* at = nullptr;
  index_t row = 0;
};

// C (m, n) = A B + bias.
struct Tf32Args {
  index_t m = 0, n = 0, k = 0;
  Tf32Matrix a, b;
  const float* bias = nullptr;  // (n), or null
};

cudaError_t tf32_forward(const GemmArgs<float>& args, int activation,
                         const ActivationTile<float>& tile, cudaStream_t stream);
cudaError_t tf32_delta(const GemmArgs<float>& args, int activation,
                       const ActivationTile<float>& tile, cudaStream_t stream);
cudaError_t tf32_update(const GemmArgs<float>& args, int optimizer, const Parameters<float>& to,
                        const StepTable<float>& steps, cudaStream_t stream);
cudaError_t tf32_store(const GemmArgs<float>& args, index_t parts, index_t part,
                       cudaStream_t stream);

}  // namespace cuda
}  // namespace fastbp
