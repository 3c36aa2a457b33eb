// Losses and metrics of a batch, with the sums of kernels/cpu/loss.inl: by blocks of kLossBlockRows
// rows, within a block as the CPU's 64-byte vectors sum. Included by the files that instantiate it;
// no symbol leaves them.
//
// The functions on rows are called by all threads of a block. `values` is shared memory with a place
// for each of them; the sum of block of rows b goes to sums[b].
#pragma once

#include "kernels/cuda/folds.cuh"
#include "kernels/cuda/train/kernels.h"
#include "ops/lane.h"
#include "ops/losses.h"

namespace fastbp {
namespace cuda {
namespace {

// Threads of a block; a multiple of the lanes of the CPU's vector and of kLossBlockRows.
constexpr int kLossThreads = 256;

// Of a row, or of an element. Without weights 1, by which everything is multiplied: that changes no bit,
// and one kernel serves both.
template <class T> FBP_FN Lane<T> weight_of(const LossArgs<T>& args, index_t i) {
  return Lane<T>(args.weight ? args.weight[i] : T(1));
}

// Blocks of rows from `first` on, as many as the threads are groups of: a block of rows is one flat
// run of elements for a group of as many threads as the CPU's vector has lanes.
template <class T, class Loss>
FBP_DEVICE void elementwise_loss_rows(const LossArgs<T>& args, index_t first, T* values,
                                      double* sums) {
  constexpr int lanes = kLanes<T>;
  const int lane = int(threadIdx.x) % lanes;
  const index_t block = first + int(threadIdx.x) / lanes;
  const index_t begin = block * kLossBlockRows * args.cols;
  const index_t all = args.rows * args.cols;
  const index_t end =
      begin + kLossBlockRows * args.cols < all ? begin + kLossBlockRows * args.cols : all;
  const Lane<T> param(args.param), scale(args.dy_scale);
  Lane<T> sum(T(0));
  FBP_UNROLL(1)  // four at once spill on some generations
  for (index_t e = begin + lane; e < end; e += lanes) {
    const Lane<T> y(args.y[e]), t(args.target[e]), weight = weight_of(args, e);
    (Loss::gradient(y, t, param) * scale * weight).store(args.dy + e);
    sum = sum + Loss::value(y, t, param) * weight;
  }
  const Lane<T> total = fold_sum(values, sum);
  if (lane == 0 && begin < all) sums[block] = double(total.v);
}

// Sum of the values of a block's rows, in order; `rows_at_once` of them first, then the next.
template <class V> FBP_FN double sum_of_rows(const V* values, index_t rows, int rows_at_once) {
  double total = 0;
  for (index_t i = 0; i < rows; i += rows_at_once) {
    double sum = 0;
    for (index_t r = i; r < rows && r < i + rows_at_once; ++r) sum += double(values[r]);
    total += sum;
  }
  return total;
}

// The thread of a block's first row leaves the sum of what its rows' threads have put into `values`.
template <class V>
FBP_DEVICE void store_block_sum(const V* values, index_t row, index_t rows, int rows_at_once,
                                double* sums) {
  __syncthreads();
  if (row >= rows || row % kLossBlockRows != 0) return;
  const index_t here = rows - row < kLossBlockRows ? rows - row : kLossBlockRows;
  sums[row / kLossBlockRows] = sum_of_rows(values + threadIdx.x, here, rows_at_once);
}

// What label smoothing s makes of a row's target: the weight of the row, its sum of t (z - shift),
// and what is taken off each class and off the target's in the gradient.
template <class T> struct Smoothing {
  Lane<T> s, kept, share;

  FBP_FN Smoothing(T smoothing, index_t cols)
      : s(smoothing), kept(Lane<T>(T(1)) - s), share(s / Lane<T>(T(cols))) {}
  FBP_FN void apply(Lane<T> sum_z, Lane<T>& weight, Lane<T>& weighted) const {
    weight = kept * weight + s;
    weighted = kept * weighted + share * sum_z;
  }
};

// One row of at most as many classes as the CPU's vector has lanes: sums run over the classes in
// order. dz is the working memory.
template <class T>
FBP_FN Lane<T> narrow_row(const T* z, const T* target, index_t label, index_t cols, T* dz,
                          Lane<T> scale, T smoothing) {
  const Lane<T> lowest(-T(__builtin_inf())), zero(T(0));
  Lane<T> shift = lowest;
  for (index_t c = 0; c < cols; ++c) shift = max(Lane<T>(z[c]), shift);
  shift = select(shift > lowest, shift, zero);
  Lane<T> weight(T(1)), weighted = zero;
  if (target) {
    weight = zero;
    for (index_t c = 0; c < cols; ++c) {
      const Lane<T> t(target[c]);
      weight = weight + t;
      // 0 * -inf: a class of no weight adds nothing.
      weighted = weighted + select(t == zero, zero, t * (Lane<T>(z[c]) - shift));
    }
  } else {
    weighted = Lane<T>(z[label]) - shift;
  }
  const Smoothing<T> smooth(smoothing, cols);
  if (smoothing != 0) {
    Lane<T> sum_z = zero;
    for (index_t c = 0; c < cols; ++c) sum_z = sum_z + (Lane<T>(z[c]) - shift);
    smooth.apply(sum_z, weight, weighted);
  }
  Lane<T> sum = zero;
  for (index_t c = 0; c < cols; ++c) {
    const Lane<T> e = exp(Lane<T>(z[c]) - shift);
    e.store(dz + c);
    sum = sum + e;
  }
  const Lane<T> factor = scale * weight / sum, of_target = scale * smooth.kept;
  for (index_t c = 0; c < cols; ++c) {
    Lane<T> d = Lane<T>(dz[c]) * factor;
    if (smoothing != 0) d = d - scale * smooth.share;
    if (target)
      d = d - Lane<T>(target[c]) * of_target;
    else if (c == label)
      d = d - of_target;
    d.store(dz + c);
  }
  return log(sum) * weight - weighted;
}

// Row `row` for the calling thread.
template <class T>
FBP_DEVICE void narrow_softmax_rows(const LossArgs<T>& args, index_t row, T* values, double* sums) {
  if (row < args.rows) {
    const index_t at = row * args.cols;
    const Lane<T> weight = weight_of(args, row), scale(args.dy_scale);
    const Lane<T> loss = narrow_row(args.y + at, args.target ? args.target + at : nullptr,
                                    args.labels ? index_t(args.labels[row]) : 0, args.cols,
                                    args.dy + at, scale * weight, args.param);
    (loss * weight).store(values + threadIdx.x);
  }
  store_block_sum(values, row, args.rows, kLanes<T>, sums);
}

// One row for a group of threads, its classes by lanes and tree. Groups beyond the last row go
// along with no classes.
template <class T>
FBP_DEVICE Lane<T> wide_row(const T* z, const T* target, index_t label, index_t cols, T* dz,
                            Lane<T> scale, T smoothing, T* values) {
  const int lane = int(threadIdx.x) % kLanes<T>;
  const Lane<T> lowest(-T(__builtin_inf())), zero(T(0));
  Lane<T> largest = lowest;
  for (index_t c = lane; c < cols; c += kLanes<T>) largest = max(Lane<T>(z[c]), largest);
  largest = fold_max(values, largest);
  const Lane<T> shift = select(largest > lowest, largest, zero);
  Lane<T> weight(T(1)), weighted = zero;
  if (target) {
    weight = zero;
    for (index_t c = lane; c < cols; c += kLanes<T>) {
      const Lane<T> t(target[c]);
      weight = weight + t;
      weighted = weighted + select(t == zero, zero, t * (Lane<T>(z[c]) - shift));
    }
    weight = fold_sum(values, weight);
    weighted = fold_sum(values, weighted);
  } else if (cols > 0) {
    weighted = Lane<T>(z[label]) - shift;
  }
  const Smoothing<T> smooth(smoothing, cols);
  if (smoothing != 0) {
    Lane<T> sum_z = zero;
    for (index_t c = lane; c < cols; c += kLanes<T>) sum_z = sum_z + (Lane<T>(z[c]) - shift);
    smooth.apply(fold_sum(values, sum_z), weight, weighted);
  }
  Lane<T> sum = zero;
  for (index_t c = lane; c < cols; c += kLanes<T>) {
    const Lane<T> e = exp(Lane<T>(z[c]) - shift);
    e.store(dz + c);
    sum = sum + e;
  }
  sum = fold_sum(values, sum);
  const Lane<T> factor = scale * weight / sum, of_target = scale * smooth.kept;
  for (index_t c = lane; c < cols; c += kLanes<T>) {
    Lane<T> d = Lane<T>(dz[c]) * factor;
    if (smoothing != 0) d = d - scale * smooth.share;
    if (target)
      d = fnma(Lane<T>(target[c]), of_target, d);
    else if (c == label)
      d = d - of_target;
    d.store(dz + c);
  }
  return log(sum) * weight - weighted;
}

// A block of threads works on one block of rows, which begins with row `first`; there is a value for
// each thread and each row.
template <class T> constexpr int kWideThreads = kLossBlockRows * kLanes<T>;
template <class T> constexpr int kWideValues = kWideThreads<T> + int(kLossBlockRows);
template <class T>
FBP_DEVICE void wide_softmax_rows(const LossArgs<T>& args, index_t first, T* values, double* sums,
                                  const BatchRows& rows_of_targets = {}) {
  T* const row_losses = values + kWideThreads<T>;
  const int r = int(threadIdx.x) / kLanes<T>;
  const index_t row = first + r;
  const bool there = row < args.rows;
  const index_t at = there ? row * args.cols : 0;
  const Lane<T> weight = there ? weight_of(args, row) : Lane<T>(T(1)), scale(args.dy_scale);
  const Lane<T> loss =
      wide_row(args.y + at,
               args.target ? args.target + (there ? rows_of_targets(row) * args.cols : 0) : nullptr,
               there && args.labels ? index_t(args.labels[row]) : 0, there ? args.cols : 0,
               args.dy + at, scale * weight, args.param, values);
  if (threadIdx.x % kLanes<T> == 0) (loss * weight).store(row_losses + r);
  __syncthreads();
  const index_t rows = args.rows - first < kLossBlockRows ? args.rows - first : kLossBlockRows;
  if (threadIdx.x == 0) sums[first / kLossBlockRows] = sum_of_rows(row_losses, rows, 1);
}

// The metric of one row, which takes its elements one after the other: y and target, or the error in the
// place of y.
template <class T> struct RowMetric {
  double sum = 0;
  index_t best = 0, best_target = 0;  // the first of the largest
  T largest = 0, largest_target = 0;

  FBP_FN void take(const MetricArgs<T>& args, index_t j, T y, T target) {
    if (args.kind == MetricKind::accuracy_argmax) {
      if (j == 0 || y > largest) best = j, largest = y;
      if (j == 0 || target > largest_target) best_target = j, largest_target = target;
    } else if (args.kind == MetricKind::accuracy_threshold) {
      sum += (y > args.threshold) == (target > T(0.5));
    } else {
      const double e =
          args.error ? double(y) * double(args.error_scale) : double(y) - double(target);
      sum += args.kind == MetricKind::mse ? e * e : e < 0 ? -e : e;
    }
  }
  // Of row i.
  FBP_FN double result(const MetricArgs<T>& args, index_t i) const {
    if (args.kind != MetricKind::accuracy_argmax) return sum / double(args.cols);
    return best == (args.target ? best_target : index_t(args.labels[i]));
  }
};

template <class T> FBP_FN double metric_of_row(const MetricArgs<T>& args, index_t i) {
  const T* y = (args.error ? args.error : args.y) + i * args.cols;
  const T* target = args.target ? args.target + i * args.cols : nullptr;
  RowMetric<T> metric;
  for (index_t j = 0; j < args.cols; ++j) metric.take(args, j, y[j], target ? target[j] : T(0));
  return metric.result(args, i);
}

// Row `row` for the calling thread.
template <class T>
FBP_DEVICE void metric_of_rows(const MetricArgs<T>& args, index_t row, double* values,
                               double* sums) {
  if (row < args.rows) values[threadIdx.x] = metric_of_row(args, row);
  store_block_sum(values, row, args.rows, kLossBlockRows, sums);
}

}  // namespace
}  // namespace cuda
}  // namespace fastbp
