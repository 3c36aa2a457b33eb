// What a batch measures: its loss with the gradient that begins the way back, its metrics, the
// penalties; the device's twin of engine/measure.cpp.
#include "engine/cuda/chain.h"

namespace fastbp {
namespace cuda {
namespace {

constexpr const char* kForward = "forward pass";

#define FBP_ELEMENTWISE(L) L::elementwise,
constexpr bool kElementwise[] = {FBP_LOSSES(FBP_ELEMENTWISE)};
#undef FBP_ELEMENTWISE

}  // namespace

template <class T>
void Chain<T>::evaluate(const Workspace& space, index_t rows, const T* y,
                        const DeviceSamples<T>& targets, const std::vector<MetricSpec>& metrics,
                        const CountedRows<T>* counts) const {
  DeviceSamples<T> there = layout->sequences ? gathered(space, targets) : targets;
  if (there.weight && !layout->sequences) {
    T* const weight = space.at<T>(space.plan.weight);
    check(repeat_columns(there.weight, rows, weight_copies(), weight, stream), kForward);
    there.weight = weight;
  }
  measure(space, rows, y, there, metrics, counts, {});
  check(advance(tables.counter, stream), kForward);
}

// Of logits the errors are those of their softmax: what the loss without label smoothing leaves in
// dy, but for the mean's factor.
//
// Of sequences the outputs of each part have blocks of their own. dz: as Outputs, not of sequences.
template <class T>
void Chain<T>::measure(const Workspace& space, index_t rows, const T* y,
                       const DeviceSamples<T>& targets, const std::vector<MetricSpec>& metrics,
                       const CountedRows<T>* counts, Shadow dz) const {
  if (counts) return measure_closed(space, rows, targets, metrics, counts);
  const index_t places = space.rows_of(layout->stages.back(), 1);
  measure_parts(rows, places, y, space.at<T>(space.plan.delta.back()), targets, metrics, nullptr,
                dz);
}

// counts: of each part of a batch of sequences, the outputs that count; null: all. Kernels find them in the
// run's tables, so that what is launched does not depend on them; a custom loss is no kernel.
template <class T>
void Chain<T>::measure_parts(index_t rows, index_t places, const T* y, T* dy,
                             const DeviceSamples<T>& targets,
                             const std::vector<MetricSpec>& metrics, const CountedRows<T>* counts,
                             Shadow dz) const {
  const index_t chunk = layout->sequences ? layout->row_chunk(rows) : rows;
  Outputs<T> part;
  part.dz = dz;
  part.all = rows * places;
  if (counts) part.all = all_rows(counts, parts_of(rows, chunk));
  for (index_t first = 0, number = 0; first < rows; first += chunk, ++number) {
    const index_t at = first * places;
    part.rows = (rows - first < chunk ? rows - first : chunk) * places;
    if (counts && loss.custom)
      part.rows = index_t(counts[number].rows);
    else if (counts)
      part.counted = {tables.counted + number, tables.parts};
    part.y = y + at * layout->outputs;
    part.dy = dy + at * layout->outputs;
    if (targets.target) part.targets.target = targets.target + at * layout->outputs;
    part.targets.rows = targets.rows;
    if (targets.labels) part.targets.labels = targets.labels + at;
    if (targets.weight) part.targets.weight = targets.weight + at * weight_copies();
    measure_part(part, metrics);
    part.block += loss_blocks(chunk * places);
  }
}

template <class T>
void Chain<T>::measure_part(const Outputs<T>& part, const std::vector<MetricSpec>& metrics) const {
  bool plain_errors = false;
  for (const MetricSpec& what : metrics) plain_errors |= what.of_softmax;
  plain_errors &= loss.param != 0 || part.targets.weight;
  take_loss(part, plain_errors);
  for (std::size_t m = 0; m < metrics.size(); ++m) {
    MetricArgs<T> args;
    args.kind = metrics[m].kind;
    args.rows = part.rows;
    args.cols = layout->outputs;
    args.y = part.y;
    args.target = part.targets.target;
    args.labels = part.targets.labels;
    args.error = metrics[m].of_softmax ? part.dy : nullptr;
    args.error_scale = scales_of(part.all).error_scale;
    args.threshold = T(metrics[m].threshold);
    check(
        metric(args, part.counted, part.targets.rows, tables.place(int(m) + 1, part.block), stream),
        "metric");
  }
  if (plain_errors) take_loss(part, false);
}

template <class T> CountedRows<T> Chain<T>::scales_of(index_t outputs) const {
  const double divisor = loss_divisor(loss, outputs, layout->outputs);
  return {outputs, T(1 / divisor), T(divisor)};
}

// How often the loss's kernel wants the weight of a row: for every element, or once.
template <class T> index_t Chain<T>::weight_copies() const {
  return kElementwise[loss.loss] ? layout->outputs : 1;
}

// Leaves dy; `plain`: without label smoothing and weights.
template <class T> void Chain<T>::take_loss(const Outputs<T>& part, bool plain) const {
  if (loss.custom) return host_loss(part);
  LossArgs<T> args;
  args.rows = part.rows;
  args.cols = layout->outputs;
  args.y = part.y;
  args.target = part.targets.target;
  args.labels = part.targets.labels;
  // The shadow alone is read where no metric reads errors.
  args.dy = part.dz.at && kElementwise[loss.loss] ? nullptr : part.dy;
  args.dy_scale = scales_of(part.all).dy_scale;
  args.param = plain ? T(0) : T(loss.param);
  args.weight = plain ? nullptr : part.targets.weight;
  check(cuda::loss(loss.loss, args, part.counted, part.targets.rows, tables.place(0, part.block),
                   part.dz, stream),
        "loss");
}

template <class T> void Chain<T>::measure_penalties() const {
  rules->enqueue(FinishUse::measure, finish_state(), stream);
}

template class Chain<float>;
template class Chain<double>;

}  // namespace cuda
}  // namespace fastbp
