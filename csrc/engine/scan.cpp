// The scan stage: a recurrent cell that walks the steps of sequences, in one direction or in both.
//
// A recurrent layer is the dense stage a = x W + b, which makes all steps of a part at once, and behind
// it the scan: for each step one product r = h U and the cell (ops/recurrent.h). Backward, the cell
// turns what it has left in `a` into da, the dense stage's dz, and one product per step takes dr back to
// the step before; dU is one product over all steps. Both ways of a scan have their columns of `a`.
//
// Of h and c the plan has a row block for each step: the states behind it, which are its output. Where
// there is one way the blocks of h are the stage's output as they are; two ways are joined there. The
// states before the first step are read where the caller has them. Memory is used again as soon as its
// values are dead: on the way back dc lies in the block of c whose step is done, dh in the block of the
// last h, which is an output alone. The product for dU reads the h before each step: these are brought
// side by side in the end.
#include <algorithm>
#include <cstring>

#include "core/random.h"
#include "engine/step.h"

namespace fastbp {
namespace {

// Weights that fit L1 are not laid out by panels.
constexpr index_t kNoPanelBytes = 32 * 1024;
// Before the first of so many steps copying weights pays.
constexpr index_t kStepsToPack = 6;

// Weights (k, n) are laid out by panels where they are large. Rows of a wide matrix lie pages apart, where
// its lines share few sets of the caches and each takes a place in the TLB: a panel's are contiguous.
template <class T> bool by_panels(index_t k, index_t n) {
  return k * n * index_t(sizeof(T)) > kNoPanelBytes;
}

// Weights (k, n) by panels of `cols` columns, as GemmArgs says. `row` and `col` lie between the rows and the
// columns of `from`, one of them is 1. Each of those who share this packs whole panels.
template <class T>
void pack_panels(const T* from, index_t row, index_t col, index_t k, index_t n, index_t cols, T* to,
                 Share share) {
  // By columns in lines of so many values, each read at once: those of a tile may share one set of the
  // cache. The loop over a whole one is unrolled, which saves a third of the time.
  constexpr index_t line = 16;
  const Range mine = split(n, cols, share);
  for (index_t j0 = mine.begin; j0 < mine.end; j0 += cols) {
    const index_t width = std::min(cols, n - j0);
    T* panel = to + j0 * k;
    for (index_t p = 0; p < k && col == 1; ++p)
      std::memcpy(panel + p * width, from + p * row + j0, std::size_t(width) * sizeof(T));
    for (index_t p0 = 0; p0 < k && col != 1; p0 += line)
      for (index_t j = 0; j < width; ++j) {
        const T* values = from + p0 + (j0 + j) * col;
        T* column = panel + p0 * width + j;
        if (k - p0 < line) {
          for (index_t p = 0; p < k - p0; ++p) column[p * width] = values[p];
          continue;
        }
#pragma GCC unroll 16
        for (index_t p = 0; p < line; ++p) column[p * width] = values[p];
      }
  }
}

}  // namespace

// One way of a scan, over the sequences of the part in work or some of them.
template <class T> struct Step<T>::Scan {
  const Stage& stage;
  const CellInfo& cell;
  const ScanMatrices& memory;
  bool reverse;
  index_t first, rows;  // of the part's sequences
  index_t all, steps;   // the part's, and their steps
  Rows<T> h, a, c, kept, masked;
  index_t parameters;    // where its part of the stage's lies: U, and a row of biases
  std::uint32_t stream;  // of the dropout of its states
  index_t carried;       // where its states begin among those of a sequence
  bool drops;            // h on its way into the product

  index_t units() const { return stage.units; }
  index_t cols() const { return stage.parameter_cols; }
  // Step number i, in the order in which they are taken.
  index_t step(index_t i) const { return reverse ? steps - 1 - i : i; }
  index_t last() const { return step(steps - 1); }
  // The block of h behind step t. Where the last one alone is put out, h before each step t is in block t
  // then, and the last in the place of the one before the first.
  index_t block(index_t t) const {
    if (stage.sequence) return t;
    return (reverse ? t + steps - 1 : t + 1) % steps;
  }
  T* of_step(const Rows<T>& m, index_t t) const { return m.data + t * all * m.row; }
  // `count` of them, from number `from` on.
  Scan piece(index_t from, index_t count) const {
    Scan some = *this;
    some.first = from, some.rows = count;
    for (Rows<T>* m : {&some.h, &some.a, &some.c, &some.kept, &some.masked})
      m->data += from * m->row;
    return some;
  }
  // What the cell reads and writes at step t, forward and backward.
  void go_to(index_t t, CellArgs<T>& args) const {
    args.step = t;
    args.a = of_step(a, t);
    args.kept = of_step(kept, t);
    args.h_next = of_step(h, block(t));
    args.c_next = of_step(c, t);
  }
  // The block of h with the first step's output, or with the last one's where that is all.
  T* output() const { return of_step(h, block(stage.sequence ? 0 : last())); }
};

template <class T> typename Step<T>::Scan Step<T>::scan(std::size_t s, int w) const {
  const Stage& stage = c_.layout->stages[s];
  const ScanWay& way = plan().scan[s].way[w];
  const CellInfo& cell = cell_info(stage.cell);
  const index_t size = (stage.units + stage.bias) * stage.parameter_cols;
  Rows<T> a = rows_of(plan().y[s - 1]).from(all_.at);
  a.data += w * stage.parameter_cols;
  return {stage,
          cell,
          plan().scan[s],
          stage.reverse != (w == 1),
          0,
          all_.rows,
          all_.rows,
          plan().steps,
          rows_of(way.h).from(all_.at),
          a,
          rows_of(way.c).from(all_.at),
          rows_of(way.kept).from(all_.at),
          rows_of(way.masked).from(all_.at),
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
  return {scan.output() - all_.at * places * scan.h.row, scan.h.row, places};
}

// Where a worker keeps values of the stage, or the first one for all who share the part.
template <class T> T* Step<T>::part_values(const Stage& stage) const {
  const index_t keeper = all_.share.count > 1 ? 0 : share_.id;
  return c_.worker_values + keeper * c_.layout->worker_count + stage.worker_offset;
}

// The product between the cells of two steps, of all who share the part.
template <class T> void Step<T>::run_step_product(GemmArgs<T>& args) {
  meet_at_part();
  run_gemm(args, all_.share);
  meet_at_part();
}

template <class T> void Step<T>::forward_scan(std::size_t s) {
  need(true);
  for (int w = 0; w < c_.layout->stages[s].way_count(); ++w) forward_way(scan(s, w));
  if (c_.layout->stages[s].way_count() == 2) join_ways(s);
  done(false);
}

// The states before the first step, where the caller has them; null: 0.
template <class T> void Step<T>::first_states(const Scan& scan, CellArgs<T>& args) const {
  const index_t width = c_.layout->carried_width;
  const index_t row = all_.first + scan.first;
  args.h = states_before_ ? states_before_ + row * width + scan.carried : nullptr;
  args.c = args.h && scan.cell.states > 1 ? args.h + scan.units() : nullptr;
  args.h_row = args.c_row = width;
}

// The states before step number i.
template <class T> void Step<T>::step_before(const Scan& scan, index_t i, CellArgs<T>& args) const {
  if (i == 0) return first_states(scan, args);
  args.h = scan.of_step(scan.h, scan.block(scan.step(i - 1))), args.h_row = scan.h.row;
  args.c = scan.of_step(scan.c, scan.step(i - 1)), args.c_row = scan.c.row;
}

// Leaves h before step t in block t, for all steps. The last h goes.
template <class T> void Step<T>::bring_states_before(const Scan& scan) {
  if (!keeps_rows()) return;
  const index_t block = scan.rows * scan.h.row, first = scan.step(0);
  if (scan.stage.sequence) {
    T* const one = scan.h.data + block;
    const std::size_t bytes = std::size_t((scan.steps - 1) * block) * sizeof(T);
    scan.reverse ? std::memmove(scan.h.data, one, bytes) : std::memmove(one, scan.h.data, bytes);
  }
  CellArgs<T> args;
  first_states(scan, args);
  const std::size_t bytes = std::size_t(scan.units()) * sizeof(T);
  for (index_t i = 0; i < scan.rows; ++i) {
    T* const to = scan.of_step(scan.h, first) + i * scan.h.row;
    args.h ? std::memcpy(to, args.h + i * args.h_row, bytes) : std::memset(to, 0, bytes);
  }
}

// The states behind the last step, to where the caller wants them.
template <class T> void Step<T>::keep_states(const Scan& scan) {
  if (!states_behind_ || !keeps_rows() || aborted()) return;
  const std::size_t bytes = std::size_t(scan.units()) * sizeof(T);
  const index_t end = scan.last();
  for (index_t i = 0; i < scan.rows; ++i) {
    const index_t row = all_.first + scan.first + i;
    T* to = states_behind_ + row * c_.layout->carried_width + scan.carried;
    std::memcpy(to, scan.of_step(scan.h, scan.block(end)) + i * scan.h.row, bytes);
    if (scan.cell.states > 1)
      std::memcpy(to + scan.units(), scan.of_step(scan.c, end) + i * scan.c.row, bytes);
  }
}

// What is the same at every step.
template <class T> CellArgs<T> Step<T>::cell_args(const Scan& scan) const {
  CellArgs<T> args;
  args.rows = scan.rows, args.units = scan.units();
  args.a_row = scan.a.row, args.h_next_row = args.dh_row = scan.h.row;
  args.lengths = lengths() ? lengths() + scan.first : nullptr;
  return args;
}

// Where the product of a step lies.
template <class T> T* Step<T>::step_product(const Scan& scan) const {
  const Stage& stage = scan.stage;
  switch (scan.memory.product_place) {
  case ProductPlace::gradient:
    return part_gradient_ + stage.parameter_offset;
  case ProductPlace::worker:
    return part_values(stage) + round_to_block(stage.units * stage.parameter_cols);
  default:
    return at(scan.memory.product, all_);
  }
}

// body(scan) of as many sequences at a time as there is room for their product.
template <class T> template <class Body> void Step<T>::by_pieces(const Scan& scan, Body body) {
  const bool few = scan.memory.product_place == ProductPlace::worker;
  const index_t most = few ? kStepProduct / scan.stage.product_width() : scan.rows;
  for (index_t i = 0; i < scan.rows; i += most) body(scan.piece(i, std::min(most, scan.rows - i)));
}

template <class T> void Step<T>::forward_way(const Scan& scan) {
  const index_t units = scan.units(), cols = scan.cols();
  const T* const weights = c_.parameters.w + scan.parameters;
  GemmArgs<T> g;
  g.n = cols, g.k = units;
  g.a_col = 1;
  g.b = weights, g.b_row = cols, g.b_col = 1;
  g.b_panels = by_panels<T>(units, cols) && scan.steps >= kStepsToPack;
  if (g.b_panels) {
    T* panels = part_values(scan.stage);
    pack_panels(weights, cols, 1, units, cols, c_.kernels->gemm_panel, panels, all_.share);
    g.b = panels;
  }
  g.bias = scan.stage.bias ? weights + units * cols : nullptr;
  g.c = step_product(scan), g.c_row = cols;
  by_pieces(scan, [&](const Scan& piece) {
    walk_forward(piece, g);
    keep_states(piece);
  });
}

// All steps; g: a step's product, but for its left side.
template <class T> void Step<T>::walk_forward(const Scan& scan, GemmArgs<T> g) {
  CellArgs<T> args = cell_args(scan);
  args.r = g.c;
  for (index_t i = 0; i < scan.steps && !leaving(); ++i) {
    const index_t t = scan.step(i);
    scan.go_to(t, args);
    step_before(scan, i, args);
    Rows<const T> into{args.h, args.h_row};
    if (scan.drops) {
      const Rows<T> masked{scan.of_step(scan.masked, t), scan.masked.row};
      state_dropout(scan, into, masked);
      into = masked;
    }
    g.m = scan.rows;
    if (!args.h) {
      // States of 0: one row of r for all, made nonetheless, since weights may be infinite. The zeros
      // lie where the cell's output will be.
      if (keeps_rows()) std::fill_n(args.h_next, scan.units(), T(0));
      into.data = args.h_next, g.m = 1;
    }
    g.a = into.data, g.a_row = into.row;
    run_step_product(g);
    args.r_row = args.h ? g.c_row : 0;
    if (keeps_rows()) c_.kernels->cell_forward[scan.stage.cell](args);
  }
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

// masked = h m: the same m at every step of a sequence. In place allowed; no h: 0.
template <class T> void Step<T>::state_dropout(const Scan& scan, Rows<const T> h, Rows<T> masked) {
  if (!keeps_rows()) return;
  DropoutArgs<T> args;
  args.rows = scan.rows, args.cols = scan.units();
  if (!h.data) {
    for (index_t i = 0; i < args.rows; ++i)
      std::fill_n(masked.data + i * masked.row, args.cols, T(0));
    return;
  }
  args.first_row = all_.first + scan.first;
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
  const Rows<T> dy = rows_of(plan().delta[s]).from(all_.at);
  need(true);
  for (int w = 0; w < stage.way_count(); ++w) {
    Rows<T> of_way = dy;
    if (stage.ways == ScanWays::both_side_by_side) of_way.data += w * stage.units;
    input_delta_way(scan(s, w), of_way);
  }
  done(false);
}

// Nothing flows on to the step before, but for sequences that have not begun on their way back.
template <class T> void Step<T>::cut_gradient(const CellArgs<T>& args) const {
  if (!keeps_rows()) return;
  const std::size_t bytes = std::size_t(args.units) * sizeof(T);
  for (index_t i = 0; i < args.rows; ++i) {
    if (args.lengths && args.step >= args.lengths[i]) continue;
    std::memset(args.dh + i * args.dh_row, 0, bytes);
    if (args.dc) std::memset(args.dc + i * args.units, 0, bytes);
  }
}

template <class T> void Step<T>::input_delta_way(const Scan& scan, Rows<const T> dy) {
  const index_t units = scan.units(), cols = scan.cols();
  GemmArgs<T> g;
  g.n = units, g.k = cols;
  g.a_row = scan.cell.keeps ? cols : scan.a.row, g.a_col = 1;
  g.c_row = units;
  // Every step's product reads the weights by columns: once transposed, they need no packing.
  T* const transposed = part_values(scan.stage);
  g.b = transposed, g.b_row = units, g.b_col = 1;
  g.b_panels = by_panels<T>(cols, units);
  if (scan.steps > 1)
    pack_panels(c_.parameters.w + scan.parameters, 1, cols, cols, units,
                g.b_panels ? c_.kernels->gemm_panel : units, transposed, all_.share);
  by_pieces(scan, [&](const Scan& piece) {
    walk_back(piece, {dy.data + piece.first * dy.row, dy.row}, g);
  });
}

// All steps; g: a step's product, but for its left side and its place.
template <class T> void Step<T>::walk_back(const Scan& scan, Rows<const T> dy, GemmArgs<T> g) {
  CellArgs<T> args = cell_args(scan);
  args.dy_row = dy.row;
  args.dh = scan.of_step(scan.h, scan.block(scan.last()));
  args.dr = step_product(scan);
  T* const through = args.dr + scan.rows * scan.cols() * (scan.cell.keeps ? 1 : 0);
  g.m = scan.rows;
  g.c = through;
  for (index_t i = scan.steps; i-- > 0 && !leaving();) {
    const index_t t = scan.step(i);
    scan.go_to(t, args);
    step_before(scan, i, args);
    const bool last = i == scan.steps - 1;
    args.dy = scan.stage.sequence ? dy.data + t * scan.all * dy.row : last ? dy.data : nullptr;
    args.dc = scan.cell.states > 1 ? args.c_next : nullptr;
    if (keeps_rows()) c_.kernels->cell_backward[scan.stage.cell](args);
    args.dh_behind = args.dh, args.dc_behind = args.dc;
    args.through = nullptr;
    if (i == 0) break;
    if (scan.stage.truncate > 0 && i % scan.stage.truncate == 0) {
      cut_gradient(args);
      continue;
    }
    g.a = scan.cell.keeps ? args.dr : args.a;
    run_step_product(g);
    if (scan.drops) state_dropout(scan, {through, g.n}, {through, g.n});
    args.through = through;
  }
}

// (h, 1)^T dr over all steps; of a cell that keeps more, the last block of dr is not da's.
template <class T> void Step<T>::scan_gradient(std::size_t s, T* gradient) {
  for (int w = 0; w < c_.layout->stages[s].way_count(); ++w) {
    const Scan scan = this->scan(s, w);
    const index_t units = scan.units(), cols = scan.cols();
    if (!scan.drops) bring_states_before(scan);
    meet_at_part();
    const Rows<T>& h = scan.drops ? scan.masked : scan.h;
    GemmArgs<T> g;
    g.m = gradient_rows(scan.stage, units), g.n = cols - scan.cell.keeps * units;
    g.k = scan.rows * scan.steps;
    g.a = h.data, g.a_row = 1, g.a_col = h.row;
    g.b = scan.a.data, g.b_row = scan.a.row, g.b_col = 1;
    g.c = gradient + scan.parameters, g.c_row = cols;
    const auto make = [&] {
      run_gemm(g, all_.share);
      if (g.m < units + scan.stage.bias)
        c_.kernels->column_sum(g.b, g.b_row, g.k, g.n, g.c + units * cols, all_.share);
    };
    make();
    if (!scan.cell.keeps) continue;
    g.b = scan.kept.data, g.b_row = units;
    g.c += g.n;
    g.n = units;
    make();
  }
}

template class Step<float>;
template class Step<double>;

}  // namespace fastbp
