#include "engine/plan.h"

#include <algorithm>

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

// Sizes are sums and products of what a user asked for: std::bad_alloc where they overflow.
index_t sum(index_t a, index_t b) { return index_t(checked_sum(std::size_t(a), std::size_t(b))); }
index_t product(index_t a, index_t b) {
  return index_t(checked_product(std::size_t(a), std::size_t(b)));
}
index_t round_up(index_t n, index_t multiple) { return sum(n, multiple - 1) / multiple * multiple; }

// Hidden layers of fewer units are not cut, and of networks with fewer or more parameters none is.
constexpr index_t kShardedUnits = 64;
constexpr index_t kShardedParameters = 4096, kMostShardedParameters = 400000;

#define FBP_SAVES(A) A::saves,
constexpr Saves kSaves[] = {FBP_ACTIVATIONS(FBP_SAVES)};
#undef FBP_SAVES

// Matrices with a row for every step have padding of at most one part in so many: it is what
// backpropagation through time takes beside what it needs. Rows that begin within a cache line cost 3
// to 7 % of a step's time (LSTM, 67 units, on a disturbed machine).
constexpr index_t kRowToPadding = 64;
// And to begin at 16 bytes, which a GPU reads at once, where lines are too long.
constexpr index_t kRowToWordPadding = 80;

bool reads_ones(const NetworkLayout& layout, std::size_t stage) {
  return stage < layout.stages.size() && layout.stages[stage].dense() && layout.stages[stage].bias;
}

// Whether the first stage writes its output over the gathered inputs.
bool in_place(const NetworkLayout& layout) {
  return layout.stages.size() > 1 && layout.stages[0].overwrites();
}

