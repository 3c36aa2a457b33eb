// The stages of a step: forward, deltas, gradients; what dense ones do. The others: stage_kinds.cpp.
#include "engine/step.h"

namespace fastbp {
namespace {

// A product of fewer multiply-adds is made by its rows' owners, however unevenly they share it.
constexpr index_t kSmallProduct = 25000;

// What two barriers cost, in values read from the other core's cache.
constexpr index_t kBarrierWorth = 16384;

}  // namespace

template <class T>
typename Step<T>::template Rows<const T> Step<T>::input_of(std::size_t stage) const {
  return stage == 0 ? rows_of(plan().x) : output_of(stage - 1);
}

template <class T> typename Step<T>::template Rows<T> Step<T>::output_of(std::size_t stage) const {
  return c_.layout->stages[stage].scan() ? scan_output(stage) : rows_of(plan().y[stage]);
}

template <class T>
typename Step<T>::template Rows<const T> Step<T>::saved(std::size_t stage) const {
  const Stage& s = c_.layout->stages[stage];
  if (s.saves == Saves::None) return {};
  if (s.saves == Saves::Output) return rows_of(plan().y[stage]);
  if (s.dense()) return rows_of(plan().z[stage]);
  // The pre-activation of an activation on its own is its input.
  return input_of(stage);
}

// Whether a product of the batch with weights (k, n) is made by each worker for its own rows, which
// spares barriers and keeps its rows in its cache, or by the team together, by columns, which keeps
// each worker's columns of the weights in its cache.
template <class T>
typename Step<T>::Window Step<T>::choose(index_t n, index_t k, bool transposed) const {
  if (all_.share.count == 1) return own_;
  const index_t rows = all_.rows * plan().steps, count = share_.count;
  const index_t largest = parts_of(loss_blocks(rows), count) * kLossBlockRows;
  const bool even = largest * count <= rows + rows / 8 && !shares_parts_;
  const bool small = rows * n * k < kSmallProduct;
  const bool light = n * k * (transposed ? 2 : 1) <= rows * k + kBarrierWorth;
  return small || (even && light) ? own_ : all_;
}

template <class T> void Step<T>::run_gemm(GemmArgs<T>& args, Share share) {
  args.scratch = c_.gemm_scratch + share_.id * c_.gemm.scratch;
  if (c_.abort) {
    if (stopping()) return;
    args.stop = [](void* step) { return static_cast<Step*>(step)->stopping(); };
    args.stop_context = this;
  }
  c_.gemm.run(args, share);
}

// `op` on the rows of a matrix from c on, which are this worker's own.
template <class T>
void Step<T>::run_tile(TileOp<T> op, const ActivationTile<T>& tile, index_t rows, const T* c,
                       index_t c_row, index_t cols) {
  for_row_chunks(rows, cols, [&](index_t first, index_t count) {
    op(&tile, c + first * c_row, c_row, first, count, 0, cols);
  });
}

// Who makes the product of a dense stage's forward pass.
template <class T> typename Step<T>::Window Step<T>::forward_window(std::size_t s) const {
  return choose(c_.layout->stages[s].outputs, c_.layout->stages[s].inputs, false);
}

// Where a layer of many inputs meets a small batch, training splits the sum over the inputs: each
// worker takes whole chunks of it, and with them the rows of the weights that it updates (nearly), so
// that these stay in its cache. `w` is forward_window(s).
template <class T> bool Step<T>::by_inputs(std::size_t s, const Window& w) const {
  if (c_.link) return s == 1;
  const index_t parts = plan().input_parts[s], count = w.share.count;
  return parts > 1 && count > 1 &&
         busy_enough(double(parts), double(parts_of(parts, count)), count);
}

// The chunks of the sum over the inputs that this worker takes.
template <class T> Range Step<T>::my_inputs(std::size_t s) const {
  const index_t k = c_.layout->stages[s].inputs, chunk = c_.layout->stages[s].input_chunk;
  if (c_.link) return {0, k};
  const Range parts = split(plan().input_parts[s], 1, share_);
  return {parts.begin * chunk, parts.end * chunk < k ? parts.end * chunk : k};
}

// The product of `input`, of a stage's inputs k, with the weights; bias in front of the first.
template <class T>
GemmArgs<T> Step<T>::product(const Stage& stage, const T* input, index_t input_row, Range k) const {
  const T* weights = c_.parameters.w + stage.parameter_offset;
  GemmArgs<T> g;
  g.n = stage.outputs, g.k = k.end - k.begin, g.chunk = stage.input_chunk;
  g.a = input + k.begin, g.a_row = input_row, g.a_col = 1;
  g.b = weights + k.begin * stage.outputs, g.b_row = stage.outputs, g.b_col = 1;
  if (stage.bias && k.begin == 0) g.bias = weights + stage.inputs * stage.outputs;
  return g;
}

// z of the stage in this worker's rows, one after the other `row` apart.
template <class T>
const T* Step<T>::sum_by_inputs(std::size_t s, const T* input, index_t input_row, index_t row) {
  const Stage& stage = c_.layout->stages[s];
  const index_t chunk = stage.input_chunk;
  const ShardLink<T> here{partial(0), all_.rows * row, 0, plan().input_parts[s]};
  const ShardLink<T>& to = c_.link ? *c_.link : here;
  const Range mine = my_inputs(s);
  for (index_t p = mine.begin; p < mine.end; p += chunk) {
    const index_t end = mine.end - p < chunk ? mine.end : p + chunk;
    GemmArgs<T> g = product(stage, input, input_row, {p, end});
    g.m = all_.rows;
    const index_t part = to.first + p / chunk;
    if (part > 0) g.bias = nullptr;
    g.c = to.sums + part * to.apart, g.c_row = row;
    run_gemm(g, Share{});
  }
  worker_.barrier();
  wrote_own_ = wrote_together_ = false;
  T* total = at(plan().z[s], own_);
  c_.kernels->add_rows(to.sums + own_.at * row, to.apart, to.parts, own_.rows * row, total, false);
  if (plan().y[s].ones && !plan().keeps_z(s))  // they lie between the rows
    for (index_t i = 0; i < own_.rows; ++i) total[i * row + stage.outputs] = T(1);
  return total;
}

template <class T> void Step<T>::forward(const T* x, index_t x_row, T* out) {
  Rows<const T> input{x, x_row, plan().x.places};
  x_ = input;
  for (std::size_t s = 0; s <= last(); ++s) {
    const Stage& stage = c_.layout->stages[s];
    if (!training_ && stage.idle_in_inference() && s < last()) continue;
    if (s == 0 && normalized_) continue;
    Rows<T> y{s == last() && out ? out : at(plan().y[s]), plan().y[s].row, plan().y[s].places};
    if (stage.dense())
      forward_dense(s, input, y);
    else if (stage.scan())
      forward_scan(s), y = scan_output(s);
    else
      forward_own(s, input, y);
    if (training_) spent(StepPart::forward, s);
    input = y;
  }
}

template <class T> void Step<T>::forward_dense(std::size_t s, Rows<const T> input, Rows<T> y) {
  const Stage& stage = c_.layout->stages[s];
  Window w = forward_window(s);
  const bool inputs_split = by_inputs(s, w);
  if (inputs_split) w = own_;  // what sum_by_inputs() leaves to do
  const bool together = w.share.count > 1;
  ActivationTile<T> tile;
  tile.out = y.from(w.at).data;
  tile.out_row = y.row;
  tile.param = T(stage.param);
  const TileOp<T> op = c_.kernels->activation_forward[stage.activation];
  need(together || (inputs_split && s > 0));
  if (inputs_split) {
    const index_t row = plan().z[s].row;
    run_tile(op, tile, own_.rows, sum_by_inputs(s, input.data, input.row, row), row, stage.outputs);
  } else {
    GemmArgs<T> g = product(stage, input.from(w.at).data, input.row, {0, stage.inputs});
    g.m = w.rows * input.places;
    g.c = plan().keeps_z(s) ? at(plan().z[s], w) : tile.out;
    g.c_row = plan().z[s].row;
    g.op = stage.activation == 0 ? nullptr : op;
    g.context = &tile;
    run_gemm(g, w.share);
  }
  done(together);
}

// dz of the last stage from the dy that loss() left.
template <class T> void Step<T>::output_delta() {
  const Stage& stage = c_.layout->stages[last()];
  if (stage.activation == 0) return;
  const BatchMatrix& delta = plan().delta.back();
  const Rows<const T> kept = saved(last()).from(own_.at);
  T* dz = at(delta, own_);
  const ActivationTile<T> tile{kept.data, kept.row, dz, delta.row, T(stage.param)};
  run_tile(c_.kernels->activation_backward[stage.activation], tile, own_rows(stage.sequence), dz,
           delta.row, delta.row);
}

// Where the gradient of the stage's input goes, in a window's rows: dz of the stage below, with what
// the derivative of its activation reads, or dx of the network's input.
template <class T>
ActivationTile<T> Step<T>::delta_tile(std::size_t s, T* dx, const Window& w) const {
  ActivationTile<T> tile;
  if (dx && c_.layout->sequences) {
    tile.out = at(plan().x, w);  // which nobody reads again
    tile.out_row = plan().x.row;
  } else if (dx) {
    const index_t inputs = c_.layout->stages[s].inputs;
    tile.out = dx + w.first * inputs;
    tile.out_row = inputs;
  } else {
    const Rows<const T> kept = saved(s - 1).from(w.at);
    const BatchMatrix& delta = plan().delta[s - 1];
    tile = {kept.data, kept.row, at(delta, w), delta.row, T(c_.layout->stages[s - 1].param)};
  }
  return tile;
}

// dz of the stage below (its activation's derivative included), or dx of the network's input.
template <class T> void Step<T>::input_delta(std::size_t s, T* dx) {
  const Stage& stage = c_.layout->stages[s];
  if (stage.scan()) return input_delta_scan(s);
  const Window w = stage.dense() ? choose(stage.inputs, stage.outputs, true) : own_;
  const bool together = w.share.count > 1;
  const ActivationTile<T> tile = delta_tile(s, dx, w);
  const TileOp<T> identity = c_.kernels->activation_backward[0];
  const TileOp<T> below =
      dx ? identity : c_.kernels->activation_backward[c_.layout->stages[s - 1].activation];
  const TileOp<T> op = stage.joins.empty() ? below : identity;
  need(together);
  const BatchMatrix& dz = plan().delta[s];
  if (stage.dense()) {
    GemmArgs<T> g;
    g.m = w.rows * dz.places, g.n = stage.inputs, g.k = stage.outputs;
    g.a = at(dz, w), g.a_row = dz.row, g.a_col = 1;
    g.b = c_.parameters.w + stage.parameter_offset, g.b_row = 1, g.b_col = stage.outputs;
    g.c = tile.out, g.c_row = tile.out_row;
    g.op = op == identity ? nullptr : op;
    g.context = &tile;
    g.ahead[0] = tile.saved, g.ahead_row = tile.saved_row;
    run_gemm(g, w.share);
  } else {
    input_delta_own(s, rows_of(dz).from(w.at), op, tile);
  }
  done(together);
  if (!stage.joins.empty()) join_deltas(stage, below, delta_tile(s, dx, own_));
  if (!dx || !c_.layout->sequences) return;
  need(false);
  by_steps(stage.inputs, rows_of(plan().x).from(w.at), dx + w.first * plan().steps * stage.inputs);
}

// Of all rows in work, into the flat `gradient`; or, with `update`, straight into the parameters.
template <class T> void Step<T>::parameter_gradient(std::size_t s, T* gradient, bool update) {
  const Stage& stage = c_.layout->stages[s];
  if (!stage.trainable || stage.parameter_count() == 0) return;
  if (stage.scan()) return scan_gradient(s, gradient);
  if (stage.kind == StageKind::embedding) return embedding_gradient(s, gradient, update);
  if (!stage.dense()) return norm_gradient(s, gradient, update);
  const Rows<const T> input = input_of(s).from(all_.at);
  const BatchMatrix& dz = plan().delta[s];
  GemmArgs<T> g;
  g.m = gradient_rows(stage, stage.inputs), g.n = stage.outputs, g.k = all_.rows * dz.places;
  g.chunk = c_.layout->sequences ? 0 : chunk_;
  g.a = input.data, g.a_row = 1, g.a_col = input.row;
  g.b = at(dz, all_), g.b_row = dz.row, g.b_col = 1;
  g.c = gradient + stage.parameter_offset, g.c_row = stage.outputs;
  UpdateTile<T> tile = update_;
  if (update) {
    tile.w += stage.parameter_offset;
    for (int k = 0; k < optimizer_slots(c_.optimizer.optimizer); ++k)
      tile.slot[k] += stage.parameter_offset;
    tile.row = stage.outputs;
    g.op = c_.kernels->update[c_.optimizer.optimizer];
    g.optimizer = c_.optimizer.optimizer;
    g.context = &tile;
    g.ahead[0] = tile.w, g.ahead[1] = tile.slot[0], g.ahead[2] = tile.slot[1];
    g.ahead_row = tile.row;
    g.contiguous_op = true;
    g.discard_c = true;
  }
  run_gemm(g, all_.share);
  if (g.m < stage.inputs + stage.bias)
    c_.kernels->column_sum(g.b, g.b_row, g.k, g.n, g.c + stage.inputs * g.c_row, all_.share);
}

// Rows that a product (input, 1)^T dz makes of the gradient of a stage's parameters: the last, that of the
// biases, where a 1 stands behind each input.
template <class T> index_t Step<T>::gradient_rows(const Stage& stage, index_t inputs) const {
  return inputs + (stage.bias && plan().has_ones ? 1 : 0);
}

// From the flat gradient.
template <class T> void Step<T>::update_parameters(Range part) {
  for_trained(*c_.layout, part, [&](Range range) { update_range(range); });
}

template <class T> void Step<T>::update_range(Range part) {
  c_.kernels->update[c_.optimizer.optimizer](&update_, c_.parameters.gradient + part.begin, 0, 0, 1,
                                             part.begin, part.end - part.begin);
}

template class Step<float>;
template class Step<double>;

}  // namespace fastbp
