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

// A product of fewer multiply-adds is made by its rows' owners, however unevenly they share it.
constexpr index_t kSmallProduct = 25000;

// What two barriers cost, in values read from the other core's cache.
constexpr index_t kBarrierWorth = 4096;

// Rows of a shuffled batch lie anywhere: so many are on their way while one is copied.
constexpr index_t kAhead = 8;

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

template <class T> const BatchMatrix* Step<T>::saved(std::size_t stage) const {
  const Stage& s = c_.layout->stages[stage];
  if (s.saves == Saves::None) return nullptr;
  if (s.saves == Saves::Output) return &plan().y[stage];
  if (s.dense) return &plan().z[stage];
  // The pre-activation of an activation on its own is its input: the stage before it.
  return stage == 0 ? &plan().x : &plan().y[stage - 1];
}

template <class T> double* Step<T>::block_sums(int place) const {
  return c_.arena->template at<double>(plan().block_sums_offset) + place * plan().blocks;
}

template <class T> T* Step<T>::partial(index_t part) const {
  return c_.arena->template at<T>(plan().partials_offset) + part * c_.layout->parameter_count;
}

template <class T> bool Step<T>::stopping() {
  if (!c_.abort) return false;
  if (share_.id == 0 && c_.interrupt.pending(c_.interrupt.context)) *c_.abort = true;
  return aborted();
}

// The whole batch is in work; this worker's own rows are whole blocks of the loss.
template <class T> void Step<T>::take_all(index_t rows) {
  all_ = {0, rows, 0, share_};
  const Range part = split(rows, kLossBlockRows, share_);
  own_ = {part.begin, part.end - part.begin, part.begin, Share{}};
}

// Only this worker is at work on these rows.
template <class T> void Step<T>::take_part(index_t first, index_t rows) {
  all_ = own_ = {share_.id * kMaxChunk, rows, first, Share{}};
}

// In front of work that reads what this worker made of its own rows, and with `others` what the
// others made of theirs.
template <class T> void Step<T>::need(bool others) {
  if (all_.share.count == 1 || !(wrote_together_ || (others && wrote_own_))) return;
  worker_.barrier();
  wrote_own_ = wrote_together_ = false;
}

