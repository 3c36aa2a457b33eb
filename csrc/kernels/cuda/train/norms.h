// Normalisation, softmax of rows, sums of residual blocks and tables of vectors on a device: twins of
// kernels/cpu/norm.inl and engine/embedding.cpp, with their sums. Arguments as there; all pointers but
// the structs themselves are device memory.
#pragma once

#include "kernels/cuda/kernels.h"

namespace fastbp {
namespace cuda {

// Where a gradient goes, element e of a stage's parameters: stored, part p of a sum in parts `apart`
// elements behind part p - 1; or, where `optimizer` is an entry of FBP_OPTIMIZERS, into the parameters.
template <class T> struct GradientSink {
  T* gradient = nullptr;
  index_t apart = 0;
  int optimizer = -1;
  Parameters<T> to;
  StepTable<T> steps;
};

// out = x + saved
template <class T> cudaError_t add(const ElementwiseArgs<T>& args, cudaStream_t stream);

template <class T> cudaError_t normalize(const NormArgs<T>& args, cudaStream_t stream);
template <class T> cudaError_t softmax_forward(const NormArgs<T>& args, cudaStream_t stream);
template <class T> cudaError_t softmax_backward(const NormArgs<T>& args, cudaStream_t stream);
template <class T> cudaError_t layer_norm_forward(const NormArgs<T>& args, cudaStream_t stream);
template <class T> cudaError_t layer_norm_backward(const NormArgs<T>& args, cudaStream_t stream);
// Of gamma, where there is one, and behind it of beta; the sum over the rows in chunks, with `parts` > 1,
// which then is their number, each apart.
template <class T>
cudaError_t layer_norm_gradient(const NormArgs<T>& args, index_t chunk, index_t parts,
                                const GradientSink<T>& to, cudaStream_t stream);

// blocks: of each block of block_rows rows, two rows of cols values. Mean and variance, and the sums
// of the way back, are those of the whole batch (args.rows).
template <class T>
cudaError_t batch_norm_statistics(const NormArgs<T>& args, index_t block_rows, T* blocks, T* mean,
                                  T* variance, cudaStream_t stream);
template <class T> cudaError_t batch_norm_forward(const NormArgs<T>& args, cudaStream_t stream);
template <class T>
cudaError_t batch_norm_sums(const NormArgs<T>& args, index_t block_rows, T* blocks, T* sums,
                            cudaStream_t stream);
template <class T> cudaError_t batch_norm_backward(const NormArgs<T>& args, cudaStream_t stream);
template <class T>
cudaError_t batch_norm_gradient(const NormArgs<T>& args, const GradientSink<T>& to,
                                cudaStream_t stream);
// overflow: where it is not 0, nothing changes; may be null.
template <class T>
cudaError_t batch_norm_moving(const NormArgs<T>& args, T momentum, T* mean, T* variance,
                              const std::int32_t* overflow, cudaStream_t stream);

// y (rows, inputs width): of each row's x the entries of the table (entries, width), side by side; NaN
// for a number that is none's.
template <class T> struct EmbeddingArgs {
  index_t rows = 0, inputs = 0, entries = 0, width = 0;
  const T* x = nullptr;
  index_t x_row = 0;
  const T* table = nullptr;
  T* y = nullptr;
  index_t y_row = 0;
  const T* d = nullptr;  // backward: the gradient of y
  index_t d_row = 0;
};
template <class T> cudaError_t embedding(const EmbeddingArgs<T>& args, cudaStream_t stream);
// The table's gradient: row by row in the order of the batch.
template <class T>
cudaError_t embedding_gradient(const EmbeddingArgs<T>& args, const GradientSink<T>& to,
                               cudaStream_t stream);

}  // namespace cuda
}  // namespace fastbp
