#include "engine/cuda/network.h"

#include <algorithm>
#include <type_traits>
#include <utility>

#include "engine/cuda/batch_memory.h"
#include "engine/cuda/chain.h"
#include "engine/cuda/data.h"
#include "engine/cuda/epochs.h"
#include "engine/cuda/memory.h"
#include "engine/cuda/narrow.h"
#include "engine/cuda/pace.h"
#include "engine/cuda/rules.h"
#include "engine/cuda/step_graph.h"

namespace fastbp {
namespace cuda {
namespace {

// Rows of a prediction that are under way at once: enough to fill a device, and of 1024 floats each
// 64 MiB.
constexpr index_t kPredictionRows = 16384;

template <class T> class DeviceNetwork final : public Network {
 public:
  // dtype: as the C interface's. Those of T = float that are not float32 say how products are made.
  DeviceNetwork(const NetworkSpec& spec, int device, int dtype)
      : device_(device), layout_(make_layout(spec)) {
    chain_.seed = spec.seed;
    select();
    own_stream_ = make_stream();
    chain_.layout = &layout_;
    chain_.rules = &rules_;
    chain_.persistent = &persistent;
    chain_.stream = own_stream_.get();
    chain_.branches = &branches_;
    chain_.host = &host_;
    rules_.may_give_up = layout_.custom;
    const std::size_t bytes = array_bytes<T>(layout_.parameter_count);
    const std::size_t rest =
        array_bytes<T>(layout_.state_count + layout_.worker_count) + sizeof(LossScale);
    // Lines of 64 bytes: where memory is aligned as its size is, what comes first begins at one.
    ArenaLayout pieces;
    pieces.add(checked_sum(checked_product(bytes, 4), rest));
    const std::size_t all = pieces.total();
    T* flat = static_cast<T*>(memory_.require(Piece::parameters, all));
    check(cudaMemsetAsync(flat, 0, all, stream()), "making the parameters");
    FlatArrays<T>& arrays = chain_.arrays;
    for (T** array : {&arrays.parameters.w, &arrays.gradient, &arrays.parameters.slot[0],
                      &arrays.parameters.slot[1]}) {
      *array = flat;
      flat += layout_.parameter_count;
    }
    chain_.state = flat;
    chain_.statistics = flat + layout_.state_count;
    if (dtype == FBP_FLOAT16) {
      chain_.scaling = reinterpret_cast<LossScale*>(chain_.statistics + layout_.worker_count);
      rules_.scaled = true;
      start_scaling();
    }
    if (dtype == FBP_FLOAT16) batches_.round_to(Half::float16);
    if (dtype == FBP_BFLOAT16) batches_.round_to(Half::bfloat16);
    chain_.product_mode.tf32 = dtype == FBP_TF32;
    chain_.product_mode.blas = &blas_;
    if (layout_.sequences) prepare_walks();
    finish();
  }
  ~DeviceNetwork() override {
    if (cudaSetDevice(device_) == cudaSuccess) cudaStreamSynchronize(stream());
  }

  const NetworkLayout& layout() const override { return layout_; }
  std::int64_t replays() const override { return graphs_.replays(); }

  void compile(const LossSpec& loss, const OptimizerSpec& optimizer) override {
    select();
    for (T* slot : chain_.arrays.parameters.slot)
      check(cudaMemsetAsync(slot, 0, array_bytes<T>(layout_.parameter_count), stream()),
            "clearing the optimizer's state");
    chain_.loss = loss;
    chain_.optimizer = optimizer.optimizer;
    epochs_.optimizer = optimizer;
    rules_.set({}, stream());
    if (chain_.scaling) start_scaling();
    ++changes_;
    finish();
    steps = 0;
  }

  void set_hyper(const Hyper& hyper) override { epochs_.optimizer.hyper = hyper; }
  void set_rules(const UpdateRules& rules) override {
    select();
    rules_.set(rules, stream());
    ++changes_;
    finish();
  }
  void set_trainable(const std::vector<bool>& layers) override {
    select();
    if (layers.size() != layout_.stage_of_layer.size())
      throw Failure(FBP_INVALID_ARGUMENT, "layers: expected a value for each");
    layout_.set_trainable(layers);
    // What is frozen has no gradient from now on.
    check(cudaMemsetAsync(chain_.arrays.gradient, 0, array_bytes<T>(layout_.parameter_count),
                          stream()),
          "clearing memory");
    rules_.set_frozen(stream());
    ++changes_;
    finish();
  }

  void start_clock() override {
    clock_ = std::make_unique<DeviceClock>(layout_.stages.size());
    ++changes_;  // the marks of an earlier clock are gone
  }
  StepTimes stop_clock() override {
    if (!clock_)
      throw Failure(FBP_INVALID_ARGUMENT, "the clock does not run: call start_clock() first");
    ++changes_;
    return std::exchange(clock_, nullptr)->times;
  }

  void set_stream(void* stream) override {
    chain_.stream = stream ? static_cast<cudaStream_t>(stream) : own_stream_.get();
  }

  void set_functions(const fbp_host_functions& functions) override { host_.functions = functions; }

  void hold(const fbp_samples& samples) override {
    select();
    data_.hold(samples, stream());
    finish();
  }
  void release() override {
    select();
    finish();
    data_.release();
  }

  void read(int array, void* host) override {
    select();
    copy(host, flat(array), bytes_of(array), cudaMemcpyDeviceToHost);
    finish();
  }
  void write(int array, const void* host) override {
    select();
    copy(flat(array), host, bytes_of(array), cudaMemcpyHostToDevice);
    if (array == FBP_PARAMETERS) batches_.parameters_changed();
    if (array == FBP_LOSS_SCALE) epochs_.skipped = std::int64_t(static_cast<const float*>(host)[2]);
    finish();
  }

  bool train(RunArgs& run) override {
    select();
    const index_t n = run.samples.n, rows = std::min(run.batch_size, n);
    run.training = true;
    const bool whole = trains_whole(run);
    const Measures measures = epochs_.prepare(run, rows, whole ? epochs_together(run, rows) : 1);
    if (whole)
      batches_.use_partials(narrow_.partials_of(layout_, rows));
    else
      batches_.use_training(rows, run.samples.steps);
    use_closed(batches_.training, run.samples);
    DeviceBatch<T> batch;
    batch.samples = data_.place(run.samples, stream());
    batch.samples.states = batches_.take_states(run.samples.states, rows);
    batch.rows_per_batch = rows;
    batch.metrics = &run.metrics;
    batch.update = run.update;
    batch.dx = input_gradient(run);
    T* const outputs = outputs_of(run);
    Poll poll(run.interrupt);
    pace_.begin();
    const index_t first_epoch = run.epoch, first = run.at;
    index_t epoch = first_epoch, at = first, left = run.steps;
    while (epoch < run.epochs && left != 0 && !poll.stopped()) {
      auto& slot = epochs_.next(run, measures, poll);
      const index_t together = std::min(measures.epochs, run.epochs - epoch), end = together * n;
      epochs_.begin(slot, run, measures, epoch, at, steps, together);
      if (run.resets && at == 0 && batch.samples.states)
        check(cudaMemsetAsync(batch.samples.states, 0, batches_.state_bytes(rows), stream()),
              "clearing memory");
      index_t taken = 1;
      do {
        batch.rows = std::min(rows, end - at);
        if (whole) {
          taken =
              std::min({parts_of(end - at, rows), index_t(pace_.room()), left < 0 ? end : left});
          train_whole(batch, end, taken);
        } else {
          batch.counts = epochs_.counted(slot, measures, slot.batches);
          taken = take_steps(batch, alike(batch, end - at, left, outputs));
          if (taken == 0) {
            poll.stop();
            break;
          }
          if (outputs) keep_outputs(batches_.training, outputs, at, batch.rows);
        }
        at = std::min(end, at + taken * rows);
        slot.batches += taken;
        if (run.update) steps += taken;
        if (left > 0) left -= taken;
        if (at == end && epoch + together == run.epochs) break;
      } while (pace_.step(stream(), poll, int(taken)) && at < end && left != 0);
      epochs_.end(slot, measures);
      epoch += at / n;
      at %= n;
    }
    epochs_.collect_all(run, measures, poll);
    if (run.update) batches_.return_states(run.samples.states, batch.samples.states, rows);
    if (run.dx && !run.samples.on_device)
      copy(run.dx, batch.dx, n * row_values(run.samples) * sizeof(T), cudaMemcpyDeviceToHost);
    // Epochs have ended; what comes behind them may not have.
    if (outputs) return_made(run, outputs, first, at, epoch - first_epoch);
    if (outputs || run.dx || run.samples.states) finish();
    return !poll.stopped();
  }

  bool evaluate(RunArgs& run) override {
    select();
    const index_t n = run.samples.n, rows = std::min(run.batch_size, n);
    const Measures measures = epochs_.prepare(run, rows);
    batches_.use_inference(rows, run.samples.steps);
    Workspace& space = batches_.inference;
    use_closed(space, run.samples);
    DeviceSamples<T> samples = data_.place(run.samples, stream());
    samples.states = batches_.take_states(run.samples.states, n);
    T* const outputs = outputs_of(run);
    Poll poll(run.interrupt);
    pace_.begin();
    auto& slot = epochs_.next(run, measures, poll);
    epochs_.begin(slot, run, measures, 0, 0, steps);
    chain_.measure_penalties();
    const T* const y = space.at<T>(space.plan.y.back());
    for (index_t at = 0; at < n; at += rows) {
      const index_t here = std::min(rows, n - at);
      const auto batch = samples.from(at, layout_);
      const CountedRows<T>* const counts = epochs_.counted(slot, measures, slot.batches);
      const bool whole = or_give_up([&] {
        chain_.infer(space, here, batch, nullptr, false);
        chain_.evaluate(space, here, y, batch, run.metrics, counts);
      });
      if (!whole) return finish(), false;
      if (outputs) keep_outputs(space, outputs, at, here);
      ++slot.batches;
      if (!pace_.step(stream(), poll)) return finish(), false;
    }
    epochs_.end(slot, measures);
    epochs_.collect_all(run, measures, poll);
    run.record[0] += epochs_.penalty();
    batches_.return_states(run.samples.states, samples.states, n);
    if (outputs) return_outputs(run, outputs, 0, n);
    finish();
    return !poll.stopped();
  }

  bool predict(const fbp_samples& samples, void* out, bool training,
               const fbp_interrupt& interrupt) override {
    select();
    if (samples.n == 0) return true;
    // What a training pass draws depends on the place in the batch: the rows are one.
    const index_t rows =
        training ? samples.n
                 : std::min(samples.n, std::max(index_t(1), kPredictionRows / samples.steps));
    const Workspace& space = training ? batches_.training : batches_.inference;
    if (training) {
      batches_.use_training(rows, samples.steps);
      epochs_.use_counter(steps);
    } else {
      batches_.use_inference(rows, samples.steps);
    }
    Poll poll(interrupt);
    const index_t width = output_values(samples);
    T* const states = batches_.take_states(samples.states, samples.n);
    T* const result =
        samples.on_device
            ? nullptr
            : static_cast<T*>(memory_.require(Piece::result, array_bytes<T>(rows, width)));
    for (index_t at = 0; at < samples.n; at += rows) {
      const index_t here = std::min(rows, samples.n - at);
      fbp_samples part = samples;
      part.n = here;
      part.x = static_cast<const T*>(samples.x) + at * row_values(samples);
      if (samples.lengths) part.lengths = samples.lengths + at;
      T* const y = static_cast<T*>(out) + at * width;
      DeviceSamples<T> there = data_.copied(part, stream());
      if (states) there.states = states + at * layout_.carried_width;
      T* const to = result ? result : y;
      if (!or_give_up([&] { chain_.infer(space, here, there, to, training); }))
        return finish(), false;
      if (result) copy(y, result, here * width * sizeof(T), cudaMemcpyDeviceToHost);
      finish();
      if (poll()) return false;
    }
    batches_.return_states(samples.states, states, samples.n);
    finish();
    return true;
  }

 private:
  cudaStream_t stream() const { return chain_.stream; }
  void select() { check(cudaSetDevice(device_), "choosing the device"); }
  void finish() { check(cudaStreamSynchronize(stream()), "the device's work"); }
  void copy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
    check(cudaMemcpyAsync(to, from, bytes, kind, stream()), "a copy");
  }

