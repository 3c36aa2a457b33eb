// What the stages that are not dense do in the passes of chain.cu: the device's twin of
// engine/stage_kinds.cpp, norm_stages.cpp and embedding.cpp.
#include "core/random.h"
#include "engine/cuda/chain.h"
#include "kernels/cuda/train/norms.h"

namespace fastbp {
namespace cuda {
namespace {

constexpr const char* kForward = "forward pass";
constexpr const char* kBackward = "backward pass";

// Whether the statistics are those of the batch, not the moving ones.
bool uses_batch_statistics(const Stage& stage, bool training) {
  return training && stage.trainable;
}

}  // namespace

// y of the stage, from x to where the tile says.
template <class T>
void Chain<T>::forward_own(const Workspace& space, std::size_t s, index_t rows, Matrix<T> x,
                           const ActivationTile<T>& tile, const Pass<T>& pass) const {
  const Stage& stage = layout->stages[s];
  switch (stage.kind) {
  case StageKind::layer_norm:
  case StageKind::batch_norm:
    return norm_forward(space, s, rows, x, tile, pass.training);
  case StageKind::normalize:
    return normalize(stage, state + stage.state_offset, rows, x, tile);
  case StageKind::softmax:
    return softmax(stage, rows, x, {}, tile);
  case StageKind::embedding:
    return embed(stage, rows, x, tile);
  case StageKind::custom:
    return host_activation(space, stage, rows, x, {}, tile);
  case StageKind::add: {
    ActivationTile<T> sum = tile;
    const Matrix<T> other = added(space, stage, pass);
    sum.saved = other.data;
    sum.saved_row = other.row;
    return check(add(ElementwiseArgs<T>{rows, stage.outputs, x.data, x.row, sum}, stream),
                 kForward);
  }
  case StageKind::dropout:
    if (pass.training) return dropout(space, stage, rows, x, tile);
    [[fallthrough]];  // a copy: its activation is the identity
  default:
    check(map_forward(stage.activation,
                      ElementwiseArgs<T>{rows, stage.outputs, x.data, x.row, tile}, stream),
          kForward);
  }
}

// From dz of the stage the gradient of its input, then by `activation`, the one below, what the tile
// is to hold.
template <class T>
void Chain<T>::input_delta_own(const Workspace& space, std::size_t s, index_t rows, int activation,
                               const ActivationTile<T>& tile) const {
  const Stage& stage = layout->stages[s];
  const Matrix<T> dz = matrix(space, space.plan.delta[s]);
  ElementwiseArgs<T> args{rows, stage.inputs, dz.data, dz.row, tile};
  switch (stage.kind) {
  case StageKind::dropout:
    dropout(space, stage, rows, dz, tile);
    break;
  case StageKind::normalize:
    normalize(stage, nullptr, rows, dz, tile);
    break;
  case StageKind::softmax:
    softmax(stage, rows, input_of(space, s), dz, tile);
    break;
  case StageKind::layer_norm:
  case StageKind::batch_norm:
    norm_delta(space, s, rows, tile);
    break;
  case StageKind::custom:
    host_activation(space, stage, rows, input_of(space, s), dz, tile);
    break;
  case StageKind::embedding:  // the numbers of entries have no gradient
    return check(clear(tile.out, tile.out_row, rows, stage.inputs, stream), kBackward);
  default:
    return check(map_backward(activation, args, stream), kBackward);
  }
  if (activation != 0) differentiate(activation, rows, stage.inputs, tile);
}

// The derivative of an activation on what the tile holds already.
template <class T>
void Chain<T>::differentiate(int activation, index_t rows, index_t cols,
                             const ActivationTile<T>& tile) const {
  const ElementwiseArgs<T> args{rows, cols, tile.out, tile.out_row, tile};
  check(map_backward(activation, args, stream), kBackward);
}

// What an adding stage adds to its input.
template <class T>
Matrix<T> Chain<T>::added(const Workspace& space, const Stage& stage, const Pass<T>& pass) const {
  const std::ptrdiff_t source =
      pass.training ? stage.source : layout->inference_source(stage.source);
  return source < 0 ? pass.x : matrix(space, space.plan.y[std::size_t(source)]);
}

// Adds to the gradient of a stage's input that of the stages which add this input, then takes the
// derivative of the activation below.
template <class T>
void Chain<T>::join_deltas(const Workspace& space, const Stage& stage, index_t rows, int activation,
                           const ActivationTile<T>& tile) const {
  for (const std::size_t adding : stage.joins) {
    ActivationTile<T> sum = tile;
    const Matrix<T> delta = matrix(space, space.plan.delta[adding]);
    sum.saved = delta.data;
    sum.saved_row = delta.row;
    check(add(ElementwiseArgs<T>{rows, stage.inputs, tile.out, tile.out_row, sum}, stream),
          kBackward);
  }
  if (activation != 0) differentiate(activation, rows, stage.inputs, tile);
}

// The outputs of its inputs, and the gradient of those of that of its outputs: the factors are drawn
// anew each time, from the same numbers.
template <class T>
void Chain<T>::dropout(const Workspace& space, const Stage& stage, index_t rows, Matrix<T> x,
                       const ActivationTile<T>& tile) const {
  DropoutArgs<T> args;
  args.rows = rows;
  args.cols = stage.outputs;
  args.x = x.data;
  args.x_row = x.row;
  args.y = tile.out;
  args.y_row = tile.out_row;
  args.rate = stage.param;
  args.seed = seed;
  // The kernel knows the step.
  args.stream = dropout_stream(0, stage.stream, static_cast<std::uint32_t>(Purpose::dropout));
  const index_t steps = stage.sequence ? space.plan.steps : 1;
  check(cuda::dropout(args, sequences(rows / steps, steps), stage.per_sequence, tables.counter,
                      stream),
        kForward);
}

// y = (x - center) factor; center null: 0, which is the way back.
template <class T>
void Chain<T>::normalize(const Stage& stage, const T* center, index_t rows, Matrix<T> x,
                         const ActivationTile<T>& tile) const {
  NormArgs<T> args;
  args.rows = rows, args.cols = stage.outputs;
  args.x = x.data, args.x_row = x.row;
  args.y = tile.out, args.y_row = tile.out_row;
  args.mean = center;
  args.factor = state + stage.state_offset + stage.outputs;
  check(cuda::normalize(args, stream), kForward);
}

// y = softmax(x); with d, the gradient of that, the one of x.
template <class T>
void Chain<T>::softmax(const Stage& stage, index_t rows, Matrix<T> x, Matrix<T> d,
                       const ActivationTile<T>& tile) const {
  NormArgs<T> args;
  args.rows = rows, args.cols = stage.outputs;
  args.x = x.data, args.x_row = x.row;
  args.d = d.data, args.d_row = d.row;
  args.y = tile.out, args.y_row = tile.out_row;
  check(d.data ? softmax_backward(args, stream) : softmax_forward(args, stream),
        d.data ? kBackward : kForward);
}

// All but what is read and written.
template <class T>
NormArgs<T> Chain<T>::norm_args(const Workspace& space, std::size_t s, index_t rows,
                                bool training) const {
  const Stage& stage = layout->stages[s];
  const T* const parameters = arrays.parameters.w + stage.parameter_offset;
  NormArgs<T> args;
  args.rows = args.batch_rows = rows;
  args.cols = stage.outputs;
  args.gamma = stage.parameter_rows > 0 ? parameters : nullptr;
  args.beta = stage.bias ? parameters + stage.parameter_rows * stage.outputs : nullptr;
  args.epsilon = T(stage.param);
  if (!stage.batch_coupled()) {
    args.row_stats = space.at<T>(space.plan.work[s]);
    return args;
  }
  const bool of_batch = uses_batch_statistics(stage, training);
  args.mean = of_batch ? statistics + stage.worker_offset : state + stage.state_offset;
  args.variance = args.mean + stage.outputs;
  if (of_batch) args.sums = args.mean + 2 * stage.outputs;
  return args;
}

template <class T>
void Chain<T>::norm_forward(const Workspace& space, std::size_t s, index_t rows, Matrix<T> x,
                            const ActivationTile<T>& tile, bool training) const {
  const Stage& stage = layout->stages[s];
  NormArgs<T> args = norm_args(space, s, rows, training);
  args.x = x.data, args.x_row = x.row;
  args.y = tile.out, args.y_row = tile.out_row;
  if (!stage.batch_coupled()) return check(cuda::layer_norm_forward(args, stream), kForward);
  if (uses_batch_statistics(stage, training)) {
    T* const mean = statistics + stage.worker_offset;
    check(batch_norm_statistics(args, layout->row_block(rows), space.at<T>(space.plan.work[s]),
                                mean, mean + stage.outputs, stream),
          kForward);
  }
  check(cuda::batch_norm_forward(args, stream), kForward);
}

// The arguments of the way back, in training.
template <class T>
NormArgs<T> Chain<T>::norm_backward_args(const Workspace& space, std::size_t s,
                                         index_t rows) const {
  NormArgs<T> args = norm_args(space, s, rows, true);
  const Matrix<T> x = input_of(space, s), d = matrix(space, space.plan.delta[s]);
  args.x = x.data, args.x_row = x.row;
  args.d = d.data, args.d_row = d.row;
  return args;
}

// The sums over the batch that the way back of batch normalisation needs.
template <class T>
void Chain<T>::batch_norm_sums(const Workspace& space, std::size_t s, index_t rows) const {
  const Stage& stage = layout->stages[s];
  if (!stage.batch_coupled() || !stage.trainable) return;
  check(cuda::batch_norm_sums(norm_backward_args(space, s, rows), layout->row_block(rows),
                              space.at<T>(space.plan.work[s]),
                              statistics + stage.worker_offset + 2 * stage.outputs, stream),
        kBackward);
}

template <class T>
void Chain<T>::norm_delta(const Workspace& space, std::size_t s, index_t rows,
                          const ActivationTile<T>& tile) const {
  NormArgs<T> args = norm_backward_args(space, s, rows);
  args.y = tile.out, args.y_row = tile.out_row;
  check(layout->stages[s].batch_coupled() ? cuda::batch_norm_backward(args, stream)
                                          : cuda::layer_norm_backward(args, stream),
        kBackward);
}

// Where the gradient of a stage's parameters goes.
template <class T>
GradientSink<T> Chain<T>::sink_of(const Stage& stage, index_t parts, bool update) const {
  GradientSink<T> to;
  to.gradient = (parts > 1 ? partials : arrays.gradient) + stage.parameter_offset;
  to.apart = layout->parameter_count;
  if (parts > 1 || !update) return to;
  to.optimizer = optimizer;
  to.to = arrays.parameters.from(stage.parameter_offset);
  to.steps = tables.steps;
  return to;
}

// Of a norm or a table; only layer normalisation is summed in parts.
template <class T>
void Chain<T>::own_gradient(const Workspace& space, index_t rows, std::size_t s, index_t parts,
                            bool update) const {
  const Stage& stage = layout->stages[s];
  if (stage.kind != StageKind::layer_norm) parts = 1;
  own_gradient_of(space, s, 0, rows, layout->row_chunk(rows), parts, sink_of(stage, parts, update));
}

// Over some rows of its matrices.
template <class T>
void Chain<T>::own_gradient_of(const Workspace& space, std::size_t s, index_t first, index_t rows,
                               index_t chunk, index_t parts, const GradientSink<T>& to) const {
  const Stage& stage = layout->stages[s];
  const Matrix<T> x = input_of(space, s), dz = matrix(space, space.plan.delta[s]);
  if (stage.kind == StageKind::embedding) {
    EmbeddingArgs<T> args = embedding_args(stage, rows, {x.data + first * x.row, x.row});
    args.d = dz.data + first * dz.row, args.d_row = dz.row;
    return check(embedding_gradient(args, to, stream), kBackward);
  }
  NormArgs<T> args = norm_backward_args(space, s, rows);
  if (stage.batch_coupled()) return check(batch_norm_gradient(args, to, stream), kBackward);
  args.x += first * x.row, args.d += first * dz.row;
  args.row_stats += 2 * first;
  check(layer_norm_gradient(args, chunk, parts, to, stream), kBackward);
}

template <class T>
EmbeddingArgs<T> Chain<T>::embedding_args(const Stage& stage, index_t rows, Matrix<T> x) const {
  EmbeddingArgs<T> args;
  args.rows = rows, args.inputs = stage.inputs;
  args.entries = stage.parameter_rows, args.width = stage.parameter_cols;
  args.x = x.data, args.x_row = x.row;
  args.table = arrays.parameters.w + stage.parameter_offset;
  return args;
}

template <class T>
void Chain<T>::embed(const Stage& stage, index_t rows, Matrix<T> x,
                     const ActivationTile<T>& tile) const {
  EmbeddingArgs<T> args = embedding_args(stage, rows, x);
  args.y = tile.out, args.y_row = tile.out_row;
  check(embedding(args, stream), kForward);
}

// What a step changes besides parameters.
template <class T> void Chain<T>::update_state(const Workspace& space, index_t rows) const {
  for (std::size_t s = 0; s <= last(); ++s) {
    const Stage& stage = layout->stages[s];
    if (!stage.batch_coupled() || !stage.trainable) continue;
    T* const moving = state + stage.state_offset;
    check(batch_norm_moving(norm_args(space, s, rows, true), T(stage.momentum), moving,
                            moving + stage.outputs, scaling ? &scaling->overflow : nullptr, stream),
          "update");
  }
}

template class Chain<float>;
template class Chain<double>;

}  // namespace cuda
}  // namespace fastbp
