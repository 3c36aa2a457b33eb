// Layer and batch normalisation, normalisation by constants, softmax of rows, and sums. Along a row a group of as many
// threads as the CPU's vector has lanes takes the place of the vector; over rows a thread adds up a
// column, in order, by chunks or blocks that the shape alone decides.
#include "kernels/cuda/train/norms.h"

#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/folds.cuh"
#include "kernels/cuda/train/sink.cuh"

namespace fastbp {
namespace cuda {
namespace {

template <class T> constexpr int kRowsAtOnce = kElementThreads / kLanes<T>;

template <class T> FBP_FN Lane<T> value_or(const T* p, index_t j, T otherwise) {
  return Lane<T>(p ? p[j] : otherwise);
}

template <class T> FBP_FN Lane<T> inverse_deviation(Lane<T> variance, T epsilon) {
  return Lane<T>(T(1)) / sqrt(variance + Lane<T>(epsilon));
}

template <class T>
__global__ void __launch_bounds__(kElementThreads) add_kernel(ElementwiseArgs<T> args) {
  const ActivationTile<T>& tile = args.tile;
  for_each_element(args.rows, args.cols, [&](index_t i, index_t j) {
    const Lane<T> x(args.x[i * args.x_row + j]), y(tile.saved[i * tile.saved_row + j]);
    (x + y).store(tile.out + i * tile.out_row + j);
  });
}

template <class T>
__global__ void __launch_bounds__(kElementThreads) normalize_kernel(NormArgs<T> args) {
  for_each_element(args.rows, args.cols, [&](index_t i, index_t j) {
    const Lane<T> x(args.x[i * args.x_row + j]);
    ((x - value_or(args.mean, j, T(0))) * Lane<T>(args.factor[j]))
        .store(args.y + i * args.y_row + j);
  });
}

// The row of a group of threads and the columns of a thread of it; groups beyond the last row go along
// with no columns.
template <class T> struct GroupRow {
  index_t row;
  int lane;
  bool there;

  FBP_FN explicit GroupRow(index_t rows)
      : row(index_t(blockIdx.x) * kRowsAtOnce<T> + threadIdx.x / kLanes<T>),
        lane(int(threadIdx.x) % kLanes<T>), there(row < rows) {}
  template <class Body> FBP_FN void for_columns(index_t cols, const Body& body) const {
    if (!there) return;
    FBP_UNROLL(1)
    for (index_t j = lane; j < cols; j += kLanes<T>) body(j);
  }
};

template <class T>
__global__ void __launch_bounds__(kElementThreads) layer_norm_forward_kernel(NormArgs<T> args) {
  FBP_SHARED(T, values);
  const GroupRow<T> group(args.rows);
  const T* const x = args.x + group.row * args.x_row;
  const Lane<T> count(T(args.cols));
  Lane<T> sum(T(0)), squares(T(0));
  group.for_columns(args.cols, [&](index_t j) { sum = sum + Lane<T>(x[j]); });
  const Lane<T> mean = fold_sum(values, sum) / count;
  group.for_columns(args.cols, [&](index_t j) {
    const Lane<T> e = Lane<T>(x[j]) - mean;
    squares = fma(e, e, squares);
  });
  const Lane<T> scale = inverse_deviation(fold_sum(values, squares) / count, args.epsilon);
  group.for_columns(args.cols, [&](index_t j) {
    const Lane<T> normal = (Lane<T>(x[j]) - mean) * scale;
    fma(normal, value_or(args.gamma, j, T(1)), value_or(args.beta, j, T(0)))
        .store(args.y + group.row * args.y_row + j);
  });
  if (!group.there || group.lane != 0) return;
  mean.store(args.row_stats + 2 * group.row);
  scale.store(args.row_stats + 2 * group.row + 1);
}

template <class T>
__global__ void __launch_bounds__(kElementThreads) layer_norm_backward_kernel(NormArgs<T> args) {
  FBP_SHARED(T, values);
  const GroupRow<T> group(args.rows);
  const T *const x = args.x + group.row * args.x_row, *const d = args.d + group.row * args.d_row;
  const Lane<T> mean(group.there ? args.row_stats[2 * group.row] : T(0));
  const Lane<T> scale(group.there ? args.row_stats[2 * group.row + 1] : T(0));
  const Lane<T> count(T(args.cols));
  Lane<T> sum(T(0)), product(T(0));
  group.for_columns(args.cols, [&](index_t j) {
    const Lane<T> g = Lane<T>(d[j]) * value_or(args.gamma, j, T(1));
    sum = sum + g;
    product = fma(g, (Lane<T>(x[j]) - mean) * scale, product);
  });
  const Lane<T> mean_g = fold_sum(values, sum) / count, mean_gn = fold_sum(values, product) / count;
  group.for_columns(args.cols, [&](index_t j) {
    const Lane<T> g = Lane<T>(d[j]) * value_or(args.gamma, j, T(1));
    const Lane<T> normal = (Lane<T>(x[j]) - mean) * scale;
    (scale * fnma(normal, mean_gn, g - mean_g)).store(args.y + group.row * args.y_row + j);
  });
}

// What is taken off each element, so that exp stays finite; see softmax_shift (kernels/cpu/loss.inl).
template <class T>
FBP_DEVICE Lane<T> softmax_shift(const GroupRow<T>& group, const T* x, index_t cols, T* values) {
  const Lane<T> lowest(-T(__builtin_inf()));
  Lane<T> largest = lowest;
  group.for_columns(cols, [&](index_t j) { largest = max(Lane<T>(x[j]), largest); });
  largest = fold_max(values, largest);
  return select(largest > lowest, largest, Lane<T>(T(0)));
}

template <class T>
__global__ void __launch_bounds__(kElementThreads) softmax_forward_kernel(NormArgs<T> args) {
  FBP_SHARED(T, values);
  const GroupRow<T> group(args.rows);
  const T* const x = args.x + group.row * args.x_row;
  T* const y = args.y + group.row * args.y_row;
  const Lane<T> shift = softmax_shift(group, x, args.cols, values);
  Lane<T> sum(T(0));
  group.for_columns(args.cols, [&](index_t j) {
    const Lane<T> e = exp(Lane<T>(x[j]) - shift);
    e.store(y + j);
    sum = sum + e;
  });
  sum = fold_sum(values, sum);
  group.for_columns(args.cols, [&](index_t j) { (Lane<T>(y[j]) / sum).store(y + j); });
}

template <class T>
__global__ void __launch_bounds__(kElementThreads) softmax_backward_kernel(NormArgs<T> args) {
  FBP_SHARED(T, values);
  const GroupRow<T> group(args.rows);
  const T *const x = args.x + group.row * args.x_row, *const d = args.d + group.row * args.d_row;
  const Lane<T> shift = softmax_shift(group, x, args.cols, values);
  Lane<T> sum(T(0)), product(T(0));
  group.for_columns(args.cols, [&](index_t j) {
    const Lane<T> e = exp(Lane<T>(x[j]) - shift);
    sum = sum + e;
    product = fma(e, Lane<T>(d[j]), product);
  });
  sum = fold_sum(values, sum);
  const Lane<T> mean = fold_sum(values, product) / sum;
  group.for_columns(args.cols, [&](index_t j) {
    const Lane<T> share = exp(Lane<T>(x[j]) - shift) / sum;
    (share * (Lane<T>(d[j]) - mean)).store(args.y + group.row * args.y_row + j);
  });
}

// Where the grid has several rows, row y makes chunk y alone.
template <class T>
__global__ void __launch_bounds__(kElementThreads)
    layer_norm_gradient_kernel(NormArgs<T> args, index_t chunk, GradientSink<T> to) {
  const index_t j = index_t(blockIdx.x) * kElementThreads + threadIdx.x;
  if (j >= args.cols) return;
  const bool parts = gridDim.y > 1;
  const index_t first = parts ? blockIdx.y * chunk : 0;
  const index_t last = parts && first + chunk < args.rows ? first + chunk : args.rows;
  Lane<T> gamma(T(0)), beta(T(0));
  for (index_t begin = first; begin < last; begin += chunk) {
    const index_t end = last - begin < chunk ? last : begin + chunk;
    Lane<T> sum(T(0)), product(T(0));
    FBP_UNROLL(4)
    for (index_t i = begin; i < end; ++i) {
      const Lane<T> d(args.d[i * args.d_row + j]), x(args.x[i * args.x_row + j]);
      const Lane<T> mean(args.row_stats[2 * i]), scale(args.row_stats[2 * i + 1]);
      sum = sum + d;
      product = fma(d, (x - mean) * scale, product);
    }
    gamma = begin == first ? product : gamma + product;
    beta = begin == first ? sum : beta + sum;
  }
  if (args.gamma) sink(to, j, gamma);
  if (args.beta) sink(to, args.gamma ? args.cols + j : j, beta);
}

FBP_FN index_t column_of_thread() { return index_t(blockIdx.x) * blockDim.x + threadIdx.x; }
FBP_FN index_t row_of_thread() { return index_t(blockIdx.y) * blockDim.y + threadIdx.y; }

// Mean of each block of rows, and the sum of squares about it.
template <class T>
__global__ void __launch_bounds__(kElementThreads)
    batch_norm_block_kernel(NormArgs<T> args, index_t block_rows, T* blocks) {
  const index_t b = row_of_thread(), j = column_of_thread(), first = b * block_rows;
  if (first >= args.rows || j >= args.cols) return;
  const index_t rest = args.rows - first, rows = rest < block_rows ? rest : block_rows;
  const T* const x = args.x + first * args.x_row + j;
  Lane<T> sum(T(0)), squares(T(0));
  FBP_UNROLL(1)
  for (index_t i = 0; i < rows; ++i) sum = sum + Lane<T>(x[i * args.x_row]);
  const Lane<T> mean = sum / Lane<T>(T(rows));
  FBP_UNROLL(1)
  for (index_t i = 0; i < rows; ++i) {
    const Lane<T> e = Lane<T>(x[i * args.x_row]) - mean;
    squares = fma(e, e, squares);
  }
  mean.store(blocks + b * 2 * args.cols + j);
  squares.store(blocks + (b * 2 + 1) * args.cols + j);
}

// As the CPU's batch_norm_combine.
template <class T>
__global__ void __launch_bounds__(kElementThreads)
    batch_norm_combine_kernel(const T* blocks, index_t cols, index_t rows, index_t block_rows,
                              T* mean, T* variance) {
  const index_t j = column_of_thread();
  if (j >= cols || row_of_thread() > 0) return;
  Lane<T> m(blocks[j]), squares(blocks[cols + j]);
  const T* block = blocks + j;
  FBP_UNROLL(1)
  for (index_t n = block_rows; n < rows; n += block_rows) {
    block += 2 * cols;
    const index_t more = rows - n < block_rows ? rows - n : block_rows;
    const T share = T(double(more) / double(n + more));
    const Lane<T> e = Lane<T>(block[0]) - m;
    m = fma(e, Lane<T>(share), m);
    squares = fma(e * e, Lane<T>(T(n)) * Lane<T>(share), squares + Lane<T>(block[cols]));
  }
  m.store(mean + j);
  (squares / Lane<T>(T(rows))).store(variance + j);
}

// A thread takes some rows of one column, and makes what they share once.
template <class Body> FBP_FN void for_rows_of_column(index_t rows, const Body& body) {
  FBP_UNROLL(1)
  for (index_t i = row_of_thread(); i < rows; i += index_t(gridDim.y) * blockDim.y) body(i);
}
template <class T>
__global__ void __launch_bounds__(kElementThreads) batch_norm_forward_kernel(NormArgs<T> args) {
  const index_t j = column_of_thread();
  if (j >= args.cols) return;
  const Lane<T> mean(args.mean[j]), beta = value_or(args.beta, j, T(0));
  const Lane<T> scale =
      value_or(args.gamma, j, T(1)) * inverse_deviation(Lane<T>(args.variance[j]), args.epsilon);
  for_rows_of_column(args.rows, [&](index_t i) {
    fma(Lane<T>(args.x[i * args.x_row + j]) - mean, scale, beta).store(args.y + i * args.y_row + j);
  });
}

// Of each block of rows the sum of d, then that of d (x - mean).
template <class T>
__global__ void __launch_bounds__(kElementThreads)
    batch_norm_sums_kernel(NormArgs<T> args, index_t block_rows, T* blocks) {
  for_each_element(parts_of(args.rows, block_rows), args.cols, [&](index_t b, index_t j) {
    const index_t first = b * block_rows, stop = first + block_rows;
    const index_t end = stop < args.rows ? stop : args.rows;
    const Lane<T> mean(args.mean[j]);
    Lane<T> sum(T(0)), product(T(0));
    for (index_t i = first; i < end; ++i) {
      const Lane<T> d(args.d[i * args.d_row + j]);
      sum = sum + d;
      product = fma(d, Lane<T>(args.x[i * args.x_row + j]) - mean, product);
    }
    sum.store(blocks + b * 2 * args.cols + j);
    product.store(blocks + (b * 2 + 1) * args.cols + j);
  });
}

// total[j] = x[0, j] + x[1, j] + ..., in order.
template <class T>
__global__ void __launch_bounds__(kElementThreads)
    add_rows_kernel(const T* x, index_t rows, index_t cols, T* total) {
  for_each_element(1, cols, [&](index_t, index_t j) {
    Lane<T> sum(x[j]);
    for (index_t i = 1; i < rows; ++i) sum = sum + Lane<T>(x[i * cols + j]);
    sum.store(total + j);
  });
}

template <class T>
__global__ void __launch_bounds__(kElementThreads) batch_norm_backward_kernel(NormArgs<T> args) {
  const index_t j = column_of_thread();
  if (j >= args.cols) return;
  const Lane<T> part = Lane<T>(T(1)) / Lane<T>(T(args.batch_rows)), mean(args.mean[j]);
  const Lane<T> r = inverse_deviation(Lane<T>(args.variance[j]), args.epsilon);
  const Lane<T> scale = r * value_or(args.gamma, j, T(1));
  Lane<T> shift(T(0)), slope(T(0));
  if (args.sums) {
    shift = Lane<T>(args.sums[j]) * part;
    slope = Lane<T>(args.sums[args.cols + j]) * part * (r * r);
  }
  for_rows_of_column(args.rows, [&](index_t i) {
    const Lane<T> d = Lane<T>(args.d[i * args.d_row + j]) - shift;
    const Lane<T> e = Lane<T>(args.x[i * args.x_row + j]) - mean;
    (scale * fnma(e, slope, d)).store(args.y + i * args.y_row + j);
  });
}

template <class T>
__global__ void __launch_bounds__(kElementThreads)
    batch_norm_gradient_kernel(NormArgs<T> args, GradientSink<T> to) {
  for_each_element(1, args.cols, [&](index_t, index_t j) {
    const Lane<T> r = inverse_deviation(Lane<T>(args.variance[j]), args.epsilon);
    if (args.gamma) sink(to, j, Lane<T>(args.sums[args.cols + j]) * r);
    if (args.beta) sink(to, args.gamma ? args.cols + j : j, Lane<T>(args.sums[j]));
  });
}

template <class T>
__global__ void __launch_bounds__(kElementThreads)
    batch_norm_moving_kernel(NormArgs<T> args, T momentum, T* mean, T* variance,
                             const std::int32_t* overflow) {
  if (overflow && *overflow) return;
  const Lane<T> rows(T(args.batch_rows)), one(T(1)), rate(momentum);
  const Lane<T> unbiased = args.batch_rows > 1 ? rows / (rows - one) : one;
  for_each_element(1, args.cols, [&](index_t, index_t j) {
    const Lane<T> m(mean[j]), v(variance[j]);
    fma(rate, Lane<T>(args.mean[j]) - m, m).store(mean + j);
    fma(rate, Lane<T>(args.variance[j]) * unbiased - v, v).store(variance + j);
  });
}

// Eight rows to a thread, a column to each.
ElementGrid column_grid(index_t rows, index_t cols) { return ElementGrid(ceil_div(rows, 8), cols); }

dim3 row_blocks(index_t rows, int at_once) { return dim3(unsigned(ceil_div(rows, at_once))); }

}  // namespace

// A kernel with a thread for each element of rows x cols.
#define FBP_ELEMENTS(kernel, rows, cols, stream, ...)                                              \
  const ElementGrid shape(rows, cols);                                                             \
  FBP_LAUNCH(kernel, shape.grid, shape.block, 0, stream)(__VA_ARGS__)

template <class T> cudaError_t add(const ElementwiseArgs<T>& args, cudaStream_t stream) {
  FBP_ELEMENTS(add_kernel<T>, args.rows, args.cols, stream, args);
  return cudaGetLastError();
}

template <class T> cudaError_t normalize(const NormArgs<T>& args, cudaStream_t stream) {
  FBP_ELEMENTS(normalize_kernel<T>, args.rows, args.cols, stream, args);
  return cudaGetLastError();
}

template <class T> cudaError_t softmax_forward(const NormArgs<T>& args, cudaStream_t stream) {
  FBP_LAUNCH(softmax_forward_kernel<T>, row_blocks(args.rows, kRowsAtOnce<T>),
             dim3(kElementThreads), kElementThreads * sizeof(T), stream)(args);
  return cudaGetLastError();
}

template <class T> cudaError_t softmax_backward(const NormArgs<T>& args, cudaStream_t stream) {
  FBP_LAUNCH(softmax_backward_kernel<T>, row_blocks(args.rows, kRowsAtOnce<T>),
             dim3(kElementThreads), kElementThreads * sizeof(T), stream)(args);
  return cudaGetLastError();
}

template <class T> cudaError_t layer_norm_forward(const NormArgs<T>& args, cudaStream_t stream) {
  FBP_LAUNCH(layer_norm_forward_kernel<T>, row_blocks(args.rows, kRowsAtOnce<T>),
             dim3(kElementThreads), kElementThreads * sizeof(T), stream)(args);
  return cudaGetLastError();
}

template <class T> cudaError_t layer_norm_backward(const NormArgs<T>& args, cudaStream_t stream) {
  FBP_LAUNCH(layer_norm_backward_kernel<T>, row_blocks(args.rows, kRowsAtOnce<T>),
             dim3(kElementThreads), kElementThreads * sizeof(T), stream)(args);
  return cudaGetLastError();
}

template <class T>
cudaError_t layer_norm_gradient(const NormArgs<T>& args, index_t chunk, index_t parts,
                                const GradientSink<T>& to, cudaStream_t stream) {
  const dim3 grid(unsigned(ceil_div(args.cols, kElementThreads)), unsigned(parts));
  FBP_LAUNCH(layer_norm_gradient_kernel<T>, grid, dim3(kElementThreads), 0, stream)
  (args, chunk, to);
  return cudaGetLastError();
}

template <class T>
cudaError_t batch_norm_statistics(const NormArgs<T>& args, index_t block_rows, T* blocks, T* mean,
                                  T* variance, cudaStream_t stream) {
  FBP_ELEMENTS(batch_norm_block_kernel<T>, parts_of(args.rows, block_rows), args.cols, stream, args,
               block_rows, blocks);
  const ElementGrid columns(1, args.cols);
  FBP_LAUNCH(batch_norm_combine_kernel<T>, columns.grid, columns.block, 0, stream)
  (blocks, args.cols, args.rows, block_rows, mean, variance);
  return cudaGetLastError();
}

template <class T> cudaError_t batch_norm_forward(const NormArgs<T>& args, cudaStream_t stream) {
  const ElementGrid shape = column_grid(args.rows, args.cols);
  FBP_LAUNCH(batch_norm_forward_kernel<T>, shape.grid, shape.block, 0, stream)(args);
  return cudaGetLastError();
}

template <class T>
cudaError_t batch_norm_sums(const NormArgs<T>& args, index_t block_rows, T* blocks, T* sums,
                            cudaStream_t stream) {
  const index_t count = parts_of(args.rows, block_rows);
  FBP_ELEMENTS(batch_norm_sums_kernel<T>, count, args.cols, stream, args, block_rows, blocks);
  const ElementGrid columns(1, 2 * args.cols);
  FBP_LAUNCH(add_rows_kernel<T>, columns.grid, columns.block, 0, stream)
  (blocks, count, 2 * args.cols, sums);
  return cudaGetLastError();
}

template <class T> cudaError_t batch_norm_backward(const NormArgs<T>& args, cudaStream_t stream) {
  const ElementGrid shape = column_grid(args.rows, args.cols);
  FBP_LAUNCH(batch_norm_backward_kernel<T>, shape.grid, shape.block, 0, stream)(args);
  return cudaGetLastError();
}

template <class T>
cudaError_t batch_norm_gradient(const NormArgs<T>& args, const GradientSink<T>& to,
                                cudaStream_t stream) {
  FBP_ELEMENTS(batch_norm_gradient_kernel<T>, 1, args.cols, stream, args, to);
  return cudaGetLastError();
}

template <class T>
cudaError_t batch_norm_moving(const NormArgs<T>& args, T momentum, T* mean, T* variance,
                              const std::int32_t* overflow, cudaStream_t stream) {
  FBP_ELEMENTS(batch_norm_moving_kernel<T>, 1, args.cols, stream, args, momentum, mean, variance,
               overflow);
  return cudaGetLastError();
}

#undef FBP_ELEMENTS

#define FBP_INSTANTIATE(T)                                                                         \
  template cudaError_t add(const ElementwiseArgs<T>&, cudaStream_t);                               \
  template cudaError_t normalize(const NormArgs<T>&, cudaStream_t);                                \
  template cudaError_t softmax_forward(const NormArgs<T>&, cudaStream_t);                          \
  template cudaError_t softmax_backward(const NormArgs<T>&, cudaStream_t);                         \
  template cudaError_t layer_norm_forward(const NormArgs<T>&, cudaStream_t);                       \
  template cudaError_t layer_norm_backward(const NormArgs<T>&, cudaStream_t);                      \
  template cudaError_t layer_norm_gradient(const NormArgs<T>&, index_t, index_t,                   \
                                           const GradientSink<T>&, cudaStream_t);                  \
  template cudaError_t batch_norm_statistics(const NormArgs<T>&, index_t, T*, T*, T*,              \
                                             cudaStream_t);                                        \
  template cudaError_t batch_norm_forward(const NormArgs<T>&, cudaStream_t);                       \
  template cudaError_t batch_norm_sums(const NormArgs<T>&, index_t, T*, T*, cudaStream_t);         \
  template cudaError_t batch_norm_backward(const NormArgs<T>&, cudaStream_t);                      \
  template cudaError_t batch_norm_gradient(const NormArgs<T>&, const GradientSink<T>&,             \
                                           cudaStream_t);                                          \
  template cudaError_t batch_norm_moving(const NormArgs<T>&, T, T*, T*, const std::int32_t*,       \
                                         cudaStream_t);
FBP_INSTANTIATE(float)
FBP_INSTANTIATE(double)
#undef FBP_INSTANTIATE

}  // namespace cuda
}  // namespace fastbp