template <class T> void Step<T>::done(bool together) {
  (together ? wrote_together_ : wrote_own_) = true;
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

// body(first, count) for pieces of the rows, each a number of whole blocks of the loss; one piece
// unless the pass may be given up.
template <class T>
template <class Body>
void Step<T>::for_row_chunks(index_t rows, index_t row_elements, Body body) {
  const index_t blocks = kChunkElements / (row_elements * kLossBlockRows) + 1;
  const index_t chunk = c_.abort ? blocks * kLossBlockRows : rows;
  for (index_t first = 0; first < rows && !stopping(); first += chunk)
    body(first, rows - first < chunk ? rows - first : chunk);
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

template <class T> void Step<T>::write_ones() {
  const Range part = split(plan().capacity, 1, share_);
  const auto write = [&](const BatchMatrix& m) {
    if (!m.ones) return;
    for_row_chunks(part.end - part.begin, m.row, [&](index_t first, index_t count) {
      for (index_t i = part.begin + first; i < part.begin + first + count; ++i)
        at(m)[i * m.row + m.width] = T(1);
    });
  };
  write(plan().x);
  for (const BatchMatrix& y : plan().y) write(y);
  worker_.barrier();
}

template <class T> void Step<T>::train(const TrainBatch<T>& batch) {
  if (batch.use != GradientUse::store) {
    powers_.advance(c_.optimizer.hyper, batch.number);
    update_.hyper = step_hyper<T>(c_.optimizer, powers_);
  }
  wrote_own_ = wrote_together_ = false;
  chunk_ = c_.layout->row_chunk(batch.rows);
  if (c_.in_parts && chunk_ < batch.rows)
    train_in_parts(batch);
  else
    train_whole(batch);
}

template <class T> void Step<T>::train_whole(const TrainBatch<T>& batch) {
  take_all(batch.rows);
  gather(batch);
  forward(at(plan().x), plan().x.row, nullptr);
  measure(at(plan().y.back()), gathered(batch.samples), batch.metrics, batch.rows);
  output_delta();
  for (std::size_t s = last(); s > 0; --s) input_delta(s, nullptr);
  if (batch.dx) input_delta(0, batch.dx);
  // No parameter changes before all deltas are there.
  worker_.barrier();
  for (std::size_t s = 0; s <= last(); ++s)
    parameter_gradient(s, c_.parameters.gradient, batch.use == GradientUse::update);
  if (batch.use != GradientUse::store_then_update) return;
  worker_.barrier();
  if (!aborted()) update_parameters(split(c_.layout->parameter_count, 1024, share_));
}

template <class T> void Step<T>::train_in_parts(const TrainBatch<T>& batch) {
  const index_t parts = (batch.rows + chunk_ - 1) / chunk_;
  const Range mine = split(c_.layout->parameter_count, 64, share_);
  for (index_t first = 0; first < parts; first += plan().partials) {
    if (first > 0) worker_.barrier();  // the partials of the round before have been read
    const index_t count = parts - first < plan().partials ? parts - first : plan().partials;
    const Range round = split(count, 1, share_);
    for (index_t i = round.begin; i < round.end; ++i) {
      const index_t row = (first + i) * chunk_;
      take_part(row, batch.rows - row < chunk_ ? batch.rows - row : chunk_);
      gather(batch);
      forward(at(plan().x), plan().x.row, nullptr);
      measure(at(plan().y.back()), gathered(batch.samples), batch.metrics, batch.rows);
      output_delta();
      for (std::size_t s = last() + 1; s-- > 0;) {
        parameter_gradient(s, partial(i), false);
        if (s > 0) input_delta(s, nullptr);
      }
      if (batch.dx) input_delta(0, batch.dx);
    }
    worker_.barrier();
    if (mine.begin < mine.end)
      c_.kernels->add_rows(partial(0) + mine.begin, c_.layout->parameter_count, count,
                           mine.end - mine.begin, c_.parameters.gradient + mine.begin, first > 0);
  }
  if (batch.use != GradientUse::store && !aborted()) update_parameters(mine);
}

template <class T>
void Step<T>::infer(index_t rows, const T* x, T* out, const Samples<T>& targets,
                    const std::vector<MetricSpec>* metrics) {
  wrote_own_ = wrote_together_ = false;
  take_all(rows);
  forward(x, c_.layout->inputs, out);
  if (metrics) measure(out ? out : at(plan().y.back()), targets, metrics, rows);
}

// Copies this worker's rows of the batch into the plan.
template <class T> void Step<T>::gather(const TrainBatch<T>& batch) {
  const index_t inputs = c_.layout->inputs, outputs = c_.layout->outputs;
  const Samples<T>& from = batch.samples;
  T* x = at(plan().x, own_);
  T* target = at(plan().target, own_);
  std::int64_t* labels = c_.arena->template at<std::int64_t>(plan().labels_offset) + own_.at;
  const auto source = [&](index_t i) { return batch.order ? index_t(batch.order[i]) : i; };
  // Where the first layer is split by its inputs a worker wants its own columns of all rows.
  const bool columns = c_.layout->stages[0].dense && by_inputs(0);
  if (columns) {
    const Range mine = my_inputs(0);
    for_row_chunks(all_.rows, inputs, [&](index_t first, index_t count) {
      for (index_t i = first; i < first + count; ++i)
        copy(from.x + source(i) * inputs + mine.begin, mine.end - mine.begin,
             at(plan().x) + i * plan().x.row + mine.begin);
    });
  }
  for_row_chunks(own_.rows, inputs + outputs, [&](index_t first, index_t count) {
    for (index_t i = first; i < first + count; ++i) {
      const index_t row = source(own_.first + i);
      if (!columns && i + kAhead < first + count)
        __builtin_prefetch(from.x + source(own_.first + i + kAhead) * inputs);
      if (!columns) copy(from.x + row * inputs, inputs, x + i * plan().x.row);
      if (from.target) copy(from.target + row * outputs, outputs, target + i * outputs);
      if (from.labels) labels[i] = from.labels[row];
    }
  });
  done(false);
}

// The targets where gather() has put them.
template <class T> Samples<T> Step<T>::gathered(const Samples<T>& samples) const {
  Samples<T> here;
  if (samples.target) here.target = at(plan().target);
  if (samples.labels) here.labels = c_.arena->template at<std::int64_t>(plan().labels_offset);
  return here;
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

// Loss, then the metrics, of this worker's rows of the outputs y.
template <class T>
void Step<T>::measure(const T* y, const Samples<T>& targets, const std::vector<MetricSpec>* metrics,
                      index_t batch_rows) {
  need(false);
  loss(y, targets, batch_rows);
  MetricArgs<T> args;
  args.y = y;
  for (std::size_t m = 0; metrics && m < metrics->size(); ++m) {
    const MetricSpec& what = (*metrics)[m];
    args.kind = what.kind;
    args.threshold = T(what.threshold);
    // Of logits the errors are those of their softmax: what the loss has just left in dy, but for
    // the mean's factor.
    args.error = what.of_softmax ? at(plan().delta.back()) : nullptr;
    args.error_scale = T(loss_divisor(c_.loss, batch_rows, c_.layout->outputs));
    metric(args, targets, int(m) + 1);
  }
}

// Leaves dy.
template <class T> void Step<T>::loss(const T* y, const Samples<T>& targets, index_t batch_rows) {
  const index_t cols = c_.layout->outputs;
  LossArgs<T> args;
  args.cols = cols;
  args.dy_scale = T(1 / loss_divisor(c_.loss, batch_rows, cols));
  args.param = T(c_.loss.param);
  for_row_chunks(own_.rows, cols, [&](index_t first, index_t count) {
    const index_t row = own_.at + first;
    args.rows = count;
    args.y = y + row * cols;
    args.target = targets.target ? targets.target + row * cols : nullptr;
    args.labels = targets.labels ? targets.labels + row : nullptr;
    args.dy = at(plan().delta.back()) + row * cols;
    args.block_loss = block_sums(0) + (own_.first + first) / kLossBlockRows;
    c_.kernels->loss[c_.loss.loss](args, Share{});
  });
  done(false);
}

template <class T>
void Step<T>::metric(const MetricArgs<T>& what, const Samples<T>& targets, int place) {
  const index_t cols = c_.layout->outputs;
  MetricArgs<T> args = what;
  args.cols = cols;
  for_row_chunks(own_.rows, cols, [&](index_t first, index_t count) {
    const index_t row = own_.at + first;
    args.rows = count;
    args.y = what.y + row * cols;
    args.target = targets.target ? targets.target + row * cols : nullptr;
    args.labels = targets.labels ? targets.labels + row : nullptr;
    args.error = what.error ? what.error + row * cols : nullptr;
    args.block_sum = block_sums(place) + (own_.first + first) / kLossBlockRows;
    c_.kernels->metric(args, Share{});
  });
}

template <class T> double Step<T>::block_total(int place, index_t rows) const {
  const double* sums = block_sums(place);
  double total = 0;
  for (index_t i = 0; i * kLossBlockRows < rows; ++i) total += sums[i];
  return total;
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
    for (int k = 0; k < kSlots[c_.optimizer.optimizer]; ++k) tile.slot[k] += stage.parameter_offset;
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
