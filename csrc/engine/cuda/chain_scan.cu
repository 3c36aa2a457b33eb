// Sequences on a device: where they lie, and the walk of a recurrent cell over their steps. The twin of
// engine/scan.cpp and sequences.cpp.
//
// Matrices have the CPU's parts (engine/plan.h), so sums over rows are its own; but all parts of a batch
// are in memory side by side, and a launch serves them all. A step of the scan is one kernel, which the
// step before it in the stream feeds; the gradient of a part's parameters is a sum of its own.
#include "engine/cuda/chain.h"

#include "core/random.h"
#include "kernels/kernel_table.h"

namespace fastbp {
namespace cuda {
namespace {

constexpr const char* kForward = "forward pass";
constexpr const char* kBackward = "backward pass";

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
    if (stage.way_count() == 2) continue;
    BatchMatrix& y = plan.y[s];
    y.places = stage.sequence ? plan.steps : 1;
    y.ones =
        s + 1 < layout.stages.size() && layout.stages[s + 1].dense() && layout.stages[s + 1].bias;
    y.offset = add(plan.capacity * y.places, y.row);
    plan.z[s] = y;
  }
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
  return g;
}

// One way of a scan over a batch of sequences.
template <class T> struct Chain<T>::Way {
  const Stage& stage;
  const CellInfo& cell;
  bool reverse;
  int number;
  SequenceRows at;
  ScanStep<T> step;  // what all steps share
  std::size_t parameters;
  T* gate_deltas;
  T* masked;
  index_t carried;  // where its states begin among those of a sequence

  // Step number i, in the order in which they are taken.
  index_t step_of(index_t i) const { return reverse ? at.steps - 1 - i : i; }
  index_t before(index_t t) const { return reverse ? t + 1 : t; }
  index_t after(index_t t) const { return reverse ? t : t + 1; }
};

template <class T>
typename Chain<T>::Way Chain<T>::way(const Workspace& space, std::size_t s, int number,
                                     index_t rows) const {
  const Stage& stage = layout->stages[s];
  const ScanMatrices& memory = space.plan.scan[s];
  const ScanWay& of_way = memory.way[number];
  const BatchMatrix& a = space.plan.y[s - 1];
  Way w{stage,
        cell_info(stage.cell),
        stage.reverse != (number == 1),
        number,
        sequences(rows, space.plan.steps),
        {},
        0,
        space.at<T>(space.gate_deltas[s]),
        of_way.masked.row > 0 ? space.at<T>(of_way.masked) : nullptr,
        stage.carried_offset + number * cell_info(stage.cell).states * stage.units};
  const index_t block = (stage.units + stage.bias) * stage.parameter_cols;
  w.parameters = std::size_t(stage.parameter_offset + number * block);
  const T* const weights = arrays.parameters.w + w.parameters;
  w.step.at = w.at;
  w.step.units = stage.units;
  w.step.a = space.at<T>(a) + number * stage.parameter_cols;
  w.step.a_row = a.row;
  w.step.kept = space.at<T>(of_way.kept);
  w.step.h = space.at<T>(of_way.h);
  w.step.h_row = of_way.h.row;
  w.step.c = space.at<T>(of_way.c);
  w.step.weights = weights;
  w.step.bias = stage.bias ? weights + stage.units * stage.parameter_cols : nullptr;
  w.step.state_rate = stage.state_rate;
  w.step.seed = seed;
  w.step.stream = dropout_stream(0, stage.stream + std::uint32_t(number),
                                 static_cast<std::uint32_t>(Purpose::dropout));
  w.step.counter = tables.counter;
  w.step.masked_row = of_way.masked.row;
  w.step.dh = space.at<T>(memory.dh);
  w.step.dc = space.at<T>(memory.dc);
  return w;
}

// Step number i of the way.
template <class T> ScanStep<T> Chain<T>::scan_step(const Way& w, index_t i) const {
  ScanStep<T> step = w.step;
  const index_t t = w.step_of(i);
  step.step = t;
  step.before = w.before(t);
  step.after = w.after(t);
  step.out_at = {w.at.rows, w.at.chunk, w.stage.sequence ? w.at.steps : 1};
  step.out_step = w.stage.sequence ? t : 0;
  return step;
}

template <class T>
void Chain<T>::forward_scan(const Workspace& space, std::size_t s, index_t rows,
                            const Pass<T>& pass) const {
  const Stage& stage = layout->stages[s];
  const BatchMatrix& y = space.plan.y[s];
  const index_t steps = space.plan.steps;
  for (int number = 0; number < stage.way_count(); ++number) {
    const Way w = way(space, s, number, rows);
    carry_states(w, w.before(w.step_of(0)), pass.states, true);
    for (index_t i = 0; i < steps; ++i) {
      ScanStep<T> step = scan_step(w, i);
      step.lengths = pass.lengths;
      if (pass.training) step.masked = w.masked;
      if (stage.sequence || i == steps - 1) {
        const bool beside = stage.ways == ScanWays::both_side_by_side;
        step.out = space.at<T>(y) + (beside ? number * stage.units : 0);
        step.out_row = y.row;
        step.adds = stage.ways == ScanWays::both_added && number == 1;
      }
      check(scan_forward(stage.cell, step, stream), kForward);
    }
    if (pass.states) carry_states(w, w.after(w.step_of(steps - 1)), pass.states, false);
  }
}

// Between the states of the sequences, null: 0, and a block of the way's: those before the first step,
// or behind the last.
template <class T>
void Chain<T>::carry_states(const Way& w, index_t block, T* states, bool begin) const {
  const index_t units = w.stage.units, width = layout->carried_width;
  T* const of_way = states ? states + w.carried : nullptr;
  const auto carry = [&](T* x, index_t x_row, T* there) {
    check(begin ? begin_states(x, x_row, w.at, block, units, there, width, stream)
                : keep_states(x, x_row, w.at, block, units, there, width, stream),
          kForward);
  };
  carry(w.step.h, w.step.h_row, of_way);
  if (w.cell.states > 1) carry(w.step.c, units, of_way ? of_way + units : nullptr);
}

// da of all steps, where `a` was.
template <class T>
void Chain<T>::input_delta_scan(const Workspace& space, std::size_t s, index_t rows,
                                const std::int64_t* lengths) const {
  const Stage& stage = layout->stages[s];
  const BatchMatrix& dy = space.plan.delta[s];
  const index_t steps = space.plan.steps, deltas = space.plan.capacity * stage.parameter_cols;
  for (int number = 0; number < stage.way_count(); ++number) {
    const Way w = way(space, s, number, rows);
    const bool beside = stage.ways == ScanWays::both_side_by_side;
    for (index_t i = steps; i-- > 0;) {
      ScanStep<T> step = scan_step(w, i);
      step.lengths = lengths;
      step.begins = i == steps - 1;
      step.behind = step.begins ? 0 : w.step_of(i + 1);
      step.cuts = !step.begins && stage.truncate > 0 && (i + 1) % stage.truncate == 0;
      step.dr = w.gate_deltas + (i & 1) * deltas;
      step.dr_behind = w.gate_deltas + (~i & 1) * deltas;
      if (stage.sequence || step.begins)
        step.dy = space.at<T>(dy) + (beside ? number * stage.units : 0);
      step.out_row = dy.row;
      check(scan_backward(stage.cell, step, stream), kBackward);
    }
  }
}

// (h, 1)^T dr over all steps of some sequences, one part; of a cell that keeps more, the last block of
// dr is not da's.
template <class T>
void Chain<T>::scan_gradient(const Products<T>& products, const Workspace& space, std::size_t s,
                             index_t rows, index_t first, index_t count, T* gradient) const {
  const Stage& stage = layout->stages[s];
  const index_t steps = space.plan.steps, cols = stage.parameter_cols;
  for (int number = 0; number < stage.way_count(); ++number) {
    const Way w = way(space, s, number, rows);
    GemmArgs<T> g;
    g.m = stage.units + (stage.bias ? 1 : 0), g.n = cols - w.cell.keeps * stage.units;
    g.k = count * steps;
    g.a = w.masked ? w.masked + first * steps * w.step.masked_row
                   : w.step.h + (first * (steps + 1) + w.before(0) * count) * w.step.h_row;
    g.a_row = 1, g.a_col = w.masked ? w.step.masked_row : w.step.h_row;
    g.b = w.step.a + first * steps * w.step.a_row, g.b_row = w.step.a_row, g.b_col = 1;
    g.c = gradient + w.parameters, g.c_row = cols;
    products.store(s, g, 1, 0);
    if (!w.cell.keeps) continue;
    g.b = w.step.kept + first * steps * stage.units, g.b_row = stage.units;
    g.c += g.n;
    g.n = stage.units;
    products.store(s, g, 1, 0);
  }
}

// Of each part of a batch of sequences, into its partial.
template <class T>
void Chain<T>::sequence_gradient(const Products<T>& products, const Workspace& space, index_t rows,
                                 std::size_t s) const {
  const Stage& stage = layout->stages[s];
  const index_t chunk = layout->row_chunk(rows), places = space.rows_of(stage, 1);
  for (index_t first = 0, part = 0; first < rows; first += chunk, ++part) {
    const index_t count = rows - first < chunk ? rows - first : chunk;
    T* const gradient = partials + part * layout->parameter_count;
    if (stage.scan()) {
      scan_gradient(products, space, s, rows, first, count, gradient);
    } else if (stage.dense()) {
      GemmArgs<T> g = gradient_product(space, s, first * places, count * places);
      g.c = gradient + stage.parameter_offset;
      products.store(s, g, 1, 0);
    } else {
      GradientSink<T> to;
      to.gradient = gradient + stage.parameter_offset;
      own_gradient_of(space, s, first * places, count * places, k_chunk(count * places), 1, to);
    }
  }
}

template class Chain<float>;
template class Chain<double>;

}  // namespace cuda
}  // namespace fastbp
