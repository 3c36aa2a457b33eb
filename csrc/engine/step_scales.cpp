#include "engine/step_scales.h"

namespace fastbp {
namespace {

#define FBP_MEAN(L) L::mean,
constexpr LossMean kLossMean[] = {FBP_LOSSES(FBP_MEAN)};
#undef FBP_MEAN

using Prepare = void (*)(const Hyper&, const BetaPowers&, double*);
#define FBP_PREPARE(O) [](const Hyper& u, const BetaPowers& p, double* h) { O::prepare(u, p, h); },
constexpr Prepare kPrepare[] = {FBP_OPTIMIZERS(FBP_PREPARE)};
#undef FBP_PREPARE

}  // namespace

double loss_divisor(const LossSpec& loss, index_t rows, index_t outputs) {
  switch (kLossMean[loss.loss]) {
  case LossMean::over_elements:
    return double(rows) * double(outputs);
  case LossMean::over_rows:
    return double(rows);
  default:
    return 1;
  }
}

template <class T>
StepHyper<T> step_hyper(const OptimizerSpec& optimizer, const BetaPowers& powers) {
  double values[StepHyper<T>::capacity] = {};
  kPrepare[optimizer.optimizer](optimizer.hyper, powers, values);
  StepHyper<T> hyper;
  for (int i = 0; i < StepHyper<T>::capacity; ++i) hyper.value[i] = T(values[i]);
  return hyper;
}
template StepHyper<float> step_hyper<float>(const OptimizerSpec&, const BetaPowers&);
template StepHyper<double> step_hyper<double>(const OptimizerSpec&, const BetaPowers&);

bool loss_is_mean(const LossSpec& loss) { return kLossMean[loss.loss] != LossMean::none; }

}  // namespace fastbp
