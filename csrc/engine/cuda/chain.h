// The stages of a network on a device: what a step enqueues. The device's twin of step.h and
// stages.cpp. chain.cu has the order of a step and what dense stages do, chain_measure.cu loss and
// metrics, chain_kinds.cu what the other stages do: a new kind of stage costs a case in each of its passes.
//
// Nothing here waits, but for functions of the caller's own (chain_host.cu). Every function enqueues on
// one stream, so each kernel sees what those before it wrote; pointers and sizes do not change from step
// to step but with the rows of a batch.
#pragma once

#include <vector>

#include "engine/cuda/products.h"
#include "engine/cuda/resources.h"
#include "engine/cuda/rules.h"
#include "engine/cuda/branches.h"
#include "engine/cuda/host_calls.h"
#include "engine/cuda/scan_blocks.h"
#include "engine/cuda/step_marks.h"
#include "engine/plan.h"
#include "engine/step_scales.h"
#include "kernels/cuda/train/kernels.h"
#include "kernels/cuda/train/norms.h"
#include "kernels/cuda/train/scan.h"

namespace fastbp {
namespace cuda {

// A plan in device memory.
struct Workspace {
  Plan plan;
  unsigned char* memory = nullptr;

  template <class T> T* at(std::size_t offset) const {
    return reinterpret_cast<T*>(memory + offset);
  }
  template <class T> T* at(const BatchMatrix& m) const { return at<T>(m.offset); }
  // The rows of a stage's output for so many rows of a batch.
  index_t rows_of(const Stage& stage, index_t rows) const {
    return rows * (stage.sequence ? plan.steps : 1);
  }
  // Outputs of the steps that count, side by side, and their gradient: (capacity * steps, outputs)
  // each; where sequences end at different steps of such outputs.
  void* closed = nullptr;
  // Of a scan stage, two (rows, parameter_cols): what goes back through the weights of two steps, of
  // cells that keep more than the gates.
  std::vector<std::size_t> gate_deltas;
};

// Room for gate_deltas, of a plan for sequences.
void lay_out_scans(Workspace& space, const NetworkLayout& layout, std::size_t element_size);

// Those of all parts of a batch that count.
template <class T> index_t all_rows(const CountedRows<T>* part, index_t parts) {
  index_t all = 0;
  for (index_t p = 0; p < parts; ++p) all += index_t(part[p].rows);
  return all;
}

// Rows in device memory, `row` elements apart.
template <class T> struct Matrix {
  const T* data = nullptr;
  index_t row = 0;
};

// A pass over the stages: what it began with.
template <class T> struct Pass {
  Matrix<T> x;
  bool training = false;
  const std::int64_t* lengths = nullptr;  // of sequences, where they end early
  T* states = nullptr;   // of sequences, before the first step and then behind the last; null: 0
  bool rounded = false;  // the shadow of x is there
};

// The flat arrays, all of one layout.
template <class T> struct FlatArrays {
  Parameters<T> parameters;
  T* gradient = nullptr;
};

// Rows in device memory; target or labels, or neither where only a prediction is wanted.
template <class T> struct DeviceSamples {
  const T* x = nullptr;  // (n, inputs), contiguous; of sequences (n, steps, inputs)
  const T* target = nullptr;
  const std::int64_t* labels = nullptr;
  const T* weight =
      nullptr;  // of each row's loss, as many as labels; null: none. Gathered: as LossArgs
  const std::int64_t* lengths = nullptr;  // (n,), of sequences, or null
  index_t steps = 1;
  T* states = nullptr;  // (rows, carried_width), of the sequences of a batch, or null
  BatchRows rows = {};  // of the targets

  DeviceSamples from(index_t row, const NetworkLayout& layout) const {
    const index_t place = row * layout.output_places(steps);
    return {x + row * steps * layout.inputs,
            target ? target + place * layout.outputs : nullptr,
            labels ? labels + place : nullptr,
            weight ? weight + place : nullptr,
            lengths ? lengths + row : nullptr,
            steps,
            states ? states + row * layout.carried_width : nullptr,
            {}};
  }
};

// Outputs that are measured together.
template <class T> struct Outputs {
  index_t rows = 0, all = 0;  // of the outputs; of the whole batch's
  PartTable<T> counted;       // where kernels find how many count; then `rows` are the most
  index_t block = 0;          // of the batch's sums, the first of theirs
  const T* y = nullptr;
  T* dy = nullptr;
  Shadow dz;  // where the loss leaves it
  DeviceSamples<T> targets;
};

// What a run of batches has in device memory beside its plan.
template <class T> struct RunTables {
  const std::int64_t* order = nullptr;  // of the epoch's rows; null: as they are
  StepTable<T> steps;
  RunCounter* counter = nullptr;            // steps.counter, to be advanced
  double* sums = nullptr;                   // the loss's, then each metric's
  double* penalties = nullptr;              // of each batch
  const CountedRows<T>* counted = nullptr;  // of each part of each batch; null: all outputs count
  index_t parts = 0;                        // of a whole batch
  index_t blocks = 0;                       // of a whole batch
  index_t batches = 0;                      // of an epoch

  // Of the sums' place `number`, from block `block` of a batch on.
  BlockSums place(int number, index_t block) const {
    return {sums + number * batches * blocks + block, counter, blocks};
  }
};

template <class T> struct DeviceBatch {
  DeviceSamples<T> samples;  // of the whole epoch
  index_t rows_per_batch = 0, rows = 0;
  const std::vector<MetricSpec>* metrics = nullptr;
  const CountedRows<T>* counts = nullptr;  // (parts,) on the host; null: all outputs count
  bool update = false;                     // of the parameters; otherwise their gradient is stored
  T* dx = nullptr;                         // (rows, inputs), where not null
};

// Gradients of parts of sequences that are kept at once: as many as are made side by side, and the sum of
// those before them.
inline constexpr index_t kPartsAtOnce = Branches::kBranches + 1;

template <class T> class Chain {
 public:
  const NetworkLayout* layout = nullptr;
  FlatArrays<T> arrays;
  LossSpec loss;
  int optimizer = 0;
  T* state = nullptr;       // flat: what steps change besides parameters
  T* statistics = nullptr;  // layout->worker_count values: of the batch at work, by column
  std::uint64_t seed = 0;   // of what a step draws
  RunTables<T> tables;
  const Rules<T>* rules = nullptr;
  ScanRoom scan_room;                // of walks by one kernel
  const bool* persistent = nullptr;  // whether such kernels are wanted
  T* partials = nullptr;             // partials_of(rows) gradients
  ProductMode product_mode;
  LossScale* scaling = nullptr;  // of the loss in training; null: none
  cudaStream_t stream = nullptr;
  Branches* branches = nullptr;  // beside it
  HostCalls<T>* host = nullptr;  // what custom stages and a custom loss call
  StepMarks* marks = nullptr;    // between the parts of train(), where it is timed

  // Whether a step does: then each of these functions may throw GivenUp, before anything of what is
  // trained has changed.
  bool calls_host() const { return layout->custom || loss.custom; }

  // Once for a new training plan: the ones behind the rows that a layer with bias reads.
  void write_ones(const Workspace& space) const;
  // Gathers the running batch, trains on it and goes on to the next.
  void train(const Workspace& space, const DeviceBatch<T>& batch) const;
  // From the samples' x to the plan's last output, or to `out` where not null. With `training`, as the
  // running batch's step would.
  void infer(const Workspace& space, index_t rows, const DeviceSamples<T>& samples, T* out,
             bool training) const;
  // The outputs of so many rows, contiguous, row by row of the batch.
  void keep_outputs(const Workspace& space, index_t rows, T* to) const;
  // The running batch's loss and metrics of outputs y, which leaves dy; then on to the next.
  void evaluate(const Workspace& space, index_t rows, const T* y, const DeviceSamples<T>& targets,
                const std::vector<MetricSpec>& metrics, const CountedRows<T>* counts) const;

  FinishState<T> finish_state() const;
  // The penalties on the parameters, to the running batch's place.
  void measure_penalties() const;

  // So many outputs, and the factors of losses and errors where these are all of a batch.
  CountedRows<T> scales_of(index_t outputs) const;

  // How often the loss's kernel wants the weight of a row.
  index_t weight_copies() const;

  // Gradients of parts of a batch that are summed apart: where a product has too few tiles to keep a
  // device busy, every chunk of its sum over the rows is a part; of sequences, so many of its parts. 1:
  // none are.
  index_t partials_of(index_t rows) const;

 private:
  // The running step has come so far.
  void spent(StepPart part, std::size_t stage) const {
    if (marks) marks->spent(part, stage, stream);
  }
  void spent(StepPart part) const { spent(part, layout->stages.size()); }
  void gather(const Workspace& space, const DeviceBatch<T>& batch) const;
  void forward(const Workspace& space, index_t rows, const Pass<T>& pass, T* out) const;
  Pass<T> gathered_pass(const Workspace& space, const DeviceSamples<T>& from, bool training) const;
  void forward_dense(Products<T>& products, const Workspace& space, std::size_t stage, index_t rows,
                     Matrix<T> x, const ActivationTile<T>& tile, bool training) const;
  void forward_own(const Workspace& space, std::size_t stage, index_t rows, Matrix<T> x,
                   const ActivationTile<T>& tile, const Pass<T>& pass) const;
  void input_delta_own(const Workspace& space, std::size_t stage, index_t rows, int activation,
                       const ActivationTile<T>& tile) const;
  void own_gradient(const Workspace& space, index_t rows, std::size_t stage, index_t parts,
                    bool update) const;
  void own_gradient_of(const Workspace& space, std::size_t stage, index_t first, index_t rows,
                       index_t chunk, index_t parts, const GradientSink<T>& to) const;
  static index_t place_of_part(index_t part);
  SequenceRows sequences(index_t rows, index_t places) const;
  SequenceGather<T> sequence_gather(const Workspace& space, index_t rows,
                                    const DeviceSamples<T>& from) const;
  DeviceSamples<T> gathered(const Workspace& space, const DeviceSamples<T>& from,
                            index_t rows_per_batch = 0) const;
  struct Way;
  Way way(const Workspace& space, std::size_t stage, int number, index_t rows) const;
  ScanBlocks blocks_of(const Way& way, bool back) const;
  void forward_scan(const Workspace& space, std::size_t stage, index_t rows,
                    const Pass<T>& pass) const;
  void carry_states(const Way& way, index_t block, T* states, bool begin) const;
  void input_delta_scan(const Workspace& space, std::size_t stage, index_t rows,
                        const std::int64_t* lengths) const;
  void round_scan(Products<T>& products, const Workspace& space, std::size_t stage,
                  index_t rows) const;
  Shadow shadow_of_states(std::size_t stage, int number) const;
  Shadow shadow_of_gates(std::size_t stage, int number) const;
  void scan_gradient(const Products<T>& products, const Workspace& space, std::size_t stage,
                     index_t rows, index_t first, index_t count, T* gradient) const;
  void differentiate(int activation, index_t rows, index_t cols,
                     const ActivationTile<T>& tile) const;
  Matrix<T> added(const Workspace& space, const Stage& stage, const Pass<T>& pass) const;
  void join_deltas(const Workspace& space, const Stage& stage, index_t rows, int activation,
                   const ActivationTile<T>& tile) const;
  void softmax(const Stage& stage, index_t rows, Matrix<T> x, Matrix<T> d,
               const ActivationTile<T>& tile) const;
  void normalize(const Stage& stage, const T* center, index_t rows, Matrix<T> x,
                 const ActivationTile<T>& tile) const;
  NormArgs<T> norm_args(const Workspace& space, std::size_t stage, index_t rows,
                        bool training) const;
  NormArgs<T> norm_backward_args(const Workspace& space, std::size_t stage, index_t rows) const;
  void norm_forward(const Workspace& space, std::size_t stage, index_t rows, Matrix<T> x,
                    const ActivationTile<T>& tile, bool training) const;
  void norm_delta(const Workspace& space, std::size_t stage, index_t rows,
                  const ActivationTile<T>& tile) const;
  void batch_norm_sums(const Workspace& space, std::size_t stage, index_t rows) const;
  EmbeddingArgs<T> embedding_args(const Stage& stage, index_t rows, Matrix<T> x) const;
  void embed(const Stage& stage, index_t rows, Matrix<T> x, const ActivationTile<T>& tile) const;
  GradientSink<T> sink_of(const Stage& stage, index_t parts, bool update) const;
  void update_state(const Workspace& space, index_t rows) const;
  void dropout(const Workspace& space, const Stage& stage, index_t rows, Matrix<T> x,
               const ActivationTile<T>& tile) const;
  void host_activation(const Workspace& space, const Stage& stage, index_t rows, Matrix<T> z,
                       Matrix<T> dy, const ActivationTile<T>& tile) const;
  void host_loss(const Outputs<T>& part) const;
  void gather_targets(const Workspace& space, const DeviceBatch<T>& batch) const;
  bool gathers_rounded() const;
  bool loss_rounds() const;
  bool by_stages() const;
  void measure(const Workspace& space, index_t rows, const T* y, const DeviceSamples<T>& targets,
               const std::vector<MetricSpec>& metrics, const CountedRows<T>* counts,
               Shadow dz) const;
  void measure_closed(const Workspace& space, index_t rows, const DeviceSamples<T>& targets,
                      const std::vector<MetricSpec>& metrics, const CountedRows<T>* counts) const;
  void measure_parts(index_t rows, index_t places, const T* y, T* dy,
                     const DeviceSamples<T>& targets, const std::vector<MetricSpec>& metrics,
                     const CountedRows<T>* counts, Shadow dz = {}) const;
  void measure_part(const Outputs<T>& part, const std::vector<MetricSpec>& metrics) const;
  void take_loss(const Outputs<T>& part, bool plain) const;
  void backward(const Workspace& space, const DeviceBatch<T>& batch) const;
  void scale_delta(const Workspace& space, index_t rows) const;
  void output_delta(const Workspace& space, index_t rows) const;
  void input_delta(Products<T>& products, const Workspace& space, index_t rows, std::size_t stage,
                   T* dx) const;
  void parameter_gradient(const Products<T>& products, const Workspace& space, index_t rows,
                          std::size_t stage, index_t parts, bool update) const;
  void add_up_parts(index_t parts, bool update) const;
  Matrix<T> matrix(const Workspace& space, const BatchMatrix& m) const {
    return {space.at<T>(m), m.row};
  }
  Matrix<T> input_of(const Workspace& space, std::size_t stage) const {
    return matrix(space, stage == 0 ? space.plan.x : space.plan.y[stage - 1]);
  }
  GemmArgs<T> gradient_product(const Workspace& space, std::size_t stage, index_t first,
                               index_t rows) const;
  void sequence_gradient(const Products<T>& products, const Workspace& space, index_t rows,
                         std::size_t stage) const;
  const BatchMatrix* saved(const Workspace& space, std::size_t stage) const;
  std::size_t last() const { return layout->stages.size() - 1; }
};

extern template class Chain<float>;
extern template class Chain<double>;

}  // namespace cuda
}  // namespace fastbp
