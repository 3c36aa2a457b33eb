// A network, its updates and its metrics in the words of the CUDA library's C interface, which
// engine/cuda/descriptions.cu reads.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "backend/cuda_library.h"
#include "bindings/bind.h"
#include "bindings/names.h"
#include "engine/network_spec.h"
#include "engine/update_rules.h"
#include "ops/recurrent.h"

namespace fastbp {

inline int32_t dtype_code(const std::string& dtype) {
  return dtype == "float64"    ? FBP_FLOAT64
         : dtype == "bfloat16" ? FBP_BFLOAT16
         : dtype == "float16"  ? FBP_FLOAT16
         : dtype == "tf32"     ? FBP_TF32
                               : FBP_FLOAT32;
}

inline fbp_layer layer_out(const LayerSpec& from) {
  using Kind = LayerSpec::Kind;
  constexpr std::pair<Kind, int32_t> kinds[] = {{Kind::dense, FBP_LAYER_DENSE},
                                                {Kind::activation, FBP_LAYER_ACTIVATION},
                                                {Kind::dropout, FBP_LAYER_DROPOUT},
                                                {Kind::layer_norm, FBP_LAYER_LAYER_NORM},
                                                {Kind::batch_norm, FBP_LAYER_BATCH_NORM},
                                                {Kind::normalize, FBP_LAYER_NORMALIZE},
                                                {Kind::embedding, FBP_LAYER_EMBEDDING},
                                                {Kind::add, FBP_LAYER_ADD},
                                                {Kind::scan, FBP_LAYER_SCAN},
                                                {Kind::custom, FBP_LAYER_CUSTOM},
                                                {Kind::softmax, FBP_LAYER_SOFTMAX}};
  fbp_layer layer{};
  for (const auto& [kind, code] : kinds)
    if (kind == from.kind) layer.kind = code;
  layer.use_bias = from.use_bias;
  layer.use_scale = from.use_scale;
  layer.units = from.units;
  layer.span = from.span;
  layer.activation = activation_name(from.activation);
  layer.param = from.param;
  layer.momentum = from.momentum;
  layer.per_sequence = from.per_sequence;
  layer.cell = cell_info(from.cell).name;
  layer.sequence = from.sequence;
  layer.reverse = from.reverse;
  layer.ways = int32_t(from.ways);
  layer.truncate = from.truncate;
  layer.state_rate = from.state_rate;
  layer.function = from.function;
  return layer;
}

inline fbp_hyper hyper_out(const Hyper& h) {
  return {h.learning_rate, h.momentum, h.rho, h.beta_1, h.beta_2, h.epsilon, h.weight_decay};
}

// Rules of updates; what view() returns lasts as long as this.
class RulesOut {
 public:
  explicit RulesOut(UpdateRules rules) : rules_(std::move(rules)) {
    for (const RatePiece& p : rules_.rates)
      rates_.push_back({p.start, int32_t(p.form), p.first, p.last, p.length, p.ratio, p.ahead});
    for (const ParameterRange& r : rules_.ranges)
      ranges_.push_back({r.begin, r.end, r.rate, r.l1, r.l2});
    for (const ColumnLimit& l : rules_.column_limits)
      limits_.push_back({l.begin, l.rows, l.cols, l.limit});
  }

  fbp_rules view() const {
    return {rules_.clip_norm,
            rules_.clip_value,
            rules_.accumulation,
            rules_.average,
            rules_.average_momentum,
            int64_t(ranges_.size()),
            ranges_.data(),
            int64_t(rates_.size()),
            rates_.data(),
            int64_t(rules_.rate_values.size()),
            rules_.rate_values.data(),
            int64_t(limits_.size()),
            limits_.data()};
  }

 private:
  UpdateRules rules_;
  std::vector<fbp_rate_piece> rates_;
  std::vector<fbp_range> ranges_;
  std::vector<fbp_column_limit> limits_;
};

inline fbp_metric metric_out(const std::string& name, const MetricSpec& spec) {
  if (spec.counts > 0 || spec.k > 0)
    throw py::value_error("metric '" + name + "' is not summed on a CUDA device");
  const int32_t kind = spec.kind == MetricKind::accuracy_argmax      ? FBP_ACCURACY_ARGMAX
                       : spec.kind == MetricKind::accuracy_threshold ? FBP_ACCURACY_THRESHOLD
                       : spec.kind == MetricKind::mse                ? FBP_MSE
                                                                     : FBP_MAE;
  return {kind, spec.of_softmax, spec.threshold};
}

}  // namespace fastbp
