#include "engine/shards.h"

#include <algorithm>
#include <cstring>

namespace fastbp {
namespace {

// What all workers do is at most this part of a worker's work.
constexpr double kRepeatedPart = 0.1;

// A value of the exchanged sums, written by one worker and read by the others, costs as much as so
// many parameters that change hands where the network is not cut.
constexpr double kExchangeWorth = 1;

// What every worker computes of each row, in multiply-adds.
double repeated(const NetworkLayout& layout) {
  return layout.stages.size() > 2
             ? double(layout.stages[2].inputs) * double(layout.stages[2].outputs)
             : 0;
}

Stage placed(NetworkLayout& layout, Stage stage) {
  stage.parameter_offset = layout.parameter_count;
  layout.parameter_count = round_to_block(layout.parameter_count + stage.parameter_count());
  return stage;
}

// The part of the network with these hidden units.
NetworkLayout cut(const NetworkLayout& whole, Range hidden) {
  NetworkLayout part = whole;
  part.parameter_count = 0;
  part.stages.clear();
  for (std::size_t s = 0; s < whole.stages.size(); ++s) {
    Stage stage = whole.stages[s];
    if (s == 0) stage.outputs = stage.parameter_cols = hidden.end - hidden.begin;
    if (s == 1) stage.inputs = stage.parameter_rows = hidden.end - hidden.begin;
    part.stages.push_back(placed(part, stage));
  }
  return part;
}

}  // namespace

template <class T>
int Shards<T>::worthwhile(const NetworkLayout& layout, index_t rows, int threads) {
  if (!layout.sharded || layout.any_frozen || threads < 2) return 1;
  const Stage& sums = layout.stages[1];
  const index_t parts = parts_of(sums.inputs, sums.input_chunk);
  const int workers = int(std::min(parts, index_t(threads)));
  const double exchanged = double(rows) * double(sums.outputs) * double(workers - 1);
  const bool even = busy_enough(double(parts), double(parts_of(parts, workers)), workers);
  const bool little = kExchangeWorth * exchanged < double(layout.parameter_count) &&
                      repeated(layout) * workers < kRepeatedPart * layout.multiply_adds_per_row;
  return even && little ? workers : 1;
}

template <class T> void Shards<T>::make(const NetworkLayout& whole, index_t rows, int workers) {
  shards_.clear();
  rows_ = 0;  // until all is there: no memory is an exception
  const Stage& summed = whole.stages[1];
  const index_t parts = parts_of(summed.inputs, summed.input_chunk);
  for (int i = 0; i < workers; ++i) {
    Shard& shard = shards_.emplace_back();
    const Range chunks = split(parts, 1, {i, workers});
    shard.hidden = {chunks.begin * summed.input_chunk,
                    std::min(chunks.end * summed.input_chunk, summed.inputs)};
    shard.layout = cut(whole, shard.hidden);
    BatchShape shape;
    shape.rows = shape.window = rows;
    shard.plan = make_training_plan(shard.layout, shape, sizeof(T));
    shard.arena = Arena(shard.plan.arena);
    shard.link.first = chunks.begin;
    shard.link.parts = parts;
  }
  const index_t row = shards_[0].plan.z[1].row;
  const index_t apart = round_to_block(rows * row);
  sums_ = Arena(array_bytes<T>(parts, apart));
  for (Shard& shard : shards_) {
    shard.link.sums = sums_.template at<T>(0);
    shard.link.apart = apart;
    ArenaLayout arena;
    const std::size_t bytes = array_bytes<T>(shard.layout.parameter_count);
    const std::size_t w = arena.add(bytes), gradient = arena.add(bytes), slot0 = arena.add(bytes),
                      slot1 = arena.add(bytes);
    shard.parameters = Arena(arena);
    const Arena& p = shard.parameters;
    shard.context.parameters = {p.at<T>(w), p.at<T>(gradient), {p.at<T>(slot0), p.at<T>(slot1)}};
  }
  rows_ = rows;
}

template <class T> void Shards<T>::prepare(const StepContext<T>& whole, index_t rows, int workers) {
  if (rows > rows_ || workers != int(shards_.size())) make(*whole.layout, rows, workers);
  whole_ = whole.parameters;
  whole_layout_ = whole.layout;
  slots_ = optimizer_slots(whole.optimizer.optimizer);
  for (std::size_t i = 0; i < shards_.size(); ++i) {
    Shard& shard = shards_[i];
    const ParameterBlock<T> own = shard.context.parameters;
    shard.context = whole;
    shard.context.parameters = own;
    shard.context.layout = &shard.layout;
    shard.context.plan = &shard.plan;
    shard.context.arena = &shard.arena;
    shard.context.link = &shard.link;
    shard.context.in_parts = false;
    shard.context.gemm_scratch = whole.gemm_scratch + index_t(i) * whole.gemm.scratch;
  }
}

// What several workers have, they have alike; the first one gives it back.
template <class T> void Shards<T>::copy(int worker, bool take) {
  Shard& shard = shards_[std::size_t(worker)];
  const ParameterBlock<T>& own = shard.context.parameters;
  const auto copy_rows = [&](T* there, index_t there_row, T* here, index_t rows, index_t cols) {
    for (index_t i = 0; i < rows; ++i, there += there_row, here += cols)
      std::memcpy(take ? here : there, take ? there : here, std::size_t(cols) * sizeof(T));
  };
  const auto copy_all = [&](T* there, T* here) {
    for (std::size_t s = 0; s < shard.layout.stages.size(); ++s) {
      const Stage& part = shard.layout.stages[s];
      T* const from = there + whole_layout_->stages[s].parameter_offset;
      T* const to = here + part.parameter_offset;
      const index_t cols = part.outputs, rows = part.parameter_rows;
      if (s == 0) {
        copy_rows(from + shard.hidden.begin, whole_layout_->stages[0].outputs, to,
                  rows + (part.bias ? 1 : 0), cols);
        continue;
      }
      if (s == 1) copy_rows(from + shard.hidden.begin * cols, cols, to, rows, cols);
      if (!take && worker > 0) continue;
      if (s > 1) copy_rows(from, cols, to, rows, cols);
      if (part.bias)
        copy_rows(from + whole_layout_->stages[s].inputs * cols, cols, to + rows * cols, 1, cols);
    }
  };
  copy_all(whole_.w, own.w);
  for (int k = 0; k < slots_; ++k) copy_all(whole_.slot[k], own.slot[k]);
}

template class Shards<float>;
template class Shards<double>;

}  // namespace fastbp
