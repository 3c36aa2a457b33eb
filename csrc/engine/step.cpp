#include "engine/step.h"

#include <algorithm>
#include <cstring>

namespace fastbp {
namespace {

// Class numbers as GatherArgs says of rows.
void pick(const std::int64_t* from, const std::int64_t* order, index_t count,
          std::int64_t* __restrict to) {
  for (index_t i = 0; i < count; ++i) to[i] = from[order ? order[i] : i];
}

}  // namespace

template <class T>
Step<T>::Step(const StepContext<T>& context, Worker& worker)
    : c_(context), worker_(worker), share_(context.link ? Share{} : Share{worker.id, worker.count}),
      powers_(context.powers) {
  update_.w = context.parameters.w;
  for (int k = 0; k < 2; ++k) update_.slot[k] = context.parameters.slot[k];
}

template <class T> double* Step<T>::block_sums(int place) const {
  return c_.arena->template at<double>(plan().block_sums_offset) + place * plan().blocks;
}

// Of the blocks over which loss and metrics are summed, the first of this worker's rows.
template <class T> index_t Step<T>::first_block() const {
  if (!c_.layout->sequences) return own_.first / kLossBlockRows;
  return own_.first / chunk_ * loss_blocks(chunk_ * output_places());
}

template <class T> T* Step<T>::partial(index_t part) const {
  return c_.arena->template at<T>(plan().partials_offset) + part * c_.layout->parameter_count;
}

template <class T> bool Step<T>::stopping() {
  if (!c_.abort) return false;
  if (aborted()) return true;
  const Interrupt& ask = c_.interrupt;
  if (share_.id == 0 && ask.pending && ask.pending(ask.context)) *c_.abort = true;
  return aborted();
}

// Whether this worker leaves its part; those that share one skip no barrier.
template <class T> bool Step<T>::leaving() {
  const bool stops = stopping();
  return stops && !shares_parts_;
}

// The whole batch is in work; this worker's own rows are whole blocks of the loss.
template <class T> void Step<T>::take_all(index_t rows) {
  all_ = {0, rows, 0, share_};
  const Range part = split(rows, c_.layout->row_block(rows), share_);
  own_ = {part.begin, part.end - part.begin, part.begin, Share{}};
}

// How a batch of so many rows is to be cut in parts, and whether the team takes these together.
template <class T> void Step<T>::cut_batch(index_t rows) {
  chunk_ = c_.layout->row_chunk(rows);
  shares_parts_ = c_.layout->shares_parts(rows, share_.count);
}

// Of `count` parts those that this worker works on.
template <class T> Range Step<T>::my_parts(index_t count) const {
  return split(count, 1, shares_parts_ ? Share{} : share_);
}

// Part number `part` of those that are in work at once: only this worker is at work on its rows, or the
// team, and the rows are the first worker's.
template <class T> void Step<T>::take_part(index_t part, index_t first, index_t rows) {
  if (shares_parts_) {
    meet();  // the part before has been read
    wrote_own_ = wrote_together_ = false;
    all_ = {0, rows, first, share_};
    own_ = {0, share_.id == 0 ? rows : 0, first, Share{}};
    return;
  }
  // A place for each worker, or, where all parts are in the plan together, for each part.
  const index_t apart = c_.layout->sequences ? chunk_ : plan().part_rows;
  const index_t place = plan().capacity / apart < share_.count ? part : share_.id;
  all_ = own_ = {place * apart, rows, first, Share{}};
}

// With the workers that this one shares the network with.
template <class T> void Step<T>::meet() {
  if (share_.count > 1) worker_.barrier();
}

// With those that share the part in work.
template <class T> void Step<T>::meet_at_part() {
  if (all_.share.count > 1) worker_.barrier();
}

// In front of work that reads what this worker made of its own rows, and with `others` what the
// others made of theirs.
template <class T> void Step<T>::need(bool others) {
  if (all_.share.count == 1 || !(wrote_together_ || (others && wrote_own_))) return;
  meet();
  wrote_own_ = wrote_together_ = false;
}

template <class T> void Step<T>::done(bool together) {
  (together ? wrote_together_ : wrote_own_) = true;
}

template <class T> void Step<T>::write_ones() {
  const auto write = [&](const BatchMatrix& m) {
    if (!m.ones) return;
    const Range part = split(plan().capacity * m.places, 1, share_);
    for_row_chunks(part.end - part.begin, m.row, [&](index_t first, index_t count) {
      for (index_t i = part.begin + first; i < part.begin + first + count; ++i)
        at(m)[i * m.row + m.width] = T(1);
    });
  };
  write(plan().x);
  for (const BatchMatrix& y : plan().y) write(y);
  for (const ScanMatrices& scan : plan().scan)
    for (const ScanWay& way : scan.way) write(way.h), write(way.masked);
  meet();
}

template <class T> void Step<T>::train(const TrainBatch<T>& batch) {
  if (batch.use != GradientUse::store) {
    if (c_.rules) {
      const std::int64_t t = c_.rules->update_of(batch.number);
      OptimizerSpec optimizer = c_.optimizer;
      optimizer.hyper.learning_rate = c_.rules->rate(t, optimizer.hyper.learning_rate);
      powers_.advance(optimizer.hyper, t);
      update_.hyper = step_hyper<T>(optimizer, powers_);
    } else {
      powers_.advance(c_.optimizer.hyper, batch.number);
      update_.hyper = step_hyper<T>(c_.optimizer, powers_);
    }
  }
  wrote_own_ = wrote_together_ = false;
  training_ = true;
  number_ = batch.number;
  spent(StepPart::between);
  if (!described_) describe_small_network(), described_ = true;
  cut_batch(batch.rows);
  count_rows(batch.samples, batch.order, batch.rows);
  states_before_ = batch.states_before, states_behind_ = batch.states_behind;
  if (c_.in_parts && (c_.layout->sequences || chunk_ < batch.rows))
    train_in_parts(batch);
  else
    train_whole(batch);
}

// The rows in work as far as dz of the last stage.
template <class T> void Step<T>::go_up(const TrainBatch<T>& batch) {
  if (c_.layout->sequences)
    gather_sequences(batch.samples, batch.order);
  else
    gather(batch);
  spent(StepPart::gather);
  if (small())
    small_forward(), spent(StepPart::forward);
  else
    forward(at(plan().x), plan().x.row, nullptr);
  if (batch.outputs) keep_outputs(batch);
  if (c_.layout->sequences)
    measure_sequences(batch.samples, batch.metrics);
  else
    measure(at(plan().y.back()), gathered(batch.samples), batch.metrics);
  output_delta();
  spent(StepPart::loss);
}

// Copies the outputs of this worker's rows to where the caller wants them.
template <class T> void Step<T>::keep_outputs(const TrainBatch<T>& batch) {
  if (c_.link && c_.link->first > 0) return;  // the first worker has them all
  const index_t cols = c_.layout->outputs;
  if (c_.layout->sequences) {
    need(false);
    const Rows<T> y = rows_of(plan().y.back());
    by_steps(cols, y.from(own_.at), batch.outputs + own_.first * y.places * cols);
    return;
  }
  const T* y = at(plan().y.back(), own_);
  for_row_chunks(own_.rows, cols, [&](index_t first, index_t count) {
    std::memcpy(batch.outputs + (own_.first + first) * cols, y + first * cols,
                std::size_t(count * cols) * sizeof(T));
  });
}

template <class T> void Step<T>::train_whole(const TrainBatch<T>& batch) {
  take_all(batch.rows);
  go_up(batch);
  if (small() && !batch.dx) {
    c_.kernels->small_backward(small_, all_.rows, chunk_, c_.parameters.gradient);
    spent(StepPart::gradient);
    if (whole_gradient())
      finish(batch);
    else if (batch.use == GradientUse::update)
      update_parameters({0, c_.layout->parameter_count});
    return spent(StepPart::update);
  }
  const std::size_t lowest = batch.dx ? 0 : c_.layout->lowest_trained;
  for (std::size_t s = last(); s > lowest; --s) {
    input_delta(s, nullptr);
    spent(StepPart::delta, s);
  }
  if (batch.dx) input_delta(0, batch.dx);
  if (!batch.dx && lowest <= last() && c_.layout->stages[lowest].batch_coupled())
    batch_norm_sums(lowest);
  // No parameter changes before all deltas are there.
  meet();
  spent(StepPart::wait);
  for (std::size_t s = 0; s <= last(); ++s) {
    parameter_gradient(s, c_.parameters.gradient, batch.use == GradientUse::update);
    spent(StepPart::gradient, s);
  }
  if (batch.use == GradientUse::update) update_state();
  if (batch.use != GradientUse::store_then_update && !whole_gradient()) return;
  meet();
  if (aborted()) return;
  spent(StepPart::wait);
  if (whole_gradient())
    finish(batch);
  else
    update_parameters(split(c_.layout->parameter_count, 1024, share_));
  if (batch.use == GradientUse::store_then_update) update_state();
  spent(StepPart::update);
}

template <class T> void Step<T>::train_in_parts(const TrainBatch<T>& batch) {
  const index_t parts = parts_of(batch.rows, chunk_);
  const Range mine = split(c_.layout->parameter_count, 64, share_);
  const std::size_t lowest = batch.dx ? 0 : c_.layout->lowest_trained;
  for (index_t first = 0; first < parts; first += plan().partials) {
    if (first > 0) meet();  // the partials of the round before have been read
    const index_t count = parts - first < plan().partials ? parts - first : plan().partials;
    const Range round = my_parts(count);
    for (index_t i = round.begin; i < round.end; ++i) {
      const index_t row = (first + i) * chunk_;
      take_part(i, row, batch.rows - row < chunk_ ? batch.rows - row : chunk_);
      part_gradient_ = partial(i);
      go_up(batch);
      if (small() && !batch.dx) {
        c_.kernels->small_backward(small_, all_.rows, chunk_, partial(i));
        spent(StepPart::gradient);
        continue;
      }
      for (std::size_t s = last() + 1; s-- > lowest;) {
        // The gradient of a scan's parameters is made of what its input_delta leaves.
        const bool scan = c_.layout->stages[s].scan();
        if (!scan) part_gradient(s, partial(i));
        if (s > lowest || scan) input_delta(s, nullptr), spent(StepPart::delta, s);
        if (scan) part_gradient(s, partial(i));
      }
      if (batch.dx) input_delta(0, batch.dx);
    }
    meet();
    spent(StepPart::wait);
    for_trained(*c_.layout, mine, [&](Range range) {
      c_.kernels->add_rows(partial(0) + range.begin, c_.layout->parameter_count, count,
                           range.end - range.begin, c_.parameters.gradient + range.begin,
                           first > 0);
    });
    spent(StepPart::gradient);
  }
  if (whole_gradient()) {
    meet();
    if (!aborted()) finish(batch);
  } else if (batch.use != GradientUse::store && !aborted()) {
    update_parameters(mine);
  }
  spent(StepPart::update);
}

// Of the part in work; what it reads may be written again behind it.
template <class T> void Step<T>::part_gradient(std::size_t s, T* gradient) {
  need(true);
  parameter_gradient(s, gradient, false);
  meet_at_part();
  spent(StepPart::gradient, s);
}

template <class T>
void Step<T>::infer(index_t rows, const Samples<T>& samples, T* out,
                    const std::vector<MetricSpec>* metrics) {
  training_ = false;
  pass(rows, samples, out, metrics);
}

template <class T>
void Step<T>::forward_training(index_t rows, const Samples<T>& samples, T* out,
                               std::int64_t number) {
  training_ = true;
  number_ = number;
  pass(rows, samples, out, nullptr);
}

// The outputs, in `out` or, where that is null, in the plan; loss and metrics where wanted.
template <class T>
void Step<T>::pass(index_t rows, const Samples<T>& samples, T* out,
                   const std::vector<MetricSpec>* metrics) {
  wrote_own_ = wrote_together_ = false;
  count_rows(samples, nullptr, rows);
  if (c_.layout->sequences) return pass_sequences(rows, samples, out, metrics);
  take_all(rows);
  normalized_ = false;
  if (samples.integers) {
    for_row_chunks(own_.rows, c_.layout->inputs, [&](index_t first, index_t count) {
      const index_t begin = own_.first + first;
      gather_inputs(samples, nullptr, {begin, begin + count}, {0, c_.layout->inputs});
    });
    done(false);
    forward(at(plan().x), plan().x.row, out);
  } else {
    forward(samples.x, c_.layout->inputs, out);
  }
  if (!metrics) return;
  Samples<T> there = samples;
  if (there.weight) {
    gather_weights(samples.weight + own_.at, nullptr, own_.rows, own_.at);
    there.weight = at(plan().weight);
  }
  measure(out ? out : at(plan().y.back()), there, metrics);
}

// Copies this worker's rows of the batch into the plan.
template <class T> void Step<T>::gather(const TrainBatch<T>& batch) {
  const index_t inputs = c_.layout->inputs, outputs = c_.layout->outputs;
  const Samples<T>& from = batch.samples;
  const Stage& stage = c_.layout->stages[0];
  normalized_ =
      from.integers && stage.kind == StageKind::normalize && plan().y[0].offset == plan().x.offset;
  T* target = at(plan().target, own_);
  std::int64_t* labels = c_.arena->template at<std::int64_t>(plan().labels_offset) + own_.at;
  const auto source = [&](index_t i) { return batch.order ? index_t(batch.order[i]) : i; };
  // Where the first layer is split by its inputs a worker wants its own columns of all rows.
  const bool columns = c_.layout->stages[0].dense() && by_inputs(0, forward_window(0));
  if (columns) {
    const Range mine = my_inputs(0);
    for_row_chunks(all_.rows, inputs, [&](index_t first, index_t count) {
      if (from.integers) return gather_inputs(from, batch.order, {first, first + count}, mine);
      for (index_t i = first; i < first + count; ++i)
        std::memcpy(at(plan().x) + i * plan().x.row + mine.begin,
                    from.x + source(i) * inputs + mine.begin,
                    std::size_t(mine.end - mine.begin) * sizeof(T));
    });
  }
  for_row_chunks(own_.rows, inputs + outputs, [&](index_t first, index_t count) {
    const index_t at = own_.first + first;  // in the batch
    const std::int64_t* order = batch.order ? batch.order + at : nullptr;
    const index_t skip = order ? 0 : at;
    if (!columns) gather_inputs(from, batch.order, {at, at + count}, {0, inputs});
    if (from.target)
      c_.kernels->gather_rows(
          {from.target + skip * outputs, order, count, outputs, target + first * outputs, outputs});
    if (from.labels) pick(from.labels + skip, order, count, labels + first);
    if (from.weight) gather_weights(from.weight + skip, order, count, own_.at + first);
  });
  done(false);
}

// Some columns of some rows of the batch to their places in the plan. What is gathered of integers is
// normalized on the way where the first stage would do that in place.
template <class T>
void Step<T>::gather_inputs(const Samples<T>& samples, const std::int64_t* order, Range rows,
                            Range columns) {
  const index_t inputs = c_.layout->inputs, skip = order ? 0 : rows.begin;
  const BatchMatrix& x = plan().x;
  T* to = at(x) + (rows.begin - own_.first + own_.at) * x.row + columns.begin;
  if (order) order += rows.begin;
  if (!samples.integers)
    return c_.kernels->gather_rows(
        {samples.x + skip * inputs, order, rows.end - rows.begin, inputs, to, x.row});
  IntegerGatherArgs<T> args;
  args.from = static_cast<const char*>(samples.integers) +
              (skip * inputs + columns.begin) * integer_bytes(samples.integer_type);
  args.type = samples.integer_type;
  args.order = order;
  args.rows = rows.end - rows.begin, args.cols = columns.end - columns.begin;
  args.from_row = inputs;
  args.to = to, args.to_row = x.row;
  if (normalized_) {
    const Stage& stage = c_.layout->stages[0];
    args.center = c_.state + stage.state_offset;
    args.factor = args.center + stage.outputs;
  }
  c_.kernels->gather_integers(args);
}

// The targets where gather() has put them.
template <class T> Samples<T> Step<T>::gathered(const Samples<T>& samples) const {
  Samples<T> here;
  if (samples.target) here.target = at(plan().target);
  if (samples.labels) here.labels = c_.arena->template at<std::int64_t>(plan().labels_offset);
  if (samples.weight) here.weight = at(plan().weight);
  return here;
}

template class Step<float>;
template class Step<double>;

}  // namespace fastbp
