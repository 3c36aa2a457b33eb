#include "engine/cuda/chain.h"

namespace fastbp {
namespace cuda {
namespace {

// Two blocks for each multiprocessor of the largest GPUs (132 of an H100). Results do not depend on
// it.
constexpr index_t kEnoughBlocks = 264;

constexpr const char* kForward = "forward pass";
constexpr const char* kBackward = "backward pass";

#define FBP_ELEMENTWISE(L) L::elementwise,
constexpr bool kElementwise[] = {FBP_LOSSES(FBP_ELEMENTWISE)};
#undef FBP_ELEMENTWISE

// Whether a stage has parameters whose gradient is a sum over parts of the batch.
bool in_parts(const Stage& stage) {
  return stage.parameter_count() > 0 && (stage.dense() || stage.kind == StageKind::layer_norm);
}

index_t gradient_rows(const Stage& stage) { return stage.inputs + (stage.bias ? 1 : 0); }

}  // namespace

// What backward reads of a stage.
template <class T>
const BatchMatrix* Chain<T>::saved(const Workspace& space, std::size_t stage) const {
  const Stage& s = layout->stages[stage];
  if (s.saves == Saves::None) return nullptr;
  if (s.saves == Saves::Output) return &space.plan.y[stage];
  if (s.dense()) return &space.plan.z[stage];
  // The pre-activation of an activation on its own is its input: the stage before it.
  return stage == 0 ? &space.plan.x : &space.plan.y[stage - 1];
}

template <class T> index_t Chain<T>::partials_of(index_t rows) const {
  const index_t parts = parts_of(rows, layout->row_chunk(rows));
  index_t blocks = 0;
  for (const Stage& stage : layout->stages)
    if (stage.dense()) blocks += Products<T>::blocks(shadows, gradient_rows(stage), stage.outputs);
  return blocks < kEnoughBlocks && parts <= kMaxGridY ? parts : 1;
}

template <class T> void Chain<T>::write_ones(const Workspace& space) const {
  const auto write = [&](const BatchMatrix& m) {
    if (m.ones)
      check(cuda::write_ones(space.at<T>(m) + m.width, m.row, space.plan.capacity, stream),
            kForward);
  };
  write(space.plan.x);
  for (const BatchMatrix& y : space.plan.y) write(y);
}

template <class T> void Chain<T>::train(const Workspace& space, const DeviceBatch<T>& batch) const {
  gather(space, batch);
  forward(space, batch.rows, space.at<T>(space.plan.x), space.plan.x.row, nullptr, true);
  DeviceSamples<T> targets;
  if (batch.samples.target) targets.target = space.at<T>(space.plan.target);
  if (batch.samples.labels) targets.labels = space.at<std::int64_t>(space.plan.labels_offset);
  if (batch.samples.weight) targets.weight = space.at<T>(space.plan.weight);
  measure(space, batch.rows, space.at<T>(space.plan.y.back()), targets, *batch.metrics);
  backward(space, batch);
  rules->enqueue(batch.update ? FinishUse::update : FinishUse::store, finish_state(), stream);
  if (batch.update && rules->need_whole_gradient())
    Products<T>(*layout, shadows, stream).refresh(arrays.parameters.w);
  if (batch.update) update_state(space, batch.rows);
  check(advance(tables.counter, stream), kBackward);
}

template <class T>
void Chain<T>::infer(const Workspace& space, index_t rows, const T* x, T* out,
                     bool training) const {
  forward(space, rows, x, layout->inputs, out, training);
}

template <class T>
void Chain<T>::evaluate(const Workspace& space, index_t rows, const T* y,
                        const DeviceSamples<T>& targets,
                        const std::vector<MetricSpec>& metrics) const {
  DeviceSamples<T> there = targets;
  if (there.weight) {
    T* const weight = space.at<T>(space.plan.weight);
    check(repeat_columns(there.weight, rows, weight_copies(), weight, stream), kForward);
    there.weight = weight;
  }
  measure(space, rows, y, there, metrics);
  check(advance(tables.counter, stream), kForward);
}

template <class T>
void Chain<T>::gather(const Workspace& space, const DeviceBatch<T>& batch) const {
  GatherArgs<T> g;
  g.order = tables.order;
  g.counter = tables.counter;
  g.rows_per_batch = batch.rows_per_batch;
  g.rows = batch.rows;
  g.x = batch.samples.x;
  g.inputs = layout->inputs;
  g.x_out = space.at<T>(space.plan.x);
  g.x_row = space.plan.x.row;
  g.target = batch.samples.target;
  g.outputs = layout->outputs;
  g.target_out = space.at<T>(space.plan.target);
  g.labels = batch.samples.labels;
  g.labels_out = space.at<std::int64_t>(space.plan.labels_offset);
  g.weight = batch.samples.weight;
  g.weight_copies = weight_copies();
  g.weight_out = space.at<T>(space.plan.weight);
  check(cuda::gather(g, stream), "gathering a batch");
}

template <class T>
void Chain<T>::forward(const Workspace& space, index_t rows, const T* x, index_t x_row, T* out,
                       bool training) const {
  Products<T> products(*layout, shadows, stream);
  const Pass<T> pass{{x, x_row}, training};
  Matrix<T> input = pass.x;
  for (std::size_t s = 0; s <= last(); ++s) {
    const Stage& stage = layout->stages[s];
    if (!training && stage.idle_in_inference() && s < last()) continue;
    ActivationTile<T> tile;
    tile.out = s == last() && out ? out : space.at<T>(space.plan.y[s]);
    tile.out_row = space.plan.y[s].row;
    tile.param = T(stage.param);
    if (stage.dense()) {
      forward_dense(products, space, s, rows, input, tile, training);
    } else {
      products.other_made();
      forward_own(space, s, rows, input, tile, pass);
    }
    input = {tile.out, tile.out_row};
  }
}

template <class T>
void Chain<T>::forward_dense(Products<T>& products, const Workspace& space, std::size_t s,
                             index_t rows, Matrix<T> x, const ActivationTile<T>& tile,
                             bool training) const {
  const Stage& stage = layout->stages[s];
  const T* const weights = arrays.parameters.w + stage.parameter_offset;
  GemmArgs<T> g;
  g.m = rows, g.n = stage.outputs, g.k = stage.inputs, g.chunk = stage.input_chunk;
  g.a = x.data, g.a_row = x.row, g.a_col = 1;
  g.b = weights, g.b_row = stage.outputs, g.b_col = 1;
  if (stage.bias) g.bias = weights + stage.inputs * stage.outputs;
  if (space.plan.keeps_z(s)) g.c = space.at<T>(space.plan.z[s]), g.c_row = space.plan.z[s].row;
  std::size_t next = s + 1;
  while (!training && next <= last() && layout->stages[next].idle_in_inference()) ++next;
  products.forward(s, g, tile, next);
}

// Of logits the errors are those of their softmax: what the loss without label smoothing leaves in
// dy, but for the mean's factor.
template <class T>
void Chain<T>::measure(const Workspace& space, index_t rows, const T* y,
                       const DeviceSamples<T>& targets,
                       const std::vector<MetricSpec>& metrics) const {
  bool plain_errors = false;
  for (const MetricSpec& what : metrics) plain_errors |= what.of_softmax;
  plain_errors &= loss.param != 0 || targets.weight;
  T* const dy = space.at<T>(space.plan.delta.back());
  take_loss(rows, y, targets, dy, plain_errors);
  for (std::size_t m = 0; m < metrics.size(); ++m) {
    MetricArgs<T> args;
    args.kind = metrics[m].kind;
    args.rows = rows;
    args.cols = layout->outputs;
    args.y = y;
    args.target = targets.target;
    args.labels = targets.labels;
    args.error = metrics[m].of_softmax ? dy : nullptr;
    args.error_scale = T(loss_divisor(loss, rows, layout->outputs));
    args.threshold = T(metrics[m].threshold);
    check(metric(args, tables.place(int(m) + 1), stream), "metric");
  }
  if (plain_errors) take_loss(rows, y, targets, dy, false);
}

// How often the loss's kernel wants the weight of a row: for every element, or once.
template <class T> index_t Chain<T>::weight_copies() const {
  return kElementwise[loss.loss] ? layout->outputs : 1;
}

// Leaves dy; `plain`: without label smoothing and weights.
template <class T>
void Chain<T>::take_loss(index_t rows, const T* y, const DeviceSamples<T>& targets, T* dy,
                         bool plain) const {
  LossArgs<T> args;
  args.rows = rows;
  args.cols = layout->outputs;
  args.y = y;
  args.target = targets.target;
  args.labels = targets.labels;
  args.dy = dy;
  args.dy_scale = T(1 / loss_divisor(loss, rows, layout->outputs));
  args.param = plain ? T(0) : T(loss.param);
  args.weight = plain ? nullptr : targets.weight;
  check(cuda::loss(loss.loss, args, tables.place(0), stream), "loss");
}

template <class T>
void Chain<T>::backward(const Workspace& space, const DeviceBatch<T>& batch) const {
  const index_t parts = partials_of(batch.rows);
  const std::size_t lowest = batch.dx ? 0 : layout->lowest_trained;
  const bool update = batch.update && !rules->need_whole_gradient();
  Products<T> products(*layout, shadows, stream);
  output_delta(space, batch.rows);
  for (std::size_t s = last() + 1; s-- > lowest;) {
    const BatchMatrix& dz = space.plan.delta[s];
    if (layout->stages[s].dense()) products.take_delta(s, space.at<T>(dz), dz.row, batch.rows);
    batch_norm_sums(space, s, batch.rows);
    // The product for the stage below reads the weights: they change after it.
    if (s > lowest || batch.dx)
      input_delta(products, space, batch.rows, s, s > 0 ? nullptr : batch.dx);
    parameter_gradient(products, space, batch.rows, s, parts, update);
  }
  if (parts > 1) add_up_parts(parts, update);
  if (parts > 1 && update) products.refresh(arrays.parameters.w);
}

// The partials of what is trained, into the flat gradient or the optimizer.
template <class T> void Chain<T>::add_up_parts(index_t parts, bool update) const {
  const auto add_up = [&](index_t begin, index_t end) {
    if (begin >= end) return;
    check(add_parts(partials + begin, parts, layout->parameter_count, end - begin,
                    update ? nullptr : arrays.gradient + begin, update ? optimizer : kNoOptimizer,
                    arrays.parameters.from(begin), tables.steps, stream),
          "update");
  };
  index_t begin = 0, end = 0;  // of what is next to each other
  for (const Stage& stage : layout->stages) {
    if (!stage.trainable || !in_parts(stage)) continue;
    if (stage.parameter_offset != round_to_block(end)) {
      add_up(begin, end);
      begin = stage.parameter_offset;
    }
    end = stage.parameter_offset + stage.parameter_count();
  }
  add_up(begin, end);
}

template <class T> FinishState<T> Chain<T>::finish_state() const {
  FinishState<T> state;
  state.gradient = arrays.gradient;
  state.to = arrays.parameters;
  state.optimizer = optimizer;
  state.steps = tables.steps;
  state.penalties = tables.penalties;
  return state;
}

template <class T> void Chain<T>::measure_penalties() const {
  rules->enqueue(FinishUse::measure, finish_state(), stream);
}

// dz of the last stage from the dy that the loss left.
template <class T> void Chain<T>::output_delta(const Workspace& space, index_t rows) const {
  const Stage& stage = layout->stages[last()];
  if (stage.activation == 0) return;
  const BatchMatrix& delta = space.plan.delta.back();
  const BatchMatrix* kept = saved(space, last());
  T* dz = space.at<T>(delta);
  const ActivationTile<T> tile{kept ? space.at<T>(*kept) : nullptr, kept ? kept->row : 0, dz,
                               delta.row, T(stage.param)};
  check(map_backward(stage.activation, ElementwiseArgs<T>{rows, delta.width, dz, delta.row, tile},
                     stream),
        kBackward);
}

// dz of the stage below (its activation's derivative included), or dx of the network's input.
template <class T>
void Chain<T>::input_delta(Products<T>& products, const Workspace& space, index_t rows,
                           std::size_t s, T* dx) const {
  const Stage& stage = layout->stages[s];
  ActivationTile<T> tile;
  int activation = 0;
  if (dx) {
    tile.out = dx;
    tile.out_row = stage.inputs;
  } else {
    const Stage& below = layout->stages[s - 1];
    const BatchMatrix* kept = saved(space, s - 1);
    const BatchMatrix& delta = space.plan.delta[s - 1];
    tile = {kept ? space.at<T>(*kept) : nullptr, kept ? kept->row : 0, space.at<T>(delta),
            delta.row, T(below.param)};
    activation = below.activation;
  }
  const BatchMatrix& dz = space.plan.delta[s];
  const bool joins = !stage.joins.empty();
  const int applied = joins ? 0 : activation;
  if (stage.dense()) {
    GemmArgs<T> g;
    g.m = rows, g.n = stage.inputs, g.k = stage.outputs;
    g.a = space.at<T>(dz), g.a_row = dz.row, g.a_col = 1;
    g.b = arrays.parameters.w + stage.parameter_offset, g.b_row = 1, g.b_col = stage.outputs;
    products.delta(s, g, applied, tile, dx || joins ? layout->stages.size() : s - 1);
  } else {
    input_delta_own(space, s, rows, applied, tile);
  }
  if (joins) join_deltas(space, stage, rows, activation, tile);
}

// Into the flat gradient, or with `update` straight into the parameters; with several parts, into
// the partials.
template <class T>
void Chain<T>::parameter_gradient(const Products<T>& products, const Workspace& space, index_t rows,
                                  std::size_t s, index_t parts, bool update) const {
  const Stage& stage = layout->stages[s];
  if (!stage.trainable || stage.parameter_count() == 0) return;
  if (!stage.dense()) return own_gradient(space, rows, s, parts, update);
  const BatchMatrix& input = s == 0 ? space.plan.x : space.plan.y[s - 1];
  const BatchMatrix& dz = space.plan.delta[s];
  GemmArgs<T> g;
  g.m = gradient_rows(stage), g.n = stage.outputs, g.k = rows;
  g.chunk = layout->row_chunk(rows);
  g.a = space.at<T>(input), g.a_row = 1, g.a_col = input.row;
  g.b = space.at<T>(dz), g.b_row = dz.row, g.b_col = 1;
  g.c_row = stage.outputs;
  if (parts == 1 && update) {
    products.update(s, g, optimizer, arrays.parameters.from(stage.parameter_offset), tables.steps);
    return;
  }
  g.c = (parts > 1 ? partials : arrays.gradient) + stage.parameter_offset;
  products.store(s, g, parts, layout->parameter_count);
}

template class Chain<float>;
template class Chain<double>;

}  // namespace cuda
}  // namespace fastbp
