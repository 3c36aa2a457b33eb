// The numbers of a step that depend on no device: what sums are divided by, and the optimizer's
// hyper-parameters.
#pragma once

#include "engine/network_spec.h"
#include "kernels/args.h"
#include "ops/losses.h"

namespace fastbp {

// The hyper-parameters of a step as the kernel wants them.
template <class T>
StepHyper<T> step_hyper(const OptimizerSpec& optimizer, const BetaPowers& powers);

// What the sum of a loss over a batch of `rows` is divided by to give its mean (1 for a sum).
double loss_divisor(const LossSpec& loss, index_t rows, index_t outputs);
// Whether it is a mean: an epoch's mean weighs batches by their rows, a sum does not.
bool loss_is_mean(const LossSpec& loss);

}  // namespace fastbp
