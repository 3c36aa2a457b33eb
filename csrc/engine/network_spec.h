// A network as plain data: what the engine is told to build. Names have been looked up, values
// checked (bindings).
#pragma once

#include <cstdint>
#include <vector>

#include "core/types.h"
#include "kernels/args.h"
#include "ops/optimizers.h"

namespace fastbp {

// A layer; which of the numbers count depends on its kind.
struct LayerSpec {
  enum class Kind {
    dense,       // y = x kernel + bias with `units` outputs
    activation,  // y = f(x), elementwise
    dropout,     // in training y = x / (1 - rate), or 0 with probability rate; otherwise y = x
  };
  Kind kind = Kind::dense;
  index_t units = 0;
  bool use_bias = true;
  int activation = 0;  // index in FBP_ACTIVATIONS
  double param = 0;    // the activation's number, or the rate of dropout
};

struct NetworkSpec {
  index_t inputs = 0;
  std::vector<LayerSpec> layers;
  std::uint64_t seed = 0;  // of what a step draws
};

struct LossSpec {
  int loss = 0;  // index in FBP_LOSSES
  double param = 0;
};

struct MetricSpec {
  MetricKind kind = MetricKind::mse;
  double threshold = 0;
  bool of_softmax = false;  // mse, mae of softmax(logits)
};

struct OptimizerSpec {
  int optimizer = 0;  // index in FBP_OPTIMIZERS
  Hyper hyper;
};

}  // namespace fastbp
