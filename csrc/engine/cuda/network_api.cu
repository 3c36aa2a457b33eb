// fastbp_cuda_network.h: arguments are checked, and what is thrown becomes codes and texts. What
// describes a network, its loss and its rules is read in descriptions.cu.
#include "engine/cuda/network_api.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <string>

#include "backend/denormals.h"
#include "engine/cuda/descriptions.h"
#include "engine/cuda/network.h"

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

int32_t create(const fbp_network_spec* from, fbp_network** network) {
  return guarded([&] {
    if (!from || !network) throw invalid("create: expected a spec, and where the network goes");
    const NetworkSpec spec = network_spec(*from);
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
    network->network->compile(loss_of(loss, loss_param), optimizer_of(optimizer, *hyper));
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
