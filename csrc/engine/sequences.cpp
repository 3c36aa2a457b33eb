// Sequences: how they lie in the plan, where they end, and what is measured of them.
#include <algorithm>
#include <cstring>

#include "engine/step.h"

namespace fastbp {

template <class T> const std::int64_t* Step<T>::lengths() const {
  if (!has_lengths_) return nullptr;
  return c_.arena->template at<std::int64_t>(plan().lengths_offset) + own_.at;
}

// Of the rows order[0..rows) of the samples, which are about to be worked on.
template <class T>
void Step<T>::count_rows(const Samples<T>& samples, const std::int64_t* order, index_t rows) {
  counted_ = rows * output_places();
  masks_ = samples.lengths && c_.layout->stages.back().sequence;
  if (!masks_) return;
  counted_ = 0;
  for (index_t i = 0; i < rows; ++i)
    counted_ += index_t(samples.lengths[order ? index_t(order[i]) : i]);
}

// Whether row `row` of a part, one step of all its sequences after the other, is in front of the end.
template <class T> bool Step<T>::runs(index_t row) const {
  return row / own_.rows < index_t(lengths()[row % own_.rows]);
}

// Copies this worker's sequences into the plan. What lies behind the end of one counts as 0.
template <class T>
void Step<T>::gather_sequences(const Samples<T>& from, const std::int64_t* order) {
  const index_t inputs = c_.layout->inputs, steps = plan().steps;
  const Rows<T> x = rows_of(plan().x).from(own_.at);
  std::int64_t* lengths = c_.arena->template at<std::int64_t>(plan().lengths_offset) + own_.at;
  has_lengths_ = from.lengths != nullptr;
  for (index_t i = 0; i < own_.rows; ++i) {
    const index_t row = order ? index_t(order[own_.first + i]) : own_.first + i;
    const index_t length = from.lengths ? index_t(from.lengths[row]) : steps;
    lengths[i] = length;
    for (index_t t = 0; t < steps; ++t) {
      T* values = x.data + (t * own_.rows + i) * x.row;
      if (t < length)
        std::memcpy(values, from.x + (row * steps + t) * inputs, std::size_t(inputs) * sizeof(T));
      else
        std::memset(values, 0, std::size_t(inputs) * sizeof(T));
    }
  }
  gather_targets(from, order);
  done(false);
}

// The same of the targets; of outputs at every step those that count, without gaps.
template <class T> void Step<T>::gather_targets(const Samples<T>& from, const std::int64_t* order) {
  const index_t outputs = c_.layout->outputs, places = output_places();
  T* target = at(plan().target, own_);
  std::int64_t* labels =
      c_.arena->template at<std::int64_t>(plan().labels_offset) + own_.at * places;
  const index_t copies = from.weight ? weight_copies() : 0;
  T* weight = at(plan().weight) + own_.at * places * copies;
  running_ = 0;
  for (index_t i = 0; i < own_.rows * places; ++i) {
    if (masks_ && !runs(i)) continue;
    const index_t place = own_.first + i % own_.rows;
    const index_t sequence = order ? index_t(order[place]) : place;
    const index_t row = sequence * places + i / own_.rows;
    if (from.target)
      std::memcpy(target + running_ * outputs, from.target + row * outputs,
                  std::size_t(outputs) * sizeof(T));
    if (from.labels) labels[running_] = from.labels[row];
    if (from.weight) std::fill_n(weight + running_ * copies, copies, from.weight[row]);
    ++running_;
  }
}

// This worker's outputs that count, numbered by rows of the network's output.
template <class T> typename Step<T>::Window Step<T>::outputs_window() const {
  const index_t places = output_places();
  return {own_.at * places, masks_ ? running_ : own_.rows * places, own_.first * places,
          own_.share};
}

// Takes the rows that count to the front of this worker's rows of a contiguous matrix.
template <class T> void Step<T>::close_up(const BatchMatrix& m) const {
  T* rows = at(m, own_);
  for (index_t from = 0, to = 0; from < own_.rows * m.places; ++from)
    if (runs(from))
      std::memmove(rows + to++ * m.row, rows + from * m.row, std::size_t(m.row) * sizeof(T));
}

// Takes them back; the others are 0.
template <class T> void Step<T>::open_up(const BatchMatrix& m) const {
  T* rows = at(m, own_);
  for (index_t to = own_.rows * m.places, from = running_; to-- > 0;) {
    if (runs(to))
      std::memmove(rows + to * m.row, rows + --from * m.row, std::size_t(m.row) * sizeof(T));
    else
      std::memset(rows + to * m.row, 0, std::size_t(m.row) * sizeof(T));
  }
}

// Loss and metrics of this worker's sequences, by the steps in front of their ends.
template <class T>
void Step<T>::measure_sequences(const Samples<T>& samples, const std::vector<MetricSpec>* metrics) {
  const BatchMatrix &y = plan().y.back(), &dy = plan().delta.back();
  if (masks_) close_up(y);
  measure(at(y), gathered(samples), metrics);
  if (masks_) open_up(y), open_up(dy);
  // Rows that do not count, or that a last part lacks.
  if (!keeps_rows()) return;
  const index_t counted = loss_blocks(outputs_window().rows), all = loss_blocks(chunk_ * y.places);
  for (int place = 0; place <= int(metrics ? metrics->size() : 0); ++place)
    std::fill_n(block_sums(place) + first_block() + counted, all - counted, 0.0);
}

// The outputs, by parts, in `out` or where that is null nowhere; loss and metrics where wanted.
template <class T>
void Step<T>::pass_sequences(index_t rows, const Samples<T>& samples, T* out,
                             const std::vector<MetricSpec>* metrics) {
  cut_batch(rows);
  states_before_ = states_behind_ = samples.states;
  const Range mine = my_parts(parts_of(rows, chunk_));
  for (index_t part = mine.begin; part < mine.end && !leaving(); ++part) {
    take_part(part, part * chunk_, std::min(chunk_, rows - part * chunk_));
    gather_sequences(samples, nullptr);
    forward(at(plan().x), plan().x.row, nullptr);
    need(false);
    const Rows<T> y = rows_of(plan().y.back());
    if (out) by_steps(y.row, y.from(own_.at), out + own_.first * y.places * y.row);
    if (metrics) measure_sequences(samples, metrics);
  }
}

// This worker's rows of a matrix, one step after the other, to sequences of `width` values a step.
template <class T> void Step<T>::by_steps(index_t width, const Rows<T>& rows, T* sequences) const {
  for (index_t i = 0; i < own_.rows; ++i)
    for (index_t t = 0; t < rows.places; ++t)
      std::memcpy(sequences + (i * rows.places + t) * width,
                  rows.data + (t * own_.rows + i) * rows.row, std::size_t(width) * sizeof(T));
}

template class Step<float>;
template class Step<double>;

}  // namespace fastbp
