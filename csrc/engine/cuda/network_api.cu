// fastbp_cuda_network.h: names are looked up, sizes checked, and what is thrown becomes codes and
// texts.
#include "engine/cuda/network_api.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <string>

#include "backend/denormals.h"
#include "engine/cuda/network.h"
#include "engine/cuda/resources.h"
#include "ops/activations.h"
#include "ops/losses.h"
#include "ops/optimizers.h"
#include "ops/recurrent.h"

using fastbp::cuda::Failure;
using fastbp::cuda::Network;
using fastbp::cuda::RunArgs;

struct fbp_network {
  std::unique_ptr<Network> network;
  bool compiled = false;
};

namespace fastbp {
namespace cuda {
namespace {

Failure invalid(const std::string& text) { return Failure(FBP_INVALID_ARGUMENT, text); }

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

// f() with denormals flushed on the host too, as the CPU's engine has them; what is thrown is told.
template <class F> int32_t guarded(F&& f) noexcept {
  const FpControlScope flush(kFlushDenormals);
  try {
    return f();
  } catch (const Failure& failure) {
    return tell(failure.code, failure.what());
  } catch (const std::bad_alloc&) {
    return tell(FBP_OUT_OF_MEMORY, "the host has no memory for the network's plan");
  } catch (const std::exception& error) { return tell(FBP_DEVICE_ERROR, error.what()); }
}

int32_t ended(bool finished) { return finished ? FBP_OK : FBP_INTERRUPTED; }

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

int32_t create(const fbp_network_spec* from, fbp_network** network) {
  return guarded([&] {
    if (!from || !network || from->inputs < 1 || from->layer_count < 1 || !from->layers)
      throw invalid("create: expected a spec with inputs and layers");
    if (from->dtype < FBP_FLOAT32 || from->dtype > FBP_TF32)
      throw invalid("create: the dtype is none of float32, float64, bfloat16, float16 and tf32");
    NetworkSpec spec;
    spec.inputs = from->inputs;
    spec.seed = from->seed;
    spec.sequences = from->sequences != 0;
    for (int64_t i = 0; i < from->layer_count; ++i) {
      spec.layers.push_back(layer_of(from->layers[i]));
      const LayerSpec& layer = spec.layers.back();
      if (layer.kind == LayerSpec::Kind::add && (layer.span < 1 || layer.span > i))
        throw invalid("span: expected 1 to the number of layers before");
      if (layer.kind == LayerSpec::Kind::scan && !reads_gates(spec, i))
        throw invalid("a scan stands behind a dense layer of all its gates, over sequences");
      if (layer.kind == LayerSpec::Kind::embedding && i > 0)
        throw invalid("an embedding stands first");
    }
    auto made = std::make_unique<fbp_network>();
    made->network = make_network(spec, from->dtype, from->device);
    *network = made.release();
    return FBP_OK;
  });
}

int32_t destroy(fbp_network* network) {
  return guarded([&] {
    delete network;
    return FBP_OK;
  });
}

int64_t parameter_count(const fbp_network* network) {
  return network->network->layout().parameter_count;
}

int64_t parameter_shapes(const fbp_network* network, int64_t (*shapes)[4], int64_t capacity) {
  int64_t count = 0;
  for (const Stage& s : network->network->layout().stages) {
    if (s.parameter_count() == 0) continue;
    if (count < capacity) {
      const int64_t shape[4] = {s.parameter_offset, s.parameter_rows, s.parameter_cols, s.bias};
      std::memcpy(shapes[count], shape, sizeof shape);
    }
    ++count;
  }
  return count;
}

int64_t state_count(const fbp_network* network) { return network->network->layout().state_count; }

int64_t state_shapes(const fbp_network* network, int64_t (*shapes)[3], int64_t capacity) {
  int64_t count = 0;
  for (const Stage& s : network->network->layout().stages) {
    if (s.state_rows == 0) continue;
    if (count < capacity) {
      const int64_t shape[3] = {s.state_offset, s.state_rows, s.outputs};
      std::memcpy(shapes[count], shape, sizeof shape);
    }
    ++count;
  }
  return count;
}

Hyper hyper_of(const fbp_hyper& from) {
  return {from.learning_rate, from.momentum, from.rho,         from.beta_1,
          from.beta_2,        from.epsilon,  from.weight_decay};
}

int32_t set_functions(fbp_network* network, const fbp_host_functions* functions) {
  return guarded([&] {
    if (!functions || !functions->activation || !functions->loss)
      throw invalid("set_functions: expected both");
    network->network->set_functions(*functions);
    return FBP_OK;
  });
}

int32_t compile(fbp_network* network, const char* loss, double loss_param, const char* optimizer,
                const fbp_hyper* hyper) {
  return guarded([&] {
    const LossSpec l{find(kLossNames, loss ? loss : Mse::name), loss_param, !loss};
    const OptimizerSpec o{find(kOptimizerNames, optimizer), hyper_of(*hyper)};
    network->network->compile(l, o);
    network->compiled = true;
    return FBP_OK;
  });
}

int32_t set_hyper(fbp_network* network, const fbp_hyper* hyper) {
  return guarded([&] {
    network->network->set_hyper(hyper_of(*hyper));
    return FBP_OK;
  });
}

// Whether the limit's weights are the first of some layer's.
bool limits_a_layer(const fbp_column_limit& limit, const NetworkLayout& layout) {
  return std::any_of(layout.stages.begin(), layout.stages.end(), [&](const Stage& stage) {
    return limit.rows >= 1 && limit.begin == stage.parameter_offset &&
           limit.rows <= stage.parameter_rows && limit.cols == stage.parameter_cols;
  });
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
    rules.rates.push_back({p->start, RateForm(p->form), p->first, p->last, p->length, p->ratio});
  }
  rules.rate_values.assign(from.rate_values, from.rate_values + from.rate_value_count);
  for (const fbp_column_limit* l = from.limits; l < from.limits + from.limit_count; ++l) {
    if (!limits_a_layer(*l, layout) || !(l->limit > 0))
      throw invalid("limits: expected a layer's weights and a norm above 0");
    rules.column_limits.push_back({l->begin, l->rows, l->cols, l->limit});
  }
  return rules;
}

int32_t set_rules(fbp_network* network, const fbp_rules* rules) {
  return guarded([&] {
    Network& net = *network->network;
    net.set_rules(rules_of(*rules, net.layout()));
    return FBP_OK;
  });
}

int32_t set_trainable(fbp_network* network, const int32_t* layers, int64_t count) {
  return guarded([&] {
    network->network->set_trainable(std::vector<bool>(layers, layers + count));
    return FBP_OK;
  });
}

int64_t steps(const fbp_network* network) { return network->network->steps; }

int64_t replays(const fbp_network* network) { return network->network->replays(); }

int64_t persistent_steps(const fbp_network* network) { return network->network->persistent_steps; }

int32_t set_persistent(fbp_network* network, int32_t allowed) {
  network->network->persistent = network->network->persistent_anyhow = allowed != 0;
  return FBP_OK;
}

int32_t start_clock(fbp_network* network) {
  return guarded([&] {
    network->network->start_clock();
    return FBP_OK;
  });
}

int32_t stop_clock(fbp_network* network, double* seconds) {
  return guarded([&] {
    const StepTimes times = network->network->stop_clock();
    for (std::size_t part = 0; part < kStepParts; ++part)
      for (const double value : network->network->layout().by_layer(times.seconds(StepPart(part))))
        *seconds++ = value;
    return FBP_OK;
  });
}

int32_t set_steps(fbp_network* network, int64_t count) {
  return guarded([&] {
    if (count < 0) throw invalid("steps: expected at least 0");
    network->network->steps = count;
    return FBP_OK;
  });
}

int32_t set_stream(fbp_network* network, void* stream) {
  return guarded([&] {
    network->network->set_stream(stream);
    return FBP_OK;
  });
}

int32_t hold(fbp_network* network, const fbp_samples* samples) {
  return guarded([&] {
    if (!samples || samples->n < 1 || !samples->x) throw invalid("hold: expected samples");
    network->network->hold(*samples);
    return FBP_OK;
  });
}

int32_t release(fbp_network* network) {
  return guarded([&] {
    network->network->release();
    return FBP_OK;
  });
}

void require_array(int32_t array) {
  if (array < FBP_PARAMETERS || array > FBP_LOSS_SCALE) throw invalid("there is no such array");
}

int32_t read(fbp_network* network, int32_t array, void* host) {
  return guarded([&] {
    require_array(array);
    network->network->read(array, host);
    return FBP_OK;
  });
}

int32_t write(fbp_network* network, int32_t array, const void* host) {
  return guarded([&] {
    require_array(array);
    network->network->write(array, host);
    return FBP_OK;
  });
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

void require_steps(const fbp_network* network, const fbp_samples& samples) {
  const NetworkLayout& layout = network->network->layout();
  if (samples.steps < 1 || (samples.steps > 1 && !layout.sequences))
    throw invalid("steps: expected at least 1, and 1 where rows are no sequences");
  if (samples.states && !layout.sequences) throw invalid("states: expected those of sequences");
  if (samples.lengths && (!layout.sequences || !samples.host_lengths))
    throw invalid("lengths: expected those of sequences, and the same on the host");
}

void require_ready(const fbp_network* network, const fbp_samples& samples, int64_t batch_size) {
  if (!network->compiled) throw invalid("the network has no loss and optimizer yet");
  if (samples.n < 1 || batch_size < 1) throw invalid("expected at least one row");
  if (!samples.x || (!samples.target && !samples.labels))
    throw invalid("x, or both target and labels, are missing");
  require_steps(network, samples);
}

int32_t train(fbp_network* network, fbp_train_args* args) {
  return guarded([&] {
    require_ready(network, args->samples, args->batch_size);
    RunArgs run;
    run.samples = args->samples;
    run.batch_size = args->batch_size;
    run.epochs = args->epochs;
    run.first_epoch = args->first_epoch;
    run.shuffle = args->shuffle != 0;
    run.seed = args->seed;
    run.metrics = metrics_of(args->metrics, args->metric_count);
    run.means = args->means != 0;
    run.resets = args->resets != 0;
    run.record = args->record;
    run.epoch = args->epoch;
    run.at = args->at;
    run.steps = args->steps;
    run.outputs = args->outputs;
    run.interrupt = args->interrupt;
    const bool finished = network->network->train(run);
    args->epoch = run.epoch;
    args->at = run.at;
    return ended(finished);
  });
}

// One batch of all rows; the gradient is stored, not used, where `update` is false.
int32_t one_batch(fbp_network* network, const fbp_samples& batch, double* loss, bool update,
                  void* dx) {
  return guarded([&] {
    require_ready(network, batch, batch.n);
    RunArgs run;
    run.samples = batch;
    run.batch_size = batch.n;
    run.update = update;
    run.dx = dx;
    *loss = 0;
    run.record = loss;
    return ended(network->network->train(run));
  });
}

int32_t step(fbp_network* network, const fbp_samples* batch, double* loss) {
  return one_batch(network, *batch, loss, true, nullptr);
}

int32_t gradients(fbp_network* network, const fbp_samples* batch, double* loss, void* dx) {
  return one_batch(network, *batch, loss, false, dx);
}

int32_t evaluate(fbp_network* network, const fbp_evaluate_args* args) {
  return guarded([&] {
    require_ready(network, args->samples, args->batch_size);
    RunArgs run;
    run.samples = args->samples;
    run.batch_size = args->batch_size;
    run.update = false;
    run.metrics = metrics_of(args->metrics, args->metric_count);
    std::fill_n(args->values, 1 + run.metrics.size(), 0.0);
    run.record = args->values;
    run.outputs = args->outputs;
    run.interrupt = args->interrupt;
    return ended(network->network->evaluate(run));
  });
}

int32_t predict(fbp_network* network, const fbp_samples* samples, void* out, int32_t training,
                const fbp_interrupt* interrupt) {
  return guarded([&] {
    if (samples->n > 0 && (!samples->x || !out)) throw invalid("x or out is missing");
    require_steps(network, *samples);
    return ended(network->network->predict(*samples, out, training != 0,
                                           interrupt ? *interrupt : fbp_interrupt{}));
  });
}

}  // namespace

const fbp_network_api kNetworkApi = {sizeof(fbp_network_api),
                                     create,
                                     destroy,
                                     parameter_count,
                                     parameter_shapes,
                                     state_count,
                                     state_shapes,
                                     set_functions,
                                     compile,
                                     set_hyper,
                                     set_rules,
                                     set_trainable,
                                     steps,
                                     replays,
                                     persistent_steps,
                                     set_persistent,
                                     set_steps,
                                     start_clock,
                                     stop_clock,
                                     set_stream,
                                     hold,
                                     release,
                                     read,
                                     write,
                                     train,
                                     step,
                                     gradients,
                                     evaluate,
                                     predict};

}  // namespace cuda
}  // namespace fastbp
