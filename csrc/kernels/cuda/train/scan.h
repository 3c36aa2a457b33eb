// Sequences on a device: how they lie in a matrix, and the steps of a recurrent cell, each of them one
// kernel. The device's twin of engine/scan.cpp and kernels/cpu/recurrent.inl.
#pragma once

#include "kernels/cuda/kernels.h"
#include "ops/recurrent.h"

namespace fastbp {
namespace cuda {

// A matrix with a row for each of `steps` steps of each of `rows` sequences: parts of `chunk` sequences
// lie one behind the other, the last perhaps shorter; of a part first the first step of all its
// sequences, then the second of all, ...
struct SequenceRows {
  index_t rows = 0, chunk = 1, steps = 1;

  FBP_FN index_t all() const { return rows * steps; }
  // Of a sequence: the first of its part, and how many the part has. Apart from `of`, as it takes a
  // division.
  struct Part { index_t first, count; };
  FBP_FN Part part(index_t i) const {
    const index_t first = i / chunk * chunk;
    return {first, part_rows(first)};
  }
  // Row of step t of sequence i, of a matrix with so many steps.
  FBP_FN static index_t row_of(const Part& part, index_t i, index_t t, index_t steps) {
    return part.first * steps + t * part.count + i - part.first;
  }
  FBP_FN index_t of(index_t i, index_t t) const { return row_of(part(i), i, t, steps); }
  FBP_FN void find(index_t row, index_t* i, index_t* t) const {
    const index_t first = row / (chunk * steps) * chunk, here = part_rows(first);
    *t = (row - first * steps) / here;
    *i = first + (row - first * steps) % here;
  }
  FBP_FN index_t part_rows(index_t first) const {
    return rows - first < chunk ? rows - first : chunk;
  }
};

// What the products with the recurrent weights make of their operands; of float alone, unless it is
// none.
enum class Rounding { none, bfloat16, float16, tf32 };

// One step of one way of a scan, for all sequences.
template <class T> struct ScanStep {
  SequenceRows at;                // of the matrices with a row for each step
  index_t units = 0;              // cols of the weights: gates x units
  index_t step = 0;               // the step's place in the sequence
  index_t before = 0, after = 0;  // blocks of h and c, which have one more than there are steps
  T* a = nullptr;                 // x W + b of the gates; then what backward reads; backward: da
  index_t a_row = 0;
  T* kept = nullptr;  // (.., units), of cells that keep more
  T* h = nullptr;
  index_t h_row = 0;
  T* c = nullptr;              // (.., units), of cells that have it
  const T* weights = nullptr;  // (units, cols)
  const T* bias = nullptr;     // (cols), or null
  Rounding rounding = Rounding::none;
  const std::int64_t* lengths = nullptr;
  // Dropout of h on its way into the product, in training: not 0, drawn as DropoutArgs says of row i of
  // the batch, the same at every step. Forward: h so masked, (.., units) with a row for each step.
  double state_rate = 0;
  std::uint64_t seed = 0;
  DropoutStream stream{};  // but for the step, which is the counter's
  const RunCounter* counter = nullptr;
  T* masked = nullptr;
  index_t masked_row = 0;
  // Forward: where h after the step goes besides, row `out_at` says; null: nowhere. Added to what is
  // there where `adds`.
  T* out = nullptr;
  index_t out_row = 0;
  SequenceRows out_at;
  index_t out_step = 0;
  bool adds = false;
  // Backward. What has come through the weights from the step behind, `behind`: nothing where `begins`,
  // which is the first on the way back; nor where `cuts`, where dh and dc of what ran there end too.
  index_t behind = 0;
  bool begins = false, cuts = false;
  const T* dr_behind = nullptr;  // (rows, cols), of cells that keep more; of others it is da there
  T* dr = nullptr;
  T *dh = nullptr, *dc = nullptr;  // (rows, units)
  const T* dy = nullptr;           // of `out`; null: 0

  FBP_FN bool comes_through() const { return !begins && !cuts; }
};

// All steps of one way of a scan, numbered in the order in which forward takes them.
template <class T> struct ScanWalk {
  ScanStep<T> every;      // what they share; out and dy where any has them
  bool reverse = false;   // from the last step of the sequences to the first
  bool sequence = false;  // there is an output at every step, not behind the last alone
  index_t truncate = 0;   // the gradient ends at every so many; 0: at none
  T* gate_deltas[2] = {nullptr, nullptr};  // dr of the steps by turns, of cells that keep more

  FBP_FN index_t steps() const { return every.at.steps; }
  FBP_FN index_t place(index_t i) const { return reverse ? steps() - 1 - i : i; }
  FBP_FN index_t before(index_t t) const { return reverse ? t + 1 : t; }
  FBP_FN index_t after(index_t t) const { return reverse ? t : t + 1; }
  FBP_FN ScanStep<T> step(index_t i) const {
    ScanStep<T> step = every;
    step.step = place(i);
    step.before = before(step.step);
    step.after = after(step.step);
    step.out_step = sequence ? step.step : 0;
    return step;
  }
  FBP_FN ScanStep<T> forward(index_t i) const {
    ScanStep<T> step = this->step(i);
    if (!sequence && i < steps() - 1) step.out = nullptr;
    return step;
  }
  FBP_FN ScanStep<T> backward(index_t i) const {
    ScanStep<T> step = this->step(i);
    step.begins = i == steps() - 1;
    step.behind = step.begins ? 0 : place(i + 1);
    step.cuts = !step.begins && truncate > 0 && (i + 1) % truncate == 0;
    step.dr = gate_deltas[i & 1];
    step.dr_behind = gate_deltas[~i & 1];
    if (!sequence && !step.begins) step.dy = nullptr;
    return step;
  }
};

// Entries of FBP_CELLS.
template <class T> cudaError_t scan_forward(int cell, const ScanStep<T>& step, cudaStream_t stream);
template <class T>
cudaError_t scan_backward(int cell, const ScanStep<T>& step, cudaStream_t stream);

// Block `block` of h or c, whose places are those of `at` and one more, from the states of the sequences,
// rows `states_row` apart: null: 0. And to them.
template <class T>
cudaError_t begin_states(T* x, index_t x_row, const SequenceRows& at, index_t block, index_t cols,
                         const T* states, index_t states_row, cudaStream_t stream);
template <class T>
cudaError_t keep_states(const T* x, index_t x_row, const SequenceRows& at, index_t block,
                        index_t cols, T* states, index_t states_row, cudaStream_t stream);

// A batch of sequences: order, counter, rows_per_batch as GatherArgs; counter null: from row 0 on.
template <class T> struct SequenceGather {
  const std::int64_t* order = nullptr;
  const RunCounter* counter = nullptr;
  index_t rows_per_batch = 0;
  SequenceRows at, out_at;  // of the inputs, of the outputs
  const T* x = nullptr;     // (n, steps, inputs); behind the end of a sequence 0 is written
  index_t inputs = 0;
  T* x_out = nullptr;
  index_t x_row = 0;
  const T* target = nullptr;  // (n, steps or 1, outputs), or null
  index_t outputs = 0;
  T* target_out = nullptr;
  const std::int64_t* labels = nullptr;  // (n, steps or 1), or null
  std::int64_t* labels_out = nullptr;
  const T* weight = nullptr;  // (n, steps or 1), or null; weight_copies of each are written
  index_t weight_copies = 1;
  T* weight_out = nullptr;
  const std::int64_t* lengths = nullptr;  // (n,), or null: `steps`
  std::int64_t* lengths_out = nullptr;
  bool closes =
      false;  // targets, labels and weights of the steps that count are side by side (lengths.h)
};
template <class T> cudaError_t gather_sequences(const SequenceGather<T>& args, cudaStream_t stream);

// out (rows, steps, cols), contiguous: the rows of a matrix sequence by sequence.
template <class T>
cudaError_t by_sequences(const T* x, index_t x_row, const SequenceRows& at, index_t cols, T* out,
                         cudaStream_t stream);

}  // namespace cuda
}  // namespace fastbp
