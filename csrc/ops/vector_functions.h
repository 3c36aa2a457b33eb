// The vector maths as a list of named functions: what fastbp.ops.exp and its kin call, and what
// `fastbp verify` measures.
#pragma once

#include "ops/fbp_fn.h"
#include "ops/math.h"

namespace fastbp {

#define FBP_VECTOR_FUNCTIONS(X)                                                                    \
  X(exp) X(expm1) X(log) X(log1p) X(tanh) X(sigmoid) X(softplus) X(erf)

#define FBP_COUNT(name) +1
inline constexpr int kVectorFunctionCount = 0 FBP_VECTOR_FUNCTIONS(FBP_COUNT);
#undef FBP_COUNT

}  // namespace fastbp
