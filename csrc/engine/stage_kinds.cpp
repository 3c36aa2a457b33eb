// What the stages that are not dense do, each worker with its own rows.
#include "engine/step.h"

namespace fastbp {

// y of the stage in this worker's rows.
template <class T> void Step<T>::forward_own(std::size_t s, Rows<const T> input, Rows<T> y) {
  const Stage& stage = c_.layout->stages[s];
  const Rows<const T> x = input.from(own_.at);
  const Rows<T> out = y.from(own_.at);
  need(false);
  if (stage.kind == StageKind::dropout && training_) {
    dropout(stage, x, out);
  } else {
    ActivationTile<T> tile;
    tile.out = out.data;
    tile.out_row = out.row;
    tile.param = T(stage.param);
    run_tile(c_.kernels->activation_forward[stage.activation], tile, x.data, x.row, stage.outputs);
  }
  done(false);
}

// In this worker's rows: from dz of the stage the gradient of its input, then by `below`, the
// derivative of the activation below, what the tile is to hold.
template <class T>
void Step<T>::input_delta_own(std::size_t s, Rows<const T> dz, TileOp<T> below,
                              const ActivationTile<T>& tile) {
  const Stage& stage = c_.layout->stages[s];
  if (stage.kind == StageKind::activation) {
    run_tile(below, tile, dz.data, dz.row, stage.inputs);
    return;
  }
  dropout(stage, dz, {tile.out, tile.out_row});
  if (below != c_.kernels->activation_backward[0])
    run_tile(below, tile, tile.out, tile.out_row, stage.inputs);
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
  args.stream = stage.stream;
  args.step = std::uint64_t(number_);
  for_row_chunks(own_.rows, stage.outputs, [&](index_t first, index_t count) {
    args.rows = count;
    args.first_row = own_.first + first;
    args.x = x.data + first * x.row;
    args.y = y.data + first * y.row;
    c_.kernels->dropout(args);
  });
}

template class Step<float>;
template class Step<double>;

}  // namespace fastbp
