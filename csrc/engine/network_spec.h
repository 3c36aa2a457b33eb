// A network as plain data: what the engine is told to build. Names have been looked up, values
// checked (bindings).
#pragma once

#include <cstdint>
#include <vector>

#include "core/types.h"
#include "kernels/args.h"
#include "ops/optimizers.h"

namespace fastbp {

// The directions of a scan: the one that it has, or both, each with a cell of its own, whose outputs
// stand side by side or are added up.
enum class ScanWays { one, both_side_by_side, both_added };

// A layer; which of the numbers count depends on its kind.
struct LayerSpec {
  enum class Kind {
    dense,       // y = x kernel + bias with `units` outputs
    activation,  // y = f(x), elementwise
    dropout,     // in training y = x / (1 - rate), or 0 with probability rate; otherwise y = x
    layer_norm,  // y = (x - mean) / sqrt(variance + epsilon) gamma + beta, of each row
    batch_norm,  // the same of each column: of the batch in training, otherwise of moving means
    normalize,   // y = (x - center) factor, by columns; both are state that no step changes
    embedding,   // y = table[x_0], table[x_1], ...: `span` entries of `units` values; stands first
    add,         // y = x + what went into the `span` layers before this one
    scan,        // a recurrent cell over the steps of sequences; reads x W + b of each step
    softmax,     // y = exp(x) / sum exp(x), of each row
    custom,      // y = f(x), elementwise, by a function of the user's own; not of sequences
  };
  Kind kind = Kind::dense;
  index_t units = 0;
  index_t span = 0;
  bool use_bias = true;       // norms: whether there is a beta
  bool use_scale = true;      // norms: whether there is a gamma
  int activation = 0;         // index in FBP_ACTIVATIONS
  double param = 0;           // the activation's number, the rate of dropout, the epsilon of norms
  double momentum = 0;        // batch_norm: share of a new batch in the moving means
  bool per_sequence = false;  // dropout: one mask for all steps of a sequence
  int cell = 0;               // scan: index in FBP_CELLS; units are its own
  bool sequence = false;      // scan: gives its output at every step, not only the last
  bool reverse = false;       // scan: takes the steps from the last to the first
  ScanWays ways = ScanWays::one;
  index_t truncate = 0;   // scan: no gradient crosses a multiple of so many steps; 0: all do
  double state_rate = 0;  // scan: dropout of h on its way into the product
  int function = 0;       // custom: which of the user's functions
};

struct NetworkSpec {
  index_t inputs = 0;
  std::vector<LayerSpec> layers;
  std::uint64_t seed = 0;  // of what a step draws
  bool sequences = false;  // rows are sequences of steps, of `inputs` values each
};

struct LossSpec {
  int loss = 0;  // index in FBP_LOSSES
  double param = 0;
  bool custom = false;  // a function of the user's own, which is a mean over elements as `loss` is
};

struct MetricSpec {
  MetricKind kind = MetricKind::mse;
  double threshold = 0;
  bool of_softmax = false;  // mse, mae of softmax(logits)
  index_t k = 0;            // top_k
  index_t counts = 0;       // integers that it counts, in the place of a sum

  index_t values() const { return counts > 0 ? counts : 1; }
};

// Of a record of a loss and these metrics.
inline index_t value_count(const std::vector<MetricSpec>& metrics) {
  index_t count = 1;
  for (const MetricSpec& metric : metrics) count += metric.values();
  return count;
}

struct OptimizerSpec {
  int optimizer = 0;  // index in FBP_OPTIMIZERS
  Hyper hyper;
};

}  // namespace fastbp
