// From a network's stages to offsets in an arena: where everything lies that a batch needs. Pure: no
// kernel, no memory, no ISA.
//
// A stage keeps what its backward pass reads. Where a stage with biases reads a stored batch, its rows
// have a 1 behind their last value (has_ones); then the product (x, 1)^T dz is the gradient of the
// kernel and, in its last row, that of the bias.
//
// A network of sequences works its batches off in parts. Of a part, a matrix that has values for
// every step holds first the first step of all its sequences, then the second of all, ... (places).
#pragma once

#include <vector>

#include "core/arena.h"
#include "engine/layout.h"

namespace fastbp {

// A matrix of `capacity` times `places` rows in the plan's arena.
struct BatchMatrix {
  std::size_t offset = 0;  // bytes
  index_t width = 0;       // values of a row (of the widest that shares the memory)
  index_t row = 0;         // elements from one row to the next
  index_t places = 1;      // rows for each row of the batch: steps
  bool ones = false;       // a 1 stands behind the last value of each row
};

// Who works on a plan. That decides of sequences where things lie.
enum class PlanUse {
  host,          // engine/scan.cpp: memory is used again as soon as nobody reads it
  host_rounded,  // the same; products round their operands, those for the gradients of biases too
  device,        // all parts of a batch at once
};

// What one way of a scan stage keeps of each step. Of a stage with one way h is the stage's y. For a
// device h and c have one step more: the states before the first, then after each (of a reverse way, the
// other way round).
struct ScanWay {
  BatchMatrix h;
  BatchMatrix c;       // contiguous, of a cell that has it
  BatchMatrix kept;    // contiguous
  BatchMatrix masked;  // h before the step, with dropout
};

// Where a step's product h U lies; backward dr, of cells that keep more, and behind it what comes through
// U; of others that alone.
enum class ProductPlace {
  plan,
  gradient,  // where the gradient of the stage's parameters will be, which is made last
  worker,    // in kStepProduct values of a worker's own: of so many sequences at a time
};

// What a scan stage needs besides its output. What both ways share is contiguous.
struct ScanMatrices {
  ScanWay way[2];
  BatchMatrix product;  // where it is the plan's
  ProductPlace product_place = ProductPlace::plan;
  BatchMatrix dh, dc;  // device; dc of cells that have c
};

// Where everything of `capacity` rows lies. An inference plan has no x, z, delta.
struct Plan {
  index_t capacity = 0;
  index_t steps = 1;  // of each sequence; 1 where rows are no sequences
  // A 1 stands behind each row of a batch that a stage with bias reads. Else column_sum makes the gradients
  // of biases.
  bool has_ones = true;
  BatchMatrix x;                      // the gathered inputs
  BatchMatrix target;                 // the gathered targets (training), contiguous
  std::size_t labels_offset = 0;      // the gathered class numbers
  std::size_t lengths_offset = 0;     // the gathered lengths of sequences
  BatchMatrix weight;                 // of each row's loss, as LossArgs wants them
  std::vector<BatchMatrix> y;         // outputs of the stages
  std::vector<BatchMatrix> z;         // pre-activations; of a stage that does not save its input, y
  std::vector<BatchMatrix> delta;     // dz of the stages; of the last, dy and then dz, contiguous
  std::size_t block_sums_offset = 0;  // doubles: the loss, then each metric, by blocks of rows
  index_t blocks = 0;                 // of the largest batch
  std::size_t partials_offset = 0;    // `partials` gradients of parts of a batch; or sums over
                                      // parts of a layer's inputs
  index_t partials = 0;
  index_t part_rows = 0;             // of the largest part
  std::vector<std::size_t> work;     // what a stage notes of the batch (work_values)
  std::vector<index_t> input_parts;  // of each stage; 1: its sums are not worth splitting
  std::vector<ScanMatrices> scan;    // of each stage that is one
  ArenaLayout arena;

  // Whether the stage's pre-activation is kept beside its output.
  bool keeps_z(std::size_t stage) const { return z[stage].offset != y[stage].offset; }
};

inline constexpr int kMaxMetrics = 8;

// Whether `work` of which the busiest of the team has `most` keeps the team busy for four fifths of the
// time at least: 5 equal parts keep two workers busy for 5/6 of it.
inline bool busy_enough(double work, double most, index_t team) {
  return 5 * work >= 4 * most * double(team);
}

// How a batch of training is worked off (Step).
struct BatchShape {
  index_t rows = 0;
  index_t steps = 1;      // of each sequence
  index_t window = 0;     // rows in work at once: all of them, or a part for each worker
  index_t partials = 0;   // gradients of parts that are kept until they are added up
  index_t part_rows = 0;  // of the largest part
  index_t blocks = 0;     // NetworkLayout::measure_blocks

  bool in_parts() const { return partials > 0; }
  bool fits(const Plan& plan) const;
};

// In parts where the network is light and the parts divide evenly among `threads`, unless it must be
// `whole`; or of sequences.
BatchShape batch_shape(const NetworkLayout& layout, index_t rows, int threads, index_t steps = 1,
                       bool whole = false);

Plan make_training_plan(const NetworkLayout& layout, const BatchShape& shape,
                        std::size_t element_size, PlanUse use = PlanUse::host);
// Rows that an inference has in work at once: all, or parts as those of training.
BatchShape inference_shape(const NetworkLayout& layout, index_t rows, int threads, index_t steps);
// `gathers`: with room for the inputs, of integers that are converted.
Plan make_inference_plan(const NetworkLayout& layout, const BatchShape& shape,
                         std::size_t element_size, bool gathers = false,
                         PlanUse use = PlanUse::host);
// For rows that are no sequences.
Plan make_inference_plan(const NetworkLayout& layout, index_t rows, std::size_t element_size);

}  // namespace fastbp
