// Four kernels: what happens to each element; the sums of each block of the flat parameters; the totals;
// the update. In front of them, where the loss is scaled, two: whether all values of each block are finite;
// the next scale.
#include "kernels/cuda/train/finish.h"

#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/epilogues.cuh"
#include "kernels/cuda/folds.cuh"

namespace fastbp {
namespace cuda {
namespace {

// Where the running batch stands among those of its update.
template <class T> struct Progress {
  std::int64_t batch, number;
  std::int64_t update;  // t of the optimizer's formulas
  bool first, complete;

  FBP_FN explicit Progress(const FinishArgs<T>& f)
      : batch(f.state.steps.counter->batch), number(f.state.steps.counter->steps_done + batch + 1),
        update((number - 1) / f.accumulation + 1), first((number - 1) % f.accumulation == 0),
        complete(number % f.accumulation == 0) {
    if (f.state.scaling) update -= std::int64_t(f.state.scaling->skipped);
  }
};

template <class T> FBP_FN Lane<T> penalty_of(Lane<T> w, Lane<T> l1, Lane<T> l2) {
  return fma(l2 * w, w, l1 * abs(w));
}
template <class T> FBP_FN Lane<T> penalty_slope(Lane<T> w, Lane<T> l1, Lane<T> l2) {
  const Lane<T> zero(T(0)), sign = select(w == zero, zero, copysign(l1, w));
  return fma(l2 + l2, w, sign);
}

// The sum of term(e, sum so far) over e < count as the CPU's vectors sum, for all threads.
template <class T, class Term>
FBP_DEVICE Lane<T> lane_sum(index_t count, T* values, const Term& term) {
  Lane<T> sum(T(0));
  const index_t end = int(threadIdx.x) < kLanes<T> ? count : 0;
  FBP_UNROLL(1)
  for (index_t e = threadIdx.x; e < end; e += kLanes<T>) sum = term(e, sum);
  return fold_sum(values, sum);
}

// An element of the gradient of this batch, and of those before it that belong to the same update.
template <class T>
FBP_FN Lane<T> so_far(const FinishArgs<T>& f, const Progress<T>& now, index_t e, float inverse) {
  Lane<T> g(f.state.gradient[e]);
  if (f.state.scaling) g = g * Lane<T>(T(inverse));
  const bool adds = f.use == FinishUse::update && f.accumulation > 1 && !now.first;
  return adds ? Lane<T>(f.accumulated[e]) + g : g;
}

// An element of the gradient after all that needs no other.
template <class T>
FBP_FN Lane<T> prepared(const FinishArgs<T>& f, const RulePiece<T>& piece, const Progress<T>& now,
                        index_t e) {
  Lane<T> g = so_far(f, now, e, f.state.scaling ? f.state.scaling->inverse : 1.0f);
  const bool update = f.use == FinishUse::update;
  if (update && f.accumulation > 1) {
    g.store(f.accumulated + e);
    if (now.complete) g = g * Lane<T>(f.share);
  }
  if (piece.penalized && (!update || now.complete))
    g = g + penalty_slope(Lane<T>(f.state.to.w[e]), Lane<T>(piece.l1), Lane<T>(piece.l2));
  if (update && now.complete && f.clip_value > 0) {
    const Lane<T> high(f.clip_value), low(-f.clip_value);
    g = select(g > high, high, select(g < low, low, g));
  }
  return g;
}

// The element of the calling thread and its piece.
template <class T> struct Place {
  index_t element;
  RulePiece<T> piece;
  bool there;

  FBP_FN explicit Place(const FinishArgs<T>& f)
      : element(index_t(blockIdx.x) * kElementThreads + threadIdx.x),
        there(element < f.parameters) {
    if (!there) return;
    index_t p = f.tables.first_piece[element / kGradientBlock];
    FBP_UNROLL(1)
    while (element >= f.tables.pieces[p].begin + f.tables.pieces[p].count) ++p;
    piece = f.tables.pieces[p];
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
  prepared(f, at.piece, Progress<T>(f), at.element).store(f.state.gradient + at.element);
}

// A block of threads for each block of parameters.
template <class T> __global__ void __launch_bounds__(kElementThreads) sums_kernel(FinishArgs<T> f) {
  FBP_SHARED(T, values);
  const index_t block = blockIdx.x;
  double penalty = 0;
  FBP_UNROLL(1)
  for (index_t p = f.tables.first_piece[block]; p < f.tables.first_piece[block + 1]; ++p) {
    const RulePiece<T>& piece = f.tables.pieces[p];
    if (!piece.penalized) continue;
    const T* const w = f.state.to.w + piece.begin;
    const Lane<T> l1(piece.l1), l2(piece.l2);
    penalty += double(lane_sum<T>(piece.count, values, [&](index_t e, Lane<T> sum) {
                        return sum + penalty_of(Lane<T>(w[e]), l1, l2);
                      }).v);
  }
  if (f.penalize && threadIdx.x == 0) f.tables.penalties[block] = penalty;
  if (f.use != FinishUse::update || !(f.clip_norm > 0)) return;
  const index_t begin = block * kGradientBlock, rest = f.parameters - begin;
  const T* const g = f.state.gradient + begin;
  const Lane<T> sum =
      lane_sum<T>(rest < kGradientBlock ? rest : kGradientBlock, values,
                  [&](index_t e, Lane<T> s) { return fma(Lane<T>(g[e]), Lane<T>(g[e]), s); });
  if (threadIdx.x == 0) f.tables.squares[block] = double(sum.v);
}

// The sum of n values in order; the first thread has it.
FBP_DEVICE double ordered_sum(const double* x, index_t n, double* values) {
  double total = 0;
  for (index_t begin = 0; begin < n; begin += kElementThreads) {
    const index_t here = n - begin < kElementThreads ? n - begin : kElementThreads;
    if (threadIdx.x < here) values[threadIdx.x] = x[begin + threadIdx.x];
    __syncthreads();
    if (threadIdx.x == 0)
      for (index_t i = 0; i < here; ++i) total += values[i];
    __syncthreads();
  }
  return total;
}

// The factor is that of torch.nn.utils.clip_grad_norm_.
template <class T>
__global__ void __launch_bounds__(kElementThreads) totals_kernel(FinishArgs<T> f) {
  FBP_SHARED(double, values);
  const Progress<T> now(f);
  const index_t blocks = gradient_blocks(f.parameters);
  if (f.penalize) {
    const double total = ordered_sum(f.tables.penalties, blocks, values);
    if (threadIdx.x == 0) f.state.penalties[now.batch] = total;
  }
  if (f.use != FinishUse::update || !now.complete || !(f.clip_norm > 0)) return;
  const double total = ordered_sum(f.tables.squares, blocks, values);
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
  const index_t e = at.element;
  Lane<T> w(f.state.to.w[e]);
  if (at.piece.trained) {
    const std::int64_t place =
        f.state.scaling ? now.update - f.state.steps.counter->first_update : now.batch;
    const Update<T> update{f.state.to, 0, f.state.optimizer, f.state.steps};
    const StepHyper<T>& hyper = f.state.steps.hyper[place * f.variants + at.piece.variant];
    const Lane<T> factor(f.clip_norm > 0 ? T(*f.tables.factor) : T(1));
    w = update.apply(e, Lane<T>(f.state.gradient[e]) * factor, hyper.value);
  }
  if (!f.average) return;
  const T momentum = now.update == 1 ? T(0) : f.average_momentum;
  const Lane<T> kept(momentum), taken(T(1) - momentum);
  fma(taken, w, kept * Lane<T>(f.average[e])).store(f.average + e);
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
  if (args.use == FinishUse::update)
    FBP_LAUNCH(update_kernel<T>, elements, threads, 0, stream)(args);
  return cudaGetLastError();
}

template cudaError_t finish_gradient(const FinishArgs<float>&, cudaStream_t);
template cudaError_t finish_gradient(const FinishArgs<double>&, cudaStream_t);

}  // namespace cuda
}  // namespace fastbp
