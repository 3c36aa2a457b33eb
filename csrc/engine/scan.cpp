// Sequences: how they lie in the plan, and the scan stage, a recurrent cell that walks their steps.
//
// A recurrent layer is the dense stage a = x W + b, which makes all steps of a part at once, and behind
// it the scan: for each step one product r = h U and the cell (ops/recurrent.h). Backward, the cell
// turns what it has left in `a` into da, the dense stage's dz, and one product per step takes dr back to
// the step before; dU is one product over all steps.
//
// Of h and c the plan has one row block more than there are steps: the states before the first. A step's
// output is the state behind it, so the block of step t is t + 1, or t where the steps run backwards.
#include <algorithm>
#include <cstring>

#include "engine/step.h"

namespace fastbp {

// The scan of this worker's sequences.
template <class T> struct Step<T>::Scan {
  const Stage& stage;
  const CellInfo& cell;
  const ScanMatrices& memory;
  index_t rows, steps;  // sequences, and their steps
  Rows<T> h, a;

  index_t before(index_t t) const { return stage.reverse ? t + 1 : t; }
  index_t after(index_t t) const { return stage.reverse ? t : t + 1; }
  // Step number i, in the order in which they are taken.
  index_t step(index_t i) const { return stage.reverse ? steps - 1 - i : i; }
  T* of_step(const Rows<T>& m, index_t t) const { return m.data + t * rows * m.row; }
};

template <class T> typename Step<T>::Scan Step<T>::scan(std::size_t s) const {
  const Stage& stage = c_.layout->stages[s];
  return {stage,
          cell_info(stage.cell),
          plan().scan[s],
          own_.rows,
          plan().steps,
          rows_of(plan().y[s]).from(own_.at),
          rows_of(plan().y[s - 1]).from(own_.at)};
}

// What the stage gives to the next one: the outputs of all steps, or of the last.
template <class T> typename Step<T>::template Rows<T> Step<T>::scan_output(std::size_t s) const {
  const Scan scan = this->scan(s);
  const index_t places = scan.stage.sequence ? scan.steps : 1;
  const index_t first =
      scan.stage.sequence ? (scan.stage.reverse ? 0 : 1) : scan.after(scan.step(scan.steps - 1));
  return {scan.of_step(scan.h, first) - own_.at * places * scan.h.row, scan.h.row, places};
}

template <class T> void Step<T>::forward_scan(std::size_t s) {
  const Scan scan = this->scan(s);
  const index_t units = scan.stage.outputs, cols = scan.stage.parameter_cols;
  const T* weights = c_.parameters.w + scan.stage.parameter_offset;
  const Rows<T> c = rows_of(scan.memory.c).from(own_.at);
  const Rows<T> kept = rows_of(scan.memory.kept).from(own_.at);
  const Rows<T> r = rows_of(scan.memory.product).from(own_.at);
  const index_t start = scan.before(scan.step(0));
  for (index_t i = 0; i < scan.rows; ++i)
    std::memset(scan.of_step(scan.h, start) + i * scan.h.row, 0, std::size_t(units) * sizeof(T));
  if (c.row > 0) std::memset(scan.of_step(c, start), 0, std::size_t(scan.rows * units) * sizeof(T));
  CellArgs<T> args;
  args.rows = scan.rows, args.units = units;
  args.a_row = scan.a.row, args.h_row = scan.h.row;
  args.r = r.data;
  args.lengths = lengths();
  for (index_t i = 0; i < scan.steps && !stopping(); ++i) {
    const index_t t = scan.step(i);
    GemmArgs<T> g;
    g.m = scan.rows, g.n = cols, g.k = units;
    g.a = scan.of_step(scan.h, scan.before(t)), g.a_row = scan.h.row, g.a_col = 1;
    g.b = weights, g.b_row = cols, g.b_col = 1;
    g.bias = scan.stage.bias ? weights + units * cols : nullptr;
    g.c = r.data, g.c_row = cols;
    run_gemm(g, Share{});
    args.step = t;
    args.a = scan.of_step(scan.a, t);
    args.kept = scan.of_step(kept, t);
    args.h = g.a;
    args.h_next = scan.of_step(scan.h, scan.after(t));
    args.c = scan.of_step(c, scan.before(t));
    args.c_next = scan.of_step(c, scan.after(t));
    c_.kernels->cell_forward[scan.stage.cell](args);
  }
}

// da of all steps, where `a` was.
template <class T> void Step<T>::input_delta_scan(std::size_t s) {
  const Scan scan = this->scan(s);
  const index_t units = scan.stage.outputs, cols = scan.stage.parameter_cols;
  const Rows<T> c = rows_of(scan.memory.c).from(own_.at);
  const Rows<T> kept = rows_of(scan.memory.kept).from(own_.at);
  const Rows<T> dy = rows_of(plan().delta[s]).from(own_.at);
  CellArgs<T> args;
  args.rows = scan.rows, args.units = units;
  args.a_row = scan.a.row, args.h_row = scan.h.row, args.dy_row = dy.row;
  args.lengths = lengths();
  args.dh = at(scan.memory.dh, own_);
  args.dc = at(scan.memory.dc, own_);
  args.dr = at(scan.memory.product, own_);
  std::memset(args.dh, 0, std::size_t(scan.rows * units) * sizeof(T));
  std::memset(args.dc, 0, std::size_t(scan.rows * units) * sizeof(T));
  T* through = at(scan.memory.through, own_);
  for (index_t i = scan.steps; i-- > 0 && !stopping();) {
    const index_t t = scan.step(i);
    args.step = t;
    args.a = scan.of_step(scan.a, t);
    args.kept = scan.of_step(kept, t);
    args.h = scan.of_step(scan.h, scan.before(t));
    args.c = scan.of_step(c, scan.before(t));
    args.c_next = scan.of_step(c, scan.after(t));
    const bool last = i == scan.steps - 1;
    args.dy = scan.stage.sequence ? scan.of_step(dy, t) : last ? dy.data : nullptr;
    args.through = last ? nullptr : through;
    c_.kernels->cell_backward[scan.stage.cell](args);
    if (i == 0) break;
    GemmArgs<T> g;
    g.m = scan.rows, g.n = units, g.k = cols;
    g.a = scan.cell.keeps ? args.dr : args.a, g.a_row = scan.cell.keeps ? cols : scan.a.row;
    g.a_col = 1;
    g.b = c_.parameters.w + scan.stage.parameter_offset, g.b_row = 1, g.b_col = cols;
    g.c = through, g.c_row = units;
    run_gemm(g, Share{});
  }
}

// (h, 1)^T dr over all steps; of a cell that keeps more, the last block of dr is not da's.
template <class T> void Step<T>::scan_gradient(std::size_t s, T* gradient) {
  const Scan scan = this->scan(s);
  const index_t units = scan.stage.outputs, cols = scan.stage.parameter_cols;
  GemmArgs<T> g;
  g.m = units + (scan.stage.bias ? 1 : 0), g.n = cols - scan.cell.keeps * units;
  g.k = scan.rows * scan.steps;
  g.a = scan.of_step(scan.h, scan.before(0)), g.a_row = 1, g.a_col = scan.h.row;
  g.b = scan.a.data, g.b_row = scan.a.row, g.b_col = 1;
  g.c = gradient + scan.stage.parameter_offset, g.c_row = cols;
  run_gemm(g, Share{});
  if (!scan.cell.keeps) return;
  g.b = at(scan.memory.kept, own_), g.b_row = units;
  g.c += g.n;
  g.n = units;
  run_gemm(g, Share{});
}

template <class T> const std::int64_t* Step<T>::lengths() const {
  if (!has_lengths_) return nullptr;
  return c_.arena->template at<std::int64_t>(plan().lengths_offset) + own_.at;
}

// Copies this worker's sequences into the plan. What lies behind the end of one counts as 0.
template <class T>
void Step<T>::gather_sequences(const Samples<T>& from, const std::int64_t* order) {
  const index_t inputs = c_.layout->inputs, outputs = c_.layout->outputs, steps = plan().steps;
  const index_t places = output_places();
  const Rows<T> x = rows_of(plan().x).from(own_.at);
  T* target = at(plan().target, own_);
  std::int64_t* labels =
      c_.arena->template at<std::int64_t>(plan().labels_offset) + own_.at * places;
  const index_t copies = weight_copies();
  T* weight = at(plan().weight) + own_.at * places * copies;
  std::int64_t* lengths = c_.arena->template at<std::int64_t>(plan().lengths_offset) + own_.at;
  has_lengths_ = from.lengths != nullptr;
  for (index_t i = 0; i < own_.rows; ++i) {
    const index_t row = order ? index_t(order[own_.first + i]) : own_.first + i;
    const index_t length = from.lengths ? index_t(from.lengths[row]) : steps;
    if (from.lengths) lengths[i] = length;
    for (index_t t = 0; t < steps; ++t) {
      T* values = x.data + (t * own_.rows + i) * x.row;
      if (t < length)
        std::memcpy(values, from.x + (row * steps + t) * inputs, std::size_t(inputs) * sizeof(T));
      else
        std::memset(values, 0, std::size_t(inputs) * sizeof(T));
    }
    for (index_t t = 0; t < places; ++t) {
      const index_t to = t * own_.rows + i, source = row * places + t;
      if (from.target)
        std::memcpy(target + to * outputs, from.target + source * outputs,
                    std::size_t(outputs) * sizeof(T));
      if (from.labels) labels[to] = from.labels[source];
      if (from.weight) std::fill_n(weight + to * copies, copies, from.weight[row]);
    }
  }
  done(false);
}

// This worker's rows of a matrix, one step after the other, to sequences of `width` values a step.
template <class T> void Step<T>::by_steps(index_t width, const Rows<T>& rows, T* sequences) const {
  for (index_t i = 0; i < own_.rows; ++i)
    for (index_t t = 0; t < rows.places; ++t)
      std::memcpy(sequences + (i * rows.places + t) * width,
                  rows.data + (t * own_.rows + i) * rows.row, std::size_t(width) * sizeof(T));
}

template class Step<float>;
template class Step<double>;

}  // namespace fastbp
