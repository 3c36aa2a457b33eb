// Columns of weights that are too long after an update, and the average of the parameters behind them. The
// device's twin of limit_columns in kernels/cpu/gradient.inl, with its sums.
#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/train/finish.h"
#include "kernels/cuda/train/finish_math.cuh"

namespace fastbp {
namespace cuda {
namespace {

// A block has a warp's width of columns, and loads so many rows of them at a time, all at once.
constexpr int kColumns = 32, kRowsAtOnce = kElementThreads / kColumns, kLoads = 8;
constexpr int kSlab = kRowsAtOnce * kLoads;

// Whether the running batch ends in an update that is not left out.
template <class T> FBP_FN bool updates(const FinishArgs<T>& f, const Progress<T>& now) {
  return now.complete && !(f.state.scaling && f.state.scaling->overflow);
}

// The squares of a column in the order of its rows, which the first warp adds up; w points to the
// column, null outside the matrix.
template <class T> FBP_DEVICE Lane<T> squares(const T* w, index_t rows, index_t row_step, T* slab) {
  const int lane = int(threadIdx.x) % kColumns, first = int(threadIdx.x) / kColumns;
  Lane<T> sum(T(0));
  FBP_UNROLL(1)
  for (index_t begin = 0; begin < rows; begin += kSlab) {
    Lane<T> mine[kLoads];
    FBP_UNROLL(kLoads)
    for (int i = 0; i < kLoads; ++i) {
      const index_t row = begin + i * kRowsAtOnce + first;
      mine[i] = Lane<T>(w && row < rows ? w[row * row_step] : T(0));
    }
    __syncthreads();
    FBP_UNROLL(kLoads)
    for (int i = 0; i < kLoads; ++i)
      mine[i].store(slab + (i * kRowsAtOnce + first) * kColumns + lane);
    __syncthreads();
    if (first > 0) continue;
    FBP_UNROLL(8)
    for (int i = 0; i < kSlab; ++i) {  // behind the last row 0, which adds nothing
      const Lane<T> v(slab[i * kColumns + lane]);
      sum = fma(v, v, sum);
    }
  }
  return sum;
}

// A row of blocks for each matrix.
template <class T>
__global__ void __launch_bounds__(kElementThreads) limit_kernel(FinishArgs<T> f) {
  FBP_SHARED(T, slab);
  const LimitedColumns<T> of = f.tables.limits[blockIdx.y];
  if (index_t(blockIdx.x) * kColumns >= of.cols || !updates(f, Progress<T>(f))) return;
  const int lane = int(threadIdx.x) % kColumns, first = int(threadIdx.x) / kColumns;
  const index_t column = index_t(blockIdx.x) * kColumns + lane;
  T* const w = column < of.cols ? f.state.to.w + of.begin + column : nullptr;
  const Lane<T> norm = sqrt(squares<T>(w, of.rows, of.cols, slab));
  const Lane<T> high(of.limit), margin(T(1e-7)), one(T(1));
  __syncthreads();
  if (first == 0) select(norm > high, high / (norm + margin), one).store(slab + lane);
  __syncthreads();
  const Lane<T> factor(slab[lane]);
  if (!w || factor.v == T(1)) return;
  FBP_UNROLL(kLoads)
  for (index_t row = first; row < of.rows; row += kRowsAtOnce) {
    T* const at = w + row * of.cols;
    (Lane<T>(*at) * factor).store(at);
  }
}

template <class T>
__global__ void __launch_bounds__(kElementThreads) follow_kernel(FinishArgs<T> f) {
  const Progress<T> now(f);
  const index_t e = index_t(blockIdx.x) * kElementThreads + threadIdx.x;
  if (e < f.parameters && updates(f, now)) follow(f, now, e, Lane<T>(f.state.to.w[e]));
}

}  // namespace

template <class T> cudaError_t limit_columns(const FinishArgs<T>& args, cudaStream_t stream) {
  const dim3 threads(kElementThreads);
  const dim3 columns(unsigned(ceil_div(args.tables.most_limited, kColumns)),
                     unsigned(args.tables.limit_count));
  FBP_LAUNCH(limit_kernel<T>, columns, threads, kSlab * kColumns * sizeof(T), stream)(args);
  if (args.average)
    FBP_LAUNCH(follow_kernel<T>, dim3(unsigned(ceil_div(args.parameters, kElementThreads))),
               threads, 0, stream)(args);
  return cudaGetLastError();
}

template cudaError_t limit_columns(const FinishArgs<float>&, cudaStream_t);
template cudaError_t limit_columns(const FinishArgs<double>&, cudaStream_t);

}  // namespace cuda
}  // namespace fastbp
