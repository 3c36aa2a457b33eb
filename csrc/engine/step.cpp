#include "engine/step.h"

#include <cstring>

namespace fastbp {
namespace {

#define FBP_MEAN(L) L::mean,
constexpr LossMean kLossMean[] = {FBP_LOSSES(FBP_MEAN)};
#undef FBP_MEAN

using Prepare = void (*)(const Hyper&, const BetaPowers&, double*);
#define FBP_PREPARE(O) [](const Hyper& u, const BetaPowers& p, double* h) { O::prepare(u, p, h); },
constexpr Prepare kPrepare[] = {FBP_OPTIMIZERS(FBP_PREPARE)};
#undef FBP_PREPARE

#define FBP_SLOTS(O) O::slots,
constexpr int kSlots[] = {FBP_OPTIMIZERS(FBP_SLOTS)};
#undef FBP_SLOTS

// Where a pass can be given up, elementwise work is done in pieces of about this many values for each
// worker: 10 ms of the slowest function of the scalar kernels.
constexpr index_t kChunkElements = 1 << 16;

// A call of memcpy costs more than a few values are worth.
template <class T> void copy(const T* from, index_t n, T* to) {
  if (n > 16) {
    std::memcpy(to, from, std::size_t(n) * sizeof(T));
    return;
  }
  for (index_t i = 0; i < n; ++i) to[i] = from[i];
}

}  // namespace

double loss_divisor(const LossSpec& loss, index_t rows, index_t outputs) {
  switch (kLossMean[loss.loss]) {
  case LossMean::over_elements:
    return double(rows) * double(outputs);
  case LossMean::over_rows:
    return double(rows);
  default:
    return 1;
  }
}

template <class T>
StepHyper<T> step_hyper(const OptimizerSpec& optimizer, const BetaPowers& powers) {
  double values[StepHyper<T>::capacity] = {};
  kPrepare[optimizer.optimizer](optimizer.hyper, powers, values);
  StepHyper<T> hyper;
  for (int i = 0; i < StepHyper<T>::capacity; ++i) hyper.value[i] = T(values[i]);
  return hyper;
}
template StepHyper<float> step_hyper<float>(const OptimizerSpec&, const BetaPowers&);
template StepHyper<double> step_hyper<double>(const OptimizerSpec&, const BetaPowers&);

template <class T>
Step<T>::Step(const StepContext<T>& context, Worker& worker)
    : c_(context), worker_(worker), share_{worker.id, worker.count}, powers_(context.powers) {
  update_.w = context.parameters.w;
  for (int k = 0; k < 2; ++k) update_.slot[k] = context.parameters.slot[k];
}

template <class T> const BatchMatrix& Step<T>::delta(std::size_t stage) const {
  return stage + 1 == c_.layout->stages.size() ? plan().last_delta : plan().delta[stage % 3];
}

// The pre-activation of an activation on its own is its input: the stage before it.
template <class T> const T* Step<T>::saved(std::size_t stage) const {
  const Stage& s = c_.layout->stages[stage];
  if (s.saves == Saves::None) return nullptr;
  if (s.saves == Saves::Output) return at(plan().y[stage]);
  if (s.dense) return at(plan().z[stage]);
  return stage == 0 ? at(plan().x) : at(plan().y[stage - 1]);
}

template <class T> index_t Step<T>::saved_row(std::size_t stage) const {
  const Stage& s = c_.layout->stages[stage];
  if (s.saves == Saves::Output) return plan().y[stage].row;
  if (s.dense) return plan().z[stage].row;
  return stage == 0 ? plan().x.row : plan().y[stage - 1].row;
}

template <class T> double* Step<T>::block_sums(int place) const {
  return c_.arena->template at<double>(plan().block_sums_offset) + place * plan().blocks;
}

template <class T> bool Step<T>::stopping() {
  if (!c_.abort) return false;
  if (share_.id == 0 && c_.interrupt.pending(c_.interrupt.context)) *c_.abort = true;
  return aborted();
}

template <class T> void Step<T>::run_gemm(GemmArgs<T>& args) {
  args.scratch = c_.gemm_scratch + share_.id * c_.gemm.scratch;
  if (c_.abort) {
    if (stopping()) return;
    args.stop = [](void* step) { return static_cast<Step*>(step)->stopping(); };
    args.stop_context = this;
  }
  c_.gemm.run(args, share_);
}

// body(first, count) for pieces of the rows, each a number of whole blocks of the loss; one piece
// unless the pass may be given up.
template <class T>
template <class Body>
void Step<T>::for_row_chunks(index_t rows, index_t row_elements, Body body) {
  const index_t blocks = kChunkElements * share_.count / (row_elements * kLossBlockRows) + 1;
  const index_t chunk = c_.abort ? blocks * kLossBlockRows : rows;
  for (index_t first = 0; first < rows && !stopping(); first += chunk)
    body(first, rows - first < chunk ? rows - first : chunk);
}

// `op` on this worker's rows of the matrix c; the split is that of the loss where cols is its width.
template <class T>
void Step<T>::run_tile(TileOp<T> op, const ActivationTile<T>& tile, const T* c, index_t c_row,
                       index_t rows, index_t cols) {
  for_row_chunks(rows, cols, [&](index_t first, index_t count) {
    const Range part = split(count, kLossBlockRows, share_);
    const index_t i = first + part.begin;
    if (part.begin < part.end) op(&tile, c + i * c_row, c_row, i, part.end - part.begin, 0, cols);
  });
}

template <class T> void Step<T>::write_ones() {
  const auto write = [this](const BatchMatrix& m) {
    if (!m.ones) return;
    for_row_chunks(plan().capacity, m.row, [&](index_t first, index_t count) {
      const Range part = split(count, 1, share_);
      for (index_t i = first + part.begin; i < first + part.end; ++i)
        at(m)[i * m.row + m.width] = T(1);
    });
  };
  write(plan().x);
  for (const BatchMatrix& y : plan().y) write(y);
  worker_.barrier();
}

template <class T>
void Step<T>::gather(const Samples<T>& samples, const std::int64_t* order, index_t rows) {
  const index_t inputs = c_.layout->inputs, outputs = c_.layout->outputs;
  T* x = at(plan().x);
  T* target = at(plan().target);
  std::int64_t* labels = c_.arena->template at<std::int64_t>(plan().labels_offset);
  for_row_chunks(rows, inputs + outputs, [&](index_t first, index_t count) {
    const Range part = split(count, 1, share_);
    for (index_t i = first + part.begin; i < first + part.end; ++i) {
      const index_t from = order ? index_t(order[i]) : i;
      copy(samples.x + from * inputs, inputs, x + i * plan().x.row);
      if (samples.target) copy(samples.target + from * outputs, outputs, target + i * outputs);
      if (samples.labels) labels[i] = samples.labels[from];
    }
  });
  worker_.barrier();
}

template <class T> Samples<T> Step<T>::gathered(const Samples<T>& batch) const {
  Samples<T> here;
  here.x = at(plan().x);
  if (batch.target) here.target = at(plan().target);
  if (batch.labels) here.labels = c_.arena->template at<std::int64_t>(plan().labels_offset);
  return here;
}

template <class T> void Step<T>::forward(index_t rows, const T* x, index_t x_row, T* out) {
  const auto& stages = c_.layout->stages;
  const T* input = x ? x : at(plan().x);
  index_t input_row = x ? x_row : plan().x.row;
  for (std::size_t s = 0; s < stages.size(); ++s) {
    const Stage& stage = stages[s];
    const bool last = s + 1 == stages.size();
    ActivationTile<T> tile;
    tile.out = last && out ? out : at(plan().y[s]);
    tile.out_row = plan().y[s].row;
    tile.param = T(stage.param);
    const TileOp<T> op = c_.kernels->activation_forward[stage.activation];
    if (stage.dense) {
      const T* w = c_.parameters.w + stage.parameter_offset;
      const bool keeps_z = plan().z[s].offset != plan().y[s].offset;
      GemmArgs<T> g;
      g.m = rows, g.n = stage.outputs, g.k = stage.inputs;
      g.a = input, g.a_row = input_row, g.a_col = 1;
      g.b = w, g.b_row = stage.outputs, g.b_col = 1;
      g.c = keeps_z ? at(plan().z[s]) : tile.out;
      g.c_row = keeps_z ? plan().z[s].row : tile.out_row;
      g.bias = stage.bias ? w + stage.inputs * stage.outputs : nullptr;
      g.op = stage.activation == 0 ? nullptr : op;
      g.context = &tile;
      run_gemm(g);
    } else {
      run_tile(op, tile, input, input_row, rows, stage.outputs);
    }
    worker_.barrier();
    input = tile.out;
    input_row = tile.out_row;
  }
}

template <class T>
void Step<T>::loss(index_t rows, const T* y, const T* target, const std::int64_t* labels) {
  const index_t cols = c_.layout->outputs;
  LossArgs<T> args;
  args.cols = cols;
  args.dy_scale = T(1 / loss_divisor(c_.loss, rows, cols));
  args.param = T(c_.loss.param);
  for_row_chunks(rows, cols, [&](index_t first, index_t count) {
    args.rows = count;
    args.y = y + first * cols;
    args.target = target ? target + first * cols : nullptr;
    args.labels = labels ? labels + first : nullptr;
    args.dy = at(plan().last_delta) + first * cols;
    args.block_loss = block_sums(0) + first / kLossBlockRows;
    c_.kernels->loss[c_.loss.loss](args, share_);
  });
}

template <class T> void Step<T>::metric(index_t rows, const MetricArgs<T>& what, int place) {
  const index_t cols = c_.layout->outputs;
  MetricArgs<T> args = what;
  args.cols = cols;
  for_row_chunks(rows, cols, [&](index_t first, index_t count) {
    args.rows = count;
    args.y = what.y + first * cols;
    args.target = what.target ? what.target + first * cols : nullptr;
    args.labels = what.labels ? what.labels + first : nullptr;
    args.error = what.error ? what.error + first * cols : nullptr;
    args.block_sum = block_sums(place) + first / kLossBlockRows;
    c_.kernels->metric(args, share_);
  });
}

template <class T> double Step<T>::block_total(int place, index_t rows) const {
  const double* sums = block_sums(place);
  double total = 0;
  for (index_t i = 0; i * kLossBlockRows < rows; ++i) total += sums[i];
  return total;
}

template <class T>
void Step<T>::backward(index_t rows, GradientUse use, std::int64_t number, T* dx) {
  const auto& stages = c_.layout->stages;
  const std::size_t last = stages.size() - 1;
  if (use != GradientUse::store) {
    powers_.advance(c_.optimizer.hyper, number);
    update_.hyper = step_hyper<T>(c_.optimizer, powers_);
  }
  if (stages[last].activation != 0) {
    // The rows that this worker has just written: no barrier between.
    T* dz = at(plan().last_delta);
    const index_t row = plan().last_delta.row;
    const ActivationTile<T> tile{saved(last), saved_row(last), dz, row, T(stages[last].param)};
    run_tile(c_.kernels->activation_backward[stages[last].activation], tile, dz, row, rows, row);
  }
  worker_.barrier();
  // Stage s's parameters may change once no worker needs them for the delta below it; that delta
  // and the gradient of the stage above share a phase, since they touch different parameters and
  // different deltas.
  for (std::size_t s = stages.size(); s-- > 0;) {
    if (s > 0 || dx) {
      input_delta(s, rows, s > 0 ? nullptr : dx);
      worker_.barrier();
    }
    if (stages[s].dense) parameter_gradient(s, rows, use == GradientUse::update);
  }
  worker_.barrier();
  if (use == GradientUse::store_then_update && !aborted()) update_all();
  if (use == GradientUse::store_then_update) worker_.barrier();
}

// dz of the stage below (its activation's derivative included), or dx of the network's input.
template <class T> void Step<T>::input_delta(std::size_t s, index_t rows, T* dx) {
  const Stage& stage = c_.layout->stages[s];
  const T* dz = at(delta(s));
  const index_t dz_row = delta(s).row;
  ActivationTile<T> tile;
  TileOp<T> op = c_.kernels->activation_backward[0];
  tile.out = dx;
  tile.out_row = stage.inputs;
  if (!dx) {
    const Stage& below = c_.layout->stages[s - 1];
    tile = {saved(s - 1), saved_row(s - 1), at(delta(s - 1)), delta(s - 1).row, T(below.param)};
    op = c_.kernels->activation_backward[below.activation];
  }
  if (!stage.dense) {
    run_tile(op, tile, dz, dz_row, rows, stage.inputs);
    return;
  }
  GemmArgs<T> g;
  g.m = rows, g.n = stage.inputs, g.k = stage.outputs;
  g.a = dz, g.a_row = dz_row, g.a_col = 1;
  g.b = c_.parameters.w + stage.parameter_offset, g.b_row = 1, g.b_col = stage.outputs;
  g.c = tile.out, g.c_row = tile.out_row;
  g.op = op == c_.kernels->activation_backward[0] ? nullptr : op;
  g.context = &tile;
  g.ahead[0] = tile.saved, g.ahead_row = tile.saved_row;
  run_gemm(g);
}

template <class T> void Step<T>::parameter_gradient(std::size_t s, index_t rows, bool update) {
  const Stage& stage = c_.layout->stages[s];
  const BatchMatrix& input = s == 0 ? plan().x : plan().y[s - 1];
  GemmArgs<T> g;
  g.m = stage.inputs + (stage.bias ? 1 : 0), g.n = stage.outputs, g.k = rows;
  g.a = at(input), g.a_row = 1, g.a_col = input.row;
  g.b = at(delta(s)), g.b_row = delta(s).row, g.b_col = 1;
  g.c = c_.parameters.gradient + stage.parameter_offset, g.c_row = stage.outputs;
  UpdateTile<T> tile = update_;
  if (update) {
    tile.w += stage.parameter_offset;
    for (int k = 0; k < kSlots[c_.optimizer.optimizer]; ++k) tile.slot[k] += stage.parameter_offset;
    tile.row = stage.outputs;
    g.op = c_.kernels->update[c_.optimizer.optimizer];
    g.context = &tile;
    g.ahead[0] = tile.w, g.ahead[1] = tile.slot[0], g.ahead[2] = tile.slot[1];
    g.ahead_row = tile.row;
    g.contiguous_op = true;
    g.discard_c = true;
  }
  run_gemm(g);
}

template <class T> void Step<T>::update_all() {
  const Range part = split(c_.layout->parameter_count, 1024, share_);
  if (part.begin < part.end)
    c_.kernels->update[c_.optimizer.optimizer](&update_, c_.parameters.gradient + part.begin, 0, 0,
                                               1, part.begin, part.end - part.begin);
}

template class Step<float>;
template class Step<double>;

}  // namespace fastbp
