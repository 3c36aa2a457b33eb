#include "engine/layout.h"

#include <algorithm>

#include "engine/sizes.h"
#include "kernels/kernel_table.h"

namespace fastbp {
namespace {

constexpr index_t kBlockAlignment = 16;  // elements; 64 or 128 bytes

// Values that a light network and kMaxChunk rows of its batch may need: an L2 of 1 MiB, in float32.
constexpr double kLightValues = 280e3;

// A batch has at most so many blocks of statistics: each worker adds up all of them.
constexpr index_t kMostRowBlocks = 64;

// A batch of no more rows is not cut up.
constexpr index_t kSmallestPart = 32;

// Sequences are worked off in parts of at most so many: enough to use the recurrent weights a few times
// as they come from L2, few enough to keep several workers busy.
constexpr index_t kSequencePart = 32;
// A batch of fewer sequences is one part, and so is one of up to half a part of which a step takes fewer
// multiply-adds: about what the calls of a step cost twice over.
constexpr index_t kSequencesToShare = 8;
constexpr double kStepToShare = 32e3;

// Hidden layers of fewer units are not cut, and of networks with fewer or more parameters none is.
constexpr index_t kShardedUnits = 64;
constexpr index_t kShardedParameters = 4096, kMostShardedParameters = 400000;

// What a barrier costs, and for each value of a step's product the cell behind it, in multiply-adds of
// a product.
constexpr double kBarrierCost = 25000, kCellCost = 40;

#define FBP_SAVES(A) A::saves,
constexpr Saves kSaves[] = {FBP_ACTIVATIONS(FBP_SAVES)};
#undef FBP_SAVES

void set_activation(Stage& stage, const LayerSpec& layer) {
  stage.activation = layer.activation;
  stage.param = layer.param;
  stage.saves = kSaves[layer.activation];
}

// Takes rows x cols elements from the end of a flat array; where they begin.
index_t take(index_t& end, index_t rows, index_t cols) {
  const index_t begin = end;
  end = round_up(size_sum(end, size_product(rows, cols)), kBlockAlignment);
  return begin;
}

// Where the stage's parameters, state and workers' values lie.
void place(NetworkLayout& layout, Stage& stage) {
  const index_t rows = size_sum(stage.parameter_rows, stage.bias ? 1 : 0);
  stage.parameter_offset = take(layout.parameter_count, rows, stage.parameter_cols);
  stage.state_offset = take(layout.state_count, stage.state_rows, stage.outputs);
  // Mean, variance and two sums over the batch; of a scan the transpose of its weights, and a step's product.
  stage.worker_offset = layout.worker_count;
  if (stage.batch_coupled()) take(layout.worker_count, 4, stage.outputs);
  if (!stage.scan()) return;
  take(layout.worker_count, stage.units, stage.parameter_cols);
  take(layout.worker_count, 1, std::min(kStepProduct, kSequencePart * stage.product_width()));
  stage.carried_offset = layout.carried_width;
  layout.carried_width =
      size_sum(layout.carried_width,
               size_product(stage.way_count() * stage.units, cell_info(stage.cell).states));
}

void set_scan(Stage& stage, const LayerSpec& layer) {
  stage.cell = layer.cell;
  stage.units = layer.units;
  stage.ways = layer.ways;
  stage.sequence = layer.sequence;
  stage.reverse = layer.reverse;
  stage.truncate = layer.truncate;
  stage.state_rate = layer.state_rate;
  stage.bias = layer.use_bias && cell_info(layer.cell).two_biases;
  const bool both = stage.way_count() == 2;
  stage.outputs = layer.units * (layer.ways == ScanWays::both_side_by_side ? 2 : 1);
  // All but the last row of biases.
  stage.parameter_rows = both ? 2 * layer.units + stage.bias : layer.units;
}

// The layer as a stage of its own.
Stage make_stage(const NetworkLayout& layout, const LayerSpec& layer) {
  Stage stage;
  stage.kind = layer.kind;
  stage.inputs = stage.outputs = layout.outputs;
  stage.sequence = layout.stages.empty() ? layout.sequences : layout.stages.back().sequence;
  switch (layer.kind) {
  case StageKind::dense:
    stage.parameter_rows = stage.inputs;
    stage.outputs = layer.units;
    stage.bias = layer.use_bias;
    stage.input_chunk = k_chunk(stage.inputs);
    break;
  case StageKind::activation:
    set_activation(stage, layer);
    break;
  case StageKind::layer_norm:
  case StageKind::batch_norm:
    stage.param = layer.param;
    stage.momentum = layer.momentum;
    stage.parameter_rows = layer.use_scale ? 1 : 0;
    stage.bias = layer.use_bias;
    stage.state_rows = stage.batch_coupled() ? 2 : 0;
    break;
  case StageKind::normalize:
    stage.state_rows = 2;
    break;
  case StageKind::embedding:
    stage.parameter_rows = layer.span;
    stage.outputs = size_product(stage.inputs, layer.units);
    break;
  case StageKind::add:
  case StageKind::softmax:
    break;
  case StageKind::custom:
    stage.function = layer.function;
    break;
  case StageKind::dropout:
    stage.param = layer.param;
    stage.per_sequence = layer.per_sequence;
    break;
  case StageKind::scan:
    set_scan(stage, layer);
    break;
  }
  for (const Stage& other : layout.stages) stage.stream += other.streams();
  stage.parameter_cols = stage.scan() ? cell_info(stage.cell).gates * stage.units : stage.outputs;
  if (stage.kind == StageKind::embedding) stage.parameter_cols = layer.units;
  return stage;
}

// Layer i of the network. `joined`: its input is added to another layer's, so that it must exist.
void add_layer(NetworkLayout& layout, const LayerSpec& layer, bool joined) {
  auto& stages = layout.stages;
  const bool fuse = layer.kind == StageKind::activation && !stages.empty() &&
                    stages.back().dense() && stages.back().activation == 0 && !joined;
  layout.stage_of_layer.push_back(fuse ? kNoStage : stages.size());
  if (fuse) {
    set_activation(stages.back(), layer);
    return;
  }
  stages.push_back(make_stage(layout, layer));
  Stage& stage = stages.back();
  place(layout, stage);
  if (layer.kind == StageKind::add) {
    const std::size_t first =
        layout.stage_of_layer[layout.stage_of_layer.size() - 1 - std::size_t(layer.span)];
    stage.source = std::ptrdiff_t(first) - 1;
    stages[first].joins.push_back(stages.size() - 1);
  }
  layout.batch_coupled = layout.batch_coupled || stage.batch_coupled();
  layout.custom = layout.custom || stage.kind == StageKind::custom;
  layout.outputs = stage.outputs;
  if (stage.dense() || stage.scan())
    layout.multiply_adds_per_row += double(stage.parameter_rows) * double(stage.parameter_cols);
}

// Whether it may be cut along its hidden units; then these are summed in two pieces at least.
bool make_sharded(NetworkLayout& layout) {
  auto& stages = layout.stages;
  if (layout.sequences || stages.size() < 2 || stages.size() > 3 ||
      layout.parameter_count < kShardedParameters ||
      layout.parameter_count > kMostShardedParameters || stages[0].outputs < kShardedUnits)
    return false;
  for (const Stage& stage : stages)
    if (!stage.dense()) return false;
  const index_t chunk = equal_chunk(stages[1].inputs, 2);
  stages[1].input_chunk = std::min(stages[1].input_chunk, chunk);
  return true;
}

bool is_light(const NetworkLayout& layout) {
  double values = double(layout.parameter_count) + double(layout.inputs) * kMaxChunk;
  for (const Stage& stage : layout.stages)
    values += double(stage.outputs) * kMaxChunk * (stage.saves == Saves::Input ? 3 : 2);
  // A table's gradient is no product, which could be summed over the chunks of the whole batch.
  const bool table = layout.stages[0].kind == StageKind::embedding;
  return values <= kLightValues && !layout.batch_coupled && !layout.sequences && !table;
}

}  // namespace

index_t round_to_block(index_t elements) { return round_up(elements, kBlockAlignment); }

NetworkLayout make_layout(const NetworkSpec& spec) {
  NetworkLayout layout;
  layout.inputs = layout.outputs = spec.inputs;
  layout.sequences = spec.sequences;
  std::vector<bool> joined(spec.layers.size(), false);
  for (std::size_t i = 0; i < spec.layers.size(); ++i)
    if (spec.layers[i].kind == StageKind::add) joined[i - std::size_t(spec.layers[i].span)] = true;
  for (std::size_t i = 0; i < spec.layers.size(); ++i) add_layer(layout, spec.layers[i], joined[i]);
  // The last output stands alone, row by row.
  if (layout.stages.back().scan()) {
    LayerSpec copy;
    copy.kind = StageKind::activation;
    add_layer(layout, copy, false);
    layout.stage_of_layer.pop_back();  // which no layer of the network is
  }
  layout.light = is_light(layout);
  layout.sharded = make_sharded(layout);
  layout.set_trainable(std::vector<bool>(spec.layers.size(), true));
  return layout;
}

std::vector<double> NetworkLayout::by_layer(const double* of_stages) const {
  std::vector<double> values(stage_of_layer.size() + 1);
  std::size_t owner = 0, stage = 0;
  for (std::size_t layer = 0; layer < stage_of_layer.size(); ++layer)
    if (stage_of_layer[layer] != kNoStage) values[owner = layer] = of_stages[stage++];
  for (; stage < stages.size(); ++stage) values[owner] += of_stages[stage];  // of no layer
  values.back() = of_stages[stages.size()];
  return values;
}

std::uint32_t Stage::streams() const {
  if (kind == StageKind::dropout) return 1;
  return state_rate > 0 ? std::uint32_t(way_count()) : 0;
}

index_t NetworkLayout::row_chunk(index_t rows) const {
  if (sequences) {
    const bool few =
        rows < kSequencesToShare ||
        (rows <= kSequencePart / 2 && multiply_adds_per_row * double(rows) < kStepToShare);
    if (few) return rows > 0 ? rows : 1;
    return parts_of(rows, 2 * parts_of(rows, 2 * kSequencePart));
  }
  if (!light) return k_chunk(rows);
  if (rows <= kSmallestPart) return rows > 0 ? rows : 1;
  return equal_chunk(rows, 2 * parts_of(rows, 2 * kMaxChunk));
}

bool NetworkLayout::shares_parts(index_t rows, index_t team) const {
  if (!sequences || team < 2) return false;
  const index_t chunk = row_chunk(rows), parts = parts_of(rows, chunk);
  double shared = 0, alone = 0;  // of a step of a part
  for (const Stage& stage : stages) {
    if (!stage.scan()) continue;
    const double products = double(chunk) * double(stage.units) * double(stage.parameter_cols);
    const double cells = kCellCost * double(chunk) * double(stage.product_width());
    shared += stage.way_count() * (products / double(team) + cells + 2 * kBarrierCost);
    alone += stage.way_count() * (products + cells);
  }
  return double(parts) * shared < double(parts_of(parts, team)) * alone;
}

index_t NetworkLayout::largest_part(index_t rows) const {
  if (rows > 2 * kSequencePart) return kSequencePart;
  index_t largest = 1;
  for (index_t fewer = 1; fewer <= rows; ++fewer) largest = std::max(largest, row_chunk(fewer));
  return largest;
}

index_t NetworkLayout::measure_blocks(index_t rows, index_t steps) const {
  if (!sequences) return loss_blocks(rows);
  const index_t chunk = row_chunk(rows);
  return size_product(parts_of(rows, chunk),
                      loss_blocks(size_product(chunk, output_places(steps))));
}

index_t NetworkLayout::row_block(index_t rows) const {
  if (!batch_coupled) return kLossBlockRows;
  return parts_of(rows, kLossBlockRows * kMostRowBlocks) * kLossBlockRows;
}

std::ptrdiff_t NetworkLayout::inference_source(std::ptrdiff_t stage) const {
  while (stage >= 0 && stages[std::size_t(stage)].idle_in_inference()) --stage;
  return stage;
}

void NetworkLayout::set_trainable(const std::vector<bool>& layers) {
  for (Stage& stage : stages) stage.trainable = true;
  for (std::size_t i = 0; i < layers.size(); ++i)
    if (!layers[i] && stage_of_layer[i] != kNoStage) stages[stage_of_layer[i]].trainable = false;
  any_frozen = std::find(layers.begin(), layers.end(), false) != layers.end();
  const auto trained = [](const Stage& s) { return s.trainable && s.parameter_count() > 0; };
  lowest_trained =
      std::size_t(std::find_if(stages.begin(), stages.end(), trained) - stages.begin());
}

}  // namespace fastbp
