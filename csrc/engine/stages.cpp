// The stages of a step: forward, deltas, gradients.
#include "engine/step.h"

namespace fastbp {
namespace {

// A product of fewer multiply-adds is made by its rows' owners, however unevenly they share it.
constexpr index_t kSmallProduct = 25000;

// What two barriers cost, in values read from the other core's cache.
constexpr index_t kBarrierWorth = 16384;

}  // namespace

template <class T> const BatchMatrix* Step<T>::saved(std::size_t stage) const {
  const Stage& s = c_.layout->stages[stage];
  if (s.saves == Saves::None) return nullptr;
  if (s.saves == Saves::Output) return &plan().y[stage];
  if (s.dense) return &plan().z[stage];
  // The pre-activation of an activation on its own is its input: the stage before it.
  return stage == 0 ? &plan().x : &plan().y[stage - 1];
}

// Whether a product of the batch with weights (k, n) is made by each worker for its own rows, which
// spares barriers and keeps its rows in its cache, or by the team together, by columns, which keeps
// each worker's columns of the weights in its cache.
template <class T>
typename Step<T>::Window Step<T>::choose(index_t n, index_t k, bool transposed) const {
  if (all_.share.count == 1) return own_;
  const index_t rows = all_.rows, count = share_.count;
  const index_t blocks = (rows + kLossBlockRows - 1) / kLossBlockRows;
  const index_t largest = (blocks + count - 1) / count * kLossBlockRows;
  const bool even = largest * count <= rows + rows / 8;
  const bool small = rows * n * k < kSmallProduct;
  const bool light = n * k * (transposed ? 2 : 1) <= rows * k + kBarrierWorth;
  return small || (even && light) ? own_ : all_;
}

// args describe the product of `window`'s rows.
template <class T> void Step<T>::run_gemm(GemmArgs<T>& args, const Window& window) {
  args.scratch = c_.gemm_scratch + share_.id * c_.gemm.scratch;
  if (c_.abort) {
    if (stopping()) return;
    args.stop = [](void* step) { return static_cast<Step*>(step)->stopping(); };
    args.stop_context = this;
  }
  c_.gemm.run(args, window.share);
}

// `op` on this worker's rows of the matrix whose first such row is at c.
template <class T>
void Step<T>::run_tile(TileOp<T> op, const ActivationTile<T>& tile, const T* c, index_t c_row,
                       index_t cols) {
  for_row_chunks(own_.rows, cols, [&](index_t first, index_t count) {
    op(&tile, c + first * c_row, c_row, first, count, 0, cols);
  });
}

// Where a layer of many inputs meets a small batch, training splits the sum over the inputs: each
// worker takes whole chunks of it, and with them the rows of the weights that it updates (nearly), so
// that these stay in its cache.
template <class T> bool Step<T>::by_inputs(std::size_t s) const {
  const index_t parts = plan().input_parts[s];
  const index_t each = (parts + all_.share.count - 1) / all_.share.count;
  return parts > 1 && all_.share.count > 1 && 5 * parts >= 4 * each * all_.share.count &&
         choose(c_.layout->stages[s].outputs, c_.layout->stages[s].inputs, false).share.count > 1;
}

// The chunks of the sum over the inputs that this worker takes.
template <class T> Range Step<T>::my_inputs(std::size_t s) const {
  const index_t k = c_.layout->stages[s].inputs, chunk = k_chunk(k);
  const Range parts = split(plan().input_parts[s], 1, share_);
  return {parts.begin * chunk, parts.end * chunk < k ? parts.end * chunk : k};
}

// z of the stage in this worker's rows, one after the other `row` apart.
template <class T>
const T* Step<T>::sum_by_inputs(std::size_t s, const T* input, index_t input_row, index_t row) {
  const Stage& stage = c_.layout->stages[s];
  const T* weights = c_.parameters.w + stage.parameter_offset;
  const BatchMatrix& z = plan().z[s];
  T* sums = c_.arena->template at<T>(plan().partials_offset);
  const index_t chunk = k_chunk(stage.inputs), size = all_.rows * row;
  const Range mine = my_inputs(s);
  for (index_t p = mine.begin; p < mine.end; p += chunk) {
    GemmArgs<T> g;
    g.m = all_.rows, g.n = stage.outputs, g.k = mine.end - p < chunk ? mine.end - p : chunk;
    g.a = input + p, g.a_row = input_row, g.a_col = 1;
    g.b = weights + p * stage.outputs, g.b_row = stage.outputs, g.b_col = 1;
    g.c = sums + p / chunk * size, g.c_row = row;
    g.bias = stage.bias && p == 0 ? weights + stage.inputs * stage.outputs : nullptr;
    Window alone = all_;
    alone.share = Share{};
    run_gemm(g, alone);
  }
  done(true);
  need(false);
  T* total = z.offset != plan().y[s].offset ? at(z, own_) : sums + own_.at * row;
  c_.kernels->add_rows(sums + own_.at * row, size, plan().input_parts[s], own_.rows * row, total,
                       false);
  return total;
}

template <class T> void Step<T>::forward(const T* x, index_t x_row, T* out) {
  const T* input = x;
  index_t input_row = x_row;
  for (std::size_t s = 0; s <= last(); ++s) {
    const Stage& stage = c_.layout->stages[s];
    T* y = s == last() && out ? out : at(plan().y[s]);
    const index_t y_row = plan().y[s].row;
    const bool inputs_split = stage.dense && by_inputs(s);
    const Window w =
        stage.dense && !inputs_split ? choose(stage.outputs, stage.inputs, false) : own_;
    const bool together = w.share.count > 1;
    ActivationTile<T> tile;
    tile.out = y + w.at * y_row;
    tile.out_row = y_row;
    tile.param = T(stage.param);
    const TileOp<T> op = c_.kernels->activation_forward[stage.activation];
    need(together || (inputs_split && s > 0));
    if (inputs_split) {
      const index_t row = plan().z[s].row;
      run_tile(op, tile, sum_by_inputs(s, input, input_row, row), row, stage.outputs);
    } else if (stage.dense) {
      const T* weights = c_.parameters.w + stage.parameter_offset;
      const BatchMatrix& z = plan().z[s];
      const bool keeps_z = z.offset != plan().y[s].offset;
      GemmArgs<T> g;
      g.m = w.rows, g.n = stage.outputs, g.k = stage.inputs;
      g.a = input + w.at * input_row, g.a_row = input_row, g.a_col = 1;
      g.b = weights, g.b_row = stage.outputs, g.b_col = 1;
      g.c = keeps_z ? at(z, w) : tile.out;
      g.c_row = keeps_z ? z.row : y_row;
      g.bias = stage.bias ? weights + stage.inputs * stage.outputs : nullptr;
      g.op = stage.activation == 0 ? nullptr : op;
      g.context = &tile;
      run_gemm(g, w);
    } else {
      run_tile(op, tile, input + w.at * input_row, input_row, stage.outputs);
    }
    done(together);
    input = y;
    input_row = y_row;
  }
}

// dz of the last stage from the dy that loss() left.
template <class T> void Step<T>::output_delta() {
  const Stage& stage = c_.layout->stages[last()];
  if (stage.activation == 0) return;
  const BatchMatrix& delta = plan().delta.back();
  const BatchMatrix* kept = saved(last());
  T* dz = at(delta, own_);
  const ActivationTile<T> tile{kept ? at(*kept, own_) : nullptr, kept ? kept->row : 0, dz,
                               delta.row, T(stage.param)};
  run_tile(c_.kernels->activation_backward[stage.activation], tile, dz, delta.row, delta.row);
}

// dz of the stage below (its activation's derivative included), or dx of the network's input.
template <class T> void Step<T>::input_delta(std::size_t s, T* dx) {
  const Stage& stage = c_.layout->stages[s];
  const Window w = stage.dense ? choose(stage.inputs, stage.outputs, true) : own_;
  const bool together = w.share.count > 1;
  ActivationTile<T> tile;
  TileOp<T> op = c_.kernels->activation_backward[0];
  if (dx) {
    tile.out = dx + w.first * stage.inputs;
    tile.out_row = stage.inputs;
  } else {
    const Stage& below = c_.layout->stages[s - 1];
    const BatchMatrix* kept = saved(s - 1);
    const BatchMatrix& delta = plan().delta[s - 1];
    tile = {kept ? at(*kept, w) : nullptr, kept ? kept->row : 0, at(delta, w), delta.row,
            T(below.param)};
    op = c_.kernels->activation_backward[below.activation];
  }
  need(together);
  const BatchMatrix& dz = plan().delta[s];
  if (stage.dense) {
    GemmArgs<T> g;
    g.m = w.rows, g.n = stage.inputs, g.k = stage.outputs;
    g.a = at(dz, w), g.a_row = dz.row, g.a_col = 1;
    g.b = c_.parameters.w + stage.parameter_offset, g.b_row = 1, g.b_col = stage.outputs;
    g.c = tile.out, g.c_row = tile.out_row;
    g.op = op == c_.kernels->activation_backward[0] ? nullptr : op;
    g.context = &tile;
    g.ahead[0] = tile.saved, g.ahead_row = tile.saved_row;
    run_gemm(g, w);
  } else {
    run_tile(op, tile, at(dz, w), dz.row, stage.inputs);
  }
  done(together);
}

// Of all rows in work, into the flat `gradient`; or, with `update`, straight into the parameters.
template <class T> void Step<T>::parameter_gradient(std::size_t s, T* gradient, bool update) {
  const Stage& stage = c_.layout->stages[s];
  if (!stage.dense) return;
  const BatchMatrix& input = s == 0 ? plan().x : plan().y[s - 1];
  const BatchMatrix& dz = plan().delta[s];
  GemmArgs<T> g;
  g.m = stage.inputs + (stage.bias ? 1 : 0), g.n = stage.outputs, g.k = all_.rows;
  g.chunk = chunk_;
  g.a = at(input, all_), g.a_row = 1, g.a_col = input.row;
  g.b = at(dz, all_), g.b_row = dz.row, g.b_col = 1;
  g.c = gradient + stage.parameter_offset, g.c_row = stage.outputs;
  UpdateTile<T> tile = update_;
  if (update) {
    tile.w += stage.parameter_offset;
    for (int k = 0; k < optimizer_slots(c_.optimizer.optimizer); ++k)
      tile.slot[k] += stage.parameter_offset;
    tile.row = stage.outputs;
    g.op = c_.kernels->update[c_.optimizer.optimizer];
    g.context = &tile;
    g.ahead[0] = tile.w, g.ahead[1] = tile.slot[0], g.ahead[2] = tile.slot[1];
    g.ahead_row = tile.row;
    g.contiguous_op = true;
    g.discard_c = true;
  }
  run_gemm(g, all_);
}

// From the flat gradient.
template <class T> void Step<T>::update_parameters(Range part) {
  if (part.begin < part.end)
    c_.kernels->update[c_.optimizer.optimizer](&update_, c_.parameters.gradient + part.begin, 0, 0,
                                               1, part.begin, part.end - part.begin);
}

template class Step<float>;
template class Step<double>;

}  // namespace fastbp
