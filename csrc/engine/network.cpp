#include "engine/network.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>

#include "engine/poll.h"

namespace fastbp {
namespace {

std::atomic<double> g_parallel_threshold{3e5};

// Rows of an inference batch: enough to amortise a pass over the weights, and 512 rows of 1024
// floats are 2 MiB.
constexpr index_t kInferenceRows = 512;

// Of sequences, a batch of about so many steps in all, in whole blocks of the loss.
constexpr index_t kInferenceSteps = 8192;
index_t inference_rows(index_t steps) {
  const index_t rows = kInferenceSteps / steps / kLossBlockRows * kLossBlockRows;
  return steps == 1 ? kInferenceRows : std::max(kLossBlockRows, rows);
}

// Predictions of less work than this are not worth a look at the clock: 14 ms of the scalar kernels.
constexpr double kShortInferenceFlop = 1e7;

}  // namespace

double parallel_threshold() { return g_parallel_threshold; }
void set_parallel_threshold(double flop) { g_parallel_threshold = flop; }

int worthwhile_threads(double flop) {
  const int team = num_threads();
  const double threshold = g_parallel_threshold;
  if (threshold <= 0) return team;
  return int(std::clamp(flop / threshold, 1.0, double(team)));
}

template <class T>
Network<T>::Network(const NetworkSpec& spec, const KernelTable<T>& kernels,
                    const GemmKernel<T>& gemm)
    : layout_(make_layout(spec)) {
  context_.kernels = &kernels;
  context_.gemm = gemm;
  context_.layout = &layout_;
  context_.seed = spec.seed;
  ArenaLayout arena;
  const std::size_t bytes = array_bytes<T>(layout_.parameter_count);
  const std::size_t w = arena.add(bytes), gradient = arena.add(bytes), slot0 = arena.add(bytes),
                    slot1 = arena.add(bytes),
                    state = arena.add(array_bytes<T>(layout_.state_count));
  parameters_ = Arena(arena);
  block_ = {parameters_.at<T>(w),
            parameters_.at<T>(gradient),
            {parameters_.at<T>(slot0), parameters_.at<T>(slot1)}};
  context_.parameters = block_;
  context_.state = parameters_.at<T>(state);
}

template <class T> int Network<T>::slots() const {
  return optimizer_slots(context_.optimizer.optimizer);
}

template <class T> void Network<T>::compile(const LossSpec& loss, const OptimizerSpec& optimizer) {
  context_.loss = loss;
  context_.optimizer = optimizer;
  set_rules({});
  steps = 0;
  for (int k = 0; k < slots(); ++k)
    std::fill(block_.slot[k], block_.slot[k] + layout_.parameter_count, T(0));
}

template <class T> void Network<T>::set_trainable(const std::vector<bool>& layers) {
  layout_.set_trainable(layers);
  // What is frozen has no gradient from now on, nor a part in an update that is being gathered.
  std::fill(block_.gradient, block_.gradient + layout_.parameter_count, T(0));
  if (!block_.accumulated) return;
  for (const Stage& stage : layout_.stages) {
    T* sum = block_.accumulated + stage.parameter_offset;
    if (!stage.trainable) std::fill(sum, sum + stage.parameter_count(), T(0));
  }
}

template <class T> void Network<T>::set_rules(const UpdateRules& rules) {
  const index_t count = layout_.parameter_count;
  // Made once and kept: Python may hold views of it.
  const auto provide = [&](bool wanted, bool had, Arena& arena) {
    if (!wanted || had) return;
    if (!arena.at<T>(0)) arena = Arena(array_bytes<T>(count));
    std::fill(arena.at<T>(0), arena.at<T>(0) + count, T(0));
  };
  provide(rules.accumulation > 1, rules_.accumulation > 1, accumulated_);
  provide(rules.average, rules_.average, average_);
  const index_t blocks = gradient_blocks(count);
  if (rules.need_whole_gradient() && !block_totals_.at<double>(0))
    block_totals_ = Arena(array_bytes<double>(2 * blocks));
  block_.accumulated = accumulated_.at<T>(0);
  block_.average = average_.at<T>(0);
  context_.parameters = block_;
  context_.squares = block_totals_.at<double>(0);
  context_.penalties = context_.squares ? context_.squares + blocks : nullptr;
  rules_ = rules;
  const bool any = rules_.need_whole_gradient() || !rules_.rates.empty();
  context_.rules = any ? &rules_ : nullptr;
}

template <class T>
int Network<T>::threads_for(index_t rows, index_t sequence, bool training) const {
  if (layout_.sequences && calls_host()) return 1;  // the one that may call them
  rows *= sequence;
  return worthwhile_threads(training ? layout_.training_flop(rows) : layout_.inference_flop(rows));
}

template <class T> void Network<T>::prepare_scratch(int threads) {
  if (threads > scratch_threads_) {
    scratch_ = Arena();
    scratch_threads_ = 0;
    const index_t each = context_.gemm.scratch + layout_.worker_count;
    scratch_ = Arena(array_bytes<T>(each, threads));
    scratch_threads_ = threads;
  }
  context_.gemm_scratch = scratch_.at<T>(0);
  context_.worker_values = context_.gemm_scratch + context_.gemm.scratch * scratch_threads_;
}

template <class T> void Network<T>::use_training_plan(index_t rows, index_t sequence, int threads) {
  const BatchShape shape = batch_shape(layout_, rows, threads, sequence, calls_host());
  if (!shape.fits(training_.plan)) {
    training_ = {};
    const bool rounds = context_.gemm.run != context_.kernels->gemm;
    Plan plan = make_training_plan(layout_, shape, sizeof(T),
                                   rounds ? PlanUse::host_rounded : PlanUse::host);
    training_.arena = Arena(plan.arena);
    training_.plan = std::move(plan);
  }
  context_.in_parts = shape.in_parts();
  context_.plan = &training_.plan;
  context_.arena = &training_.arena;
}

template <class T>
void Network<T>::use_inference_plan(index_t rows, index_t sequence, int threads, bool gathers) {
  const BatchShape shape = inference_shape(layout_, rows, threads, sequence);
  if (!shape.fits(inference_.plan) || (gathers && inference_.plan.x.row == 0)) {
    inference_ = {};
    Plan plan = make_inference_plan(layout_, shape, sizeof(T), gathers);
    inference_.arena = Arena(plan.arena);
    inference_.plan = std::move(plan);
  }
  context_.plan = &inference_.plan;
  context_.arena = &inference_.arena;
}

// Of a batch of so many rows: the mean loss (half_sse: the sum) over the outputs that count, and the
// sum of a metric over them.
template <class T> double Network<T>::batch_loss(const Step<T>& step, index_t rows) const {
  return step.block_total(0, rows) / loss_divisor(context_.loss, step.counted(), layout_.outputs);
}
template <class T>
double Network<T>::batch_metric(const Step<T>& step, int place, index_t rows) const {
  return step.block_total(place, rows);
}

// Adds what the step measured by `metrics` to a record; each sum counts `share` times.
template <class T>
void Network<T>::add_metrics(const Step<T>& step, const std::vector<MetricSpec>& metrics,
                             double share, index_t rows, double* record) const {
  index_t at = 1;
  for (std::size_t m = 0; m < metrics.size(); at += metrics[m++].values())
    if (metrics[m].counts == 0) record[at] += share * batch_metric(step, int(m) + 1, rows);
}

// A record's sums over so many rows become means, but for a loss that is a sum, and for counts.
template <class T>
void Network<T>::divide(const std::vector<MetricSpec>& metrics, double rows, double* record) const {
  if (loss_is_mean(context_.loss)) record[0] /= rows;
  index_t at = 1;
  for (const MetricSpec& metric : metrics) {
    if (metric.counts == 0) record[at] /= rows;
    at += metric.values();
  }
}

template <class T> struct Network<T>::InferenceJob {
  Network* network;
  Samples<T> samples;
  index_t n = 0;
  index_t batch_size = 0;
  T* out = nullptr;                               // null: the plan's own
  bool training = false;                          // the pass of a training step
  const std::vector<MetricSpec>* what = nullptr;  // null: nothing is measured
  double* values = nullptr;                       // value_count(*what)
  double penalty = 0;
  Counters counters;
  double counted = 0;  // outputs that those are sums over
  Poll* poll = nullptr;
  std::atomic<bool> abort{false};
  // Whether all go on behind batch number b, in the place b & 1: worker 0 writes it in front of the
  // barrier behind that batch, and may give up the next one before the others have read it.
  bool go_on[2] = {true, true};
};

template <class T> void Network<T>::run_inference(void* context, Worker& worker) {
  InferenceJob& job = *static_cast<InferenceJob*>(context);
  Network& net = *job.network;
  Step<T> step(net.context_, worker);
  const index_t steps = job.samples.steps;
  const index_t width = net.layout_.output_places(steps) * net.layout_.outputs;
  const bool weighted = loss_is_mean(net.context_.loss);
  if (job.counters.any()) step.count_into(job.counters.of(worker.id));
  int batch = 0;
  for (index_t at = 0; at < job.n && job.go_on[batch & 1]; at += job.batch_size) {
    const index_t rows = std::min(job.batch_size, job.n - at);
    T* out = job.out ? job.out + at * width : nullptr;
    const Samples<T> samples = job.samples.from(at, net.layout_);
    if (job.training)
      step.forward_training(rows, samples, out, net.steps + 1);
    else
      step.infer(rows, samples, out, job.what);
    worker.barrier();
    if (worker.id == 0) {
      job.counted += double(step.counted());
      if (job.what) {
        const double loss = net.batch_loss(step, rows);
        job.values[0] += loss * (weighted ? double(step.counted()) : 1);
        net.add_metrics(step, *job.what, 1, rows, job.values);
      }
      if (!job.abort && (*job.poll)()) job.abort = true;
      job.go_on[(batch + 1) & 1] = !job.abort;
    }
    ++batch;
    worker.barrier();
  }
  if (job.what && worker.id == 0 && net.rules_.penalize()) {
    penalize(net.context_, {0, net.layout_.parameter_count}, false);
    job.penalty = penalty_total(net.context_);
  }
}

// False if it was interrupted.
template <class T> bool Network<T>::run(InferenceJob& job) {
  const index_t sequence = job.samples.steps;
  const int threads = threads_for(std::min(job.batch_size, job.n), sequence, false);
  prepare_scratch(threads);
  const bool gathers = job.samples.integers != nullptr;
  use_inference_plan(std::min(job.batch_size, job.n), sequence, threads, gathers);
  const bool is_long = layout_.inference_flop(job.n * sequence) > kShortInferenceFlop;
  context_.abort = is_long || calls_host() ? &job.abort : nullptr;
  context_.interrupt = {ask_poll, job.poll};
  if (job.what) job.counters.make(*job.what, threads);
  Team::instance().run(threads, run_inference, &job, true);
  context_.abort = nullptr;
  return !job.abort;
}

template <class T>
bool Network<T>::evaluate(const Samples<T>& samples, index_t n, index_t batch_size,
                          const std::vector<MetricSpec>& what, const Interrupt& interrupt,
                          double* values, T* outputs) {
  Poll poll(interrupt);
  InferenceJob job;
  job.network = this;
  job.samples = samples;
  job.n = n;
  job.batch_size = batch_size;
  job.what = &what;
  job.out = outputs;
  job.poll = &poll;
  std::fill_n(job.values = values, value_count(what), 0.0);
  const bool finished = run(job);
  divide(what, job.counted, values);
  values[0] += job.penalty;
  job.counters.move_to(what, values);
  return finished;
}

template <class T>
bool Network<T>::predict(const Samples<T>& samples, index_t n, T* out, const Interrupt& interrupt,
                         bool training) {
  Poll poll(interrupt);
  InferenceJob job;
  job.network = this;
  job.samples = samples;
  job.n = n;
  job.batch_size = training ? n : inference_rows(samples.steps);
  job.out = out;
  job.training = training;
  job.poll = &poll;
  return run(job);
}

template class Network<float>;
template class Network<double>;

}  // namespace fastbp
