// From a network's description to stages and the places of their parameters. Pure: no kernel, no memory,
// no ISA.
//
// A stage is a dense layer with the activation that follows it, or any other layer alone. Stage s
// reads the output of stage s - 1 (stage 0 the batch's inputs). A stage that adds reads an earlier
// output too: on the way back the gradient of that output is what comes through the stages between,
// and what the adding stage has.
//
// The parameters of a stage are one row-major matrix of `outputs` columns: parameter_rows of them,
// and below those a row of biases. For a dense stage that is the kernel and the bias.
//
// A recurrent layer is a dense stage, of all steps at once, and the scan stage behind it
// (engine/scan.cpp).
#pragma once

#include <vector>

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

// Values of a step's product that a worker has room for, of so many sequences at a time.
inline constexpr index_t kStepProduct = 2048;

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
  // Whether a team takes the parts of a batch of so many sequences one after the other, sharing out the
  // products of each by columns, instead of a part each: of few sequences a wide layer may make one part.
  bool shares_parts(index_t rows, index_t team) const;
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

}  // namespace fastbp
