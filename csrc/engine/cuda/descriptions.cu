#include "engine/cuda/descriptions.h"

#include <algorithm>
#include <cstring>

#include "ops/activations.h"
#include "ops/losses.h"
#include "ops/optimizers.h"
#include "ops/recurrent.h"

namespace fastbp {
namespace cuda {

Failure invalid(const std::string& text) { return Failure(FBP_INVALID_ARGUMENT, text); }

namespace {

#define FBP_NAME(entry) entry::name,
constexpr const char* kActivationNames[] = {FBP_ACTIVATIONS(FBP_NAME)};
constexpr const char* kLossNames[] = {FBP_LOSSES(FBP_NAME)};
constexpr const char* kOptimizerNames[] = {FBP_OPTIMIZERS(FBP_NAME)};
constexpr const char* kCellNames[] = {FBP_CELLS(FBP_NAME)};
#undef FBP_NAME

template <std::size_t N> int find(const char* const (&names)[N], const char* name) {
  for (std::size_t i = 0; i < N; ++i)
    if (name && std::strcmp(names[i], name) == 0) return int(i);
  throw invalid(std::string("this CUDA library has no '") + (name ? name : "") + "'");
}

LayerSpec layer_of(const fbp_layer& from) {
  LayerSpec layer;
  switch (from.kind) {
  case FBP_LAYER_DENSE:
    if (from.units < 1) throw invalid("units: expected at least 1");
    layer.units = from.units;
    layer.use_bias = from.use_bias != 0;
    return layer;
  case FBP_LAYER_ACTIVATION:
    layer.kind = LayerSpec::Kind::activation;
    layer.activation = find(kActivationNames, from.activation);
    layer.param = from.param;
    return layer;
  case FBP_LAYER_DROPOUT:
    if (!(from.param >= 0 && from.param < 1)) throw invalid("rate: expected 0 <= rate < 1");
    layer.kind = LayerSpec::Kind::dropout;
    layer.param = from.param;
    layer.per_sequence = from.per_sequence != 0;
    return layer;
  case FBP_LAYER_LAYER_NORM:
  case FBP_LAYER_BATCH_NORM:
    layer.kind = from.kind == FBP_LAYER_LAYER_NORM ? LayerSpec::Kind::layer_norm
                                                   : LayerSpec::Kind::batch_norm;
    layer.param = from.param;
    layer.momentum = from.momentum;
    layer.use_bias = from.use_bias != 0;
    layer.use_scale = from.use_scale != 0;
    return layer;
  case FBP_LAYER_NORMALIZE:
    layer.kind = LayerSpec::Kind::normalize;
    return layer;
  case FBP_LAYER_SOFTMAX:
    layer.kind = LayerSpec::Kind::softmax;
    return layer;
  case FBP_LAYER_EMBEDDING:
    if (from.units < 1 || from.span < 1) throw invalid("entries, units: expected at least 1");
    layer.kind = LayerSpec::Kind::embedding;
    layer.span = from.span;
    layer.units = from.units;
    return layer;
  case FBP_LAYER_ADD:
    layer.kind = LayerSpec::Kind::add;
    layer.span = from.span;
    return layer;
  case FBP_LAYER_SCAN:
    if (from.units < 1) throw invalid("units: expected at least 1");
    if (from.ways < 0 || from.ways > int(ScanWays::both_added) || from.truncate < 0)
      throw invalid("ways, truncate: expected ScanWays and at least 0");
    layer.kind = LayerSpec::Kind::scan;
    layer.cell = find(kCellNames, from.cell);
    layer.units = from.units;
    layer.use_bias = from.use_bias != 0;
    layer.sequence = from.sequence != 0;
    layer.reverse = from.reverse != 0;
    layer.ways = ScanWays(from.ways);
    layer.truncate = from.truncate;
    layer.state_rate = from.state_rate;
    if (!(from.state_rate >= 0 && from.state_rate < 1))
      throw invalid("state_rate: expected 0 <= rate < 1");
    return layer;
  case FBP_LAYER_CUSTOM:
    layer.kind = LayerSpec::Kind::custom;
    layer.function = from.function;
    return layer;
  default:
    throw invalid("this CUDA library has no layer of kind " + std::to_string(from.kind));
  }
}

// Whether layer i, a scan, reads what it must.
bool reads_gates(const NetworkSpec& spec, int64_t i) {
  if (!spec.sequences || i == 0) return false;
  const LayerSpec &scan = spec.layers[std::size_t(i)], &before = spec.layers[std::size_t(i - 1)];
  const index_t ways = scan.ways == ScanWays::one ? 1 : 2;
  return before.kind == LayerSpec::Kind::dense &&
         before.units == ways * cell_info(scan.cell).gates * scan.units;
}

// Whether the limit's weights are the first of some layer's.
bool limits_a_layer(const fbp_column_limit& limit, const NetworkLayout& layout) {
  return std::any_of(layout.stages.begin(), layout.stages.end(), [&](const Stage& stage) {
    return limit.rows >= 1 && limit.begin == stage.parameter_offset &&
           limit.rows <= stage.parameter_rows && limit.cols == stage.parameter_cols;
  });
}

}  // namespace

Hyper hyper_of(const fbp_hyper& from) {
  return {from.learning_rate, from.momentum, from.rho,         from.beta_1,
          from.beta_2,        from.epsilon,  from.weight_decay};
}

NetworkSpec network_spec(const fbp_network_spec& from) {
  if (from.inputs < 1 || from.layer_count < 1 || !from.layers)
    throw invalid("create: expected a spec with inputs and layers");
  if (from.dtype < FBP_FLOAT32 || from.dtype > FBP_TF32)
    throw invalid("create: the dtype is none of float32, float64, bfloat16, float16 and tf32");
  NetworkSpec spec;
  spec.inputs = from.inputs;
  spec.seed = from.seed;
  spec.sequences = from.sequences != 0;
  for (int64_t i = 0; i < from.layer_count; ++i) {
    spec.layers.push_back(layer_of(from.layers[i]));
    const LayerSpec& layer = spec.layers.back();
    if (layer.kind == LayerSpec::Kind::add && (layer.span < 1 || layer.span > i))
      throw invalid("span: expected 1 to the number of layers before");
    if (layer.kind == LayerSpec::Kind::scan && !reads_gates(spec, i))
      throw invalid("a scan stands behind a dense layer of all its gates, over sequences");
    if (layer.kind == LayerSpec::Kind::embedding && i > 0)
      throw invalid("an embedding stands first");
  }
  return spec;
}

LossSpec loss_of(const char* name, double param) {
  return {find(kLossNames, name ? name : Mse::name), param, !name};
}

OptimizerSpec optimizer_of(const char* name, const fbp_hyper& hyper) {
  return {find(kOptimizerNames, name), hyper_of(hyper)};
}

UpdateRules rules_of(const fbp_rules& from, const NetworkLayout& layout) {
  UpdateRules rules;
  rules.clip_norm = from.clip_norm;
  rules.clip_value = from.clip_value;
  rules.accumulation = from.accumulation;
  rules.average = from.average != 0;
  rules.average_momentum = from.average_momentum;
  if (!(rules.clip_norm >= 0 && rules.clip_value >= 0 && rules.accumulation >= 1))
    throw invalid("rules: expected clip_norm and clip_value of at least 0, accumulation of 1");
  index_t end = 0;
  for (const fbp_range* r = from.ranges; r < from.ranges + from.range_count; ++r) {
    if (r->begin < end || r->end < r->begin || r->end > layout.parameter_count)
      throw invalid("ranges: expected ranges of parameters, one behind the other");
    rules.ranges.push_back({r->begin, r->end, r->rate, r->l1, r->l2});
    end = r->end;
  }
  for (const fbp_rate_piece* p = from.rates; p < from.rates + from.rate_count; ++p) {
    if (p->form < 0 || p->form > int(RateForm::table)) throw invalid("rates: unknown form");
    rules.rates.push_back(
        {p->start, RateForm(p->form), p->first, p->last, p->length, p->ratio, p->ahead});
  }
  rules.rate_values.assign(from.rate_values, from.rate_values + from.rate_value_count);
  for (const fbp_column_limit* l = from.limits; l < from.limits + from.limit_count; ++l) {
    if (!limits_a_layer(*l, layout) || !(l->limit > 0))
      throw invalid("limits: expected a layer's weights and a norm above 0");
    rules.column_limits.push_back({l->begin, l->rows, l->cols, l->limit});
  }
  return rules;
}

std::vector<MetricSpec> metrics_of(const fbp_metric* from, int32_t count) {
  std::vector<MetricSpec> metrics;
  for (int32_t i = 0; i < count; ++i) {
    MetricSpec metric;
    metric.kind = from[i].kind == FBP_ACCURACY_ARGMAX      ? MetricKind::accuracy_argmax
                  : from[i].kind == FBP_ACCURACY_THRESHOLD ? MetricKind::accuracy_threshold
                  : from[i].kind == FBP_MSE                ? MetricKind::mse
                                                           : MetricKind::mae;
    metric.threshold = from[i].threshold;
    metric.of_softmax = from[i].of_softmax != 0;
    metrics.push_back(metric);
  }
  return metrics;
}

}  // namespace cuda
}  // namespace fastbp