  // False where a function of the caller's own failed in pass().
  template <class Pass> static bool or_give_up(Pass pass) {
    try {
      pass();
      return true;
    } catch (const GivenUp&) { return false; }
  }
  // Up to so many training steps that are alike; how many were taken. 0: the step was given up.
  index_t take_steps(const DeviceBatch<T>& batch, index_t most) {
    const StepGraphs::Key key = key_of(batch);
    const TimedSteps timed(clock_.get(), key, chain_.marks);
    index_t taken = 1;
    if (!chain_.calls_host())
      taken = graphs_.run(key, stream(), clock_ ? 1 : most, clock_ ? 0 : 1,
                          [&] { chain_.train(batches_.training, batch); });
    else if (!train_or_give_up(batch))
      return 0;
    timed.finish();
    return taken;
  }
  // A training step; where it is given up the states are those behind the step before.
  bool train_or_give_up(const DeviceBatch<T>& batch) {
    T* const states = batch.samples.states;
    const std::size_t bytes = states ? batches_.state_bytes(batch.rows_per_batch) : 0;
    T* const before = states + bytes / sizeof(T);
    if (states) copy(before, states, bytes, cudaMemcpyDeviceToDevice);
    const bool whole = or_give_up([&] { chain_.train(batches_.training, batch); });
    if (states && !whole) copy(states, before, bytes, cudaMemcpyDeviceToDevice);
    return whole;
  }

