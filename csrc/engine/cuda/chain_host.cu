// The stages of a step that call functions of the caller's own: the device's twin of
// engine/host_functions.cpp. Of sequences they get the CPU's parts.
#include "engine/cuda/chain.h"

namespace fastbp {
namespace cuda {

// From z to where the tile says; with dy.data the derivative times dy.
template <class T>
void Chain<T>::host_activation(const Workspace& space, const Stage& stage, index_t rows,
                               Matrix<T> z, Matrix<T> dy, const ActivationTile<T>& tile) const {
  const index_t steps = stage.sequence ? space.plan.steps : 1, all = rows / steps;
  const index_t chunk = layout->sequences ? layout->row_chunk(all) : all;
  for (index_t first = 0; first < all; first += chunk) {
    const index_t at = first * steps;
    HostActivation<T> call;
    call.function = stage.function;
    call.rows = all - first < chunk ? all - first : chunk;
    call.cols = stage.outputs;
    if (stage.sequence) call.steps = steps;
    call.z = z.data + at * z.row, call.z_row = z.row;
    if (dy.data) call.dy = dy.data + at * dy.row, call.dy_row = dy.row;
    call.out = tile.out + at * tile.out_row, call.out_row = tile.out_row;
    host->activation(call, stream);
  }
}

template <class T> void Chain<T>::host_loss(const Outputs<T>& part) const {
  HostLoss<T> call;
  call.rows = part.rows, call.cols = layout->outputs;
  call.counted = part.all;
  call.y = part.y;
  call.target = part.targets.target;
  call.weight = part.targets.weight;
  call.dy = part.dy;
  host->loss(call, tables.place(0, part.block), stream);
}

// Such a loss reads its targets in the order of the batch.
template <class T>
void Chain<T>::gather_targets(const Workspace& space, const DeviceBatch<T>& batch) const {
  GatherArgs<T> g;
  g.from = {tables.order, tables.counter, batch.rows_per_batch};
  g.rows = batch.rows;
  g.x = batch.samples.target;
  g.inputs = g.x_row = layout->outputs;
  g.x_out = space.at<T>(space.plan.target);
  check(cuda::gather(g, stream), "gathering a batch");
}

template class Chain<float>;
template class Chain<double>;

}  // namespace cuda
}  // namespace fastbp
