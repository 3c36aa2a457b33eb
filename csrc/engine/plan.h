// From a network's description to stages, parameter offsets and arena offsets. Pure: no kernel, no
// memory, no ISA.
//
// A stage is a dense layer with the activation that follows it, or an activation alone. Stage s
// reads the output of stage s - 1 (stage 0 the batch's inputs) and keeps what its backward pass
// reads.
//
// The parameters of a dense stage are one row-major matrix of inputs + 1 rows and `outputs`
// columns: the kernel, and below it the bias. Where such a stage reads a stored batch, the batch's
// rows have a 1 behind their last value; then the product (x, 1)^T dz is the gradient of the kernel
// and, in its last row, that of the bias.
#pragma once

#include <vector>

#include "core/arena.h"
#include "core/types.h"
#include "engine/network_spec.h"
#include "ops/activations.h"

namespace fastbp {

struct Stage {
  bool dense = false;
  index_t inputs = 0, outputs = 0;
  bool bias = false;
  index_t parameter_offset = 0;  // first element of the kernel in the flat parameters
  int activation = 0;            // identity where there is none
  double param = 0;
  Saves saves = Saves::None;
};

// The stages, and the length of the flat parameters: each dense stage's block begins at a multiple
// of 16 elements.
struct NetworkLayout {
  std::vector<Stage> stages;
  index_t inputs = 0;
  index_t outputs = 0;
  index_t parameter_count = 0;       // with padding
  double multiply_adds_per_row = 0;  // of a forward pass
};

NetworkLayout make_layout(const NetworkSpec& spec);

// A matrix of `capacity` rows in the plan's arena.
struct BatchMatrix {
  std::size_t offset = 0;  // bytes
  index_t width = 0;       // values of a row (of the widest that shares the memory)
  index_t row = 0;         // elements from one row to the next
  bool ones = false;       // a 1 stands behind the last value of each row
};

// Where everything of a batch of up to `capacity` rows lies. An inference plan has no x, z, delta.
struct Plan {
  index_t capacity = 0;
  BatchMatrix x;                  // the gathered inputs
  BatchMatrix target;             // the gathered targets (training), contiguous
  std::size_t labels_offset = 0;  // the gathered class numbers
  std::vector<BatchMatrix> y;     // outputs of the stages
  std::vector<BatchMatrix>
      z;                 // pre-activations; those of a stage that does not save its input are y
  BatchMatrix delta[3];  // dz of stage s in delta[s % 3], but that of the last stage in last_delta
  BatchMatrix last_delta;             // dy, then dz of the last stage, contiguous
  std::size_t block_sums_offset = 0;  // doubles: the loss, then each metric, by blocks of rows
  index_t blocks = 0;
  ArenaLayout arena;
};

inline constexpr int kMaxMetrics = 8;

Plan make_plan(const NetworkLayout& layout, index_t capacity, std::size_t element_size,
               bool training);

}  // namespace fastbp
