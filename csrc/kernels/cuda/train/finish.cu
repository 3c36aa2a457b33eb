// Four kernels: what happens to each element; the sums of each block of the flat parameters; the totals;
// the update (behind it, where columns are limited, limits.cu). In front of them, where the loss is scaled, two: whether all values of each block are finite;
// the next scale.
#include "kernels/cuda/train/finish.h"

#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/train/finish_math.cuh"

namespace fastbp {
namespace cuda {
namespace {

// An element of the gradient of this batch, and of those before it that belong to the same update.
template <class T>
FBP_FN Lane<T> so_far(const FinishArgs<T>& f, const Progress<T>& now, index_t e, float inverse) {
  Lane<T> g(f.state.gradient[e]);
  if (f.state.scaling) g = g * Lane<T>(T(inverse));
  return added_up(f, now, e, g);
}

// The element of the calling thread and its piece.
template <class T> struct Place {
  index_t element;
  RulePiece<T> piece;
  bool there;

  FBP_FN explicit Place(const FinishArgs<T>& f)
      : element(index_t(blockIdx.x) * kElementThreads + threadIdx.x),
        there(element < f.parameters) {
    if (there) piece = piece_of(f, element);
  }
};

// Whether it is so for any of the block's threads; `found` has a place for each warp.
FBP_DEVICE bool any_of_block(bool mine, int* found) {
  const bool here = __any_sync(0xffffffffu, mine);
  if (threadIdx.x % 32 == 0) found[threadIdx.x / 32] = here;
  __syncthreads();
  bool any = false;
  for (int warp = 0; warp < kElementThreads / 32; ++warp) any = any || found[warp];
  return any;
}

// A block of threads for each block of parameters.
template <class T>
__global__ void __launch_bounds__(kElementThreads) check_kernel(FinishArgs<T> f) {
  FBP_SHARED(int, found);
  const Progress<T> now(f);
  const float inverse = 1 / f.state.scaling->scale;
  const index_t begin = index_t(blockIdx.x) * kGradientBlock;
  bool mine = false;
  FBP_UNROLL(4)
  for (int i = threadIdx.x; i < kGradientBlock; i += kElementThreads) {
    if (begin + i >= f.parameters) break;
    const T g = so_far(f, now, begin + i, inverse).v;
    mine = mine || !(g - g == T(0));
  }
  const bool any = any_of_block(mine, found);
  if (threadIdx.x == 0) f.tables.overflow[blockIdx.x] = any;
}

template <class T>
__global__ void __launch_bounds__(kElementThreads) scale_kernel(FinishArgs<T> f) {
  FBP_SHARED(int, found);
  bool mine = false;
  for (index_t b = threadIdx.x; b < gradient_blocks(f.parameters); b += kElementThreads)
    mine = mine || f.tables.overflow[b];
  const bool any = any_of_block(mine, found);
  if (threadIdx.x != 0) return;
  LossScale& scaling = *f.state.scaling;
  scaling.inverse = 1 / scaling.scale;
  scaling.overflow = any;
  if (f.use == FinishUse::update && Progress<T>(f).complete) next_scale(scaling);
}

template <class T>
__global__ void __launch_bounds__(kElementThreads) prepare_kernel(FinishArgs<T> f) {
  const Place<T> at(f);
  if (!at.there || !at.piece.trained) return;
  const Progress<T> now(f);
  const index_t e = at.element;
  const Lane<T> g = so_far(f, now, e, f.state.scaling ? f.state.scaling->inverse : 1.0f);
  limited(f, at.piece, now, e, g).store(f.state.gradient + e);
}

// A block of threads for each block of parameters.
template <class T> __global__ void __launch_bounds__(kElementThreads) sums_kernel(FinishArgs<T> f) {
  FBP_SHARED(T, values);
  const index_t block = blockIdx.x;
  const double penalty = penalty_sum(f, block, values);
  if (f.penalize && threadIdx.x == 0) f.tables.penalties[block] = penalty;
  if (f.use != FinishUse::update || !(f.clip_norm > 0)) return;
  const index_t begin = block * kGradientBlock, rest = f.parameters - begin;
  const T* const g = f.state.gradient + begin;
  const Lane<T> sum =
      lane_sum<T>(rest < kGradientBlock ? rest : kGradientBlock, values,
                  [&](index_t e, Lane<T> s) { return fma(Lane<T>(g[e]), Lane<T>(g[e]), s); });
  if (threadIdx.x == 0) f.tables.squares[block] = double(sum.v);
}

// The factor is that of torch.nn.utils.clip_grad_norm_.
template <class T>
__global__ void __launch_bounds__(kElementThreads) totals_kernel(FinishArgs<T> f) {
  FBP_SHARED(double, values);
  const Progress<T> now(f);
  const index_t blocks = gradient_blocks(f.parameters);
  if (f.penalize) {
    const double total = ordered_sum(f.tables.penalties, blocks, values, kElementThreads);
    if (threadIdx.x == 0) f.state.penalties[now.batch] = total;
  }
  if (f.use != FinishUse::update || !now.complete || !(f.clip_norm > 0)) return;
  const double total = ordered_sum(f.tables.squares, blocks, values, kElementThreads);
  if (threadIdx.x != 0) return;
  const double factor = f.clip_norm / (sqrt(Ld(total)).v + 1e-6);
  *f.tables.factor = factor >= 1 ? 1 : factor;
}

template <class T>
__global__ void __launch_bounds__(kElementThreads) update_kernel(FinishArgs<T> f) {
  const Progress<T> now(f);
  const Place<T> at(f);
  if (!now.complete || !at.there) return;
  if (f.state.scaling && f.state.scaling->overflow) return;
  const Lane<T> factor(f.clip_norm > 0 ? T(*f.tables.factor) : T(1));
  const Lane<T> g(at.piece.trained ? f.state.gradient[at.element] : T(0));
  take(f, at.piece, now, at.element, g * factor);
}

}  // namespace

template <class T> cudaError_t finish_gradient(const FinishArgs<T>& args, cudaStream_t stream) {
  const dim3 threads(kElementThreads);
  const dim3 elements(unsigned(ceil_div(args.parameters, kElementThreads)));
  if (args.state.scaling && args.use != FinishUse::measure) {
    constexpr std::size_t found = kElementThreads / 32 * sizeof(int);
    FBP_LAUNCH(check_kernel<T>, dim3(unsigned(gradient_blocks(args.parameters))), threads, found,
               stream)(args);
    FBP_LAUNCH(scale_kernel<T>, dim3(1), threads, found, stream)(args);
  }
  if (args.use != FinishUse::measure)
    FBP_LAUNCH(prepare_kernel<T>, elements, threads, 0, stream)(args);
  if (args.penalize || args.clip_norm > 0) {
    FBP_LAUNCH(sums_kernel<T>, dim3(unsigned(gradient_blocks(args.parameters))), threads,
               kElementThreads * sizeof(T), stream)(args);
    FBP_LAUNCH(totals_kernel<T>, dim3(1), threads, kElementThreads * sizeof(double), stream)(args);
  }
  if (args.use != FinishUse::update) return cudaGetLastError();
  FBP_LAUNCH(update_kernel<T>, elements, threads, 0, stream)(args);
  return args.tables.limit_count > 0 ? limit_columns(args, stream) : cudaGetLastError();
}

template cudaError_t finish_gradient(const FinishArgs<float>&, cudaStream_t);
template cudaError_t finish_gradient(const FinishArgs<double>&, cudaStream_t);

}  // namespace cuda
}  // namespace fastbp
