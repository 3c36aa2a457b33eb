// Layer and batch normalisation in a step.
//
// Both work on a worker's own rows. The statistics of a batch need two barriers: each worker sums up
// its own blocks of rows, waits for the others', and adds all blocks in order for itself; so again
// on the way back. Mean, variance and the two sums of the way back are each worker's own copy.
#include "engine/step.h"

namespace fastbp {

template <class T> index_t Step<T>::row_blocks() const {
  return parts_of(all_.rows, c_.layout->row_block(all_.rows));
}

template <class T> T* Step<T>::work(std::size_t s) const {
  return c_.arena->template at<T>(plan().work[s]);
}

template <class T> T* Step<T>::worker_values(const Stage& stage) const {
  return c_.worker_values + share_.id * c_.layout->worker_count + stage.worker_offset;
}

template <class T> bool Step<T>::uses_batch_statistics(const Stage& stage) const {
  return training_ && stage.trainable;
}

// Parameters and statistics, without rows.
template <class T> NormArgs<T> Step<T>::norm_args(const Stage& stage) const {
  const T* parameters = c_.parameters.w + stage.parameter_offset;
  NormArgs<T> args;
  args.cols = stage.outputs;
  args.gamma = stage.parameter_rows > 0 ? parameters : nullptr;
  args.beta = stage.bias ? parameters + stage.parameter_rows * stage.outputs : nullptr;
  args.epsilon = T(stage.param);
  args.batch_rows = all_.rows;
  if (stage.batch_coupled()) {
    args.mean = uses_batch_statistics(stage) ? worker_values(stage) : c_.state + stage.state_offset;
    args.variance = args.mean + stage.outputs;
    if (uses_batch_statistics(stage)) args.sums = args.mean + 2 * stage.outputs;
  }
  return args;
}

template <class T> void Step<T>::layer_norm_forward(std::size_t s, Rows<const T> x, Rows<T> y) {
  NormArgs<T> args = norm_args(c_.layout->stages[s]);
  args.x_row = x.row, args.y_row = y.row;
  for_row_chunks(own_.rows * x.places, args.cols, [&](index_t first, index_t count) {
    args.rows = count;
    args.x = x.data + first * x.row, args.y = y.data + first * y.row;
    args.row_stats = work(s) + 2 * (own_.at * x.places + first);
    c_.kernels->layer_norm_forward(args);
  });
}

template <class T> void Step<T>::layer_norm_delta(std::size_t s, Rows<const T> dz, Rows<T> dx) {
  const Rows<const T> x = input_of(s).from(own_.at);
  NormArgs<T> args = norm_args(c_.layout->stages[s]);
  args.x_row = x.row, args.d_row = dz.row, args.y_row = dx.row;
  for_row_chunks(own_.rows * x.places, args.cols, [&](index_t first, index_t count) {
    args.rows = count;
    args.x = x.data + first * x.row, args.d = dz.data + first * dz.row;
    args.y = dx.data + first * dx.row;
    args.row_stats = work(s) + 2 * (own_.at * x.places + first);
    c_.kernels->layer_norm_backward(args);
  });
}

// body(block, first row among this worker's, rows) for the blocks of rows that are its own.
template <class T> template <class Body> void Step<T>::for_own_blocks(Body body) {
  const index_t size = c_.layout->row_block(all_.rows);
  for (index_t i = 0; i < own_.rows && !stopping(); i += size)
    body((own_.first + i) / size, i, own_.rows - i < size ? own_.rows - i : size);
}

template <class T> void Step<T>::batch_norm_forward(std::size_t s, Rows<const T> x, Rows<T> y) {
  const Stage& stage = c_.layout->stages[s];
  NormArgs<T> args = norm_args(stage);
  args.x_row = x.row, args.y_row = y.row;
  if (uses_batch_statistics(stage)) {
    for_own_blocks([&](index_t block, index_t first, index_t count) {
      args.rows = count;
      args.x = x.from(first).data;
      c_.kernels->batch_norm_block(args, work(s) + block * 2 * args.cols);
    });
    done(false);
    need(true);
    T* mean = worker_values(stage);
    c_.kernels->batch_norm_combine(work(s), args.cols, all_.rows, c_.layout->row_block(all_.rows),
                                   mean, mean + args.cols);
  }
  for_row_chunks(own_.rows, args.cols, [&](index_t first, index_t count) {
    args.rows = count;
    args.x = x.from(first).data, args.y = y.from(first).data;
    c_.kernels->batch_norm_forward(args);
  });
}

// Where the blocks' sums of the way back lie: behind the blocks' means and squares, which others may
// still be reading.
template <class T> T* Step<T>::backward_sums(std::size_t s) const {
  return work(s) + row_blocks() * 2 * c_.layout->stages[s].outputs;
}

// Of this worker's blocks, from dz of the stage.
template <class T> void Step<T>::batch_norm_sums(std::size_t s) {
  const Stage& stage = c_.layout->stages[s];
  const Rows<const T> x = input_of(s).from(own_.at), dz = rows_of(plan().delta[s]).from(own_.at);
  NormArgs<T> args = norm_args(stage);
  args.x_row = x.row, args.d_row = dz.row;
  need(false);
  for_own_blocks([&](index_t block, index_t first, index_t count) {
    args.rows = count;
    args.x = x.from(first).data, args.d = dz.from(first).data;
    c_.kernels->batch_norm_sums(args, backward_sums(s) + block * 2 * args.cols);
  });
  done(false);
}

// The blocks' sums of some columns, in order, as this worker's own.
template <class T> void Step<T>::add_backward_sums(std::size_t s, Range columns) {
  const Stage& stage = c_.layout->stages[s];
  const index_t cols = stage.outputs;
  for (index_t first : {columns.begin, cols + columns.begin})
    c_.kernels->add_rows(backward_sums(s) + first, 2 * cols, row_blocks(),
                         columns.end - columns.begin, worker_values(stage) + 2 * cols + first,
                         false);
}

template <class T> void Step<T>::batch_norm_delta(std::size_t s, Rows<const T> dz, Rows<T> dx) {
  const Stage& stage = c_.layout->stages[s];
  NormArgs<T> args = norm_args(stage);
  if (uses_batch_statistics(stage)) {
    batch_norm_sums(s);
    need(true);
    add_backward_sums(s, {0, args.cols});
  }
  const Rows<const T> x = input_of(s).from(own_.at);
  args.x_row = x.row, args.d_row = dz.row, args.y_row = dx.row;
  for_row_chunks(own_.rows, args.cols, [&](index_t first, index_t count) {
    args.rows = count;
    args.x = x.from(first).data, args.d = dz.from(first).data, args.y = dx.from(first).data;
    c_.kernels->batch_norm_backward(args);
  });
}

// dgamma and dbeta in this worker's columns, over all rows in work; with `update` the new ones too.
template <class T> void Step<T>::norm_gradient(std::size_t s, T* gradient, bool update) {
  const Stage& stage = c_.layout->stages[s];
  const index_t cols = stage.outputs, gamma = stage.parameter_offset;
  const index_t beta = gamma + stage.parameter_rows * cols;
  const Range mine = split(cols, 16, all_.share);
  if (mine.begin >= mine.end) return;
  NormArgs<T> args = norm_args(stage);
  T* dgamma = stage.parameter_rows > 0 ? gradient + gamma : nullptr;
  T* dbeta = stage.bias ? gradient + beta : nullptr;
  if (stage.batch_coupled()) {
    add_backward_sums(s, mine);
    c_.kernels->batch_norm_gradient(args, mine, dgamma, dbeta);
  } else {
    const Rows<const T> x = input_of(s).from(all_.at);
    args.rows = all_.rows * x.places;
    args.x = x.data, args.x_row = x.row;
    args.d = at(plan().delta[s], all_), args.d_row = plan().delta[s].row;
    args.row_stats = work(s) + 2 * all_.at * x.places;
    const index_t chunk = c_.layout->sequences ? k_chunk(args.rows) : chunk_;
    c_.kernels->layer_norm_gradient(args, mine, chunk, dgamma, dbeta);
  }
  if (!update) return;
  if (dgamma) update_range({gamma + mine.begin, gamma + mine.end});
  if (dbeta) update_range({beta + mine.begin, beta + mine.end});
}

// What a step changes besides parameters; one worker does it.
template <class T> void Step<T>::update_state() {
  if (share_.id != 0) return;
  for (const Stage& stage : c_.layout->stages) {
    if (!stage.batch_coupled() || !stage.trainable) continue;
    T* moving = c_.state + stage.state_offset;
    c_.kernels->batch_norm_moving(norm_args(stage), T(stage.momentum), moving,
                                  moving + stage.outputs);
  }
}

template class Step<float>;
template class Step<double>;

}  // namespace fastbp