  void prepare_walks() {
    chain_.scan_room = scan_room(device_);
    for (const Stage& stage : layout_.stages)
      if (stage.scan())
        check(
            let_walk<T>(stage.cell, chain_.product_mode.rounding(), chain_.scan_room.shared_bytes),
            "kernels of recurrent cells");
  }

  std::size_t bytes_of(int array) const {
    if (array == FBP_LOSS_SCALE) return array_bytes<float>(kScaleValues);
    return array_bytes<T>(array == FBP_STATE ? layout_.state_count : layout_.parameter_count);
  }
  // The scale begins anew.
  void start_scaling() {
    const LossScale fresh;
    copy(chain_.scaling, &fresh, sizeof fresh, cudaMemcpyHostToDevice);
    finish();
    epochs_.skipped = 0;
  }
  void* flat(int array) {
    const FlatArrays<T>& arrays = chain_.arrays;
    void* const places[] = {arrays.parameters.w,
                            arrays.gradient,
                            arrays.parameters.slot[0],
                            arrays.parameters.slot[1],
                            rules_.accumulated(),
                            rules_.average(),
                            chain_.state,
                            chain_.scaling};
    if (!places[array])
      throw Failure(FBP_INVALID_ARGUMENT, "the dtype and the rules of updates want no such array");
    return places[array];
  }

