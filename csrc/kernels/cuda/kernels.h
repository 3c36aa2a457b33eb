// The CUDA kernels as host functions, for float and double; api.cu offers them across the C ABI.
//
// All pointers but `args` are device memory. Work is enqueued on `stream`; the result says whether
// it could be. The bits are those of the CPU's kernels of the same name (NaN's sign and payload
// apart).
#pragma once

#include "kernels/args.h"
#include "kernels/cuda/launch.cuh"

namespace fastbp {
namespace cuda {

// C = A B + bias with the numerics of GemmArgs, of which sizes, matrices, bias and discard_c are
// read; A and B may have any strides. Where activation is an index into FBP_ACTIVATIONS, and not
// kNoActivation, also out = f(C), and C is not written if discard_c. out may be C.
inline constexpr int kNoActivation = -1;
template <class T>
cudaError_t gemm(const GemmArgs<T>& args, int activation, const ActivationTile<T>& tile,
                 cudaStream_t stream);

// A rows x cols matrix; element (i, j) at x[i * x_row + j].
template <class T> struct ElementwiseArgs {
  index_t rows = 0, cols = 0;
  const T* x = nullptr;  // forward: z; backward: dy
  index_t x_row = 0;
  ActivationTile<T> tile;  // out may be x's or saved's memory, with the same rows
};

// out = f(x) and out = x f'(saved), f = entry `activation` of FBP_ACTIVATIONS.
template <class T>
cudaError_t activation_forward(int activation, const ElementwiseArgs<T>& args, cudaStream_t stream);
template <class T>
cudaError_t activation_backward(int activation, const ElementwiseArgs<T>& args,
                                cudaStream_t stream);

// Where a run of batches stands, in device memory.
struct RunCounter {
  std::int64_t batch;       // of the run, from 0
  std::int64_t first_row;   // of batch 0 in the order
  std::int64_t steps_done;  // by the network before batch 0
  // Where updates may be left out: the number of the one whose hyper-parameters come first, from 1.
  std::int64_t first_update;
};

// The hyper-parameters of a run's steps, in device memory.
template <class T> struct StepTable {
  const StepHyper<T>* hyper = nullptr;  // one for each batch, or update from first_update on
  const RunCounter* counter = nullptr;
};

// Flat parameters and what goes with them, all of one layout.
template <class T> struct Parameters {
  T* w = nullptr;
  T* slot[2] = {nullptr, nullptr};

  Parameters from(index_t begin) const {
    return {w + begin, {slot[0] ? slot[0] + begin : nullptr, slot[1] ? slot[1] + begin : nullptr}};
  }
};

}  // namespace cuda
}  // namespace fastbp
