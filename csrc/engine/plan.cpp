#include "engine/plan.h"

#include <algorithm>

#include "engine/sizes.h"
#include "kernels/kernel_table.h"

namespace fastbp {
namespace {

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
    const index_t line = index_t(kCacheLine / element_size), least = size_sum(width, ones ? 1 : 0);
    BatchMatrix m;
    m.width = width;
    m.places = places;
    m.ones = ones;
    m.row = contiguous ? width : round_up(least, line);
    if ((places > 1 || tight) && m.row - least > least / kRowToPadding) {
      const index_t word = round_up(least, index_t(16 / element_size));
      m.row = word - least > least / kRowToWordPadding ? least : word;
    }
    m.offset = arena.add(checked_product(
        std::size_t(size_product(size_product(capacity, places), m.row)), element_size));
    return m;
  }
  // A stage's output, with a place for a last one that is contiguous.
  BatchMatrix output(const NetworkLayout& layout, std::size_t s) {
    const Stage& stage = layout.stages[s];
    const bool last = s + 1 == layout.stages.size(), read = has_ones && reads_ones(layout, s + 1);
    if (is_states(stage)) return states(stage, read);
    return matrix(stage.outputs, read, last, places(stage.sequence));
  }
  // Whether the output is h of a scan's only way. On a device it lies by itself, as other stages' do, so
  // that one launch serves all parts of a batch.
  bool is_states(const Stage& stage) const {
    return stage.scan() && stage.way_count() == 1 && use != PlanUse::device;
  }
  // h of each step; of a device's plan before the first too.
  BatchMatrix states(const Stage& stage, bool read_by_dense) {
    return matrix(stage.units, (has_ones && stage.bias) || read_by_dense, false,
                  blocks_of_states());
  }
  index_t blocks_of_states() const { return size_sum(steps, use == PlanUse::device ? 1 : 0); }
  // Of a scan stage whose output is the last one of y.
  ScanMatrices scan_matrices(const Stage& stage) {
    ScanMatrices m;
    if (!stage.scan()) return m;
    const CellInfo& cell = cell_info(stage.cell);
    const index_t units = stage.units;
    for (int w = 0; w < stage.way_count(); ++w) {
      ScanWay& way = m.way[w];
      way.h = is_states(stage) ? y.back() : states(stage, false);
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
      m.product_place = size_product(part_rows, stage.product_width()) <= stage.parameter_count()
                            ? ProductPlace::gradient
                            : ProductPlace::worker;
    else
      m.product = matrix(stage.product_width(), false, true);
    return m;
  }
  // Whether the gradient of a stage's output may lie where the output is: that is read by the products
  // for the dense stage behind alone, which are made before.
  bool delta_in_output(const NetworkLayout& layout, std::size_t s) const {
    const auto& stages = layout.stages;
    return s + 1 < stages.size() && stages[s].scan() && !is_states(stages[s]) &&
           stages[s + 1].dense();
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
        arena.add(checked_product(std::size_t(size_product(capacity, out)), sizeof(std::int64_t)));
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
        values = size_product(2, size_product(capacity, places(stage.sequence)));
      // Each block's mean and sum of squares; then, backward, two sums.
      if (stage.batch_coupled())
        values =
            size_product(4, size_product(parts_of(rows, layout.row_block(rows)), stage.outputs));
      work.push_back(arena.add(checked_product(std::size_t(values), element_size)));
    }
  }

  std::size_t element_size;
  PlanUse use;
  bool tight = false;  // every row is one of a step's, even if there is one step
};

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
    shape.window = std::min(rows, size_product(threads, shape.part_rows));
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
      partials = std::max(partials, checked_product(std::size_t(size_product(parts, shape.rows)),
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
