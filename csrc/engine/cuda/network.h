// A network on a device: its memory, its runs of epochs, its predictions. The device's twin of
// engine/network.h, called through the C interface (network_api.cu).
//
// An epoch is enqueued without a wait: its order of rows, its learning rates and its batch counter
// are in device memory, and its losses come back in one piece when it has ended, while the next one
// runs. Not thread-safe: the bindings lock.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/network_spec.h"
#include "engine/layout.h"
#include "engine/step_clock.h"
#include "engine/update_rules.h"
#include "kernels/cuda/fastbp_cuda.h"

namespace fastbp {
namespace cuda {

// A run over batches, its pointers those of the caller; as Schedule and RunRecord of
// engine/network.h.
struct RunArgs {
  fbp_samples samples{};
  index_t batch_size = 1;
  index_t epochs = 1;
  std::int64_t first_epoch = 0;
  bool shuffle = false;
  std::uint64_t seed = 0;
  std::vector<MetricSpec> metrics;
  bool training = false;  // set by train()
  bool resets = false;    // each epoch begins with states of 0
  bool update = true;
  bool means = true;  // a completed epoch's sums become means
  void* dx = nullptr;
  void* outputs = nullptr;
  double* record = nullptr;  // (epochs, 1 + metrics)
  index_t epoch = 0, at = 0;
  index_t steps = -1;
  fbp_interrupt interrupt{};
};

// Of either dtype. Functions throw Failure; those that return a bool return false if interrupted, or if a
// function of the caller's own has failed.
class Network {
 public:
  virtual ~Network() = default;

  virtual const NetworkLayout& layout() const = 0;
  // Steps that were replayed from a recording.
  virtual std::int64_t replays() const = 0;
  // Steps are timed from now on, until the times are asked for.
  virtual void start_clock() = 0;
  virtual StepTimes stop_clock() = 0;
  virtual void compile(const LossSpec& loss, const OptimizerSpec& optimizer) = 0;
  virtual void set_hyper(const Hyper& hyper) = 0;
  virtual void set_rules(const UpdateRules& rules) = 0;
  virtual void set_trainable(const std::vector<bool>& layers) = 0;
  virtual void set_stream(void* stream) = 0;
  virtual void set_functions(const fbp_host_functions& functions) = 0;
  // A copy of the samples stays on the device for all calls with the same pointers, until release().
  virtual void hold(const fbp_samples& samples) = 0;
  virtual void release() = 0;
  virtual void read(int array, void* host) = 0;
  virtual void write(int array, const void* host) = 0;
  // Trains from (epoch, at) on, which then are where the run stands.
  virtual bool train(RunArgs& run) = 0;
  virtual bool evaluate(RunArgs& run) = 0;
  virtual bool predict(const fbp_samples& samples, void* out, bool training,
                       const fbp_interrupt& interrupt) = 0;

  std::int64_t steps = 0;  // optimizer steps taken
  // Narrow networks are trained whole, many steps to a launch; recurrent layers take all steps of
  // their sequences in one.
  bool persistent = true;
  bool persistent_anyhow = false;     // also narrow networks that stages are quicker for
  std::int64_t persistent_steps = 0;  // those taken by narrow networks in that way
};

std::unique_ptr<Network> make_network(const NetworkSpec& spec, int dtype, int device);

}  // namespace cuda
}  // namespace fastbp
