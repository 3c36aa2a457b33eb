// Learning-rate schedules, once: pieces of a few simple forms, one after the other, as functions of
// the number of updates done. Python makes the pieces (python/fastbp/schedules.py); the twin is
// python/fastbp/reference/schedules.py.
//
// Only exactly rounded operations and the functions of math.h: the rates have the same bits
// everywhere.
#pragma once

#include <cstdint>

#include "ops/fbp_fn.h"
#include "ops/lane.h"
#include "ops/math.h"

namespace fastbp {

// x counts updates from the piece's first one, and `ahead` more; L is its length.
enum class RateForm : int {
  constant,     // first
  linear,       // from first to last, at x = L and beyond
  cosine,       // the same along half a cosine
  exponential,  // first ratio^(x / L)
  staircase,    // first ratio^floor(x / L)
  table,        // values[x]; the last one beyond their end
};

struct RatePiece {
  std::int64_t start = 0;  // updates done before its first one
  RateForm form = RateForm::constant;
  double first = 0, last = 0, length = 1, ratio = 1, ahead = 0;
};

// cos(pi x) for 0 <= x <= 1: the sine of pi (1/2 - x) by its series, whose next term is below 2e-18.
FBP_FN double cos_pi(double x) {
  const Ld y = Ld(3.141592653589793) * Ld(0.5 - x), square = y * y;
  constexpr double factorials[] = {1,
                                   6,
                                   120,
                                   5040,
                                   362880,
                                   39916800,
                                   6227020800,
                                   1307674368000,
                                   355687428096000,
                                   121645100408832000,
                                   51090942171709440000.0};
  Ld sum(1 / factorials[10]);
  for (int k = 9; k >= 0; --k) sum = fnma(square, sum, Ld(1 / factorials[k]));
  return (y * sum).v;
}

FBP_FN double integer_power(double base, std::int64_t exponent) {
  double result = 1;
  for (; exponent > 0; exponent >>= 1, base *= base)
    if (exponent & 1) result *= base;
  return result;
}

// The rate of the update that follows `updates` others, of a piece in force then.
FBP_FN double rate_of(const RatePiece& piece, std::int64_t updates, const double* values,
                      std::int64_t value_count) {
  const std::int64_t done = updates - piece.start;
  const double x = (double(done) + piece.ahead) / piece.length, share = x < 1 ? x : 1;
  switch (piece.form) {
  case RateForm::linear:
    return share == 1 ? piece.last : piece.first + (piece.last - piece.first) * share;
  case RateForm::cosine:
    return share == 1 ? piece.last
                      : piece.last + (piece.first - piece.last) * (0.5 + 0.5 * cos_pi(share));
  case RateForm::exponential:
    return piece.first * exp(log(Ld(piece.ratio)) * Ld(x)).v;
  case RateForm::staircase:
    return piece.first * integer_power(piece.ratio, std::int64_t(x));
  case RateForm::table:
    return values[done < value_count ? done : value_count - 1];
  default:
    return piece.first;
  }
}

}  // namespace fastbp
