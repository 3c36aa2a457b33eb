// What the stages that are not dense do, each worker with its own rows.
#include "core/random.h"
#include "engine/step.h"

namespace fastbp {

// y of the stage in this worker's rows.
template <class T> void Step<T>::forward_own(std::size_t s, Rows<const T> input, Rows<T> y) {
  const Stage& stage = c_.layout->stages[s];
  const Rows<const T> x = input.from(own_.at);
  const Rows<T> out = y.from(own_.at);
  ActivationTile<T> tile;
  need(false);
  switch (stage.kind) {
  case StageKind::layer_norm:
    layer_norm_forward(s, x, out);
    break;
  case StageKind::batch_norm:
    batch_norm_forward(s, x, out);
    break;
  case StageKind::softmax:
    softmax(stage, x, {}, out);
    break;
  case StageKind::normalize:
    normalize(stage, c_.state + stage.state_offset, x, out);
    break;
  case StageKind::embedding:
    embed(stage, x, out);
    break;
  case StageKind::custom:
    host_activation(stage, x, {}, out);
    break;
  case StageKind::add:
    tile.out = out.data;
    tile.out_row = out.row;
    tile.saved = added(stage).from(own_.at).data;
    tile.saved_row = added(stage).row;
    run_tile(c_.kernels->add_saved, tile, own_rows(stage.sequence), x.data, x.row, stage.outputs);
    break;
  case StageKind::dropout:
    if (training_) {
      dropout(stage, x, out);
      break;
    }
    [[fallthrough]];  // a copy: its activation is the identity
  default:
    tile.out = out.data;
    tile.out_row = out.row;
    tile.param = T(stage.param);
    run_tile(c_.kernels->activation_forward[stage.activation], tile, own_rows(stage.sequence),
             x.data, x.row, stage.outputs);
    break;
  }
  done(false);
}

// In this worker's rows: from dz of the stage the gradient of its input, then by `below`, the
// derivative of the activation below, what the tile is to hold.
template <class T>
void Step<T>::input_delta_own(std::size_t s, Rows<const T> dz, TileOp<T> below,
                              const ActivationTile<T>& tile) {
  const Stage& stage = c_.layout->stages[s];
  const Rows<T> dx{tile.out, tile.out_row, dz.places};
  switch (stage.kind) {
  case StageKind::dropout:
    dropout(stage, dz, dx);
    break;
  case StageKind::normalize:
    normalize(stage, nullptr, dz, dx);
    break;
  case StageKind::layer_norm:
    layer_norm_delta(s, dz, dx);
    break;
  case StageKind::embedding:
    embedding_delta(stage, dx);
    break;
  case StageKind::batch_norm:
    batch_norm_delta(s, dz, dx);
    break;
  case StageKind::softmax:
    softmax(stage, input_of(s).from(own_.at), dz, dx);
    break;
  case StageKind::custom:
    host_activation(stage, input_of(s).from(own_.at), dz, dx);
    break;
  default:
    run_tile(below, tile, own_rows(stage.sequence), dz.data, dz.row, stage.inputs);
    return;
  }
  if (below != c_.kernels->activation_backward[0])
    run_tile(below, tile, own_rows(stage.sequence), tile.out, tile.out_row, stage.inputs);
}

// y = (x - center) factor in this worker's rows; center null: 0, which is the way back.
template <class T>
void Step<T>::normalize(const Stage& stage, const T* center, Rows<const T> x, Rows<T> y) {
  NormArgs<T> args;
  args.cols = stage.outputs;
  args.x_row = x.row, args.y_row = y.row;
  args.mean = center;
  args.factor = c_.state + stage.state_offset + stage.outputs;
  for_row_chunks(own_rows(stage.sequence), args.cols, [&](index_t first, index_t count) {
    args.rows = count;
    args.x = x.data + first * x.row, args.y = y.data + first * y.row;
    c_.kernels->normalize(args);
  });
}

// y = softmax(x) in this worker's rows; with d, the gradient of that, the one of x.
template <class T>
void Step<T>::softmax(const Stage& stage, Rows<const T> x, Rows<const T> d, Rows<T> y) {
  NormArgs<T> args;
  args.cols = stage.outputs;
  args.x_row = x.row, args.d_row = d.row, args.y_row = y.row;
  for_row_chunks(own_rows(stage.sequence), args.cols, [&](index_t first, index_t count) {
    args.rows = count;
    args.x = x.data + first * x.row, args.y = y.data + first * y.row;
    if (d.data) args.d = d.data + first * d.row;
    d.data ? c_.kernels->softmax_backward(args) : c_.kernels->softmax_forward(args);
  });
}

// What an adding stage adds to its input.
template <class T>
typename Step<T>::template Rows<const T> Step<T>::added(const Stage& stage) const {
  const std::ptrdiff_t source =
      training_ ? stage.source : c_.layout->inference_source(stage.source);
  return source < 0 ? x_ : output_of(std::size_t(source));
}

// Adds to the gradient of a stage's input that of the stages which add this input, then takes the
// derivative of the activation below.
template <class T>
void Step<T>::join_deltas(const Stage& stage, TileOp<T> below, const ActivationTile<T>& tile) {
  need(false);
  const index_t rows = own_rows(c_.layout->stages[stage.joins.front()].sequence);
  for (std::size_t adding : stage.joins) {
    ActivationTile<T> sum = tile;
    sum.saved = at(plan().delta[adding], own_);
    sum.saved_row = plan().delta[adding].row;
    run_tile(c_.kernels->add_saved, sum, rows, tile.out, tile.out_row, stage.inputs);
  }
  if (below != c_.kernels->activation_backward[0])
    run_tile(below, tile, rows, tile.out, tile.out_row, stage.inputs);
  done(false);
}

// y = x m in this worker's rows: the outputs of its inputs, and the gradient of those of that of
// its outputs. m is drawn anew each time, from the same numbers.
template <class T> void Step<T>::dropout(const Stage& stage, Rows<const T> x, Rows<T> y) {
  DropoutArgs<T> args;
  args.cols = stage.outputs;
  args.x_row = x.row;
  args.y_row = y.row;
  args.rate = stage.param;
  args.seed = c_.seed;
  args.stream = dropout_stream(std::uint64_t(number_), stage.stream,
                               static_cast<std::uint32_t>(Purpose::dropout));
  // The rows of a step belong to sequences, whose rows are numbered by steps.
  const index_t steps = stage.sequence ? plan().steps : 1;
  args.row_step = stage.per_sequence ? 1 : steps;
  for (index_t t = 0; t < steps; ++t) {
    for_row_chunks(own_.rows, stage.outputs, [&](index_t first, index_t count) {
      const index_t row = t * own_.rows + first;
      args.rows = count;
      args.first_row = own_.first + first;
      if (!stage.per_sequence) args.first_row = args.first_row * steps + t;
      args.x = x.data + row * x.row;
      args.y = y.data + row * y.row;
      c_.kernels->dropout(args);
    });
  }
}

template class Step<float>;
template class Step<double>;

}  // namespace fastbp
