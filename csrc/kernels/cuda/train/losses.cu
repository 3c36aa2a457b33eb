// Losses and metrics of a batch (losses.cuh), one kernel each.
#include "kernels/cuda/losses.cuh"

#include "kernels/cuda/train/with_shadow.cuh"

namespace fastbp {
namespace cuda {
namespace {

// Where the running batch's sums go.
FBP_FN double* place_of(const BlockSums& to) { return to.sums + to.counter->batch * to.blocks; }

// The arguments with what the table says of the running batch.
template <class T>
FBP_FN LossArgs<T> counted_args(LossArgs<T> args, const PartTable<T>& counted,
                                const BlockSums& to) {
  if (!counted.part) return args;
  const CountedRows<T> part = counted.part[to.counter->batch * counted.parts];
  args.rows = part.rows;
  args.dy_scale = part.dy_scale;
  return args;
}
template <class T>
FBP_FN MetricArgs<T> counted_args(MetricArgs<T> args, const PartTable<T>& counted,
                                  const BlockSums& to) {
  if (!counted.part) return args;
  const CountedRows<T> part = counted.part[to.counter->batch * counted.parts];
  args.rows = part.rows;
  args.error_scale = part.error_scale;
  return args;
}

// Elements that a block takes at a time: each thread loads its own together, a tile's width apart.
constexpr int kTileThreads = 512, kTileEach = 4, kTile = kTileThreads * kTileEach;

// Blocks of rows that a block of threads takes: as many as one tile holds, with a group of threads for
// each; or one, tile after tile.
template <class T> constexpr int kMostAtOnce = kTileThreads / kLanes<T>;
template <class T> index_t blocks_at_once(index_t cols) {
  const index_t held = kTile / (kLossBlockRows * cols);
  return held < 1 ? 1 : held < kMostAtOnce<T> ? held : kMostAtOnce<T>;
}
// Two tiles of losses, and where the rows' targets are.
template <class T> std::size_t elementwise_bytes(index_t at_once) {
  return 2 * kTile * sizeof(T) + std::size_t(at_once * kLossBlockRows) * sizeof(T*);
}

// What a thread has of a tile.
template <class T> struct LossTile {
  T y[kTileEach], target[kTileEach], weight[kTileEach];
  unsigned row[kTileEach];  // of the block's

  // The block's first element is `begin`; targets: where the targets of its rows are.
  FBP_DEVICE void load(const LossArgs<T>& args, index_t begin, index_t at, index_t end,
                       const T* const* targets) {
    const unsigned cols = unsigned(args.cols), place = unsigned(at - begin);
    FBP_UNROLL(kTileEach)
    for (int i = 0; i < kTileEach; ++i) {
      const index_t e = at + i * kTileThreads;
      if (e >= end) continue;
      row[i] = (place + i * kTileThreads) / cols;
      y[i] = args.y[e];
      target[i] = targets[row[i]][place + i * kTileThreads - row[i] * cols];
      weight[i] = weight_of(args, e).v;
    }
  }
  // The gradient, and to `values` the losses. first_row: the block's.
  template <class Loss>
  FBP_DEVICE void finish(const LossArgs<T>& args, const Shadow& dz, index_t first_row, index_t at,
                         index_t end, T* values) const {
    const Lane<T> param(args.param), scale(args.dy_scale);
    FBP_UNROLL(kTileEach)
    for (int i = 0; i < kTileEach; ++i) {
      const index_t e = at + i * kTileThreads;
      if (e >= end) continue;
      const Lane<T> of_y(y[i]), of_target(target[i]), times(weight[i]);
      const Lane<T> dy = Loss::gradient(of_y, of_target, param) * scale * times;
      if (args.dy) dy.store(args.dy + e);
      if constexpr (sizeof(T) == sizeof(float))
        if (dz.at) store_shadow(dz, first_row + row[i], e - (first_row + row[i]) * args.cols, dy.v);
      (Loss::value(of_y, of_target, param) * times).store(values + i * kTileThreads + threadIdx.x);
    }
  }
};

// The calling thread's share, one lane of the CPU's vector, of `count` values in shared memory.
template <class T> FBP_DEVICE Lane<T> add_lane(const T* values, int count, Lane<T> sum) {
  FBP_UNROLL(8)
  for (int e = int(threadIdx.x) % kLanes<T>; e < count; e += kLanes<T>)
    sum = sum + Lane<T>(values[e]);
  return sum;
}

// The losses and their gradient are made by all threads; of each block of rows, which is one flat run
// of elements, a group of as many threads as the CPU's vector has lanes then adds the losses up in
// its order, in shared memory, while the next tile is on its way.
template <class T, class Loss>
__global__ void __launch_bounds__(kTileThreads, 1)
    elementwise_loss_kernel(LossArgs<T> of_all, PartTable<T> counted, BatchRows rows, Shadow dz,
                            index_t at_once, BlockSums to) {
  const LossArgs<T> args = counted_args(of_all, counted, to);
  FBP_SHARED(T, values);  // two tiles
  const T** const targets = reinterpret_cast<const T**>(values + 2 * kTile);
  const index_t of_block = kLossBlockRows * args.cols, all = args.rows * args.cols;
  const index_t first = index_t(blockIdx.x) * at_once, begin = first * of_block;
  if (begin >= all) return;
  const index_t end = begin + at_once * of_block < all ? begin + at_once * of_block : all;
  const int group = int(threadIdx.x) / kLanes<T>;
  FBP_UNROLL(1)  // one, or none
  for (index_t r = threadIdx.x; r < at_once * kLossBlockRows; r += kTileThreads) {
    const index_t i = first * kLossBlockRows + r;
    targets[r] = i < args.rows ? args.target + rows(i) * args.cols : nullptr;
  }
  __syncthreads();
  Lane<T> sum(T(0));
  int side = 0;
  index_t at = begin;
  FBP_UNROLL(1)
  for (;; at += kTile, side ^= 1) {
    LossTile<T> tile;
    tile.load(args, begin, at + threadIdx.x, end, targets);
    if (at > begin && group == 0) sum = add_lane(values + (side ^ 1) * kTile, kTile, sum);
    tile.template finish<Loss>(args, dz, first * kLossBlockRows, at + threadIdx.x, end,
                               values + side * kTile);
    __syncthreads();
    if (end - at <= kTile) break;
  }
  const index_t mine = group * of_block, left = end - at - mine;
  if (group < at_once && left > 0)
    sum = add_lane(values + side * kTile + mine, int(left < of_block ? left : of_block), sum);
  __syncthreads();
  const Lane<T> total = fold_sum(values, sum);
  if (threadIdx.x % kLanes<T> == 0 && group < at_once && left > 0)
    place_of(to)[first + group] = double(total.v);
}

// store(e, load(e)) for each e < count, loads of four under way at once.
template <class T, class Load, class Store>
FBP_DEVICE void fetch(int count, const Load& load, const Store& store) {
  const int step = int(blockDim.x);
  FBP_UNROLL(1)
  for (int e = int(threadIdx.x); e < count; e += 4 * step) {
    T held[4];
    FBP_UNROLL(4)
    for (int i = 0; i < 4; ++i)
      if (e + i * step < count) held[i] = load(e + i * step);
    FBP_UNROLL(4)
    for (int i = 0; i < 4; ++i)
      if (e + i * step < count) store(e + i * step, held[i]);
  }
}

// A thread has a row, in shared memory, where rows have an odd length so that a column's values are
// in different banks.
constexpr int kSoftmaxRows = 128;
template <class T> std::size_t narrow_softmax_bytes(const LossArgs<T>& args) {
  return kSoftmaxRows * ((args.target ? 2 : 1) * (args.cols | 1) + 1) * sizeof(T);
}
template <class T>
__global__ void __launch_bounds__(kSoftmaxRows)
    narrow_softmax_kernel(LossArgs<T> of_all, PartTable<T> counted, BatchRows rows, BlockSums to) {
  const LossArgs<T> args = counted_args(of_all, counted, to);
  FBP_SHARED(T, values);
  T* const z = values + kSoftmaxRows;
  const int cols = int(args.cols), pitch = cols | 1, own = int(threadIdx.x) * pitch;
  T* const targets = z + kSoftmaxRows * pitch;
  const index_t first = index_t(blockIdx.x) * kSoftmaxRows, row = first + threadIdx.x;
  if (first >= args.rows) return;
  const int count = cols * int(args.rows - first < kSoftmaxRows ? args.rows - first : kSoftmaxRows);
  const auto place = [=](int e) { return e / cols * pitch + e % cols; };
  fetch<T>(
      count, [&](int e) { return args.y[first * cols + e]; }, [&](int e, T x) { z[place(e)] = x; });
  if (args.target)
    fetch<T>(
        count, [&](int e) { return args.target[rows(first + e / cols) * cols + e % cols]; },
        [&](int e, T x) { targets[place(e)] = x; });
  __syncthreads();
  if (row < args.rows) {
    const Lane<T> weight = weight_of(args, row), scale(args.dy_scale);
    const Lane<T> loss = narrow_row(z + own, args.target ? targets + own : nullptr,
                                    args.labels ? index_t(args.labels[row]) : 0, args.cols, z + own,
                                    scale * weight, args.param);
    (loss * weight).store(values + threadIdx.x);
  }
  store_block_sum(values, row, args.rows, kLanes<T>, place_of(to));
  FBP_UNROLL(4)
  for (int e = int(threadIdx.x); e < count; e += kSoftmaxRows)
    args.dy[first * cols + e] = z[place(e)];
}

// One block is enough: where ptxas may choose, it aims at more and spills in float64 (sm_120).
template <class T>
__global__ void __launch_bounds__(kWideThreads<T>, 1)
    wide_softmax_kernel(LossArgs<T> of_all, PartTable<T> counted, BatchRows rows, BlockSums to) {
  const LossArgs<T> args = counted_args(of_all, counted, to);
  const index_t first = index_t(blockIdx.x) * kLossBlockRows;
  if (first >= args.rows) return;
  FBP_SHARED(T, values);
  wide_softmax_rows(args, first, values, place_of(to), rows);
}

// Rows and columns of a tile of the metrics' kernel, which each thread has kMetricEach values of.
constexpr int kMetricRows = 32, kMetricCols = 32, kMetricThreads = 128;
constexpr int kMetricApart = kMetricThreads / kMetricCols;  // rows from one of them to the next
constexpr int kMetricEach = kMetricRows / kMetricApart;
constexpr int kMetricPitch = kMetricCols + 1;

template <class T> struct MetricTile {
  T y[kMetricEach], target[kMetricEach];

  FBP_DEVICE void load(const MetricArgs<T>& args, const index_t* rows, index_t first, index_t at) {
    const index_t j = at + threadIdx.x % kMetricCols;
    const T* const from = args.error ? args.error : args.y;
    FBP_UNROLL(kMetricEach)
    for (int r = 0; r < kMetricEach; ++r) {
      const int of_tile = int(threadIdx.x) / kMetricCols + r * kMetricApart;
      const index_t i = first + of_tile;
      const bool there = i < args.rows && j < args.cols;
      y[r] = there ? from[i * args.cols + j] : T(0);
      target[r] = there && args.target ? args.target[rows[of_tile] * args.cols + j] : T(0);
    }
  }
  FBP_DEVICE void store(T* ys, T* targets) const {
    FBP_UNROLL(kMetricEach)
    for (int r = 0; r < kMetricEach; ++r) {
      const int e = (int(threadIdx.x) / kMetricCols + r * kMetricApart) * kMetricPitch +
                    int(threadIdx.x) % kMetricCols;
      ys[e] = y[r];
      targets[e] = target[r];
    }
  }
};
template <class T>
constexpr std::size_t kMetricBytes =
    kMetricRows * (sizeof(double) + sizeof(index_t) + 2 * kMetricPitch * sizeof(T));

// All threads load, tile by tile; a thread of the first warp takes the elements of its row in order.
template <class T>
__global__ void __launch_bounds__(kMetricThreads)
    metric_kernel(MetricArgs<T> of_all, PartTable<T> counted, BatchRows of_targets, BlockSums to) {
  const MetricArgs<T> args = counted_args(of_all, counted, to);
  FBP_SHARED(double, values);
  index_t* const rows = reinterpret_cast<index_t*>(values + kMetricRows);
  T* const ys = reinterpret_cast<T*>(rows + kMetricRows);
  T* const targets = ys + kMetricRows * kMetricPitch;
  const index_t first = index_t(blockIdx.x) * kMetricRows, row = first + threadIdx.x;
  if (first >= args.rows) return;
  const bool mine = threadIdx.x < kMetricRows && row < args.rows;
  if (mine) rows[threadIdx.x] = of_targets(row);
  __syncthreads();
  RowMetric<T> metric;
  MetricTile<T> tile;
  tile.load(args, rows, first, 0);
  FBP_UNROLL(1)
  for (index_t at = 0; at < args.cols; at += kMetricCols) {
    tile.store(ys, targets);
    __syncthreads();
    tile.load(args, rows, first, at + kMetricCols);
    if (mine) {
      const int here = int(args.cols - at < kMetricCols ? args.cols - at : kMetricCols);
      const int e = int(threadIdx.x) * kMetricPitch;
      FBP_UNROLL(4)
      for (int j = 0; j < here; ++j) metric.take(args, at + j, ys[e + j], targets[e + j]);
    }
    __syncthreads();
  }
  if (mine) values[threadIdx.x] = metric.result(args, row);
  const index_t place = threadIdx.x < kMetricRows ? row : args.rows;  // nobody's
  store_block_sum(values, place, args.rows, kLossBlockRows, place_of(to));
}

template <class T>
using ElementwiseKernel = void (*)(LossArgs<T>, PartTable<T>, BatchRows, Shadow, index_t,
                                   BlockSums);
// The kernel of a loss that has a value for each element; null for those of whole rows.
template <class T, class Loss> constexpr auto elementwise_kernel() -> ElementwiseKernel<T> {
  if constexpr (Loss::elementwise)
    return elementwise_loss_kernel<T, Loss>;
  else
    return nullptr;
}

dim3 blocks_of(index_t items, index_t each) { return dim3(unsigned(ceil_div(items, each))); }

}  // namespace

template <class T>
cudaError_t loss(int loss, const LossArgs<T>& args, const PartTable<T>& counted,
                 const BatchRows& targets, const BlockSums& to, const Shadow& dz,
                 cudaStream_t stream) {
  const index_t blocks = loss_blocks(args.rows);
#define FBP_KERNEL(L) elementwise_kernel<T, L>(),
  static constexpr ElementwiseKernel<T> kernels[] = {FBP_LOSSES(FBP_KERNEL)};
#undef FBP_KERNEL
  if (kernels[loss]) {
    const index_t at_once = blocks_at_once<T>(args.cols);
    FBP_LAUNCH(kernels[loss], blocks_of(blocks, at_once), dim3(kTileThreads),
               elementwise_bytes<T>(at_once), stream)(args, counted, targets, dz, at_once, to);
    return cudaGetLastError();
  }
  if (args.cols <= kLanes<T>)
    FBP_LAUNCH(narrow_softmax_kernel<T>, blocks_of(args.rows, kSoftmaxRows), dim3(kSoftmaxRows),
               narrow_softmax_bytes(args), stream)(args, counted, targets, to);
  else
    FBP_LAUNCH(wide_softmax_kernel<T>, blocks_of(blocks, 1), dim3(kWideThreads<T>),
               kWideValues<T> * sizeof(T), stream)(args, counted, targets, to);
  const cudaError_t error = cudaGetLastError();
  if constexpr (sizeof(T) == sizeof(float))
    if (error == cudaSuccess && dz.at)
      return write_shadow(args.dy, args.cols, args.rows, args.cols, dz, stream);
  return error;
}

template <class T>
cudaError_t metric(const MetricArgs<T>& args, const PartTable<T>& counted, const BatchRows& targets,
                   const BlockSums& to, cudaStream_t stream) {
  FBP_LAUNCH(metric_kernel<T>, blocks_of(args.rows, kMetricRows), dim3(kMetricThreads),
             kMetricBytes<T>, stream)(args, counted, targets, to);
  return cudaGetLastError();
}

#define FBP_INSTANTIATE(T)                                                                         \
  template cudaError_t loss(int, const LossArgs<T>&, const PartTable<T>&, const BatchRows&,        \
                            const BlockSums&, const Shadow&, cudaStream_t);                        \
  template cudaError_t metric(const MetricArgs<T>&, const PartTable<T>&, const BatchRows&,         \
                              const BlockSums&, cudaStream_t);
FBP_INSTANTIATE(float)
FBP_INSTANTIATE(double)
#undef FBP_INSTANTIATE

}  // namespace cuda
}  // namespace fastbp
