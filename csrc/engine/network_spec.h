// A network as plain data: what the engine is told to build. Names have been looked up, values
// checked (bindings).
#pragma once

#include <vector>

#include "core/types.h"
#include "ops/optimizers.h"

namespace fastbp {

// y = x kernel + bias with `units` outputs, or an activation on its own.
struct LayerSpec {
  enum class Kind { dense, activation };
  Kind kind = Kind::dense;
  index_t units = 0;
  bool use_bias = true;
  int activation = 0;  // index in FBP_ACTIVATIONS
  double param = 0;
};

struct NetworkSpec {
  index_t inputs = 0;
  std::vector<LayerSpec> layers;
};

struct LossSpec {
  int loss = 0;  // index in FBP_LOSSES
  double param = 0;
};

struct OptimizerSpec {
  int optimizer = 0;  // index in FBP_OPTIMIZERS
  Hyper hyper;
};

}  // namespace fastbp
