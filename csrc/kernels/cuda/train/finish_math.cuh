// What happens to a gradient between the backward pass and the parameters, element by element, and what
// is summed of it; for finish.cu and for the kernel of narrow networks. No symbol leaves the files that
// include it.
#pragma once

#include "kernels/cuda/epilogues.cuh"
#include "kernels/cuda/folds.cuh"
#include "kernels/cuda/train/finish.h"

namespace fastbp {
namespace cuda {
namespace {

// Where the running batch stands among those of its update.
template <class T> struct Progress {
  std::int64_t batch, number;
  std::int64_t update;  // t of the optimizer's formulas
  bool first, complete;

  // Of the batch that is so many ahead of the counter's.
  FBP_FN explicit Progress(const FinishArgs<T>& f, int ahead = 0)
      : batch(f.state.steps.counter->batch + ahead),
        number(f.state.steps.counter->steps_done + batch + 1),
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

// An element g of this batch's gradient with those before it that belong to the same update.
template <class T>
FBP_FN Lane<T> added_up(const FinishArgs<T>& f, const Progress<T>& now, index_t e, Lane<T> g) {
  const bool adds = f.use == FinishUse::update && f.accumulation > 1 && !now.first;
  return adds ? Lane<T>(f.accumulated[e]) + g : g;
}

// That element after all that needs no other.
template <class T>
FBP_FN Lane<T> limited(const FinishArgs<T>& f, const RulePiece<T>& piece, const Progress<T>& now,
                       index_t e, Lane<T> g) {
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

// The average of a parameter w follows it.
template <class T>
FBP_FN void follow(const FinishArgs<T>& f, const Progress<T>& now, index_t e, Lane<T> w) {
  const T momentum = now.update == 1 ? T(0) : f.average_momentum;
  const Lane<T> kept(momentum), taken(T(1) - momentum);
  fma(taken, w, kept * Lane<T>(f.average[e])).store(f.average + e);
}

// The parameter of a complete gradient g, and its average; but where columns are limited that has to wait.
template <class T>
FBP_FN void take(const FinishArgs<T>& f, const RulePiece<T>& piece, const Progress<T>& now,
                 index_t e, Lane<T> g) {
  Lane<T> w(f.state.to.w[e]);
  if (piece.trained) {
    const std::int64_t place =
        f.state.scaling ? now.update - f.state.steps.counter->first_update : now.batch;
    const Update<T> update{f.state.to, 0, f.state.optimizer, f.state.steps};
    w = update.apply(e, g, f.state.steps.hyper[place * f.variants + piece.variant].value);
  }
  if (f.average && f.tables.limit_count == 0) follow(f, now, e, w);
}

// That of an element.
template <class T> FBP_FN RulePiece<T> piece_of(const FinishArgs<T>& f, index_t element) {
  index_t p = f.tables.first_piece[element / kGradientBlock];
  FBP_UNROLL(1)
  while (element >= f.tables.pieces[p].begin + f.tables.pieces[p].count) ++p;
  return f.tables.pieces[p];
}

// The penalty on a block of parameters, for all threads.
template <class T> FBP_DEVICE double penalty_sum(const FinishArgs<T>& f, index_t block, T* values) {
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
  return penalty;
}

// The sum of n values in order; the first of `threads` threads has it.
FBP_DEVICE double ordered_sum(const double* x, index_t n, double* values, int threads) {
  double total = 0;
  for (index_t begin = 0; begin < n; begin += threads) {
    const index_t here = n - begin < threads ? n - begin : threads;
    if (threadIdx.x < here) values[threadIdx.x] = x[begin + threadIdx.x];
    __syncthreads();
    if (threadIdx.x == 0)
      for (index_t i = 0; i < here; ++i) total += values[i];
    __syncthreads();
  }
  return total;
}

}  // namespace
}  // namespace cuda
}  // namespace fastbp
