#include "engine/cuda/narrow.h"

#include <algorithm>

#include "engine/cuda/resources.h"
#include "engine/step_scales.h"

namespace fastbp {
namespace cuda {
namespace {

index_t round_up(index_t n, index_t to) { return ceil_div(n, to) * to; }

bool has_the_shape(const NetworkLayout& layout) {
  if (layout.inputs > kNarrowInputs || layout.stages.size() > kNarrowStages) return false;
  return std::all_of(layout.stages.begin(), layout.stages.end(), [](const Stage& s) {
    return s.dense() && s.outputs <= kNarrowWidth && s.joins.empty();
  });
}

int attribute(cudaDeviceAttr name, int device) {
  int value = 0;
  check(cudaDeviceGetAttribute(&value, name, device), "asking for the device's properties");
  return value;
}

}  // namespace

NarrowPlan::NarrowPlan(const NetworkLayout& layout, bool tensor, int device) : tensor_(tensor) {
  if (!has_the_shape(layout) || !attribute(cudaDevAttrCooperativeLaunch, device)) return;
  const int room = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  // Of floats a gradient in shared memory is quicker than one in global memory, more rows at once are
  // better still. On tensor cores a warp has 16 rows.
  for (int attempt = 0; attempt < (tensor_ ? kNarrowWarps : 6); ++attempt) {
    if (tensor_)
      place_tensor_matrices(layout, 16 * (kNarrowWarps - attempt));
    else
      place_matrices(layout, 64 >> attempt / 2, attempt % 2 == 0);
    if (args_.shared_bytes > room) continue;
    if (tensor_ && !place_squares()) return;
    int blocks = 0;
    const auto blocks_of = tensor_ ? narrow_tensor_blocks : narrow_blocks;
    check(blocks_of(room, args_.shared_bytes, &blocks), "a kernel for narrow networks");
    grid_ = blocks * attribute(cudaDevAttrMultiProcessorCount, device);
    return;
  }
}

// Microseconds on an H100, within a fifth of what 2-16-1 and 16-64-64-4 took with 32 to 65536 rows. A
// block goes through its tiles one after the other, at a rate of its own; a stage is three products,
// of which the device makes 10^7 multiply-adds in a microsecond where they are many.
bool NarrowPlan::is_quicker(const NetworkLayout& layout, index_t rows) const {
  if (tensor_) return true;
  double products = 0;  // multiply-adds of a row, forward
  for (const Stage& stage : layout.stages) products += double(stage.inputs) * double(stage.outputs);
  const NarrowBatch b = batch(layout, rows);
  const index_t tiles = ceil_div(b.unit, args_.tile) * ceil_div(b.units, grid_);
  const double whole = 8 + 4.6e-3 * products * double(tiles);
  const double stages = double(layout.stages.size());
  const double staged = 2 + 13.4 * stages + 3e-7 * products * double(rows);
  return whole <= staged;
}

NarrowBatch NarrowPlan::batch(const NetworkLayout& layout, index_t rows) const {
  if (tensor_) return tensor_batch(rows);
  NarrowBatch b;
  b.rows = int(rows);
  b.unit = int(layout.row_chunk(rows));
  b.units = int(ceil_div(rows, b.unit));
  return b;
}

void NarrowPlan::train(const Chain<float>& chain, const DeviceBatch<float>& batch, index_t n,
                       index_t steps) const {
  NarrowArgs args = args_;
  args.x = batch.samples.x;
  args.wanted = batch.samples.target;
  args.classes = batch.samples.labels;
  args.weight = batch.samples.weight;
  args.weight_copies = int(chain.weight_copies());
  args.order = chain.tables.order;
  args.n = n;
  args.rows_per_batch = batch.rows_per_batch;
  const auto kind = [&](index_t rows) {
    NarrowBatch b = this->batch(*chain.layout, rows);
    const double divisor = loss_divisor(chain.loss, rows, chain.layout->outputs);
    b.dy_scale = float(1 / divisor);
    b.error_scale = float(divisor);
    return b;
  };
  args.whole = kind(batch.rows_per_batch);
  args.rest = n % batch.rows_per_batch ? kind(n % batch.rows_per_batch) : args.whole;
  args.steps = int(steps);
  args.alone = !tensor_ && batch.rows_per_batch <= args_.tile;
  args.counter = chain.tables.counter;
  args.sums = chain.tables.sums;
  args.blocks = chain.tables.blocks;
  args.place = chain.tables.batches * chain.tables.blocks;
  take_metrics(args, chain, *batch.metrics);
  args.partials = chain.partials;
  args.parameters = chain.arrays.parameters;
  args.hyper = chain.tables.steps.hyper;
  args.optimizer = chain.optimizer;
  if (chain.rules->differ())
    args.finish = chain.rules->arguments(FinishUse::update, chain.finish_state());
  // More blocks than units help with the update.
  const index_t useful = std::max(
      {index_t(args.whole.units), index_t(args.rest.units), ceil_div(args.count, kNarrowThreads)});
  const int grid = args.alone ? 1 : int(std::min(index_t(grid_), useful));
  if (tensor_) take_tensor_paths(args);
  const auto train = tensor_ ? train_narrow_tensor : train_narrow;
  check(train(args, grid, chain.stream), "training steps");
}

void NarrowPlan::take_metrics(NarrowArgs& args, const Chain<float>& chain,
                              const std::vector<MetricSpec>& metrics) const {
  args.loss = chain.loss.loss;
  args.loss_param = float(chain.loss.param);
  for (const MetricSpec& from : metrics) {
    args.metric[args.metrics++] = {from.kind, from.of_softmax, float(from.threshold)};
    args.plain_errors |= from.of_softmax && (chain.loss.param != 0 || args.weight);
  }
}

// The next free place in shared memory.
int NarrowPlan::take(index_t bytes) {
  const int place = args_.shared_bytes;
  args_.shared_bytes += int(round_up(bytes, 16));
  return place;
}

// Whole words of 4, and one more, so that rows are in different banks, and for the ones behind the
// inputs.
NarrowMatrix NarrowPlan::matrix(index_t rows, index_t cols) {
  return floats(rows, round_up(cols, 4) + 4);
}
// Of a tile's rows.
NarrowMatrix NarrowPlan::transposed(index_t cols) { return matrix(round_up(cols, 4), args_.tile); }
NarrowMatrix NarrowPlan::floats(index_t rows, index_t cols) {
  return {take(rows * cols * 4), int(cols)};
}

NarrowStage narrow_stage(const Stage& stage) {
  NarrowStage s;
  s.inputs = int(stage.inputs);
  s.outputs = int(stage.outputs);
  s.input_chunk = int(stage.input_chunk);
  s.bias = stage.bias;
  s.activation = stage.activation;
  s.param = float(stage.param);
  s.parameters = stage.parameter_offset;
  s.keeps_y = stage.saves == Saves::Output;
  s.keeps_z = stage.saves == Saves::Input;
  return s;
}

void NarrowPlan::place_matrices(const NetworkLayout& layout, int tile, bool gradient_inside) {
  args_ = {};
  args_.tile = tile;
  args_.stages = int(layout.stages.size());
  args_.count = layout.parameter_count;
  for (int i = 0; i < args_.stages; ++i) {
    const Stage& stage = layout.stages[std::size_t(i)];
    NarrowStage& s = args_.stage[i] = narrow_stage(stage);
    const bool last = i + 1 == args_.stages;
    s.in = i == 0 ? matrix(tile, stage.inputs) : args_.stage[i - 1].out;
    s.out = last ? floats(tile, stage.outputs) : matrix(tile, stage.outputs);
    s.kept = s.keeps_y    ? s.out
             : !s.keeps_z ? NarrowMatrix{}
             : last       ? floats(tile, stage.outputs)
                          : matrix(tile, stage.outputs);
    s.delta = matrix(tile, stage.outputs);
    s.weights = matrix(stage.inputs + 1, stage.outputs);
    place_transposed(i);
  }
  args_.dy = take(tile * layout.outputs * 4);
  args_.target = take(tile * layout.outputs * 4);
  args_.labels = take(tile * 8);
  args_.places = take(tile * 8);
  args_.values = take((kNarrowThreads + 16) * 8);
  args_.weights = take(tile * layout.outputs * 4);
  args_.step_hyper = take(sizeof(StepHyper<float>));
  args_.gradient = gradient_inside ? take(layout.parameter_count * 4) : -1;
}

// Stage i's matrices that only this kernel has.
void NarrowPlan::place_transposed(int i) {
  NarrowStage& s = args_.stage[i];
  s.of_inputs = 1.0f / float(s.inputs);
  s.of_outputs = 1.0f / float(s.outputs);
  s.in_t = i == 0 ? transposed(s.inputs) : args_.stage[i - 1].out_t;
  // Outputs are read until the stage above is through, deltas written after that.
  s.out_t = s.delta_t = transposed(s.outputs);
  if (i > 0) s.weights_t = matrix(s.outputs, s.inputs);
}

}  // namespace cuda
}  // namespace fastbp
