// Training of narrow networks whole: one cooperative launch takes many steps, each block its rows
// from the gathered inputs to the gradient without leaving the multiprocessor (narrow.cu).
//
// All pointers are device memory.
#pragma once

#include "kernels/args.h"
#include "kernels/cuda/kernels.h"
#include "kernels/cuda/train/finish.h"

namespace fastbp {
namespace cuda {

inline constexpr int kNarrowThreads = 256;
inline constexpr int kNarrowWarps = kNarrowThreads / 32;
inline constexpr int kNarrowStages = 12;
inline constexpr int kNarrowMetrics = 8;
// Outputs of a stage, and inputs of the first.
inline constexpr index_t kNarrowWidth = 128, kNarrowInputs = 256;

// On tensor cores a matrix has this many columns for n: one fragment, or slabs of 64.
FBP_FN constexpr int narrow_columns(index_t n) { return n <= 16 ? 16 : int((n + 63) / 64 * 64); }
inline constexpr int kNarrowUnitBytes = 40;

// Two neighbours that are written at once.
struct alignas(8) NarrowPair { float first, second; };

// A matrix in shared memory, one row for each of a tile's: its first byte, and elements from row to
// row.
struct NarrowMatrix { int at = 0, row = 0; };

// A dense stage with its activation. Inner matrices hold the kernel's elements (float, or bfloat16
// bits), the last stage's `out` and `kept` floats without gaps.
struct NarrowStage {
  int inputs = 0, outputs = 0;
  int input_chunk = 0;  // of the exact sums over the inputs
  bool bias = false;
  int activation = 0;
  float param = 0;
  index_t parameters = 0;  // offset in the flat ones
  NarrowMatrix in, out, delta, weights;
  NarrowMatrix kept;  // what the derivative reads: out, or the pre-activations
  int biases = 0;     // tensor cores: a copy in shared memory, floats, as many as columns
  // Of floats: the same transposed. Rows of words of 16 bytes: behind the weights the bias, behind each
  // row of `in` a 1, at the word that follows.
  NarrowMatrix in_t, out_t, delta_t, weights_t;
  float of_inputs = 0, of_outputs = 0;  // 1 / inputs, 1 / outputs
  bool keeps_z = false, keeps_y = false;
};

// A square of the gradients that a warp has in registers: of that stage, from there on.
struct NarrowSquare { int stage = -1, row = 0, col = 0; };

struct NarrowMetric {
  MetricKind kind = MetricKind::mse;
  bool of_softmax = false;
  float threshold = 0;
};

// A batch of so many rows: the gradient of each `unit` of them is summed apart.
struct NarrowBatch {
  int rows = 0, unit = 0, units = 0;
  int tile = 0;  // tensor cores: rows in work at once, a multiple of 16
  float dy_scale = 0, error_scale = 0;
};

struct NarrowArgs {
  // The network.
  int stages = 0;
  NarrowStage stage[kNarrowStages];
  NarrowSquare square[kNarrowWarps];
  int tile = 0;  // rows in work at once: 16, 32 or 64
  // In shared memory, bytes: sums on their way to the activation; dy, targets, labels and places of a
  // tile's rows in the samples; what losses and metrics sum up; the gradients where they are not in
  // registers; and all together.
  int scratch = 0, dy = 0, target = 0, labels = 0, places = 0, values = 0, gradient = 0;
  // Of floats: the weights of the tile's rows; the step's hyper-parameters. gradient: -1 where it is in
  // `partials` at once.
  int weights = 0, step_hyper = 0;
  // Tensor cores: what a block knows of its unit; whether these may be read by words of 16 bytes.
  int unit = 0;
  bool x_by_four = false, wanted_by_four = false, weights_by_four = false;
  int shared_bytes = 0;

  // The run.
  const float* x = nullptr;  // (n, inputs)
  const float* wanted = nullptr;
  const std::int64_t* classes = nullptr;
  const float* weight = nullptr;  // (n,) of each row's loss, or null
  int weight_copies = 1;          // that the loss wants of each
  const std::int64_t* order = nullptr;
  index_t n = 0, rows_per_batch = 0;
  NarrowBatch whole, rest;
  int steps = 0;  // of this launch, all within one epoch
  // Of floats: batches of a tile at most, which one block takes with all units, and the update.
  bool alone = false;
  RunCounter* counter = nullptr;
  int loss = 0;
  float loss_param = 0;
  bool plain_errors = false;  // metrics read the errors without label smoothing
  int metrics = 0;
  NarrowMetric metric[kNarrowMetrics];
  double* sums = nullptr;  // as BlockSums: of the loss, then of each metric `place` further on
  index_t blocks = 0, place = 0;
  index_t count = 0;          // flat parameters
  float* partials = nullptr;  // `count` for each unit
  Parameters<float> parameters;
  const StepHyper<float>* hyper = nullptr;
  int optimizer = 0;
  // Of parameters that differ in their rules, where `finish.tables.pieces` is not null; but for a limit on
  // the gradient's norm and a scaled loss.
  FinishArgs<float> finish;

  // Whether the kernel that does no more than a plain step will not do.
  bool ruled() const { return weight || finish.tables.pieces; }
};

// With the CPU's bits (narrow.cu); on tensor cores, of operands rounded to bfloat16, without rules and
// weights of rows (narrow_tensor.cu).
cudaError_t train_narrow(const NarrowArgs& args, int grid, cudaStream_t stream);
cudaError_t train_narrow_tensor(const NarrowArgs& args, int grid, cudaStream_t stream);
// Blocks of the kernel that are on the device at once. It may have `room` bytes of shared memory from
// now on, for whichever network: all that a block of the device can.
cudaError_t narrow_blocks(int room, int shared_bytes, int* blocks);
cudaError_t narrow_tensor_blocks(int room, int shared_bytes, int* blocks);

}  // namespace cuda
}  // namespace fastbp
