// The products of a training step in TF32, each with what follows it.
#include "kernels/cuda/train/tf32.h"

#include "kernels/cuda/epilogues.cuh"
#include "kernels/cuda/tf32_product.cuh"

namespace fastbp {
namespace cuda {
namespace {

// One of its strides is 1: k runs along its rows, or across them.
Tf32Args args_of(const GemmArgs<float>& g) {
  const index_t a_row = g.a_col == 1 ? g.a_row : g.a_col;
  const index_t b_row = g.b_col == 1 ? g.b_row : g.b_col;
  return {g.m, g.n, g.k, {g.a, a_row}, {g.b, b_row}, g.bias};
}

}  // namespace

cudaError_t tf32_forward(const GemmArgs<float>& args, int activation,
                         const ActivationTile<float>& tile, cudaStream_t stream) {
  const Forward<float> epilogue{args.c, args.c_row, activation, tile};
  return launch_tensor<Tf32Product<true, false>>(args_of(args), epilogue, args.k, 1, stream);
}

cudaError_t tf32_delta(const GemmArgs<float>& args, int activation,
                       const ActivationTile<float>& tile, cudaStream_t stream) {
  const Backward<float> epilogue{activation, tile};
  return launch_tensor<Tf32Product<true, true>>(args_of(args), epilogue, args.k, 1, stream);
}

cudaError_t tf32_update(const GemmArgs<float>& args, int optimizer, const Parameters<float>& to,
                        const StepTable<float>& steps, cudaStream_t stream) {
  const Update<float> epilogue{to, args.c_row, optimizer, steps};
  return launch_tensor<Tf32Product<false, false>>(args_of(args), epilogue, args.k, 1, stream);
}

cudaError_t tf32_store(const GemmArgs<float>& args, index_t parts, index_t part,
                       cudaStream_t stream) {
  const StorePart<float> epilogue{args.c, args.c_row, part};
  return launch_tensor<Tf32Product<false, false>>(args_of(args), epilogue,
                                                  parts > 1 ? args.chunk : args.k, parts, stream);
}

}  // namespace cuda
}  // namespace fastbp