  void use_closed(Workspace& space, const fbp_samples& samples) {
    if (epochs_.closes(samples)) batches_.use_closed(space, samples.steps);
  }

  // Whether the run's steps are taken by the kernel for narrow networks.
  bool trains_whole(const RunArgs& run) {
    if constexpr (std::is_same_v<T, float>) {
      if (!persistent || chain_.product_mode.tf32 || !run.update || run.dx || run.outputs ||
          layout_.sequences)
        return false;
      const bool rounded = chain_.product_mode.shadows != nullptr;
      const bool ruled = rules_.need_whole_gradient() || layout_.any_frozen || run.samples.weight;
      if (ruled && (rounded || rules_.scaled || rules_.of().clip_norm > 0)) return false;
      if (!rules_.of().column_limits.empty() || chain_.loss.custom) return false;
      if (run.metrics.size() > std::size_t(kNarrowMetrics)) return false;
      if (!planned_) narrow_ = NarrowPlan(layout_, rounded, device_);
      planned_ = true;
      return narrow_.fits() &&
             (persistent_anyhow ||
              narrow_.is_quicker(layout_, std::min(run.batch_size, run.samples.n)));
    }
    return false;
  }
  // Small epochs of whole batches, so many in a launch that their copies and the launch are little
  // beside them: up to Pace's longest window, and 1 MiB for the orders of their rows.
  static index_t epochs_together(const RunArgs& run, index_t rows) {
    const index_t n = run.samples.n;
    if (n % rows != 0 || n >= Epochs<T>::kManyRows || run.at != 0 || run.steps >= 0) return 1;
    const index_t most = std::min(Pace::kLongest / (n / rows), (index_t(1) << 17) / n);
    return std::max(index_t(1), std::min(most, run.epochs - run.epoch));
  }
  void train_whole(const DeviceBatch<T>& batch, index_t n, index_t count) {
    if constexpr (std::is_same_v<T, float>) {
      const TimedSteps timed(clock_.get(), {}, chain_.marks);
      if (chain_.marks) chain_.marks->begin(stream());
      narrow_.train(chain_, batch, n, count);
      if (chain_.marks) chain_.marks->spent(StepPart::whole, layout_.stages.size(), stream());
      timed.finish();
      persistent_steps += count;
      batches_.parameters_changed();
    }
  }

