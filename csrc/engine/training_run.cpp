// The training runs of a network: one batch, or epochs of them, by the team.
#include <algorithm>
#include <atomic>

#include "core/random.h"
#include "engine/network.h"
#include "engine/poll.h"

namespace fastbp {
namespace {

// A step that takes longer than this keeps its gradients and updates at its end, so that it can be
// given up before anything has changed; a shorter one is finished. The update's own pass costs a long
// step about one percent. Until a step has been measured it counts as long.
constexpr double kLongStep = 0.05;  // seconds

// Cutting a network in shards, and putting it together, costs about one step.
constexpr index_t kShardedSteps = 16;

const std::vector<MetricSpec> kNoMetrics;

// Between looks at the clock a train job does this much work at least; a look costs 25 ns.
constexpr double kPollFlop = 2e6;

}  // namespace

template <class T> struct Network<T>::TrainJob {
  Network* network;
  Samples<T> samples;
  index_t n = 0;
  Schedule schedule;
  const std::vector<MetricSpec>* what = &kNoMetrics;
  Counters counters;     // of those that count
  Poll* poll = nullptr;  // null: not interruptible
  GradientUse use = GradientUse::update;
  bool take_step = true;
  T* dx = nullptr;
  T* outputs = nullptr;  // of the epoch, by place in its order, where not null
  // Where samples.states are wanted: those behind step number t in states[t & 1], so that a step that
  // is given up leaves those before it.
  std::vector<T> states[2];
  bool resets = false;          // each epoch begins with states of 0
  RunRecord* record = nullptr;  // where the run stands, kept by worker 0
  bool means = true;            // a completed epoch's sums become means
  index_t poll_every = 1;       // steps
  int shards = 1;               // of the network, one for each worker; 1: it is whole

  std::int64_t paced_steps = 0;  // by measure_pace
  ThreadGovernor::Clock::time_point paced_at{};
  std::int64_t steps_seen = 0;  // by the governor
  ThreadGovernor::Clock::time_point seen_at{};
  std::int64_t stalls_seen = 0;
  bool governed = false;  // the cost model wants several threads
  bool long_steps = false;

  bool stop = false;               // interrupted: the run ends at this step boundary
  bool pause = false;              // the team is to change
  std::atomic<bool> abort{false};  // a long step is given up
  // Whether all go on behind step t, in the place t & 1: worker 0 writes it in front of the barrier
  // between two steps, and may have reached the next one when the others read it.
  bool go_on[2] = {true, true};

  // One batch, its rows in their order, as a run of its own.
  void take_batch(Network& owner, const Samples<T>& given, index_t rows, RunRecord& kept) {
    network = &owner;
    samples = given;
    n = schedule.batch_size = rows;
    schedule.shuffle = false;
    record = &kept;
  }

  T* states_behind(std::int64_t number) { return states[number & 1].data(); }

  bool finished() const { return stop || record->epoch >= schedule.epochs || record->steps == 0; }

  // The rows of the batch that begins at `first`, where they are not gathered by an order.
  Samples<T> batch(index_t first) const {
    return schedule.shuffle ? samples : samples.from(first, network->layout_);
  }

  // Between two steps, `done` in all: shall the run stop or pause here?
  void decide(std::int64_t done) {
    if (poll && (long_steps || done % poll_every == 0)) {
      if ((*poll)()) stop = true;
      measure_pace(done);
      const double step = network->seconds_per_row_ * double(std::min(schedule.batch_size, n));
      if (long_steps ? step >= 0 && step < 0.6 * kLongStep : step > 1.2 * kLongStep) pause = true;
    }
    if (governed && report(done)) pause = true;
  }

  bool abortable() const { return network->context_.abort != nullptr; }

  void measure_pace(std::int64_t done) {
    const auto now = ThreadGovernor::Clock::now();
    if (done > paced_steps)
      network->seconds_per_row_ =
          ThreadGovernor::Seconds(now - paced_at).count() /
          (double(done - paced_steps) * double(std::min(schedule.batch_size, n)));
    paced_steps = done;
    paced_at = now;
  }

  // Tells the governor of the steps since the last report; true if it wants another number of
  // threads.
  bool report(std::int64_t done) {
    const auto now = ThreadGovernor::Clock::now();
    const std::int64_t stalls = Team::instance().stalls(), taken = done - steps_seen;
    const double seconds = ThreadGovernor::Seconds(now - seen_at).count();
    const bool change =
        taken > 0 && network->governor_.observe(taken, seconds, stalls - stalls_seen, now);
    steps_seen = done;
    seen_at = now;
    stalls_seen = stalls;
    return change;
  }

  // Worker 0, behind its part of step `number`.
  void end_step(const Step<T>& step, index_t rows, std::int64_t number) {
    if (abort) {
      stop = true;
    } else {
      if (take_step) {
        network->steps = number;
        network->context_.powers = step.powers();
      }
      account(step, rows);
      decide(number);
      if (record->steps > 0) --record->steps;
      const bool halts = stop || pause || record->steps == 0;
      // The next step may be given up: what it counts must not be there then.
      if (counters.any() && (halts || record->at == 0 || abortable())) read_counters();
    }
    go_on[number & 1] = !(stop || pause || record->steps == 0);
  }

  double* row_of(index_t epoch) { return record->values + epoch * value_count(*what); }

  // Adds what was counted since the last time to the epoch of the step that has just ended.
  void read_counters() { counters.move_to(*what, row_of(record->epoch - (record->at == 0))); }

  // Adds what a step measured to the epoch's sums: each batch counts by its rows.
  void account(const Step<T>& step, index_t rows) {
    const LossSpec& spec = network->context_.loss;
    double* sums = row_of(record->epoch);
    // A row of several outputs counts with their mean.
    const double share = step.counted() == rows ? 1 : double(rows) / double(step.counted());
    const double loss = network->batch_loss(step, rows) + step.penalty();
    sums[0] += loss * (loss_is_mean(spec) ? double(rows) : 1);
    network->add_metrics(step, *what, share, rows, sums);
    record->at += rows;
    if (record->at < n) return;
    if (means) network->divide(*what, double(n), sums);
    ++record->epoch;
    record->at = 0;
  }
};

template <class T> void Network<T>::run_train(void* context, Worker& worker) {
  TrainJob& job = *static_cast<TrainJob*>(context);
  Network& net = *job.network;
  if (job.shards < 2 || worker.count != job.shards) {
    walk_batches(job, net.context_, worker);
    return;
  }
  net.shards_.take(worker.id);
  walk_batches(job, net.shards_.context(worker.id), worker);
  net.shards_.give_back(worker.id);
}

// Every worker walks the same batches; what worker 0 alone keeps is in the job.
template <class T>
void Network<T>::walk_batches(TrainJob& job, const StepContext<T>& context, Worker& worker) {
  Network& net = *job.network;
  Step<T> step(context, worker);
  const bool lead = worker.id == 0;
  // Of the parts of a network each measures the whole batch.
  const bool counts = job.counters.any() && (lead || !context.link);
  if (counts) step.count_into(job.counters.of(worker.id));
  const index_t epochs = job.schedule.epochs;
  const std::int64_t* order = job.schedule.shuffle ? net.order_.data() : nullptr;
  TrainBatch<T> batch;
  batch.metrics = job.what;
  batch.use = job.use;
  batch.number = net.steps;
  batch.dx = job.dx;
  const index_t first = job.record->epoch;  // whose order is prepared
  index_t epoch = first, at = job.record->at;
  if (net.training_.fresh || context.link) {
    step.write_ones();
    // Nobody begins a step, which may be given up too, before all know of this.
    const bool given_up = step.aborted();
    worker.barrier();
    if (given_up) return;
    if (lead && !context.link) net.training_.fresh = false;
  }
  for (; epoch < epochs; ++epoch, at = 0) {
    if (order && epoch != first) {
      if (lead) net.prepare_order(job);
      worker.barrier();
    }
    for (; at < job.n; at += job.schedule.batch_size) {
      batch.rows = std::min(job.schedule.batch_size, job.n - at);
      batch.samples = job.batch(at);
      if (order) batch.order = order + at;
      if (job.outputs)
        batch.outputs =
            job.outputs + at * net.layout_.output_places(job.samples.steps) * net.layout_.outputs;
      ++batch.number;
      if (job.samples.states) {
        batch.states_before = job.resets && at == 0 ? nullptr : job.states_behind(batch.number - 1);
        batch.states_behind = job.states_behind(batch.number);
      }
      step.train(batch);
      if (lead) job.end_step(step, batch.rows, batch.number);
      worker.barrier();
      if (!job.go_on[batch.number & 1]) return;
    }
  }
}

// Fills order_ with the order of the epoch in which the job stands.
template <class T> void Network<T>::prepare_order(const TrainJob& job) {
  const std::int64_t epoch = job.schedule.first_epoch + job.record->epoch;
  const auto rows = std::size_t(job.n);
  if (order_.size() == rows && order_seed_ == job.schedule.seed && order_epoch_ == epoch) return;
  order_.resize(rows);
  random_permutation(order_.data(), job.n, job.schedule.seed, std::uint32_t(epoch),
                     context_.kernels->random_batch);
  order_seed_ = job.schedule.seed;
  order_epoch_ = epoch;
}

// Into how many shards, one for each worker, the network is cut for the rest of the run.
template <class T>
int Network<T>::shards_for(const TrainJob& job, index_t batch_rows, int threads) {
  if (!job.take_step || rules_.need_whole_gradient() || context_.gemm.run != context_.kernels->gemm)
    return 1;
  const index_t epochs = job.schedule.epochs - job.record->epoch;
  index_t left = epochs * parts_of(job.n, batch_rows);
  if (job.record->steps >= 0) left = std::min(left, job.record->steps);
  if (left < kShardedSteps) return 1;
  const int shards = Shards<T>::worthwhile(layout_, batch_rows, threads);
  if (shards > 1) shards_.prepare(context_, batch_rows, shards);
  return shards;
}

template <class T> void Network<T>::run(TrainJob& job, index_t batch_rows) {
  const index_t sequence = job.samples.steps;
  const int wanted = threads_for(batch_rows, sequence, true);
  prepare_scratch(wanted);
  use_training_plan(batch_rows, sequence, wanted);
  job.poll_every = index_t(kPollFlop / (layout_.training_flop(batch_rows * sequence) + 1)) + 1;
  job.governed = wanted > 1 && parallel_threshold() > 0;
  if (job.governed) governor_.start(ThreadGovernor::Clock::now());
  job.steps_seen = steps;
  job.counters.make(*job.what, wanted);
  const std::size_t carried = std::size_t(batch_rows * layout_.carried_width);
  if (job.samples.states) {
    for (auto& states : job.states) states.resize(carried);
    std::copy_n(job.samples.states, carried, job.states_behind(steps));
  }
  while (!job.finished()) {
    if (job.schedule.shuffle) prepare_order(job);
    const double seconds = seconds_per_row_ * double(batch_rows);
    job.long_steps = job.poll && job.take_step && (seconds < 0 || seconds > kLongStep);
    context_.abort = job.long_steps || calls_host() ? &job.abort : nullptr;
    context_.interrupt = {job.poll ? ask_poll : nullptr, job.poll};
    const bool whole = job.abortable() || rules_.need_whole_gradient();
    if (job.take_step) job.use = whole ? GradientUse::store_then_update : GradientUse::update;
    job.pause = false;
    job.paced_steps = steps;
    job.paced_at = ThreadGovernor::Clock::now();
    if (job.governed) job.report(steps);
    job.shards = job.abortable() ? 1 : shards_for(job, batch_rows, wanted);
    const int threads = job.shards > 1 ? job.shards : wanted;
    Team::instance().run(job.governed ? governor_.threads(threads) : threads, run_train, &job,
                         true);
    if (job.abort) job.stop = true;
    if (job.poll) job.measure_pace(steps);
  }
  if (job.governed) job.report(steps);
  if (job.samples.states) std::copy_n(job.states_behind(steps), carried, job.samples.states);
  context_.abort = nullptr;
}

template <class T>
bool Network<T>::train(const Samples<T>& samples, index_t n, const Schedule& schedule,
                       const std::vector<MetricSpec>& what, const Interrupt& interrupt,
                       RunRecord& record, T* outputs) {
  Poll poll(interrupt);
  TrainJob job;
  job.network = this;
  job.samples = samples;
  job.n = n;
  job.schedule = schedule;
  job.what = &what;
  job.poll = &poll;
  job.record = &record;
  job.outputs = outputs;
  job.resets = true;
  run(job, std::min(schedule.batch_size, n));
  return !job.stop;
}

template <class T> double Network<T>::step(const Samples<T>& batch, index_t rows) {
  double loss = 0;
  RunRecord record{0, 0, &loss};
  TrainJob job;
  job.take_batch(*this, batch, rows, record);
  run(job, rows);
  return loss;
}

template <class T>
void Network<T>::step(const Samples<T>& batch, index_t rows, const std::vector<MetricSpec>& what,
                      double* sums, T* outputs) {
  RunRecord record{0, 0, sums};
  TrainJob job;
  job.take_batch(*this, batch, rows, record);
  job.what = &what;
  job.means = false;
  job.outputs = outputs;
  run(job, rows);
}

template <class T> double Network<T>::gradients(const Samples<T>& batch, index_t rows, T* dx) {
  double loss = 0;
  RunRecord record{0, 0, &loss};
  TrainJob job;
  job.take_batch(*this, batch, rows, record);
  job.use = GradientUse::store;
  job.take_step = false;
  job.dx = dx;
  run(job, rows);
  return loss;
}

template class Network<float>;
template class Network<double>;

}  // namespace fastbp
