// Sequences on a device: where they lie, and the walk of a recurrent cell over their steps. The twin of
// engine/scan.cpp and sequences.cpp.
//
// Matrices have the CPU's parts (engine/plan.h), so sums over rows are its own; but all parts of a batch
// are in memory side by side, and a launch serves them all. All steps of a way are one kernel where the
// recurrent weights fit (scan_blocks.h), else each is one, which the step before it in the stream
// feeds; the gradient of a part's parameters is a sum of its own.
#include "engine/cuda/chain.h"

#include "core/random.h"
#include "kernels/cuda/train/lengths.h"
#include "kernels/kernel_table.h"

namespace fastbp {
namespace cuda {
namespace {

constexpr const char* kForward = "forward pass";
constexpr const char* kBackward = "backward pass";
// Of fewer steps each is a kernel: loading the weights of a walk would take longer than the steps. Not so
// on tensor cores, where those kernels are slow; and a sequence cut in two has the bits of the whole.
constexpr index_t kStepsToWalk = 4;

}  // namespace

void lay_out_scans(Workspace& space, const NetworkLayout& layout, std::size_t element_size) {
  Plan& plan = space.plan;
  const auto add = [&](index_t rows, index_t cols) {
    return plan.arena.add(
        checked_product(checked_product(std::size_t(rows), std::size_t(cols)), element_size));
  };
  space.gate_deltas.assign(layout.stages.size(), 0);
  for (std::size_t s = 0; s < layout.stages.size(); ++s) {
    const Stage& stage = layout.stages[s];
    if (!stage.scan()) continue;
    if (cell_info(stage.cell).keeps > 0)
      space.gate_deltas[s] = add(2 * plan.capacity, stage.parameter_cols);
  }
}

// The parts that the partials hold are added up onto the first, in order, before the next ones take the
// places behind it: however large a batch is, it needs no more than kPartsAtOnce of them.
template <class T> index_t Chain<T>::place_of_part(index_t part) {
  return part < kPartsAtOnce ? part : 1 + (part - kPartsAtOnce) % (kPartsAtOnce - 1);
}

// How the rows of a matrix with so many places lie.
template <class T> SequenceRows Chain<T>::sequences(index_t rows, index_t places) const {
  return {rows, layout->sequences ? layout->row_chunk(rows) : rows, places};
}

template <class T>
SequenceGather<T> Chain<T>::sequence_gather(const Workspace& space, index_t rows,
                                            const DeviceSamples<T>& from) const {
  SequenceGather<T> g;
  g.at = sequences(rows, space.plan.steps);
  g.out_at = sequences(rows, layout->output_places(space.plan.steps));
  g.x = from.x;
  g.inputs = layout->inputs;
  g.x_out = space.at<T>(space.plan.x);
  g.x_row = space.plan.x.row;
  g.target = from.target;
  g.outputs = layout->outputs;
  g.target_out = space.at<T>(space.plan.target);
  g.labels = from.labels;
  g.labels_out = space.at<std::int64_t>(space.plan.labels_offset);
  g.weight = from.weight;
  g.weight_copies = weight_copies();
  g.weight_out = space.at<T>(space.plan.weight);
  g.lengths = from.lengths;
  g.lengths_out = space.at<std::int64_t>(space.plan.lengths_offset);
  g.closes = from.lengths && layout->stages.back().sequence;
  return g;
}

// The targets stand side by side already, as they were gathered.
template <class T>
void Chain<T>::measure_closed(const Workspace& space, index_t rows, const DeviceSamples<T>& targets,
                              const std::vector<MetricSpec>& metrics,
                              const CountedRows<T>* counts) const {
  const index_t steps = space.plan.steps, cols = layout->outputs;
  const SequenceRows at = sequences(rows, steps);
  const auto* const lengths = space.at<std::int64_t>(space.plan.lengths_offset);
  const BatchMatrix &y = space.plan.y.back(), &delta = space.plan.delta.back();
  T* const closed = static_cast<T*>(space.closed);
  T* const dy = closed + space.plan.capacity * steps * cols;
  check(close_up(space.at<T>(y), y.row, at, cols, lengths, closed, stream), "loss");
  measure_parts(rows, steps, closed, dy, targets, metrics, counts);
  check(open_up(dy, at, cols, lengths, space.at<T>(delta), delta.row, stream), "loss");
}

// One way of a scan over a batch of sequences.
template <class T> struct Chain<T>::Way {
  const Stage& stage;
  const CellInfo& cell;
  int number;
  ScanWalk<T> walk;
  std::size_t parameters;
  T* masked;
  index_t carried;  // where its states begin among those of a sequence

  // Where the values of the way's units begin in a row of the stage's output.
  index_t column() const {
    return stage.ways == ScanWays::both_side_by_side ? number * stage.units : 0;
  }
};

template <class T>
typename Chain<T>::Way Chain<T>::way(const Workspace& space, std::size_t s, int number,
                                     index_t rows) const {
  const Stage& stage = layout->stages[s];
  const ScanMatrices& memory = space.plan.scan[s];
  const ScanWay& of_way = memory.way[number];
  const BatchMatrix& a = space.plan.y[s - 1];
  const index_t block = (stage.units + stage.bias) * stage.parameter_cols;
  Way w{stage,
        cell_info(stage.cell),
        number,
        {},
        std::size_t(stage.parameter_offset + number * block),
        of_way.masked.row > 0 ? space.at<T>(of_way.masked) : nullptr,
        stage.carried_offset + number * cell_info(stage.cell).states * stage.units};
  const T* const weights = arrays.parameters.w + w.parameters;
  w.walk.reverse = stage.reverse != (number == 1);
  w.walk.sequence = stage.sequence;
  w.walk.truncate = stage.truncate;
  T* const gate_deltas = space.at<T>(space.gate_deltas[s]);
  w.walk.gate_deltas[0] = gate_deltas;
  w.walk.gate_deltas[1] = gate_deltas + space.plan.capacity * stage.parameter_cols;
  ScanStep<T>& step = w.walk.every;
  step.at = sequences(rows, space.plan.steps);
  step.units = stage.units;
  step.a = space.at<T>(a) + number * stage.parameter_cols;
  step.a_row = a.row;
  step.kept = space.at<T>(of_way.kept);
  step.h = space.at<T>(of_way.h);
  step.h_row = of_way.h.row;
  step.c = space.at<T>(of_way.c);
  step.weights = weights;
  step.bias = stage.bias ? weights + stage.units * stage.parameter_cols : nullptr;
  step.rounding = product_mode.rounding();
  step.state_rate = stage.state_rate;
  step.seed = seed;
  step.stream = dropout_stream(0, stage.stream + std::uint32_t(number),
                               static_cast<std::uint32_t>(Purpose::dropout));
  step.counter = tables.counter;
  step.masked_row = of_way.masked.row;
  step.out_at = sequences(rows, stage.sequence ? space.plan.steps : 1);
  step.dh = space.at<T>(memory.dh);
  step.dc = space.at<T>(memory.dc);
  return w;
}

// How one kernel may take all steps; no slices: every step is a kernel.
template <class T> ScanBlocks Chain<T>::blocks_of(const Way& w, bool back) const {
  const ScanStep<T>& step = w.walk.every;
  if (!*persistent || (step.rounding == Rounding::none && w.walk.steps() < kStepsToWalk)) return {};
  return scan_blocks(scan_room, w.cell, w.stage.units, step.at.rows, sizeof(T), step.rounding,
                     back);
}

template <class T>
void Chain<T>::forward_scan(const Workspace& space, std::size_t s, index_t rows,
                            const Pass<T>& pass) const {
  const Stage& stage = layout->stages[s];
  const BatchMatrix& y = space.plan.y[s];
  for (int number = 0; number < stage.way_count(); ++number) {
    Way w = way(space, s, number, rows);
    ScanWalk<T>& walk = w.walk;
    walk.every.lengths = pass.lengths;
    if (pass.training) walk.every.masked = w.masked;
    walk.every.out = space.at<T>(y) + w.column();
    walk.every.out_row = y.row;
    walk.every.adds = stage.ways == ScanWays::both_added && number == 1;
    carry_states(w, walk.before(walk.place(0)), pass.states, true);
    if (const ScanBlocks blocks = blocks_of(w, false); blocks.slices)
      check(walk_forward(stage.cell, walk, blocks, stream), kForward);
    else
      for (index_t i = 0; i < walk.steps(); ++i)
        check(scan_forward(stage.cell, walk.forward(i), stream), kForward);
    if (pass.states) carry_states(w, walk.after(walk.place(walk.steps() - 1)), pass.states, false);
  }
}

// Between the states of the sequences, null: 0, and a block of the way's: those before the first step,
// or behind the last.
template <class T>
void Chain<T>::carry_states(const Way& w, index_t block, T* states, bool begin) const {
  const index_t units = w.stage.units, width = layout->carried_width;
  T* const of_way = states ? states + w.carried : nullptr;
  const ScanStep<T>& step = w.walk.every;
  const auto carry = [&](T* x, index_t x_row, T* there) {
    check(begin ? begin_states(x, x_row, step.at, block, units, there, width, stream)
                : keep_states(x, x_row, step.at, block, units, there, width, stream),
          kForward);
  };
  carry(step.h, step.h_row, of_way);
  if (w.cell.states > 1) carry(step.c, units, of_way ? of_way + units : nullptr);
}

// da of all steps, where `a` was.
template <class T>
void Chain<T>::input_delta_scan(const Workspace& space, std::size_t s, index_t rows,
                                const std::int64_t* lengths) const {
  const Stage& stage = layout->stages[s];
  const BatchMatrix& dy = space.plan.delta[s];
  for (int number = 0; number < stage.way_count(); ++number) {
    Way w = way(space, s, number, rows);
    ScanWalk<T>& walk = w.walk;
    walk.every.lengths = lengths;
    walk.every.dy = space.at<T>(dy) + w.column();
    walk.every.out_row = dy.row;
    if (const ScanBlocks blocks = blocks_of(w, true); blocks.slices)
      check(walk_backward(stage.cell, walk, blocks, stream), kBackward);
    else
      for (index_t i = walk.steps(); i-- > 0;)
        check(scan_backward(stage.cell, walk.backward(i), stream), kBackward);
  }
}

template <class T> Shadow Chain<T>::shadow_of_states(std::size_t s, int number) const {
  const Shadows& shadows = *product_mode.shadows;
  return shadows.input.of(s).from(number * shadows.input_room.states());
}
template <class T> Shadow Chain<T>::shadow_of_gates(std::size_t s, int number) const {
  const Shadows& shadows = *product_mode.shadows;
  if (!Shadows::has_own_gates(layout->stages[s]))
    return shadows.delta.of(s - 1).from(0, number * layout->stages[s].parameter_cols);
  return shadows.delta.of(s).from(number * shadows.delta_room.places);
}

// The shadows that the gradient of a scan's parameters is made of; da is the dz of the dense stage below.
template <class T>
void Chain<T>::round_scan(Products<T>& products, const Workspace& space, std::size_t s,
                          index_t rows) const {
  const Stage& stage = layout->stages[s];
  if (!product_mode.shadows || !stage.trainable) return;
  const index_t all = space.rows_of(layout->stages[s - 1], rows);
  const BatchMatrix& da = space.plan.delta[s - 1];
  products.take_delta_early(s - 1, space.at<T>(da), da.row, all);
  if constexpr (sizeof(T) == sizeof(float))
    for (int number = 0; number < stage.way_count(); ++number) {
      const Way w = way(space, s, number, rows);
      const ScanStep<T>& step = w.walk.every;
      check(write_shadow(w.masked ? w.masked : step.h, w.masked ? step.masked_row : step.h_row,
                         w.masked ? all : all + rows, stage.units, shadow_of_states(s, number),
                         stream),
            kBackward);
      if (!Shadows::has_own_gates(stage)) continue;
      const index_t kept = w.cell.keeps * stage.units, shared = stage.parameter_cols - kept;
      const Shadow to = shadow_of_gates(s, number);
      check(write_shadow(step.a, step.a_row, all, shared, to, stream), kBackward);
      check(write_shadow(step.kept, stage.units, all, kept, to.from(0, shared), stream), kBackward);
    }
}

// (h, 1)^T dr over all steps of some sequences, one part; of a cell that keeps more, the last block of
// dr is not da's but in a shadow.
template <class T>
void Chain<T>::scan_gradient(const Products<T>& products, const Workspace& space, std::size_t s,
                             index_t rows, index_t first, index_t count, T* gradient) const {
  const Stage& stage = layout->stages[s];
  const index_t steps = space.plan.steps, cols = stage.parameter_cols;
  for (int number = 0; number < stage.way_count(); ++number) {
    const Way w = way(space, s, number, rows);
    const ScanStep<T>& step = w.walk.every;
    const index_t place = first * steps;
    const index_t state =
        w.masked ? place : first * (steps + 1) + w.walk.before(0) * count;  // their first rows
    GemmArgs<T> g;
    g.m = stage.units + (stage.bias ? 1 : 0), g.n = cols - w.cell.keeps * stage.units;
    g.k = count * steps;
    g.a = w.masked ? w.masked + state * step.masked_row : step.h + state * step.h_row;
    g.a_row = 1, g.a_col = w.masked ? step.masked_row : step.h_row;
    g.b = step.a + place * step.a_row, g.b_row = step.a_row, g.b_col = 1;
    g.c = gradient + w.parameters, g.c_row = cols;
    if (product_mode.shadows) {
      g.n = cols;
      products.store_beside(g, shadow_of_states(s, number).from(state),
                            shadow_of_gates(s, number).from(place), branches->next());
      continue;
    }
    products.store_beside(g, branches->next());
    if (!w.cell.keeps) continue;
    g.b = step.kept + place * stage.units, g.b_row = stage.units;
    g.c += g.n;
    g.n = stage.units;
    products.store_beside(g, branches->next());
  }
}

// Of each part of a batch of sequences, into its partial. A product of one part has too few tiles for
// the device, so those of several parts are made side by side.
template <class T>
void Chain<T>::sequence_gradient(const Products<T>& products, const Workspace& space, index_t rows,
                                 std::size_t s) const {
  const Stage& stage = layout->stages[s];
  const index_t chunk = layout->row_chunk(rows), places = space.rows_of(stage, 1);
  branches->begin(stream);
  for (index_t first = 0, part = 0; first < rows; first += chunk, ++part) {
    const index_t count = rows - first < chunk ? rows - first : chunk;
    const index_t place = place_of_part(part);
    if (place == 1 && part > 1) {
      branches->end();
      T* const sums = partials + stage.parameter_offset;
      check(add_parts(sums, kPartsAtOnce, layout->parameter_count, stage.parameter_count(), sums,
                      kNoOptimizer, {}, tables.steps, stream),
            kBackward);
      branches->begin(stream);
    }
    T* const gradient = partials + place * layout->parameter_count;
    if (stage.scan()) {
      scan_gradient(products, space, s, rows, first, count, gradient);
    } else if (stage.dense()) {
      GemmArgs<T> g = gradient_product(space, s, first * places, count * places);
      g.c = gradient + stage.parameter_offset;
      products.store_beside(s, g, first * places, branches->next());
    } else {
      GradientSink<T> to;
      to.gradient = gradient + stage.parameter_offset;
      own_gradient_of(space, s, first * places, count * places, k_chunk(count * places), 1, to);
    }
  }
  branches->end();
}

template class Chain<float>;
template class Chain<double>;

}  // namespace cuda
}  // namespace fastbp
