// What may happen to a gradient between the backward pass and the optimizer's formula, as plain
// data.
//
// In this order: gradients of `accumulation` batches are averaged; penalties on the parameters are
// added; values are cut off at +-clip_value; the whole gradient is scaled down to the norm clip_norm;
// the optimizer's formula follows with the rate of the schedule times that of the range; columns of
// weights are scaled down to a norm; the average of the parameters follows them.
#pragma once

#include <vector>

#include "core/types.h"
#include "ops/schedules.h"

namespace fastbp {

// Parameters begin <= i < end of the flat block with a rule of their own.
struct ParameterRange {
  index_t begin = 0, end = 0;
  double rate = 1;        // times the learning rate
  double l1 = 0, l2 = 0;  // l1 |w| + l2 w^2 is added to the loss
};

// Weights (rows, cols) from element `begin` of the flat block, whose columns are no longer than `limit`
// after each update.
struct ColumnLimit {
  index_t begin = 0, rows = 0, cols = 0;
  double limit = 0;
};

struct UpdateRules {
  double clip_norm = 0;   // 0: no limit
  double clip_value = 0;  // 0: no limit
  index_t accumulation = 1;
  bool average = false;  // a moving average of the parameters is kept
  double average_momentum = 0;
  std::vector<ParameterRange> ranges;  // in order, apart from each other
  std::vector<ColumnLimit> column_limits;
  std::vector<RatePiece> rates;     // in order, the first from 0; none: the rate is the optimizer's
  std::vector<double> rate_values;  // of the form `table`

  // Whether a gradient has to be whole before any parameter changes.
  bool need_whole_gradient() const {
    return clip_norm > 0 || clip_value > 0 || accumulation > 1 || average || !ranges.empty() ||
           !column_limits.empty();
  }
  bool penalize() const {
    for (const ParameterRange& range : ranges)
      if (range.l1 != 0 || range.l2 != 0) return true;
    return false;
  }
  // t of the optimizer's formulas for batch `number`, from 1.
  std::int64_t update_of(std::int64_t number) const { return (number - 1) / accumulation + 1; }
  bool updates_at(std::int64_t number) const { return number % accumulation == 0; }
  // The learning rate of update t, from 1; `otherwise` where there is no schedule.
  double rate(std::int64_t t, double otherwise) const {
    if (rates.empty()) return otherwise;
    std::size_t at = rates.size() - 1;
    while (at > 0 && rates[at].start > t - 1) --at;
    return rate_of(rates[at], t - 1, rate_values.data(), std::int64_t(rate_values.size()));
  }
};

}  // namespace fastbp
