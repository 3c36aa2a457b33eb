// A training step, or a prediction, as each worker of the team runs it over a plan.
//
// A batch is worked off in one of two ways, which give the same bits:
//
//   whole     every worker gathers its own rows and takes them through the stages, the loss and back
//             down, as far as it can alone; products with large weights are shared by columns
//             instead, between barriers. When all deltas are there the workers share out the
//             gradients of the parameters, and update what they have made.
//   in parts  where the weights are small and the batch is large: a worker takes one chunk of the
//             batch at a time (row_chunk) through everything, gradient included, while it stays in
//             L2; the chunks' gradients are added in order afterwards. Where parts of sequences are
//             few and their layers wide, the team takes each part together: the first worker has its
//             rows as its own, and all share the products, as of a whole batch.
#pragma once

#include <atomic>
#include <vector>

#include "backend/team.h"
#include "engine/host_functions.h"
#include "engine/plan.h"
#include "engine/step_clock.h"
#include "engine/step_scales.h"
#include "engine/update_rules.h"
#include "kernels/gemm_kernel.h"
#include "kernels/kernel_table.h"
#include "kernels/small_network.h"

namespace fastbp {

// The flat parameters and what goes with them, all of one layout.
template <class T> struct ParameterBlock {
  T* w = nullptr;
  T* gradient = nullptr;
  T* slot[2] = {nullptr, nullptr};
  T* accumulated = nullptr;  // sum of the gradients of some batches; where the rules want it
  T* average = nullptr;      // moving average of w; where the rules want it
};

// Rows of inputs and targets in the caller's memory; target or labels, or neither where only a
// prediction is wanted.
template <class T> struct Samples {
  const T* x = nullptr;            // (n, inputs), contiguous; of sequences (n, steps, inputs)
  const void* integers = nullptr;  // the same of integers, in the place of x; not of sequences
  IntegerType integer_type = IntegerType::u8;
  const T* target = nullptr;
  const std::int64_t* labels = nullptr;
  const T* weight = nullptr;  // of each row's loss, as many as labels; null: none
  // Of sequences: the steps that count, 1 to `steps`, or null where all do.
  const std::int64_t* lengths = nullptr;
  index_t steps = 1;
  // Of sequences: (n, carried_width), the states before their first step and, when a pass is over,
  // behind their last; null: they begin with 0.
  T* states = nullptr;

  // Those from row `first` on.
  Samples from(index_t first, const NetworkLayout& layout) const {
    Samples rows = *this;
    if (integers)
      rows.integers =
          static_cast<const char*>(integers) + first * layout.inputs * integer_bytes(integer_type);
    else
      rows.x += first * steps * layout.inputs;
    const index_t places = layout.output_places(steps);
    if (target) rows.target += first * places * layout.outputs;
    if (labels) rows.labels += first * places;
    if (weight) rows.weight += first * places;
    if (lengths) rows.lengths += first;
    if (states) rows.states += first * layout.carried_width;
    return rows;
  }
};

// What the backward pass does with a gradient of the parameters.
enum class GradientUse { store, store_then_update, update };

// Whether the caller wants the work to end; called without the Python lock, often, by one thread.
struct Interrupt {
  bool (*pending)(void* context) = nullptr;
  void* context = nullptr;
};

// Where the sums of a stage over parts of its inputs lie, one part after the other, and which of them
// is the first of this worker's.
template <class T> struct ShardLink {
  T* sums = nullptr;
  index_t apart = 0;  // elements from one part to the next
  index_t first = 0;
  index_t parts = 0;
};

template <class T> struct StepContext {
  const KernelTable<T>* kernels = nullptr;
  GemmKernel<T> gemm;  // the table's, or one of another precision
  const NetworkLayout* layout = nullptr;
  const Plan* plan = nullptr;
  const Arena* arena = nullptr;  // the plan's memory
  ParameterBlock<T> parameters;
  T* state = nullptr;          // flat: what steps change besides parameters
  T* gemm_scratch = nullptr;   // gemm.scratch elements for each worker
  T* worker_values = nullptr;  // layout->worker_count elements for each worker
  // Not null: this is one worker's part of a network (shards.h), which it runs alone but for the
  // sums of stage 1.
  const ShardLink<T>* link = nullptr;
  bool in_parts = false;   // batches of several chunks are worked off in parts
  std::uint64_t seed = 0;  // of what a step draws
  LossSpec loss;
  OptimizerSpec optimizer;
  BetaPowers powers;                   // of the last step taken
  const UpdateRules* rules = nullptr;  // null: none
  double* squares = nullptr;           // sums of squares of the gradient by kGradientBlock
  double* penalties = nullptr;         // penalties on the parameters by kGradientBlock
  HostFunctions<T> host;               // those that the network's stages and its loss call
  // Set for passes that may be given up: worker 0 asks `interrupt` as it works and sets *abort, which
  // ends the work of all but skips no barrier.
  std::atomic<bool>* abort = nullptr;
  Interrupt interrupt;
  StepClock* clock = nullptr;  // not null: worker 0 keeps it
};

// A batch to train on: rows order[0..rows) of the samples (0..rows where order is null).
template <class T> struct TrainBatch {
  Samples<T> samples;
  const std::int64_t* order = nullptr;
  index_t rows = 0;
  const std::vector<MetricSpec>* metrics = nullptr;  // null: none
  GradientUse use = GradientUse::store;
  std::int64_t number = 0;  // t of the optimizer's formulas; what the step draws depends on it
  T* dx = nullptr;          // (rows, inputs): gradient of the inputs, where not null
  T* outputs = nullptr;     // (rows, outputs): what the network put out, where not null
  // (rows, carried_width), of sequences: their states before and behind; null: 0, and not wanted. In
  // memory of their own, since those before are read on the way back too.
  const T* states_before = nullptr;
  T* states_behind = nullptr;
};

// body(range) for what is trained of a part of the flat parameters.
template <class Body> void for_trained(const NetworkLayout& layout, Range part, Body body) {
  if (part.begin < part.end && !layout.any_frozen) body(part);
  if (!layout.any_frozen) return;
  for (const Stage& stage : layout.stages) {
    const index_t offset = stage.parameter_offset, end = offset + stage.parameter_count();
    const Range range{part.begin > offset ? part.begin : offset, part.end < end ? part.end : end};
    if (stage.trainable && range.begin < range.end) body(range);
  }
}

template <class T> class Step {
 public:
  Step(const StepContext<T>& context, Worker& worker);

  // Once for a new training plan: the ones behind the rows that a layer with bias reads.
  void write_ones();
  // A training step. What it leaves is complete behind the caller's next barrier; the block sums
  // already when it returns.
  void train(const TrainBatch<T>& batch);
  // From the samples' x to `out` (rows, outputs), contiguous; the plan's own where null. Loss and
  // metrics too, against contiguous targets, where metrics are given. No barrier behind it.
  void infer(index_t rows, const Samples<T>& samples, T* out,
             const std::vector<MetricSpec>* metrics);
  // The outputs as a step of that number would see them in training; as infer() without measuring.
  void forward_training(index_t rows, const Samples<T>& samples, T* out, std::int64_t number);
  // Where the metrics that count do so; null: nowhere.
  void count_into(std::int64_t* counts) { counts_ = counts; }
  // Rows of output of the batch at work that count: all, but for steps behind the end of a sequence.
  index_t counted() const { return counted_; }
  // Sum over blocks of the loss (place 0) or metric (place 1, ...), in order; for one worker.
  double block_total(int place, index_t rows) const;
  // The penalty that the rules add to the loss, of the parameters before the update; for one worker.
  double penalty() const;

  const BetaPowers& powers() const { return powers_; }
  bool aborted() const { return c_.abort && c_.abort->load(std::memory_order_relaxed); }

 private:
  // Rows of a batch that somebody works on, where they lie in the plan and in the batch.
  struct Window {
    index_t at = 0;  // first row in the plan's matrices
    index_t rows = 0;
    index_t first = 0;  // first row in the batch
    Share share;        // among whom the work is shared
  };

  // A matrix of the rows of all that are in work, or from a window's first row on.
  template <class U> struct Rows {
    U* data = nullptr;
    index_t row = 0;     // elements from one row to the next
    index_t places = 1;  // rows for each row of the batch

    Rows from(index_t first) const {
      return {data ? data + first * places * row : nullptr, row, places};
    }
    operator Rows<const U>() const { return {data, row, places}; }
  };

  const Plan& plan() const { return *c_.plan; }
  T* at(const BatchMatrix& m) const { return c_.arena->template at<T>(m.offset); }
  T* at(const BatchMatrix& m, const Window& w) const { return at(m) + w.at * m.places * m.row; }
  std::size_t last() const { return c_.layout->stages.size() - 1; }
  Rows<T> rows_of(const BatchMatrix& m) const { return {at(m), m.row, m.places}; }
  // What backward reads of a stage; no data where it reads nothing.
  Rows<const T> saved(std::size_t stage) const;
  Rows<const T> input_of(std::size_t stage) const;
  Rows<T> output_of(std::size_t stage) const;
  // This worker's rows of a matrix that has one for each row of the batch, or for each step.
  index_t own_rows(bool sequence) const { return own_.rows * (sequence ? plan().steps : 1); }
  index_t output_places() const { return c_.layout->output_places(plan().steps); }
  // Whether the rows in work are this worker's own: of a part that the team takes together the first's.
  bool keeps_rows() const { return own_.rows > 0; }
  Window outputs_window() const;
  T* partial(index_t part) const;
  double* block_sums(int place) const;
  index_t first_block() const;

  void take_all(index_t rows);
  void take_part(index_t part, index_t first, index_t rows);
  void cut_batch(index_t rows);
  Range my_parts(index_t count) const;
  void meet();
  void meet_at_part();
  template <class... Stage> void spent(StepPart part, Stage... stage) {
    if (c_.clock && worker_.id == 0) c_.clock->spent(part, stage...);
  }
  void need(bool others);
  void done(bool together);
  Window choose(index_t n, index_t k, bool transposed) const;
  Window forward_window(std::size_t stage) const;
  bool by_inputs(std::size_t stage, const Window& w) const;
  Range my_inputs(std::size_t stage) const;
  GemmArgs<T> product(const Stage& stage, const T* input, index_t input_row, Range k) const;
  const T* sum_by_inputs(std::size_t stage, const T* input, index_t input_row, index_t row);
  bool stopping();
  bool leaving();
  void describe_small_network();
  void small_forward();
  bool small() const;
  template <class Body> void for_row_chunks(index_t rows, index_t row_elements, Body body);

  void train_whole(const TrainBatch<T>& batch);
  void train_in_parts(const TrainBatch<T>& batch);
  void go_up(const TrainBatch<T>& batch);
  void pass(index_t rows, const Samples<T>& samples, T* out,
            const std::vector<MetricSpec>* metrics);
  void gather(const TrainBatch<T>& batch);
  void gather_inputs(const Samples<T>& samples, const std::int64_t* order, Range rows,
                     Range columns);
  void forward(const T* x, index_t x_row, T* out);
  void forward_dense(std::size_t stage, Rows<const T> input, Rows<T> y);
  void forward_own(std::size_t stage, Rows<const T> input, Rows<T> y);
  void normalize(const Stage& stage, const T* center, Rows<const T> x, Rows<T> y);
  void embed(const Stage& stage, Rows<const T> x, Rows<T> y);
  void embedding_gradient(std::size_t stage, T* gradient, bool update);
  void embedding_delta(const Stage& stage, Rows<T> dx);
  Rows<const T> added(const Stage& stage) const;
  template <class Call> void by_lead(Call call);
  void host_activation(const Stage& stage, Rows<const T> z, Rows<const T> dy, Rows<T> out);
  void host_loss(const T* y, const Samples<T>& targets);
  void join_deltas(const Stage& stage, TileOp<T> below, const ActivationTile<T>& tile);
  ActivationTile<T> delta_tile(std::size_t stage, T* dx, const Window& w) const;
  void measure(const T* y, const Samples<T>& targets, const std::vector<MetricSpec>* metrics);
  bool counted_by_loss(const std::vector<MetricSpec>& metrics, std::size_t m) const;
  void count_on_the_way(const std::vector<MetricSpec>& metrics, LossArgs<T>& args) const;
  void loss(const T* y, const Samples<T>& targets, bool plain,
            const std::vector<MetricSpec>* metrics);
  void metric(const MetricSpec& what, const T* y, const Samples<T>& targets, int place,
              std::int64_t* counts);
  index_t weight_copies() const;
  void gather_weights(const T* from, const std::int64_t* order, index_t rows, index_t to);
  Samples<T> gathered(const Samples<T>& samples) const;
  void keep_outputs(const TrainBatch<T>& batch);
  void output_delta();
  void input_delta(std::size_t stage, T* dx);
  void input_delta_own(std::size_t stage, Rows<const T> dz, TileOp<T> below,
                       const ActivationTile<T>& tile);
  void dropout(const Stage& stage, Rows<const T> x, Rows<T> y);
  void softmax(const Stage& stage, Rows<const T> x, Rows<const T> d, Rows<T> y);
  index_t row_blocks() const;
  T* work(std::size_t stage) const;
  T* backward_sums(std::size_t stage) const;
  void add_backward_sums(std::size_t stage, Range columns);
  T* worker_values(const Stage& stage) const;
  T* part_values(const Stage& stage) const;
  bool uses_batch_statistics(const Stage& stage) const;
  NormArgs<T> norm_args(const Stage& stage) const;
  template <class Body> void for_own_blocks(Body body);
  void layer_norm_forward(std::size_t stage, Rows<const T> x, Rows<T> y);
  void layer_norm_delta(std::size_t stage, Rows<const T> dz, Rows<T> dx);
  void batch_norm_forward(std::size_t stage, Rows<const T> x, Rows<T> y);
  void batch_norm_sums(std::size_t stage);
  void batch_norm_delta(std::size_t stage, Rows<const T> dz, Rows<T> dx);
  void norm_gradient(std::size_t stage, T* gradient, bool update);
  void update_state();
  void part_gradient(std::size_t stage, T* gradient);
  void parameter_gradient(std::size_t stage, T* gradient, bool update);
  index_t gradient_rows(const Stage& stage, index_t inputs) const;
  void update_parameters(Range part);
  void update_range(Range part);
  bool whole_gradient() const { return c_.rules && c_.rules->need_whole_gradient(); }
  void finish(const TrainBatch<T>& batch);
  void accumulate(Range part, bool first);
  void scale_gradient(Range part, T factor);
  void limit(Range part);
  void update_in_blocks(Range part);
  void limit_columns();
  void follow(Range part);
  void run_gemm(GemmArgs<T>& args, Share share);
  void run_step_product(GemmArgs<T>& args);
  void run_tile(TileOp<T> op, const ActivationTile<T>& tile, index_t rows, const T* c,
                index_t c_row, index_t cols);

  struct Scan;
  Scan scan(std::size_t stage, int way) const;
  Rows<T> scan_output(std::size_t stage) const;
  void forward_scan(std::size_t stage);
  CellArgs<T> cell_args(const Scan& scan) const;
  T* step_product(const Scan& scan) const;
  template <class Body> void by_pieces(const Scan& scan, Body body);
  void walk_forward(const Scan& scan, GemmArgs<T> g);
  void walk_back(const Scan& scan, Rows<const T> dy, GemmArgs<T> g);
  void forward_way(const Scan& scan);
  void first_states(const Scan& scan, CellArgs<T>& args) const;
  void step_before(const Scan& scan, index_t i, CellArgs<T>& args) const;
  void bring_states_before(const Scan& scan);
  void keep_states(const Scan& scan);
  void join_ways(std::size_t stage);
  void input_delta_scan(std::size_t stage);
  void input_delta_way(const Scan& scan, Rows<const T> dy);
  void cut_gradient(const CellArgs<T>& args) const;
  void scan_gradient(std::size_t stage, T* gradient);
  void state_dropout(const Scan& scan, Rows<const T> h, Rows<T> masked);
  void gather_sequences(const Samples<T>& samples, const std::int64_t* order);
  void gather_targets(const Samples<T>& samples, const std::int64_t* order);
  void by_steps(index_t width, const Rows<T>& rows, T* sequences) const;
  const std::int64_t* lengths() const;
  void count_rows(const Samples<T>& samples, const std::int64_t* order, index_t rows);
  bool runs(index_t row) const;
  void close_up(const BatchMatrix& m) const;
  void open_up(const BatchMatrix& m) const;
  void measure_sequences(const Samples<T>& samples, const std::vector<MetricSpec>* metrics);
  void pass_sequences(index_t rows, const Samples<T>& samples, T* out,
                      const std::vector<MetricSpec>* metrics);

  const StepContext<T>& c_;
  Worker& worker_;
  const Share share_;
  BetaPowers powers_;
  UpdateTile<T> update_;  // of the flat parameters, in this step
  bool training_ = false;
  Rows<const T> x_;                   // what forward() began with
  bool normalized_ = false;           // that is what its first stage would make of it
  std::int64_t number_ = 0;           // of the step
  bool has_lengths_ = false;          // sequences in work may end before the last step
  bool masks_ = false;                // and so do their outputs
  index_t counted_ = 0;               // see counted()
  index_t running_ = 0;               // of those, this worker's
  std::int64_t* counts_ = nullptr;    // see count_into()
  const T* states_before_ = nullptr;  // as in TrainBatch, from the batch's first row on
  T* states_behind_ = nullptr;
  T* part_gradient_ = nullptr;  // where the gradient of the part in work will be
  index_t chunk_ = 0;           // rows over which a parameter's gradient is summed at once
  bool shares_parts_ = false;   // the team takes each part together
  Window all_;                  // what the team works on
  Window own_;                  // this worker's rows of it
  // Since the last barrier: has this worker written what the others may read, and has anybody
  // written what this worker's own rows may need? Both are the same for all workers.
  bool wrote_own_ = false, wrote_together_ = false;
  SmallNetwork<T> small_;  // where the network is one; see described_
  bool described_ = false;
};

// Where a pass can be given up, elementwise work is done in pieces of about this many values: 10 ms
// of the slowest function of the scalar kernels.
inline constexpr index_t kChunkElements = 1 << 16;

// body(first, count) for pieces of the rows, each a number of whole blocks of the loss; one piece
// unless the pass may be given up.
template <class T>
template <class Body>
void Step<T>::for_row_chunks(index_t rows, index_t row_elements, Body body) {
  index_t chunk = rows;  // a division takes longer than some bodies
  if (c_.abort) chunk = (kChunkElements / (row_elements * kLossBlockRows) + 1) * kLossBlockRows;
  for (index_t first = 0; first < rows && !stopping(); first += chunk)
    body(first, rows - first < chunk ? rows - first : chunk);
}

// Sums the penalties of the blocks of `part` into context.penalties, and adds their gradients to the
// flat gradient where `add`. What is frozen has none.
template <class T> void penalize(const StepContext<T>& context, Range part, bool add);
// The sum of context.penalties, in order.
template <class T> double penalty_total(const StepContext<T>& context);

extern template class Step<float>;
extern template class Step<double>;

}  // namespace fastbp
