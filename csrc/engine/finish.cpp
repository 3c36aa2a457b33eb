// The end of a step whose gradient is whole before any parameter changes: averaged over batches,
// penalized, limited (update_rules.h), then the update.
//
// All work and all sums go by blocks of the flat parameters; a worker has whole blocks, and the
// blocks' sums are added in order by everyone who wants the total. So no bit depends on the threads.
#include <cmath>
#include <cstring>
#include <limits>

#include "engine/step.h"

namespace fastbp {
namespace {

// body(begin, n) for the blocks of a part that begins with a whole one.
template <class Body> void for_each_block(Range part, Body body) {
  for (index_t i = part.begin; i < part.end; i += kGradientBlock)
    body(i, part.end - i < kGradientBlock ? part.end - i : kGradientBlock);
}

// The same for what is trained of each block.
template <class Body> void for_each_trained(const NetworkLayout& layout, Range part, Body body) {
  for_each_block(part, [&](index_t begin, index_t n) {
    for_trained(layout, {begin, begin + n},
                [&](Range range) { body(range.begin, range.end - range.begin); });
  });
}

// body(begin, n, range) for the pieces of `part` between the ends of ranges; range null outside them.
template <class Body> void for_each_range(const UpdateRules& rules, Range part, Body body) {
  index_t at = part.begin;
  for (const ParameterRange& range : rules.ranges) {
    if (at >= part.end || range.begin >= part.end) break;
    if (range.end <= at) continue;
    if (range.begin > at) body(at, range.begin - at, nullptr);
    at = range.begin > at ? range.begin : at;
    const index_t end = range.end < part.end ? range.end : part.end;
    body(at, end - at, &range);
    at = end;
  }
  if (at < part.end) body(at, part.end - at, nullptr);
}

// A worker has so many columns of weights side by side: two cache lines of float64.
constexpr index_t kLimitedTogether = 16;

double total_of(const double* blocks, index_t parameters) {
  double total = 0;
  for (index_t b = 0; b < gradient_blocks(parameters); ++b) total += blocks[b];
  return total;
}

}  // namespace

template <class T> void penalize(const StepContext<T>& c, Range part, bool add) {
  for_each_block(part, [&](index_t begin, index_t) { c.penalties[begin / kGradientBlock] = 0; });
  for_each_trained(*c.layout, part, [&](index_t begin, index_t n) {
    const auto piece = [&](index_t at, index_t count, const ParameterRange* range) {
      if (!range || (range->l1 == 0 && range->l2 == 0)) return;
      T* gradient = add ? c.parameters.gradient + at : nullptr;
      c.penalties[begin / kGradientBlock] +=
          c.kernels->penalty(c.parameters.w + at, gradient, count, T(range->l1), T(range->l2));
    };
    for_each_range(*c.rules, {begin, begin + n}, piece);
  });
}
template void penalize(const StepContext<float>&, Range, bool);
template void penalize(const StepContext<double>&, Range, bool);

template <class T> double penalty_total(const StepContext<T>& c) {
  return total_of(c.penalties, c.layout->parameter_count);
}
template double penalty_total(const StepContext<float>&);
template double penalty_total(const StepContext<double>&);

template <class T> double Step<T>::penalty() const {
  return c_.rules && c_.rules->penalize() ? penalty_total(c_) : 0;
}

// Behind a barrier: all workers' shares of the gradient are there.
template <class T> void Step<T>::finish(const TrainBatch<T>& batch) {
  const UpdateRules& rules = *c_.rules;
  const Range part = split(c_.layout->parameter_count, kGradientBlock, share_);
  const bool update = batch.use != GradientUse::store;
  const bool complete = update && rules.updates_at(batch.number);
  if (update && rules.accumulation > 1) {
    accumulate(part, (batch.number - 1) % rules.accumulation == 0);
    if (complete) scale_gradient(part, T(1.0 / double(rules.accumulation)));
  }
  if (rules.penalize()) penalize(c_, part, complete || !update);
  if (complete) {
    limit(part);
    update_in_blocks(part);
    if (!rules.column_limits.empty()) limit_columns();
    if (rules.average && !rules.column_limits.empty()) worker_.barrier(), follow(part);
  }
  // Worker 0 reads all blocks' penalties when this returns.
  if (rules.penalize()) worker_.barrier();
}

// Adds the gradient to the sum over batches, or begins that anew; the gradient becomes the sum.
template <class T> void Step<T>::accumulate(Range part, bool first) {
  for_each_trained(*c_.layout, part, [&](index_t begin, index_t n) {
    T *gradient = c_.parameters.gradient + begin, *sum = c_.parameters.accumulated + begin;
    c_.kernels->add_rows(gradient, n, 1, n, sum, !first);
    std::memcpy(gradient, sum, std::size_t(n) * sizeof(T));
  });
}

template <class T> void Step<T>::scale_gradient(Range part, T factor) {
  for_each_trained(*c_.layout, part, [&](index_t begin, index_t n) {
    c_.kernels->limit(c_.parameters.gradient + begin, n, factor,
                      std::numeric_limits<T>::infinity());
  });
}

// Clipping by value, then by norm; the factor is that of torch.nn.utils.clip_grad_norm_.
template <class T> void Step<T>::limit(Range part) {
  const UpdateRules& rules = *c_.rules;
  T* gradient = c_.parameters.gradient;
  if (rules.clip_value > 0)
    for_each_trained(*c_.layout, part, [&](index_t begin, index_t n) {
      c_.kernels->limit(gradient + begin, n, T(1), T(rules.clip_value));
    });
  if (rules.clip_norm <= 0) return;
  for_each_block(part, [&](index_t begin, index_t n) {  // what is frozen is 0
    c_.squares[begin / kGradientBlock] = c_.kernels->square_sum(gradient + begin, n);
  });
  worker_.barrier();
  const double norm = std::sqrt(total_of(c_.squares, c_.layout->parameter_count));
  const double factor = rules.clip_norm / (norm + 1e-6);
  if (!(factor >= 1)) scale_gradient(part, T(factor));
}

// The optimizer's formula, and the average behind it, one block after the other; where columns are
// limited the average has to wait.
template <class T> void Step<T>::update_in_blocks(Range part) {
  const UpdateRules& rules = *c_.rules;
  const TileOp<T> update = c_.kernels->update[c_.optimizer.optimizer];
  const std::int64_t t = powers_.t;
  UpdateTile<T> tile = update_;
  OptimizerSpec optimizer = c_.optimizer;
  const double rate = rules.rate(t, optimizer.hyper.learning_rate);
  double scaled = 1;
  const auto piece = [&](index_t at, index_t count, const ParameterRange* range) {
    const double wanted = range ? range->rate : 1;
    if (wanted != scaled) {
      optimizer.hyper.learning_rate = rate * wanted;
      tile.hyper = step_hyper<T>(optimizer, powers_);
      scaled = wanted;
    }
    update(&tile, c_.parameters.gradient + at, 0, 0, 1, at, count);
  };
  for_each_block(part, [&](index_t begin, index_t n) {
    for_trained(*c_.layout, {begin, begin + n},
                [&](Range range) { for_each_range(rules, range, piece); });
    if (rules.average && rules.column_limits.empty()) follow({begin, begin + n});
  });
}

// The average of the parameters follows them.
template <class T> void Step<T>::follow(Range part) {
  const T momentum = powers_.t == 1 ? T(0) : T(c_.rules->average_momentum);
  c_.kernels->blend(c_.parameters.w + part.begin, c_.parameters.average + part.begin,
                    part.end - part.begin, momentum);
}

// Each worker its columns of the weights that are limited and trained.
template <class T> void Step<T>::limit_columns() {
  worker_.barrier();  // a column is in the blocks of several
  for (const ColumnLimit& of : c_.rules->column_limits) {
    const Range columns = split(of.cols, kLimitedTogether, share_);
    if (columns.begin == columns.end) continue;
    for_trained(*c_.layout, {of.begin, of.begin + of.rows * of.cols}, [&](Range weights) {
      c_.kernels->limit_columns(c_.parameters.w + weights.begin + columns.begin, of.cols, of.rows,
                                columns.end - columns.begin, T(of.limit));
    });
  }
}

template class Step<float>;
template class Step<double>;

}  // namespace fastbp
