// The kernels of a training step as host functions, for float and double. They flush denormals as
// the CPU's engine does (but in double, which GPUs cannot), and have its bits.
//
// All pointers but the structs themselves are device memory. Work is enqueued on `stream`; the
// result says whether it could be.
#pragma once

#include "kernels/args.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/train/scan.h"
#include "kernels/cuda/train/tensor.h"

namespace fastbp {
namespace cuda {

// C = A B + bias and then y = f(C); C is stored where args.c is not null.
template <class T>
cudaError_t forward_product(const GemmArgs<T>& args, int activation, const ActivationTile<T>& tile,
                            cudaStream_t stream);
// tile.out = (A B) f'(tile.saved)
template <class T>
cudaError_t delta_product(const GemmArgs<T>& args, int activation, const ActivationTile<T>& tile,
                          cudaStream_t stream);
// Parameters updated by the gradient A B. They begin at `to`, rows are args.c_row apart.
template <class T>
cudaError_t update_product(const GemmArgs<T>& args, int optimizer, const Parameters<T>& to,
                           const StepTable<T>& steps, cudaStream_t stream);
// c = A B; with `parts` > 1, which then is the number of chunks, each chunk's sum apart, `part`
// elements behind the one before.
template <class T>
cudaError_t store_product(const GemmArgs<T>& args, index_t parts, index_t part,
                          cudaStream_t stream);
// Blocks that a product of this size keeps busy, each with so many chunks of k at a time; a sum over k in
// parts, as many times as many as there are.
index_t product_blocks(index_t m, index_t n);
index_t product_chunks_at_once();

// Activations on their own: x (rows, cols).
template <class T>
cudaError_t map_forward(int activation, const ElementwiseArgs<T>& args, cudaStream_t stream);
template <class T>
cudaError_t map_backward(int activation, const ElementwiseArgs<T>& args, cudaStream_t stream);

// order (n,) = random_permutation(n, seed, epoch) of core/random.h, whose purpose is `purpose`, for
// n < 2^31; scratch (2 n,).
cudaError_t permutation(std::int64_t* order, index_t n, std::uint64_t seed, std::uint32_t epoch,
                        std::uint32_t purpose, std::int32_t* scratch, cudaStream_t stream);

// The rows of a batch among the samples: row i is order[first + i], first = counter->first_row +
// counter->batch * rows_per_batch; or first + i where order is null; or i where counter is.
struct BatchRows {
  const std::int64_t* order = nullptr;
  const RunCounter* counter = nullptr;
  index_t rows_per_batch = 0;

  FBP_FN index_t operator()(index_t i) const {
    if (!counter) return i;
    const index_t at = counter->first_row + counter->batch * rows_per_batch + i;
    return order ? index_t(order[at]) : at;
  }
};

// A batch that is copied.
template <class T> struct GatherArgs {
  BatchRows from;
  index_t rows = 0;
  const T* x = nullptr;  // (n, inputs), contiguous
  index_t inputs = 0;
  T* x_out = nullptr;  // null: the shadow alone is wanted
  index_t x_row = 0;
  Shadow x_shadow;                       // of float alone
  const std::int64_t* labels = nullptr;  // (n,), or null
  std::int64_t* labels_out = nullptr;
  const T* weight = nullptr;  // (n,), or null; weight_copies of each are written side by side
  index_t weight_copies = 1;
  T* weight_out = nullptr;
};
template <class T> cudaError_t gather(const GatherArgs<T>& args, cudaStream_t stream);

// out (rows, copies): `copies` times each of x (rows,).
template <class T>
cudaError_t repeat_columns(const T* x, index_t rows, index_t copies, T* out, cudaStream_t stream);

// x (rows, cols) = 0, rows `row` elements apart.
template <class T>
cudaError_t clear(T* x, index_t row, index_t rows, index_t cols, cudaStream_t stream);

// x[i * row] = 1 for i < rows.
template <class T> cudaError_t write_ones(T* x, index_t row, index_t rows, cudaStream_t stream);
// Goes on to the next batch.
cudaError_t advance(RunCounter* counter, cudaStream_t stream);

// y = x m as DropoutArgs, whose stream is that of step counter->steps_done + counter->batch + 1.
// The rows are those of `at`; a row's number is that of its sequence, or unless `per_sequence` of its
// step: sequence times steps, and the step.
template <class T>
cudaError_t dropout(const DropoutArgs<T>& args, const SequenceRows& at, bool per_sequence,
                    const RunCounter* counter, cudaStream_t stream);

// total[i] = part[0][i] + part[1][i] + ..., in order, i < n; parts are `apart` elements apart. Stored
// in `gradient` where that is not null, and given to the optimizer where that is not kNoOptimizer.
inline constexpr int kNoOptimizer = -1;
template <class T>
cudaError_t add_parts(const T* part, index_t parts, index_t apart, index_t n, T* gradient,
                      int optimizer, const Parameters<T>& to, const StepTable<T>& steps,
                      cudaStream_t stream);

// Where the sums of a run go: block b of the running batch to sums[counter->batch * blocks + b].
struct BlockSums {
  double* sums = nullptr;
  const RunCounter* counter = nullptr;
  index_t blocks = 0;  // of a whole batch
};
// Of a part of a batch, how many rows of output count, and the factors that follow from how many of the
// batch do: LossArgs::dy_scale and MetricArgs::error_scale.
template <class T> struct CountedRows {
  std::int64_t rows = 0;
  T dy_scale = 0, error_scale = 0;
};
// Those of a part of the running batch, in device memory, where they differ from batch to batch:
// part[counter->batch * parts]. They take the place of the arguments', whose rows are then the most.
template <class T> struct PartTable {
  const CountedRows<T>* part = nullptr;  // null: the arguments say it
  index_t parts = 0;                     // of a whole batch
};
// The loss of entry `loss` of FBP_LOSSES and its gradient, as LossArgs; block_loss is not read. dz: where
// there is one, the gradient's shadow too (of float alone); of a loss that has a value for each element dy may then
// be null. targets: which row of the targets is that of a row of y.
template <class T>
cudaError_t loss(int loss, const LossArgs<T>& args, const PartTable<T>& counted,
                 const BatchRows& targets, const BlockSums& to, const Shadow& dz,
                 cudaStream_t stream);
// As MetricArgs; block_sum is not read.
template <class T>
cudaError_t metric(const MetricArgs<T>& args, const PartTable<T>& counted, const BatchRows& targets,
                   const BlockSums& to, cudaStream_t stream);

}  // namespace cuda
}  // namespace fastbp