  // Values of a row of the samples, and of the outputs for it.
  index_t row_values(const fbp_samples& samples) const { return samples.steps * layout_.inputs; }
  index_t output_values(const fbp_samples& samples) const {
    return layout_.output_places(samples.steps) * layout_.outputs;
  }

  // Steps of an epoch, of which `rest` rows are left, that differ in nothing from the next one and may be
  // enqueued with it; left: how many may be taken, all below 0.
  index_t alike(const DeviceBatch<T>& batch, index_t rest, index_t left, const T* outputs) const {
    if (outputs) return 1;
    const index_t whole = rest / batch.rows_per_batch, room = pace_.room();
    return std::min({whole, room, left < 0 ? whole : left});
  }
  // All that the launches of a training step depend on.
  StepGraphs::Key key_of(const DeviceBatch<T>& batch) const {
    const RunTables<T>& tables = chain_.tables;
    const DeviceSamples<T>& from = batch.samples;
    StepGraphs::Key key;
    key.add(stream(), changes_, persistent, chain_.loss.loss, chain_.loss.param, chain_.optimizer,
            blas_.version());
    key.add(tables.order, tables.counter, tables.steps.hyper, tables.sums, tables.blocks,
            tables.batches, tables.counted);
    key.add(from.x, from.target, from.labels, from.weight, from.lengths, from.states);
    key.add(batch.rows_per_batch, batch.rows, batch.update, batch.dx);
    batches_.add_to(key);
    for (const MetricSpec& metric : *batch.metrics)
      key.add(metric.kind, metric.threshold, metric.of_softmax);
    return key;
  }

  T* input_gradient(const RunArgs& run) {
    if (!run.dx || run.samples.on_device) return static_cast<T*>(run.dx);
    return static_cast<T*>(
        memory_.require(Piece::result, array_bytes<T>(run.samples.n, row_values(run.samples))));
  }

  // Room for the run's outputs on the device; null where the caller wants none.
  T* outputs_of(const RunArgs& run) {
    if (!run.outputs) return nullptr;
    return static_cast<T*>(
        memory_.require(Piece::result, array_bytes<T>(run.samples.n, output_values(run.samples))));
  }
  void keep_outputs(const Workspace& space, T* outputs, index_t at, index_t rows) {
    chain_.keep_outputs(space, rows,
                        outputs + at * layout_.output_places(space.plan.steps) * layout_.outputs);
  }
  // Of the rows `first` to `end`, in the order of the batches, to the caller.
  void return_outputs(const RunArgs& run, const T* outputs, index_t first, index_t end) {
    if (first == end) return;
    const index_t values = output_values(run.samples);
    copy(static_cast<T*>(run.outputs) + first * values, outputs + first * values,
         array_bytes<T>(end - first, values), cudaMemcpyDeviceToHost);
  }
  // What a run made from row `first` on, over the ends of so many epochs, to row `at`. The other rows of
  // that epoch are the caller's already; the device's memory has there what another call may have left.
  void return_made(const RunArgs& run, const T* outputs, index_t first, index_t at,
                   index_t epochs) {
    if (epochs > 0) return_outputs(run, outputs, epochs == 1 ? first : 0, run.samples.n);
    return_outputs(run, outputs, epochs > 0 ? 0 : first, at);
  }

  int device_;
  NetworkLayout layout_;
  Stream own_stream_;
  Branches branches_;
  DeviceMemory memory_;
  Data<T> data_{layout_, memory_};
  Rules<T> rules_{layout_, memory_};
  Chain<T> chain_;
  HostCalls<T> host_;
  Epochs<T> epochs_{layout_, chain_, memory_};
  Pace pace_;
  BatchMemory<T> batches_{layout_, chain_, memory_};
  BlasProducts blas_{layout_, memory_, device_};
  StepGraphs graphs_;
  std::unique_ptr<DeviceClock> clock_;
  std::int64_t changes_ = 0;  // of what a step is: a recording holds until the next
  NarrowPlan narrow_;
  bool planned_ = false;  // narrow_ is
};

}  // namespace

std::unique_ptr<Network> make_network(const NetworkSpec& spec, int dtype, int device) {
  if (dtype == FBP_FLOAT64) return std::make_unique<DeviceNetwork<double>>(spec, device, dtype);
  return std::make_unique<DeviceNetwork<float>>(spec, device, dtype);
}

}  // namespace cuda
}  // namespace fastbp
