// What a step measures of its outputs: the loss, which leaves their gradient, and the metrics.
#include "engine/step.h"

#include <algorithm>

namespace fastbp {
namespace {

#define FBP_ELEMENTWISE(L) L::elementwise,
constexpr bool kElementwise[] = {FBP_LOSSES(FBP_ELEMENTWISE)};
#undef FBP_ELEMENTWISE

// Lets a kernel's arguments have `count` rows of the outputs y, and their targets, from `row` on.
template <class Args, class T>
void take_rows(Args& args, const T* y, const Samples<T>& targets, index_t row, index_t count) {
  args.rows = count;
  args.y = y + row * args.cols;
  args.target = targets.target ? targets.target + row * args.cols : nullptr;
  args.labels = targets.labels ? targets.labels + row : nullptr;
}

}  // namespace

// How often the loss's kernel wants the weight of a row: for every element, or once.
template <class T> index_t Step<T>::weight_copies() const {
  return kElementwise[c_.loss.loss] ? c_.layout->outputs : 1;
}

// Weights of rows to the plan's rows from `to` on, as the loss's kernel wants them.
template <class T>
void Step<T>::gather_weights(const T* from, const std::int64_t* order, index_t rows, index_t to) {
  const index_t copies = weight_copies();
  T* out = at(plan().weight) + to * copies;
  const auto weight = [&](index_t i) { return from[order ? index_t(order[i]) : i]; };
  if (copies == 1) {
    for (index_t i = 0; i < rows; ++i) out[i] = weight(i);
    return;
  }
  for (index_t i = 0; i < rows; ++i, out += copies) std::fill_n(out, copies, weight(i));
}

// Loss, then the metrics, of this worker's rows of the outputs y.
template <class T>
void Step<T>::measure(const T* y, const Samples<T>& targets,
                      const std::vector<MetricSpec>* metrics) {
  need(false);
  bool plain_errors = false;
  for (std::size_t m = 0; metrics && m < metrics->size(); ++m)
    plain_errors |= (*metrics)[m].of_softmax;
  plain_errors &= c_.loss.param != 0 || targets.weight;
  loss(y, targets, plain_errors, metrics);
  std::int64_t* counts = counts_;
  for (std::size_t m = 0; metrics && m < metrics->size(); ++m) {
    const MetricSpec& what = (*metrics)[m];
    if (!counted_by_loss(*metrics, m) && (what.counts == 0 || counts))
      metric(what, y, targets, int(m) + 1, counts);
    if (counts) counts += what.counts;
  }
  if (plain_errors) loss(y, targets, false, nullptr);
}

// Whether the loss's kernel counts on its way what metric m wants: of several top_k the first.
template <class T>
bool Step<T>::counted_by_loss(const std::vector<MetricSpec>& metrics, std::size_t m) const {
  if (kElementwise[c_.loss.loss] || c_.layout->outputs > kCountedColumns<T>) return false;
  const MetricKind kind = metrics[m].kind;
  if (kind == MetricKind::accuracy_argmax || kind == MetricKind::counts_argmax) return true;
  if (kind != MetricKind::top_k) return false;
  for (std::size_t i = 0; i < m; ++i)
    if (metrics[i].kind == kind) return false;
  return true;
}

// Tells the loss's kernel of the metrics that it counts.
template <class T>
void Step<T>::count_on_the_way(const std::vector<MetricSpec>& metrics, LossArgs<T>& args) const {
  std::int64_t* counts = counts_;
  for (std::size_t m = 0; m < metrics.size(); ++m) {
    if (counted_by_loss(metrics, m)) {
      if (metrics[m].counts > 0)
        args.counts = counts;
      else if (metrics[m].kind == MetricKind::top_k)
        args.block_top = block_sums(int(m) + 1), args.k = metrics[m].k;
      else
        args.block_right = block_sums(int(m) + 1);
    }
    if (counts) counts += metrics[m].counts;
  }
}

// Leaves dy; `plain`: without label smoothing and weights. Counts what it can of `metrics`, if not null.
template <class T>
void Step<T>::loss(const T* y, const Samples<T>& targets, bool plain,
                   const std::vector<MetricSpec>* metrics) {
  if (c_.loss.custom) return host_loss(y, targets);
  const index_t cols = c_.layout->outputs;
  LossArgs<T> args;
  args.cols = cols;
  args.dy_scale = T(1 / loss_divisor(c_.loss, counted_, cols));
  args.param = plain ? T(0) : T(c_.loss.param);
  if (metrics) count_on_the_way(*metrics, args);
  double *const block_right = args.block_right, *const block_top = args.block_top;
  const Window own = outputs_window();
  for_row_chunks(own.rows, cols, [&](index_t first, index_t count) {
    const index_t row = own.at + first;
    take_rows(args, y, targets, row, count);
    if (targets.weight && !plain) args.weight = targets.weight + row * weight_copies();
    args.dy = at(plan().delta.back()) + row * cols;
    const index_t block = first_block() + first / kLossBlockRows;
    args.block_loss = block_sums(0) + block;
    if (block_right) args.block_right = block_right + block;
    if (block_top) args.block_top = block_top + block;
    c_.kernels->loss[c_.loss.loss](args, Share{});
  });
  done(false);
}

template <class T>
void Step<T>::metric(const MetricSpec& what, const T* y, const Samples<T>& targets, int place,
                     std::int64_t* counts) {
  const index_t cols = c_.layout->outputs;
  MetricArgs<T> args;
  args.kind = what.kind;
  args.threshold = T(what.threshold);
  args.k = what.k;
  args.counts = counts;
  args.cols = cols;
  // Of logits the errors are those of their softmax: what the loss has just left in dy, but for the
  // mean's factor.
  const T* error = what.of_softmax ? at(plan().delta.back()) : nullptr;
  if (error) args.error_scale = T(loss_divisor(c_.loss, counted_, cols));
  const Window own = outputs_window();
  for_row_chunks(own.rows, cols, [&](index_t first, index_t count) {
    const index_t row = own.at + first;
    take_rows(args, y, targets, row, count);
    args.error = error ? error + row * cols : nullptr;
    args.block_sum = block_sums(place) + first_block() + first / kLossBlockRows;
    c_.kernels->metric(args, Share{});
  });
}

template <class T> double Step<T>::block_total(int place, index_t rows) const {
  const double* sums = block_sums(place);
  const index_t blocks = c_.layout->measure_blocks(rows, plan().steps);
  double total = 0;
  for (index_t i = 0; i < blocks; ++i) total += sums[i];
  return total;
}

template class Step<float>;
template class Step<double>;

}  // namespace fastbp
