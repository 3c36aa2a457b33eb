// The scan stage: a recurrent cell that walks the steps of sequences, in one direction or in both.
//
// A recurrent layer is the dense stage a = x W + b, which makes all steps of a part at once, and behind
// it the scan: for each step one product r = h U and the cell (ops/recurrent.h). Backward, the cell
// turns what it has left in `a` into da, the dense stage's dz, and one product per step takes dr back to
// the step before; dU is one product over all steps. Both ways of a scan have their columns of `a`.
//
// Of h and c the plan has one row block more than there are steps: the states before the first. A step's
// output is the state behind it, so the block of step t is t + 1, or t where the steps run backwards.
// Where there is one way the blocks of h are the stage's output as they are; two ways are joined there.
#include <algorithm>
#include <cstring>

#include "core/random.h"
#include "engine/step.h"

namespace fastbp {
namespace {

// Bytes of a row of a panel of weights: the widest tile of any instruction set (blocking.h).
constexpr index_t kPanelBytes = 256;
// Weights that fit L1 are one panel.
constexpr index_t kOnePanelBytes = 32 * 1024;
// Before the first of so many steps copying weights pays.
constexpr index_t kStepsToPack = 6;

// Columns of a panel of weights (k, n). Rows of a wide matrix lie pages apart, where its lines share few
// sets of the caches and each takes a place in the TLB: a panel's are contiguous.
template <class T> index_t panel_cols(index_t k, index_t n) {
  const index_t size = index_t(sizeof(T));
  return k * n * size <= kOnePanelBytes ? n : std::min(n, kPanelBytes / size);
}

// Weights (k, n) by panels of `cols` columns, one behind the other: [panel][k][columns of the panel].
// `row` and `col` lie between the rows and the columns of `from`. By tiles whose lines stay in L1.
template <class T>
void pack_panels(const T* from, index_t row, index_t col, index_t k, index_t n, index_t cols,
                 T* to) {
  constexpr index_t tile = 16;
  for (index_t j0 = 0; j0 < n; j0 += cols) {
    const index_t width = std::min(cols, n - j0);
    T* panel = to + j0 * k;
    for (index_t p = 0; p < k && col == 1; ++p)
      std::memcpy(panel + p * width, from + p * row + j0, std::size_t(width) * sizeof(T));
    // Each line of `from` is read at once: those of a tile may share one set of the cache.
    for (index_t p0 = 0; p0 < k && col != 1; p0 += tile)
      for (index_t j = 0; j < width; ++j)
        for (index_t p = p0; p < std::min(k, p0 + tile); ++p)
          panel[p * width + j] = from[p * row + (j0 + j) * col];
  }
}

}  // namespace

// One way of a scan, over this worker's sequences.
template <class T> struct Step<T>::Scan {
  const Stage& stage;
  const CellInfo& cell;
  const ScanMatrices& memory;
  bool reverse;
  index_t rows, steps;  // sequences, and their steps
  Rows<T> h, a, c, kept, masked;
  index_t parameters;    // where its part of the stage's lies: U, and a row of biases
  std::uint32_t stream;  // of the dropout of its states
  index_t carried;       // where its states begin among those of a sequence
  bool drops;            // h on its way into the product

  index_t units() const { return stage.units; }
  index_t cols() const { return stage.parameter_cols; }
  index_t before(index_t t) const { return reverse ? t + 1 : t; }
  index_t after(index_t t) const { return reverse ? t : t + 1; }
  // Step number i, in the order in which they are taken.
  index_t step(index_t i) const { return reverse ? steps - 1 - i : i; }
  index_t last() const { return step(steps - 1); }
  T* of_step(const Rows<T>& m, index_t t) const { return m.data + t * rows * m.row; }
  // What the cell reads and writes at step t, forward and backward.
  void go_to(index_t t, CellArgs<T>& args) const {
    args.step = t;
    args.a = of_step(a, t);
    args.kept = of_step(kept, t);
    args.h = of_step(h, before(t)), args.h_next = of_step(h, after(t));
    args.c = of_step(c, before(t)), args.c_next = of_step(c, after(t));
  }
  // The block of h with the first step's output, or with the last one's where that is all.
  T* output() const { return of_step(h, after(stage.sequence ? 0 : last())); }
};

template <class T> typename Step<T>::Scan Step<T>::scan(std::size_t s, int w) const {
  const Stage& stage = c_.layout->stages[s];
  const ScanWay& way = plan().scan[s].way[w];
  const CellInfo& cell = cell_info(stage.cell);
  const index_t size = (stage.units + stage.bias) * stage.parameter_cols;
  Rows<T> a = rows_of(plan().y[s - 1]).from(own_.at);
  a.data += w * stage.parameter_cols;
  return {stage,
          cell,
          plan().scan[s],
          stage.reverse != (w == 1),
          own_.rows,
          plan().steps,
          rows_of(way.h).from(own_.at),
          a,
          rows_of(way.c).from(own_.at),
          rows_of(way.kept).from(own_.at),
          rows_of(way.masked).from(own_.at),
          stage.parameter_offset + w * size,
          stage.stream + std::uint32_t(w),
          stage.carried_offset + w * cell.states * stage.units,
          training_ && stage.state_rate > 0};
}

// What the stage gives to the next one: the outputs of all steps, or of the last.
template <class T> typename Step<T>::template Rows<T> Step<T>::scan_output(std::size_t s) const {
  const Stage& stage = c_.layout->stages[s];
  if (stage.way_count() == 2) return rows_of(plan().y[s]);
  const Scan scan = this->scan(s, 0);
  const index_t places = stage.sequence ? scan.steps : 1;
  return {scan.output() - own_.at * places * scan.h.row, scan.h.row, places};
}

template <class T> void Step<T>::forward_scan(std::size_t s) {
  for (int w = 0; w < c_.layout->stages[s].way_count(); ++w) forward_way(scan(s, w));
  if (c_.layout->stages[s].way_count() == 2) join_ways(s);
}

// The states before the first step.
template <class T> void Step<T>::begin_states(const Scan& scan) {
  const std::size_t bytes = std::size_t(scan.units()) * sizeof(T);
  const index_t start = scan.before(scan.step(0)), width = c_.layout->carried_width;
  for (index_t i = 0; i < scan.rows; ++i) {
    const T* from =
        states_before_ ? states_before_ + (own_.first + i) * width + scan.carried : nullptr;
    T* h = scan.of_step(scan.h, start) + i * scan.h.row;
    T* c = scan.of_step(scan.c, start) + i * scan.c.row;
    from ? std::memcpy(h, from, bytes) : std::memset(h, 0, bytes);
    if (scan.cell.states < 2) continue;
    from ? std::memcpy(c, from + scan.units(), bytes) : std::memset(c, 0, bytes);
  }
}

// The states behind the last step, to where the caller wants them.
template <class T> void Step<T>::keep_states(const Scan& scan) {
  if (!states_behind_ || aborted()) return;
  const std::size_t bytes = std::size_t(scan.units()) * sizeof(T);
  const index_t end = scan.after(scan.last());
  for (index_t i = 0; i < scan.rows; ++i) {
    T* to = states_behind_ + (own_.first + i) * c_.layout->carried_width + scan.carried;
    std::memcpy(to, scan.of_step(scan.h, end) + i * scan.h.row, bytes);
    if (scan.cell.states > 1)
      std::memcpy(to + scan.units(), scan.of_step(scan.c, end) + i * scan.c.row, bytes);
  }
}

// What is the same at every step.
template <class T> CellArgs<T> Step<T>::cell_args(const Scan& scan) const {
  CellArgs<T> args;
  args.rows = scan.rows, args.units = scan.units();
  args.a_row = scan.a.row, args.h_row = scan.h.row;
  args.lengths = lengths();
  return args;
}

// c = bias + a B over this worker's sequences, of one step; B (k, n) lies by panels of `cols` columns.
template <class T> void Step<T>::step_product(GemmArgs<T> g, const T* panels, index_t cols) {
  const index_t n = g.n;
  for (index_t j = 0; j < n; j += cols) {
    g.n = g.b_row = std::min(cols, n - j);
    g.b = panels + j * g.k, g.b_col = 1;
    run_gemm(g, Share{});
    g.c += cols;
    if (g.bias) g.bias += cols;
  }
}

template <class T> void Step<T>::forward_way(const Scan& scan) {
  const index_t units = scan.units(), cols = scan.cols();
  const T* weights = c_.parameters.w + scan.parameters;
  const T* bias = scan.stage.bias ? weights + units * cols : nullptr;
  index_t panel = panel_cols<T>(units, cols);
  if (panel < cols && scan.steps >= kStepsToPack) {
    T* panels = worker_values(scan.stage);
    pack_panels(weights, cols, 1, units, cols, panel, panels);
    weights = panels;
  } else {
    panel = cols;
  }
  begin_states(scan);
  CellArgs<T> args = cell_args(scan);
  T* r = at(scan.memory.product, own_);
  args.r = r;
  for (index_t i = 0; i < scan.steps && !stopping(); ++i) {
    const index_t t = scan.step(i);
    scan.go_to(t, args);
    Rows<const T> into{args.h, scan.h.row};
    if (scan.drops) {
      const Rows<T> masked{scan.of_step(scan.masked, t), scan.masked.row};
      state_dropout(scan, into, masked);
      into = masked;
    }
    GemmArgs<T> g;
    g.m = scan.rows, g.n = cols, g.k = units;
    g.a = into.data, g.a_row = into.row, g.a_col = 1;
    g.bias = bias;
    g.c = r, g.c_row = cols;
    step_product(g, weights, panel);
    c_.kernels->cell_forward[scan.stage.cell](args);
  }
  keep_states(scan);
}

// The outputs of both ways, side by side or added up, to the stage's own.
template <class T> void Step<T>::join_ways(std::size_t s) {
  const Stage& stage = c_.layout->stages[s];
  const index_t rows = own_rows(stage.sequence);
  const Rows<T> y = rows_of(plan().y[s]).from(own_.at);
  const Scan one = scan(s, 0), other = scan(s, 1);
  ActivationTile<T> tile;
  tile.out = y.data, tile.out_row = y.row;
  if (stage.ways == ScanWays::both_added) {
    tile.saved = other.output(), tile.saved_row = other.h.row;
    run_tile(c_.kernels->add_saved, tile, rows, one.output(), one.h.row, stage.units);
    return;
  }
  const TileOp<T> copy = c_.kernels->activation_forward[0];
  run_tile(copy, tile, rows, one.output(), one.h.row, stage.units);
  tile.out += stage.units;
  run_tile(copy, tile, rows, other.output(), other.h.row, stage.units);
}

// masked = h m: the same m at every step of a sequence. In place allowed.
template <class T> void Step<T>::state_dropout(const Scan& scan, Rows<const T> h, Rows<T> masked) {
  DropoutArgs<T> args;
  args.rows = scan.rows, args.cols = scan.units();
  args.first_row = own_.first;
  args.x = h.data, args.x_row = h.row;
  args.y = masked.data, args.y_row = masked.row;
  args.rate = scan.stage.state_rate;
  args.seed = c_.seed;
  args.stream = dropout_stream(std::uint64_t(number_), scan.stream,
                               static_cast<std::uint32_t>(Purpose::dropout));
  c_.kernels->dropout(args);
}

// da of all steps, where `a` was.
template <class T> void Step<T>::input_delta_scan(std::size_t s) {
  const Stage& stage = c_.layout->stages[s];
  const Rows<T> dy = rows_of(plan().delta[s]).from(own_.at);
  for (int w = 0; w < stage.way_count(); ++w) {
    Rows<T> of_way = dy;
    if (stage.ways == ScanWays::both_side_by_side) of_way.data += w * stage.units;
    input_delta_way(scan(s, w), of_way);
  }
}

// Nothing flows on to the step before, but for sequences that have not begun on their way back.
template <class T> void Step<T>::cut_gradient(const CellArgs<T>& args, bool has_c) {
  const std::size_t bytes = std::size_t(args.units) * sizeof(T);
  for (index_t i = 0; i < args.rows; ++i) {
    if (args.lengths && args.step >= args.lengths[i]) continue;
    std::memset(args.dh + i * args.units, 0, bytes);
    if (has_c) std::memset(args.dc + i * args.units, 0, bytes);
  }
}

template <class T> void Step<T>::input_delta_way(const Scan& scan, Rows<const T> dy) {
  const index_t units = scan.units(), cols = scan.cols();
  const std::size_t bytes = std::size_t(scan.rows * units) * sizeof(T);
  const ScanMatrices& memory = scan.memory;
  CellArgs<T> args = cell_args(scan);
  args.dy_row = dy.row;
  args.dh = at(memory.dh, own_);
  args.dc = at(memory.dc, own_);
  args.dr = at(memory.product, own_);
  T* through = at(scan.cell.keeps ? memory.through : memory.product, own_);
  // Every step's product reads the weights by columns: once transposed, they need no packing.
  T* transposed = worker_values(scan.stage);
  const index_t panel = panel_cols<T>(cols, units);
  if (scan.steps > 1)
    pack_panels(c_.parameters.w + scan.parameters, 1, cols, cols, units, panel, transposed);
  const bool has_c = scan.cell.states > 1;
  std::memset(args.dh, 0, bytes);
  if (has_c) std::memset(args.dc, 0, bytes);
  for (index_t i = scan.steps; i-- > 0 && !stopping();) {
    const index_t t = scan.step(i);
    scan.go_to(t, args);
    const bool last = i == scan.steps - 1;
    args.dy = scan.stage.sequence ? dy.data + t * scan.rows * dy.row : last ? dy.data : nullptr;
    c_.kernels->cell_backward[scan.stage.cell](args);
    args.through = nullptr;
    if (i == 0) break;
    if (scan.stage.truncate > 0 && i % scan.stage.truncate == 0) {
      cut_gradient(args, has_c);
      continue;
    }
    GemmArgs<T> g;
    g.m = scan.rows, g.n = units, g.k = cols;
    g.a = scan.cell.keeps ? args.dr : args.a, g.a_row = scan.cell.keeps ? cols : scan.a.row;
    g.a_col = 1;
    g.c = through, g.c_row = units;
    step_product(g, transposed, panel);
    if (scan.drops) state_dropout(scan, {through, units}, {through, units});
    args.through = through;
  }
}

// (h, 1)^T dr over all steps; of a cell that keeps more, the last block of dr is not da's.
template <class T> void Step<T>::scan_gradient(std::size_t s, T* gradient) {
  for (int w = 0; w < c_.layout->stages[s].way_count(); ++w) {
    const Scan scan = this->scan(s, w);
    const index_t units = scan.units(), cols = scan.cols();
    const Rows<T>& h = scan.drops ? scan.masked : scan.h;
    GemmArgs<T> g;
    g.m = units + (scan.stage.bias ? 1 : 0), g.n = cols - scan.cell.keeps * units;
    g.k = scan.rows * scan.steps;
    g.a = scan.of_step(h, scan.drops ? 0 : scan.before(0)), g.a_row = 1, g.a_col = h.row;
    g.b = scan.a.data, g.b_row = scan.a.row, g.b_col = 1;
    g.c = gradient + scan.parameters, g.c_row = cols;
    run_gemm(g, Share{});
    if (!scan.cell.keeps) continue;
    g.b = scan.kept.data, g.b_row = units;
    g.c += g.n;
    g.n = units;
    run_gemm(g, Share{});
  }
}

template class Step<float>;
template class Step<double>;

}  // namespace fastbp