// A plan that grows.
struct Builder : Plan {
  Builder(const NetworkLayout& layout, const BatchShape& shape, std::size_t element_size_,
          PlanUse use_)
      : element_size(element_size_), use(use_) {
    capacity = shape.window;
    steps = shape.steps;
    part_rows = shape.part_rows;
    partials = shape.partials;
    tight = layout.sequences && use != PlanUse::device;
    has_ones = !layout.sequences || use != PlanUse::host;
  }
  // A matrix of `capacity` times `places` rows: rows begin at cache lines, unless `contiguous`, or
  // unless a row for every step would be much the longer for it.
  BatchMatrix matrix(index_t width, bool ones, bool contiguous, index_t places = 1) {
    const index_t line = index_t(kCacheLine / element_size), least = sum(width, ones ? 1 : 0);
    BatchMatrix m;
    m.width = width;
    m.places = places;
    m.ones = ones;
    m.row = contiguous ? width : round_up(least, line);
    if ((places > 1 || tight) && m.row - least > least / kRowToPadding) {
      const index_t word = round_up(least, index_t(16 / element_size));
      m.row = word - least > least / kRowToWordPadding ? least : word;
    }
    m.offset = arena.add(
        checked_product(std::size_t(product(product(capacity, places), m.row)), element_size));
    return m;
  }
  // A stage's output, with a place for a last one that is contiguous.
  BatchMatrix output(const NetworkLayout& layout, std::size_t s) {
    const Stage& stage = layout.stages[s];
    const bool last = s + 1 == layout.stages.size(), read = has_ones && reads_ones(layout, s + 1);
    if (stage.scan() && stage.way_count() == 1) return states(stage, read);
    return matrix(stage.outputs, read, last, places(stage.sequence));
  }
  // h of each step; of a device's plan before the first too.
  BatchMatrix states(const Stage& stage, bool read_by_dense) {
    return matrix(stage.units, (has_ones && stage.bias) || read_by_dense, false,
                  blocks_of_states());
  }
  index_t blocks_of_states() const { return sum(steps, use == PlanUse::device ? 1 : 0); }
  // Of a scan stage whose output is the last one of y.
  ScanMatrices scan_matrices(const Stage& stage) {
    ScanMatrices m;
    if (!stage.scan()) return m;
    const CellInfo& cell = cell_info(stage.cell);
    const index_t units = stage.units;
    for (int w = 0; w < stage.way_count(); ++w) {
      ScanWay& way = m.way[w];
      way.h = stage.way_count() == 1 ? y.back() : states(stage, false);
      way.c = matrix(cell.states > 1 ? units : 0, false, true, blocks_of_states());
      way.kept = matrix(cell.keeps * units, false, true, steps);
      if (stage.state_rate > 0) way.masked = matrix(units, has_ones && stage.bias, false, steps);
    }
    if (use == PlanUse::device) {
      m.dh = matrix(units, false, true);
      m.dc = matrix(cell.states > 1 ? units : 0, false, true);
      return m;
    }
    if (partials > 0)
      m.product_place = product(part_rows, stage.product_width()) <= stage.parameter_count()
                            ? ProductPlace::gradient
                            : ProductPlace::worker;
    else
      m.product = matrix(stage.product_width(), false, true);
    return m;
  }
  // Whether the gradient of a stage's output may lie where the output is: that is read by the product
  // for the dense stage behind alone, which is made before.
  bool delta_in_output(const NetworkLayout& layout, std::size_t s) const {
    const auto& stages = layout.stages;
    return use != PlanUse::device && s + 1 < stages.size() && stages[s].scan() &&
           stages[s].way_count() == 2 && stages[s + 1].dense();
  }
  index_t places(bool sequence) const { return sequence ? steps : 1; }
  // Where a batch is gathered.
  void add_batch(const NetworkLayout& layout) {
    const index_t out = places(layout.stages.back().sequence);
    x = matrix(layout.inputs, has_ones && reads_ones(layout, in_place(layout) ? 1 : 0), false,
               steps);
    target = matrix(layout.outputs, false, true, out);
    weight = matrix(layout.outputs, false, true, out);
    labels_offset =
        arena.add(checked_product(std::size_t(product(capacity, out)), sizeof(std::int64_t)));
    lengths_offset = arena.add(
        checked_product(std::size_t(layout.sequences ? capacity : 0), sizeof(std::int64_t)));
  }
  void add_block_sums(index_t count) {
    blocks = count;
    block_sums_offset = arena.add(checked_product(
        checked_product(std::size_t(blocks), std::size_t(1 + kMaxMetrics)), sizeof(double)));
  }

  // What the stages note of a batch of so many rows, of which `capacity` are in work at once.
  void add_work(const NetworkLayout& layout, index_t rows) {
    for (const Stage& stage : layout.stages) {
      index_t values = 0;
      if (stage.kind == StageKind::layer_norm)
        values = product(2, product(capacity, places(stage.sequence)));
      // Each block's mean and sum of squares; then, backward, two sums.
      if (stage.batch_coupled())
        values = product(4, product(parts_of(rows, layout.row_block(rows)), stage.outputs));
      work.push_back(arena.add(checked_product(std::size_t(values), element_size)));
    }
  }

  std::size_t element_size;
  PlanUse use;
  bool tight = false;  // every row is one of a step's, even if there is one step
};

void set_activation(Stage& stage, const LayerSpec& layer) {
  stage.activation = layer.activation;
  stage.param = layer.param;
  stage.saves = kSaves[layer.activation];
}

// Takes rows x cols elements from the end of a flat array; where they begin.
index_t take(index_t& end, index_t rows, index_t cols) {
  const index_t begin = end;
  end = round_up(sum(end, product(rows, cols)), kBlockAlignment);
  return begin;
}

