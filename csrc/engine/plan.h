// From a network's description to stages, parameter offsets and arena offsets. Pure: no kernel, no
// memory, no ISA.
//
// A stage is a dense layer with the activation that follows it, or any other layer alone. Stage s
// reads the output of stage s - 1 (stage 0 the batch's inputs) and keeps what its backward pass
// reads. A stage that adds reads an earlier output too: on the way back the gradient of that output
// is what comes through the stages between, and what the adding stage has.
//
// The parameters of a stage are one row-major matrix of `outputs` columns: parameter_rows of them,
// and below those a row of biases. For a dense stage that is the kernel and the bias. Where such a
// stage reads a stored batch, its rows have a 1 behind their last value (has_ones); then the product
// (x, 1)^T dz is the gradient of the kernel and, in its last row, that of the bias.
//
// A network of sequences works its batches off in parts. Of a part, a matrix that has values for
// every step holds first the first step of all its sequences, then the second of all, ... (places).
// A recurrent layer is a dense stage, of all steps at once, and the scan stage behind it
// (engine/scan.cpp).
#pragma once

#include <vector>

#include "core/arena.h"
#include "core/types.h"
#include "engine/network_spec.h"
#include "ops/activations.h"
#include "ops/recurrent.h"

namespace fastbp {

using StageKind = LayerSpec::Kind;

struct Stage {
  StageKind kind = StageKind::activation;
  index_t inputs = 0, outputs = 0;
  bool sequence = false;  // its output has a row for every step
  index_t parameter_rows = 0, parameter_cols = 0;
  // dense: its inputs are summed in pieces of so many. Part of the numerics promise.
  index_t input_chunk = 0;
  bool bias = false;
  index_t parameter_offset = 0;  // first element of the block in the flat parameters
  int activation = 0;            // identity where there is none
  double param = 0;
  Saves saves = Saves::None;
  double momentum = 0;
  std::uint32_t stream = 0;  // dropout: which of the network's it is
  // What a step changes besides parameters: state_rows rows of `outputs`, in the flat state.
  index_t state_rows = 0, state_offset = 0;
  index_t worker_offset = 0;       // where its values lie in each worker's own memory
  bool trainable = true;           // false: its parameters and its state stay as they are
  std::ptrdiff_t source = 0;       // add: the stage whose output is added; -1: the network's input
  std::vector<std::size_t> joins;  // the stages that add what this one reads
  bool per_sequence = false;       // dropout
  // Scan: see LayerSpec. Its parameters are those of one way, then those of the other.
  int cell = 0;
  index_t units = 0;
  bool reverse = false;
  ScanWays ways = ScanWays::one;
  index_t truncate = 0;
  double state_rate = 0;
  int function = 0;            // custom: which of the user's functions
  index_t carried_offset = 0;  // where the states of a sequence begin, in carried_width values

  bool dense() const { return kind == StageKind::dense; }
  bool scan() const { return kind == StageKind::scan; }
  int way_count() const { return ways == ScanWays::one ? 1 : 2; }
  // Scan: values of a step's product for each sequence.
  index_t product_width() const { return parameter_cols + cell_info(cell).keeps * units; }
  // Dropouts of the stage, each with random numbers of its own.
  std::uint32_t streams() const;
  // Whether a row's output in training depends on the other rows of the batch.
  bool batch_coupled() const { return kind == StageKind::batch_norm; }
  index_t parameter_count() const { return (parameter_rows + (bias ? 1 : 0)) * parameter_cols; }
  // Whether it may write its output over its input: nothing else needs that.
  bool overwrites() const { return kind == StageKind::normalize && joins.empty(); }
  // Whether its output is its input where nothing is trained.
  bool idle_in_inference() const { return kind == StageKind::dropout; }
};

inline constexpr std::size_t kNoStage = std::size_t(-1);

// The stages, and the length of the flat parameters: each stage's block begins at a multiple of 16
// elements.
struct NetworkLayout {
  std::vector<Stage> stages;
  index_t inputs = 0;
  index_t outputs = 0;
  bool sequences = false;                   // a row of the batch is a sequence
  index_t parameter_count = 0;              // with padding
  index_t state_count = 0;                  // with padding
  index_t worker_count = 0;                 // values that each worker keeps for itself
  index_t carried_width = 0;                // values of the states of a sequence, of all scans
  bool batch_coupled = false;               // any stage is
  bool custom = false;                      // any stage calls a function of the user's own
  std::vector<std::size_t> stage_of_layer;  // kNoStage: it is fused into the one before
  std::size_t lowest_trained = 0;  // the first stage with trained parameters, or behind the last
  bool any_frozen = false;
  double multiply_adds_per_row = 0;  // of a forward pass; of sequences, for each of their steps
  bool sharded = false;              // it may be cut along its hidden units (engine/shards.h)
  bool light = false;  // parameters, and all that kMaxChunk rows need, fit an L2 together

  // Floating-point operations of a pass over so many rows; the backward pass of a training step costs
  // two forward passes.
  double inference_flop(index_t rows) const { return 2 * multiply_adds_per_row * double(rows); }
  double training_flop(index_t rows) const { return 3 * inference_flop(rows); }

  // The gradient of the parameters is summed over chunks of so many rows of a batch, then over the
  // chunks in order. Part of the numerics promise: a function of the network and the batch size. Of
  // a light network it is an even number of equal chunks, which threads can share; and so it is of
  // sequences, unless they are few.
  index_t row_chunk(index_t rows) const;
  // The most sequences in a part of a batch of up to so many.
  index_t largest_part(index_t rows) const;
  // Loss and metrics are summed over blocks of kLossBlockRows rows of output, then over the blocks in
  // order; those of each part of sequences are its own. So many there are, of a batch.
  index_t measure_blocks(index_t rows, index_t steps) const;
  // Statistics over a batch are summed over blocks of so many rows, then over the blocks in order.
  // The threads' shares of the batch are whole blocks.
  index_t row_block(index_t rows) const;
  // The stage whose output stands for that of `stage` where nothing is trained; -1: the input.
  std::ptrdiff_t inference_source(std::ptrdiff_t stage) const;
  // Says of each layer whether it is trained.
  void set_trainable(const std::vector<bool>& layers);
  // Values [stages + 1] of the stages, and one of none, as those of the layers [layers + 1]: 0 for a
  // layer that is fused into the one before.
  std::vector<double> by_layer(const double* of_stages) const;
  // Rows of output for each row of a batch of sequences of so many steps.
  index_t output_places(index_t steps) const { return stages.back().sequence ? steps : 1; }
};

NetworkLayout make_layout(const NetworkSpec& spec);

// Where the next block of parameters begins.
index_t round_to_block(index_t elements);

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
inline constexpr index_t kStepProduct = 2048;

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
