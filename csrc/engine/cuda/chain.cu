#include "engine/cuda/chain.h"

#include <algorithm>

namespace fastbp {
namespace cuda {
namespace {

// One for each multiprocessor of an H100. Exact results do not depend on it.
constexpr index_t kEnoughBlocks = 132;

constexpr const char* kForward = "forward pass";
constexpr const char* kBackward = "backward pass";

// Whether a stage has parameters whose gradient is a sum over parts of the batch: of sequences any.
bool in_parts(const Stage& stage, bool sequences) {
  return stage.parameter_count() > 0 &&
         (sequences || stage.dense() || stage.kind == StageKind::layer_norm);
}

bool trains(const Stage& stage) { return stage.trainable && stage.parameter_count() > 0; }

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
  if (layout->sequences) return std::min(parts, kPartsAtOnce);
  index_t blocks = 0;
  for (const Stage& stage : layout->stages)
    if (stage.dense()) blocks += product_mode.blocks(gradient_rows(stage), stage.outputs);
  const bool worth_it = blocks < kEnoughBlocks && parts > product_mode.chunks_at_once();
  return worth_it && parts <= kMaxGridY ? parts : 1;
}

template <class T> void Chain<T>::write_ones(const Workspace& space) const {
  const auto write = [&](const BatchMatrix& m) {
    if (m.ones)
      check(
          cuda::write_ones(space.at<T>(m) + m.width, m.row, space.plan.capacity * m.places, stream),
          kForward);
  };
  write(space.plan.x);
  for (const BatchMatrix& y : space.plan.y) write(y);
  for (const ScanMatrices& scan : space.plan.scan)
    for (const ScanWay& way : scan.way) write(way.h), write(way.masked);
}

template <class T> void Chain<T>::train(const Workspace& space, const DeviceBatch<T>& batch) const {
  if (marks) marks->begin(stream);
  gather(space, batch);
  spent(StepPart::gather);
  Pass<T> pass = gathered_pass(space, batch.samples, true);
  pass.rounded = gathers_rounded();
  forward(space, batch.rows, pass, nullptr);
  measure(space, batch.rows, space.at<T>(space.plan.y.back()),
          gathered(space, batch.samples, batch.rows_per_batch), *batch.metrics, batch.counts,
          loss_rounds() ? product_mode.shadows->delta.of(last()) : Shadow{});
  if (scaling) scale_delta(space, batch.rows);
  output_delta(space, batch.rows);
  spent(StepPart::loss);
  backward(space, batch);
  if (scaling && batch.dx)
    check(scale_by(scaling, true, batch.dx, layout->inputs, batch.rows * space.plan.steps,
                   layout->inputs, stream),
          kBackward);
  rules->enqueue(batch.update ? FinishUse::update : FinishUse::store, finish_state(), stream);
  if (batch.update && rules->need_whole_gradient())
    Products<T>(*layout, product_mode, stream).refresh(arrays.parameters.w);
  if (batch.update) update_state(space, batch.rows);
  check(advance(tables.counter, stream), kBackward);
  spent(StepPart::update);
}

// Whether rows are gathered as the shadows that the first stage reads.
template <class T> bool Chain<T>::gathers_rounded() const {
  return product_mode.shadows && !layout->sequences && layout->stages.front().dense();
}

// Whether the loss leaves the shadow of the last stage's dz, which then is its own gradient.
template <class T> bool Chain<T>::loss_rounds() const {
  const Stage& stage = layout->stages[last()];
  return product_mode.shadows && !layout->sequences && !scaling && stage.dense() &&
         stage.activation == 0 && !loss.custom;
}

// Whether each dense stage adds up the parts of its own gradient.
template <class T> bool Chain<T>::by_stages() const {
  return product_mode.on_tensor_cores() && !layout->sequences;
}

// The targets where a batch is gathered; but of sequences and for a custom loss, rows of targets are read
// where they are.
template <class T>
DeviceSamples<T> Chain<T>::gathered(const Workspace& space, const DeviceSamples<T>& from,
                                    index_t rows_per_batch) const {
  DeviceSamples<T> here;
  if (!layout->sequences && !loss.custom) {
    here.target = from.target;
    here.rows = {tables.order, tables.counter, rows_per_batch};
  } else if (from.target) {
    here.target = space.at<T>(space.plan.target);
  }
  if (from.labels) here.labels = space.at<std::int64_t>(space.plan.labels_offset);
  if (from.weight) here.weight = space.at<T>(space.plan.weight);
  return here;
}

template <class T>
Pass<T> Chain<T>::gathered_pass(const Workspace& space, const DeviceSamples<T>& from,
                                bool training) const {
  return {matrix(space, space.plan.x), training,
          from.lengths ? space.at<std::int64_t>(space.plan.lengths_offset) : nullptr, from.states,
          false};
}

template <class T>
void Chain<T>::infer(const Workspace& space, index_t rows, const DeviceSamples<T>& samples, T* out,
                     bool training) const {
  if (!layout->sequences)
    return forward(space, rows, {{samples.x, layout->inputs}, training, nullptr, nullptr, false},
                   out);
  check(gather_sequences(sequence_gather(space, rows, samples), stream), kForward);
  forward(space, rows, gathered_pass(space, samples, training), nullptr);
  if (out) keep_outputs(space, rows, out);
}

template <class T> void Chain<T>::keep_outputs(const Workspace& space, index_t rows, T* to) const {
  const index_t places = layout->output_places(space.plan.steps), cols = layout->outputs;
  check(by_sequences(space.at<T>(space.plan.y.back()), cols, sequences(rows, places), cols, to,
                     stream),
        "keeping outputs");
}

template <class T>
void Chain<T>::gather(const Workspace& space, const DeviceBatch<T>& batch) const {
  if (layout->sequences) {
    SequenceGather<T> g = sequence_gather(space, batch.rows, batch.samples);
    g.order = tables.order;
    g.counter = tables.counter;
    g.rows_per_batch = batch.rows_per_batch;
    return check(gather_sequences(g, stream), "gathering a batch");
  }
  GatherArgs<T> g;
  g.from = {tables.order, tables.counter, batch.rows_per_batch};
  g.rows = batch.rows;
  g.x = batch.samples.x;
  g.inputs = layout->inputs;
  g.x_out = space.at<T>(space.plan.x);
  g.x_row = space.plan.x.row;
  if (gathers_rounded()) {
    g.x_shadow = product_mode.shadows->input.of(0);
    if (layout->stages.front().joins.empty()) g.x_out = nullptr;  // nobody reads it
  }
  g.labels = batch.samples.labels;
  g.labels_out = space.at<std::int64_t>(space.plan.labels_offset);
  g.weight = batch.samples.weight;
  g.weight_copies = weight_copies();
  g.weight_out = space.at<T>(space.plan.weight);
  check(cuda::gather(g, stream), "gathering a batch");
  if (loss.custom) gather_targets(space, batch);
}

template <class T>
void Chain<T>::forward(const Workspace& space, index_t rows, const Pass<T>& pass, T* out) const {
  Products<T> products(*layout, product_mode, stream, pass.rounded);
  Matrix<T> input = pass.x;
  for (std::size_t s = 0; s <= last(); ++s) {
    const Stage& stage = layout->stages[s];
    if (!pass.training && stage.idle_in_inference() && s < last()) continue;
    const index_t here = space.rows_of(stage, rows);
    ActivationTile<T> tile;
    tile.out = s == last() && out ? out : space.at<T>(space.plan.y[s]);
    tile.out_row = space.plan.y[s].row;
    tile.param = T(stage.param);
    if (stage.dense()) {
      forward_dense(products, space, s, here, input, tile, pass.training);
    } else {
      products.other_made();
      if (stage.scan())
        forward_scan(space, s, rows, pass);
      else
        forward_own(space, s, here, input, tile, pass);
    }
    input = {tile.out, tile.out_row};
    spent(StepPart::forward, s);
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
  products.forward(s, g, tile, next, training);
}

template <class T>
void Chain<T>::backward(const Workspace& space, const DeviceBatch<T>& batch) const {
  index_t parts = partials_of(batch.rows);  // at the end
  if (layout->sequences)
    parts = place_of_part(parts_of(batch.rows, layout->row_chunk(batch.rows)) - 1) + 1;
  const std::size_t lowest = batch.dx ? 0 : layout->lowest_trained;
  const bool update = batch.update && !rules->need_whole_gradient();
  Products<T> products(*layout, product_mode, stream, loss_rounds());
  for (std::size_t s = last() + 1; s-- > lowest;) {
    const BatchMatrix& dz = space.plan.delta[s];
    const index_t here = space.rows_of(layout->stages[s], batch.rows);
    if (layout->stages[s].dense()) products.take_delta(s, space.at<T>(dz), dz.row, here);
    batch_norm_sums(space, s, batch.rows);
    const bool scan = layout->stages[s].scan();
    const auto gradient = [&] {
      parameter_gradient(products, space, batch.rows, s, parts, update);
      if (trains(layout->stages[s])) spent(StepPart::gradient, s);
    };
    // The product for the stage below reads the weights: they change after it. Those of sequences do when all
    // parts are there; but that product may be stored where the stage's input is (Builder::delta_in_output).
    const bool early = layout->sequences && !scan;
    if (early) gradient();
    if (scan) {
      input_delta_scan(space, s, batch.rows, gathered_pass(space, batch.samples, true).lengths);
      round_scan(products, space, s, batch.rows);
    } else if (s > lowest || batch.dx) {
      input_delta(products, space, batch.rows, s, s > 0 ? nullptr : batch.dx);
    }
    if (scan || s > lowest || batch.dx) spent(StepPart::delta, s);
    if (!early) gradient();
  }
  const bool apart = parts > 1 || layout->sequences;
  if (apart) add_up_parts(parts, update);
  if (apart && update && !by_stages()) products.refresh(arrays.parameters.w);
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
    if (!stage.trainable || !in_parts(stage, layout->sequences)) continue;
    if (stage.dense() && by_stages()) continue;
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
  state.scaling = scaling;
  return state;
}

// dy of the scaled loss from the dy that the loss left.
template <class T> void Chain<T>::scale_delta(const Workspace& space, index_t rows) const {
  const BatchMatrix& delta = space.plan.delta.back();
  check(scale_by(scaling, false, space.at<T>(delta), delta.row,
                 space.rows_of(layout->stages[last()], rows), delta.width, stream),
        kBackward);
}

// dz of the last stage from its dy.
template <class T> void Chain<T>::output_delta(const Workspace& space, index_t rows) const {
  const Stage& stage = layout->stages[last()];
  if (stage.activation == 0) return;
  const BatchMatrix& delta = space.plan.delta.back();
  const BatchMatrix* kept = saved(space, last());
  const index_t here = space.rows_of(stage, rows);
  T* dz = space.at<T>(delta);
  const ActivationTile<T> tile{kept ? space.at<T>(*kept) : nullptr, kept ? kept->row : 0, dz,
                               delta.row, T(stage.param)};
  check(map_backward(stage.activation, ElementwiseArgs<T>{here, delta.width, dz, delta.row, tile},
                     stream),
        kBackward);
}

// dz of the stage below (its activation's derivative included), or dx of the network's input.
template <class T>
void Chain<T>::input_delta(Products<T>& products, const Workspace& space, index_t batch_rows,
                           std::size_t s, T* dx) const {
  const Stage& stage = layout->stages[s];
  const index_t rows = space.rows_of(stage, batch_rows);
  ActivationTile<T> tile;
  int activation = 0;
  if (dx && layout->sequences) {
    tile.out = space.at<T>(space.plan.x);  // which nobody reads again
    tile.out_row = space.plan.x.row;
  } else if (dx) {
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
  if (dx && layout->sequences)
    check(by_sequences(tile.out, tile.out_row, sequences(batch_rows, space.plan.steps),
                       stage.inputs, dx, stream),
          kBackward);
}

// Into the flat gradient, or with `update` straight into the parameters; with several parts, and of
// sequences, into the partials.
template <class T>
void Chain<T>::parameter_gradient(const Products<T>& products, const Workspace& space, index_t rows,
                                  std::size_t s, index_t parts, bool update) const {
  const Stage& stage = layout->stages[s];
  if (!trains(stage)) return;
  if (layout->sequences) return sequence_gradient(products, space, rows, s);
  if (!stage.dense()) return own_gradient(space, rows, s, parts, update);
  GemmArgs<T> g = gradient_product(space, s, 0, rows);
  g.chunk = layout->row_chunk(rows);
  g.c = arrays.gradient + stage.parameter_offset;
  T* const partial = partials + stage.parameter_offset;
  const GradientParts<T> apart{parts > 1 ? partial : nullptr, parts, layout->parameter_count};
  if (update && (parts == 1 || by_stages()))
    return products.update(s, g, apart, optimizer, arrays.parameters.from(stage.parameter_offset),
                           tables.steps);
  if (by_stages()) return products.store_sum(s, g, apart);
  if (parts > 1) g.c = partial;
  products.store(s, g, parts, layout->parameter_count);
}

// (x, 1)^T dz of a dense stage, over some rows of its matrices.
template <class T>
GemmArgs<T> Chain<T>::gradient_product(const Workspace& space, std::size_t s, index_t first,
                                       index_t rows) const {
  const Stage& stage = layout->stages[s];
  const Matrix<T> input = input_of(space, s), dz = matrix(space, space.plan.delta[s]);
  GemmArgs<T> g;
  g.m = gradient_rows(stage), g.n = stage.outputs, g.k = rows;
  g.a = input.data + first * input.row, g.a_row = 1, g.a_col = input.row;
  g.b = dz.data + first * dz.row, g.b_row = dz.row, g.b_col = 1;
  g.c_row = stage.outputs;
  return g;
}

template class Chain<float>;
template class Chain<double>;

}  // namespace cuda
}  // namespace fastbp