// Where the stage's parameters, state and workers' values lie.
void place(NetworkLayout& layout, Stage& stage) {
  const index_t rows = sum(stage.parameter_rows, stage.bias ? 1 : 0);
  stage.parameter_offset = take(layout.parameter_count, rows, stage.parameter_cols);
  stage.state_offset = take(layout.state_count, stage.state_rows, stage.outputs);
  // Mean, variance and two sums over the batch; of a scan the transpose of its weights, and a step's product.
  stage.worker_offset = layout.worker_count;
  if (stage.batch_coupled()) take(layout.worker_count, 4, stage.outputs);
  if (!stage.scan()) return;
  take(layout.worker_count, stage.units, stage.parameter_cols);
  take(layout.worker_count, 1, std::min(kStepProduct, kSequencePart * stage.product_width()));
  stage.carried_offset = layout.carried_width;
  layout.carried_width = sum(
      layout.carried_width, product(stage.way_count() * stage.units, cell_info(stage.cell).states));
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
    stage.outputs = product(stage.inputs, layer.units);
    break;
  case StageKind::add:
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

// The outputs of the stages where nothing is trained. Two inner ones are enough, the one read and the
// one written, beside those that are added later.
void add_inference_outputs(Builder& plan, const NetworkLayout& layout) {
  const std::size_t last = layout.stages.size() - 1;
  index_t widest = 0;
  for (std::size_t s = 0; s < last; ++s) widest = std::max(widest, layout.stages[s].outputs);
  BatchMatrix ring[2];
  for (BatchMatrix& buffer : ring) buffer = plan.matrix(widest, false, false);
  std::vector<bool> kept(last + 1, false);
  for (const Stage& stage : layout.stages) {
    if (stage.kind != StageKind::add) continue;
    for (const std::ptrdiff_t source : {stage.source, layout.inference_source(stage.source)})
      if (source >= 0) kept[std::size_t(source)] = true;
  }
  std::size_t place = 0;
  for (std::size_t s = 0; s < last; ++s) {
    if (!layout.stages[s].idle_in_inference()) ++place;
    plan.y.push_back(kept[s] ? plan.matrix(layout.stages[s].outputs, false, false)
                             : ring[place % 2]);
  }
  plan.y.push_back(plan.matrix(layout.outputs, false, true));
}

// Of sequences each output has its own place, of its own number of rows.
void add_sequence_outputs(Builder& plan, const NetworkLayout& layout) {
  plan.add_batch(layout);
  for (std::size_t s = 0; s < layout.stages.size(); ++s) {
    plan.y.push_back(plan.output(layout, s));
    plan.scan.push_back(plan.scan_matrices(layout.stages[s]));
  }
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

index_t NetworkLayout::largest_part(index_t rows) const {
  if (rows > 2 * kSequencePart) return kSequencePart;
  index_t largest = 1;
  for (index_t fewer = 1; fewer <= rows; ++fewer) largest = std::max(largest, row_chunk(fewer));
  return largest;
}

index_t NetworkLayout::measure_blocks(index_t rows, index_t steps) const {
  if (!sequences) return loss_blocks(rows);
  const index_t chunk = row_chunk(rows);
  return product(parts_of(rows, chunk), loss_blocks(product(chunk, output_places(steps))));
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

BatchShape batch_shape(const NetworkLayout& layout, index_t rows, int threads, index_t steps,
                       bool whole) {
  BatchShape shape;
  shape.rows = shape.window = rows;
  shape.steps = steps;
  shape.blocks = layout.measure_blocks(rows, steps);
  const index_t chunk = layout.row_chunk(rows), parts = parts_of(rows, chunk);
  if (layout.sequences) {
    shape.part_rows = layout.largest_part(rows);
    // Room for each batch of up to so many: a part for each worker, or all of it.
    shape.window = std::min(rows, product(threads, shape.part_rows));
    shape.partials = std::min(parts, index_t(2 * threads));
    return shape;
  }
  const bool even =
      busy_enough(double(rows), double(parts_of(parts, threads)) * double(chunk), threads);
  // One worker alone takes parts for the cache's sake, not for two of them.
  if (layout.light && !whole && even && parts > (threads > 1 ? 1 : 2)) {
    shape.part_rows = kMaxChunk;
    shape.window = threads * kMaxChunk;
    shape.partials = std::min(parts, index_t(2 * threads));
  }
  return shape;
}

bool BatchShape::fits(const Plan& plan) const {
  const index_t workers = part_rows > 0 ? window / part_rows : 0;  // each with a part of the plan's
  return window <= plan.capacity && workers * plan.part_rows <= plan.capacity &&
         partials <= plan.partials && part_rows <= plan.part_rows && steps == plan.steps &&
         blocks <= plan.blocks;
}

Plan make_training_plan(const NetworkLayout& layout, const BatchShape& shape,
                        std::size_t element_size, PlanUse use) {
  Builder plan(layout, shape, element_size, use);
  plan.add_batch(layout);
  const std::size_t last = layout.stages.size() - 1;
  for (std::size_t s = 0; s <= last; ++s) {
    const Stage& stage = layout.stages[s];
    const index_t places = plan.places(stage.sequence);
    plan.y.push_back(s == 0 && in_place(layout) ? plan.x : plan.output(layout, s));
    const bool keeps_z = stage.dense() && stage.saves == Saves::Input;
    plan.z.push_back(keeps_z ? plan.matrix(stage.outputs, false, false, places) : plan.y.back());
    // A scan turns what it has kept in the output of the stage below into that stage's dz.
    const bool scanned = s < last && layout.stages[s + 1].scan();
    plan.delta.push_back(scanned || plan.delta_in_output(layout, s)
                             ? plan.y[s]
                             : plan.matrix(stage.outputs, false, s == last, places));
    plan.scan.push_back(plan.scan_matrices(stage));
  }
  plan.add_block_sums(layout.measure_blocks(shape.rows, shape.steps));
  plan.add_work(layout, shape.rows);
  std::size_t partials =
      checked_product(std::size_t(shape.partials), std::size_t(layout.parameter_count));
  for (std::size_t s = 0; s <= last; ++s) {
    const Stage& stage = layout.stages[s];
    const index_t parts = stage.dense() ? parts_of(stage.inputs, stage.input_chunk) : 1;
    // The sums are written and read once; they must be few beside the weights.
    const bool few = parts > 1 && !layout.sequences && shape.rows <= stage.inputs / parts / 2;
    plan.input_parts.push_back(few ? parts : 1);
    if (few)
      partials = std::max(partials, checked_product(std::size_t(product(parts, shape.rows)),
                                                    std::size_t(plan.z[s].row)));
  }
  plan.partials_offset = plan.arena.add(checked_product(partials, element_size));
  return plan;
}

BatchShape inference_shape(const NetworkLayout& layout, index_t rows, int threads, index_t steps) {
  BatchShape shape;
  if (layout.sequences) shape = batch_shape(layout, rows, threads, steps);
  shape.rows = rows;
  shape.blocks = layout.measure_blocks(rows, steps);
  if (!layout.sequences) shape.window = rows;
  shape.partials = 0;
  return shape;
}

Plan make_inference_plan(const NetworkLayout& layout, index_t rows, std::size_t element_size) {
  return make_inference_plan(layout, inference_shape(layout, rows, 1, 1), element_size);
}

Plan make_inference_plan(const NetworkLayout& layout, const BatchShape& shape,
                         std::size_t element_size, bool gathers, PlanUse use) {
  Builder plan(layout, shape, element_size, use);
  if (gathers) plan.x = plan.matrix(layout.inputs, false, false);
  const std::size_t last = layout.stages.size() - 1;
  if (layout.sequences)
    add_sequence_outputs(plan, layout);
  else
    add_inference_outputs(plan, layout);
  plan.z = plan.y;
  plan.input_parts.assign(last + 1, 1);
  plan.delta.resize(last + 1);
  const index_t places = plan.places(layout.stages[last].sequence);
  plan.delta[last] = plan.matrix(layout.outputs, false, true, places);  // the loss's working memory
  if (!layout.sequences) plan.weight = plan.matrix(layout.outputs, false, true);
  plan.add_block_sums(layout.measure_blocks(shape.rows, shape.steps));
  plan.add_work(layout, shape.rows);
  return plan;
}

}  // namespace fastbp
