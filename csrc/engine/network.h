// A network that trains and predicts: parameters, optimizer state, plans, and the jobs that the
// thread team runs over them.
//
// One call is one job: a step, a prediction, or any number of epochs. A steady-state call allocates
// nothing; a plan is made when the batch grows. Not thread-safe: the bindings lock. Results do not
// depend on ISA, thread count or batch position.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/counters.h"
#include "engine/shards.h"
#include "engine/step.h"
#include "engine/thread_governor.h"

namespace fastbp {

// Shuffling and batching of a run of epochs.
struct Schedule {
  index_t batch_size = 32;
  index_t epochs = 1;
  std::int64_t first_epoch = 0;  // number of the first epoch in the shuffle's random stream
  bool shuffle = true;
  std::uint64_t seed = 0;
};

// A run of epochs in the caller's memory, in full between any two steps: it may be stopped at any step
// and taken up again there, by another call or in another process.
struct RunRecord {
  index_t epoch = 0;  // epochs completed of the schedule's
  index_t at = 0;     // rows done of the next one
  // A row for each epoch, of value_count(metrics) values: what train() reports of the completed ones;
  // of the next one, the sums over its first `at` rows.
  double* values = nullptr;
  index_t steps = -1;  // how many may still be taken; negative: all
};

// Work of less than this many floating-point operations for each thread is done by fewer threads. A
// barrier costs 0.1 us and a phase about ten of them in all: 0.3 MFLOP are 3 us at 100 GFLOP/s. 0:
// always all threads (tests).
double parallel_threshold();
void set_parallel_threshold(double flop);

// Threads worth using for a job of `flop` operations.
int worthwhile_threads(double flop);

template <class T> class Network {
 public:
  Network(const NetworkSpec& spec, const KernelTable<T>& kernels)
      : Network(spec, kernels, {kernels.gemm, kernels.gemm_scratch}) {}
  // With matrix products of another precision.
  Network(const NetworkSpec& spec, const KernelTable<T>& kernels, const GemmKernel<T>& gemm);

  const NetworkLayout& layout() const { return layout_; }
  ParameterBlock<T> block() const { return block_; }
  T* state() const { return context_.state; }  // flat: what steps change besides parameters
  // Whether the parameters and the state of each layer are trained.
  void set_trainable(const std::vector<bool>& layers);
  int slots() const;

  // Chooses loss and optimizer; optimizer state and step count start anew.
  void compile(const LossSpec& loss, const OptimizerSpec& optimizer);
  void set_hyper(const Hyper& hyper) { context_.optimizer.hyper = hyper; }
  // What else happens to gradients; none after compile. State that they did not need before is 0.
  void set_rules(const UpdateRules& rules);
  const UpdateRules& rules() const { return rules_; }
  // What custom stages and a custom loss call.
  void set_host_functions(const HostFunctions<T>& functions) { context_.host = functions; }
  const LossSpec& loss() const { return context_.loss; }
  const OptimizerSpec& optimizer() const { return context_.optimizer; }

  std::int64_t steps = 0;  // optimizer steps taken

  // The clock of the steps from now on, in the caller's hands; null: none.
  void set_clock(StepClock* clock) { context_.clock = clock; }

  // Trains on n samples from where the record stands, to the end of the schedule or of the record's
  // steps. For each epoch: the mean loss, and of each metric, over its samples as seen before each
  // update (half_sse: the sum). Unless null, `outputs` (n, outputs) gets the network's outputs of the
  // epoch so far, in the epoch's order. False if it was interrupted: parameters, state, `steps` and
  // the record are then those after some complete step.
  bool train(const Samples<T>& samples, index_t n, const Schedule& schedule,
             const std::vector<MetricSpec>& what, const Interrupt& interrupt, RunRecord& record,
             T* outputs);
  // One step on a batch; its loss before the update. Not interruptible.
  double step(const Samples<T>& batch, index_t rows);
  // The same as a part of a longer epoch: adds to `sums` what train() keeps of a batch in an epoch's
  // row of the record, and fills `outputs` (rows, outputs) unless it is null.
  void step(const Samples<T>& batch, index_t rows, const std::vector<MetricSpec>& what,
            double* sums, T* outputs);
  // Fills the gradient block and, unless null, dx (rows, inputs). Changes no parameter.
  double gradients(const Samples<T>& batch, index_t rows, T* dx);
  // Mean loss and metrics over n samples (half_sse: the sum; counts as they are), value_count(what)
  // values; their outputs (n, outputs) too, unless null.
  bool evaluate(const Samples<T>& samples, index_t n, index_t batch_size,
                const std::vector<MetricSpec>& what, const Interrupt& interrupt, double* values,
                T* outputs);
  // out (n, outputs) contiguous. With `training`, as the next step would see the rows as one batch.
  bool predict(const Samples<T>& samples, index_t n, T* out, const Interrupt& interrupt,
               bool training = false);

 private:
  struct TrainJob;
  struct InferenceJob;
  static void run_train(void* context, Worker& worker);
  static void walk_batches(TrainJob& job, const StepContext<T>& context, Worker& worker);
  static void run_inference(void* context, Worker& worker);

  // Whether a pass may fail in a function of the user's own. Such batches are never worked off in
  // parts: the functions want them whole.
  bool calls_host() const { return layout_.custom || context_.loss.custom; }
  int threads_for(index_t rows, index_t sequence, bool training) const;
  double batch_loss(const Step<T>& step, index_t rows) const;
  double batch_metric(const Step<T>& step, int place, index_t rows) const;
  void add_metrics(const Step<T>& step, const std::vector<MetricSpec>& metrics, double share,
                   index_t rows, double* record) const;
  void divide(const std::vector<MetricSpec>& metrics, double rows, double* record) const;
  void prepare_scratch(int threads);
  void prepare_order(const TrainJob& job);
  void use_training_plan(index_t rows, index_t sequence, int threads);
  void use_inference_plan(index_t rows, index_t sequence, int threads, bool gathers);
  int shards_for(const TrainJob& job, index_t batch_rows, int threads);
  void run(TrainJob& job, index_t batch_rows);
  bool run(InferenceJob& job);

  NetworkLayout layout_;
  StepContext<T> context_;
  ParameterBlock<T> block_;
  Arena parameters_, scratch_;
  UpdateRules rules_;
  Arena accumulated_, average_, block_totals_;
  index_t scratch_threads_ = 0;
  struct PlanMemory {
    Plan plan;
    Arena arena;
    bool fresh = true;  // its ones are not written yet
  };
  PlanMemory training_, inference_;
  Shards<T> shards_;
  std::vector<std::int64_t> order_;
  std::uint64_t order_seed_ = 0;
  std::int64_t order_epoch_ = -1;  // of the order that order_ holds; negative: of none
  ThreadGovernor governor_;
  double seconds_per_row_ = -1;  // of a training step, as last measured; negative: not yet
};

extern template class Network<float>;
extern template class Network<double>;

}  // namespace fastbp
