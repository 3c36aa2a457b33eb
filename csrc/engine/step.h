// The parts of a training step, as each worker of the team runs them over a plan: gather, forward,
// loss, backward.
//
// Every method is called by all workers of a job with the same arguments, in the same order. A
// method leaves data that the next one reads behind a barrier, unless its comment says otherwise.
#pragma once

#include <atomic>

#include "backend/team.h"
#include "engine/plan.h"
#include "kernels/gemm_kernel.h"
#include "kernels/kernel_table.h"

namespace fastbp {

// The flat parameters and what goes with them, all of one layout.
template <class T> struct ParameterBlock {
  T* w = nullptr;
  T* gradient = nullptr;
  T* slot[2] = {nullptr, nullptr};
};

// Rows of inputs and targets in the caller's memory; target or labels, or neither where only a
// prediction is wanted.
template <class T> struct Samples {
  const T* x = nullptr;  // (n, inputs), contiguous
  const T* target = nullptr;
  const std::int64_t* labels = nullptr;
};

// What the backward pass does with a gradient of the parameters.
enum class GradientUse { store, store_then_update, update };

// Whether the caller wants the work to end; called without the Python lock, often, by one thread.
struct Interrupt {
  bool (*pending)(void* context) = nullptr;
  void* context = nullptr;
};

template <class T> struct StepContext {
  const KernelTable<T>* kernels = nullptr;
  GemmKernel<T> gemm;  // the table's, or one of another precision
  const NetworkLayout* layout = nullptr;
  const Plan* plan = nullptr;
  const Arena* arena = nullptr;  // the plan's memory
  ParameterBlock<T> parameters;
  T* gemm_scratch = nullptr;  // gemm.scratch elements for each worker
  LossSpec loss;
  OptimizerSpec optimizer;
  BetaPowers powers;  // of the last step taken
  // Set for passes that may be given up: worker 0 asks `interrupt` as it works and sets *abort, which
  // ends the work of all but skips no barrier.
  std::atomic<bool>* abort = nullptr;
  Interrupt interrupt;
};

template <class T> class Step {
 public:
  Step(const StepContext<T>& context, Worker& worker);

  // Once for a new training plan: the ones behind the rows that a layer with bias reads.
  void write_ones();
  // Copies rows order[0..rows) (0..rows where order is null) of the samples into the plan.
  void gather(const Samples<T>& samples, const std::int64_t* order, index_t rows);
  // From x (rows, x_row) to `out` (rows, outputs), contiguous. Null x, out: the plan's own.
  void forward(index_t rows, const T* x = nullptr, index_t x_row = 0, T* out = nullptr);
  // Loss of y (rows, outputs), the plan's own where null, against the plan's gathered target;
  // leaves dy. No barrier behind it.
  void loss(index_t rows, const T* y, const T* target, const std::int64_t* labels);
  void metric(index_t rows, const MetricArgs<T>& what, int place);
  // dz and parameter gradients from the dy that loss() left, by the same split. dx (rows, inputs)
  // may be null. `number` is t of the optimizer's formulas, where `use` is an update.
  void backward(index_t rows, GradientUse use, std::int64_t number, T* dx);
  // Sum over blocks of the loss (place 0) or metric (place 1, ...), in order; for one worker,
  // behind a barrier.
  double block_total(int place, index_t rows) const;

  // Where gather() put the targets of `batch`.
  Samples<T> gathered(const Samples<T>& batch) const;
  const T* output() const { return at(plan().y.back()); }
  const T* loss_gradient() const { return at(plan().last_delta); }  // between loss() and backward()
  // Asks whether to give up, and says so; false where this pass cannot be given up.
  bool stopping();
  const BetaPowers& powers() const { return powers_; }
  bool aborted() const { return c_.abort && c_.abort->load(std::memory_order_relaxed); }

 private:
  const Plan& plan() const { return *c_.plan; }
  T* at(const BatchMatrix& m) const { return c_.arena->template at<T>(m.offset); }
  const BatchMatrix& delta(std::size_t stage) const;
  // What backward reads of a stage, and its row stride.
  const T* saved(std::size_t stage) const;
  index_t saved_row(std::size_t stage) const;
  void run_gemm(GemmArgs<T>& args);
  template <class Body> void for_row_chunks(index_t rows, index_t row_elements, Body body);
  void run_tile(TileOp<T> op, const ActivationTile<T>& tile, const T* c, index_t c_row,
                index_t rows, index_t cols);
  void input_delta(std::size_t stage, index_t rows, T* dx);
  void parameter_gradient(std::size_t stage, index_t rows, bool update);
  void update_all();
  double* block_sums(int place) const;

  const StepContext<T>& c_;
  Worker& worker_;
  Share share_;
  BetaPowers powers_;
  UpdateTile<T> update_;  // of the flat parameters, in this step
};

// The hyper-parameters of a step as the kernel wants them.
template <class T>
StepHyper<T> step_hyper(const OptimizerSpec& optimizer, const BetaPowers& powers);

// What the sum of a loss over a batch of `rows` is divided by to give its mean (1 for a sum).
double loss_divisor(const LossSpec& loss, index_t rows, index_t outputs);

extern template class Step<float>;
extern template class Step<double>;

}  // namespace fastbp
