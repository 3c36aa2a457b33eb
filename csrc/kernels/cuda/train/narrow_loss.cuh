// Loss and metrics of a tile of a narrow network (narrow.cu, narrow_tensor.cu), in shared memory.
// Called by all threads of the block.
#pragma once

#include "kernels/cuda/losses.cuh"
#include "kernels/cuda/train/narrow.h"

namespace fastbp {
namespace cuda {
namespace {

static_assert(kNarrowThreads == kWideThreads<float>, "wide_softmax_rows is for a whole block");

template <class V> FBP_FN V* at(unsigned char* shared, int offset) {
  return reinterpret_cast<V*>(shared + offset);
}

template <class Loss>
FBP_DEVICE void loss_of_rows(const LossArgs<float>& args, float* values, double* sums) {
  if constexpr (Loss::elementwise) {
    elementwise_loss_rows<float, Loss>(args, 0, values, sums);
  } else if (args.cols <= kLanes<float>) {
    narrow_softmax_rows(args, threadIdx.x, values, sums);
  } else {
    for (index_t first = 0; first < args.rows; first += kLossBlockRows)
      wide_softmax_rows(args, first, values, sums);
  }
}

FBP_DEVICE void take_loss(int loss, const LossArgs<float>& args, float* values, double* sums) {
  int index = 0;
#define FBP_APPLY(L)                                                                               \
  if (loss == index++) loss_of_rows<L>(args, values, sums);
  FBP_LOSSES(FBP_APPLY)
#undef FBP_APPLY
  __syncthreads();
}

FBP_DEVICE void take_metric(const NarrowMetric& metric, const LossArgs<float>& loss,
                            float error_scale, double* values, double* sums) {
  MetricArgs<float> args;
  args.kind = metric.kind;
  args.rows = loss.rows;
  args.cols = loss.cols;
  args.y = loss.y;
  args.target = loss.target;
  args.labels = loss.labels;
  args.error = metric.of_softmax ? loss.dy : nullptr;
  args.error_scale = error_scale;
  args.threshold = metric.threshold;
  metric_of_rows(args, threadIdx.x, values, sums);
  __syncthreads();
}

// Loss, metrics and dy of the tile, which begins with the batch's row `row`.
template <bool ruled>
FBP_DEVICE void measure_tile(const NarrowArgs& g, unsigned char* shared, const NarrowBatch& batch,
                             double* sums, int row, int rows) {
  const NarrowStage& s = g.stage[g.stages - 1];
  LossArgs<float> args;
  args.rows = rows;
  args.cols = s.outputs;
  args.y = at<float>(shared, s.out.at);
  args.target = g.wanted ? at<float>(shared, g.target) : nullptr;
  args.labels = g.classes ? at<std::int64_t>(shared, g.labels) : nullptr;
  args.dy = at<float>(shared, g.dy);
  args.dy_scale = batch.dy_scale;
  sums += row / kLossBlockRows;
  // Of logits the errors are those of their softmax, without label smoothing (engine/cuda/chain_measure.cu).
  FBP_UNROLL(1)
  for (int pass = g.plain_errors ? 0 : 1; pass < 2; ++pass) {
    args.param = pass == 0 ? 0.0f : g.loss_param;
    float* const values = at<float>(shared, g.values);
    const bool weighted = ruled && g.weight && pass == 1;
    args.weight = weighted ? at<float>(shared, g.weights) : nullptr;
    take_loss(g.loss, args, values, sums);
    if (pass == 1 && g.plain_errors) return;
    FBP_UNROLL(1)
    for (int m = 0; m < g.metrics; ++m)
      take_metric(g.metric[m], args, batch.error_scale, at<double>(shared, g.values),
                  sums + (m + 1) * g.place);
  }
}

}  // namespace
}  // namespace cuda
}  // namespace fastbp
