#include "engine/cuda/rules.h"

#include <algorithm>

#include "core/arena.h"

namespace fastbp {
namespace cuda {

template <class T>
T* Rules<T>::provide(Piece piece, bool wanted, bool had, T* array, cudaStream_t stream) {
  if (!wanted || had) return array;
  const std::size_t bytes = array_bytes<T>(layout_.parameter_count);
  array = static_cast<T*>(memory_.require(piece, bytes));
  check(cudaMemsetAsync(array, 0, bytes, stream), "clearing memory");
  return array;
}

template <class T> void Rules<T>::set(const UpdateRules& rules, cudaStream_t stream) {
  accumulated_ = provide(Piece::accumulated, rules.accumulation > 1, rules_.accumulation > 1,
                         accumulated_, stream);
  average_ = provide(Piece::average, rules.average, rules_.average, average_, stream);
  rules_ = rules;
  penalize_ = rules.penalize();
  lay_out(stream);
}

template <class T> void Rules<T>::set_frozen(cudaStream_t stream) {
  lay_out(stream);
  if (!accumulated_) return;
  for (const Stage& stage : layout_.stages)
    if (!stage.trainable && stage.parameter_count() > 0)
      check(cudaMemsetAsync(accumulated_ + stage.parameter_offset, 0,
                            array_bytes<T>(stage.parameter_count()), stream),
            "clearing memory");
}

template <class T> int Rules<T>::variant_of(double rate) {
  const auto place = std::find(variants_.begin(), variants_.end(), rate) - variants_.begin();
  if (place == variant_count()) variants_.push_back(rate);
  return int(place);
}

// Cut where blocks begin.
template <class T>
void Rules<T>::add_piece(index_t begin, index_t end, const ParameterRange* range, bool trained) {
  RulePiece<T> piece;
  piece.trained = trained;
  if (range) {
    piece.variant = variant_of(range->rate);
    piece.l1 = T(range->l1);
    piece.l2 = T(range->l2);
    piece.penalized = trained && (range->l1 != 0 || range->l2 != 0);
  }
  while (begin < end) {
    const index_t block = begin / kGradientBlock,
                  stop = std::min(end, (block + 1) * kGradientBlock);
    while (index_t(first_piece_.size()) <= block) first_piece_.push_back(index_t(pieces_.size()));
    piece.begin = begin;
    piece.count = stop - begin;
    pieces_.push_back(piece);
    begin = stop;
  }
}

template <class T> void Rules<T>::add_ranges(index_t begin, index_t end, bool trained) {
  for (const ParameterRange& range : rules_.ranges) {
    if (begin >= end || range.begin >= end) break;
    if (range.end <= begin) continue;
    const index_t from = std::max(begin, range.begin), to = std::min(end, range.end);
    add_piece(begin, from, nullptr, trained);
    add_piece(from, to, &range, trained);
    begin = to;
  }
  add_piece(begin, end, nullptr, trained);
}

// The limits on what is trained. Each is within one stage's block.
template <class T> void Rules<T>::take_limits() {
  limits_.clear();
  tables_.most_limited = 0;
  for (const ColumnLimit& of : rules_.column_limits)
    for (const Stage& stage : layout_.stages) {
      const index_t begin = stage.parameter_offset, end = begin + stage.parameter_count();
      if (!stage.trainable || of.begin < begin || of.begin >= end) continue;
      limits_.push_back({of.begin, of.rows, of.cols, T(of.limit)});
      tables_.most_limited = std::max(tables_.most_limited, of.cols);
    }
  tables_.limit_count = index_t(limits_.size());
}

// The pieces in order, and the first of each block.
template <class T> void Rules<T>::lay_out(cudaStream_t stream) {
  const index_t count = layout_.parameter_count, blocks = gradient_blocks(count);
  variants_.assign(1, 1.0);
  pieces_.clear();
  first_piece_.clear();
  tables_ = {};
  if (!(need_whole_gradient() || layout_.any_frozen) || count == 0) return;
  index_t at = 0;
  if (layout_.any_frozen)
    for (const Stage& stage : layout_.stages) {
      if (!stage.trainable || stage.parameter_count() == 0) continue;
      const index_t end = stage.parameter_offset + stage.parameter_count();
      add_ranges(at, stage.parameter_offset, false);
      add_ranges(stage.parameter_offset, end, true);
      at = end;
    }
  add_ranges(at, count, !layout_.any_frozen);
  first_piece_.push_back(index_t(pieces_.size()));
  take_limits();
  ArenaLayout arena;
  const std::size_t pieces = arena.add(pieces_.size() * sizeof pieces_[0]);
  const std::size_t first = arena.add(array_bytes<index_t>(blocks + 1));
  const std::size_t sums = arena.add(array_bytes<double>(2 * blocks + 1));
  const std::size_t overflow = arena.add(array_bytes<std::int32_t>(blocks));
  const std::size_t limits = arena.add(limits_.size() * sizeof(LimitedColumns<T>));
  auto* const base = static_cast<unsigned char*>(memory_.require(Piece::rules, arena.total()));
  const auto send = [&](std::size_t to, const void* from, std::size_t bytes) {
    check(cudaMemcpyAsync(base + to, from, bytes, cudaMemcpyHostToDevice, stream), "a copy");
  };
  send(pieces, pieces_.data(), pieces_.size() * sizeof pieces_[0]);
  send(first, first_piece_.data(), first_piece_.size() * sizeof first_piece_[0]);
  if (!limits_.empty()) send(limits, limits_.data(), limits_.size() * sizeof limits_[0]);
  tables_.pieces = reinterpret_cast<const RulePiece<T>*>(base + pieces);
  tables_.first_piece = reinterpret_cast<const index_t*>(base + first);
  tables_.squares = reinterpret_cast<double*>(base + sums);
  tables_.penalties = tables_.squares + blocks;
  tables_.factor = tables_.penalties + blocks;
  tables_.overflow = reinterpret_cast<std::int32_t*>(base + overflow);
  tables_.limits = reinterpret_cast<const LimitedColumns<T>*>(base + limits);
}

template <class T>
void Rules<T>::enqueue(FinishUse use, const FinishState<T>& state, cudaStream_t stream) const {
  const bool stores = penalize_ || (use == FinishUse::store && state.scaling);
  const bool wanted = need_whole_gradient() && differ();
  if (!wanted || (use != FinishUse::update && !stores)) return;
  check(finish_gradient(arguments(use, state), stream), "update");
}

template <class T>
FinishArgs<T> Rules<T>::arguments(FinishUse use, const FinishState<T>& state) const {
  FinishArgs<T> args;
  args.use = use;
  args.state = state;
  args.tables = tables_;
  args.parameters = layout_.parameter_count;
  args.variants = variant_count();
  args.accumulation = rules_.accumulation;
  args.share = T(1.0 / double(rules_.accumulation));
  args.accumulated = accumulated_;
  args.penalize = penalize_;
  args.clip_value = T(rules_.clip_value);
  args.clip_norm = rules_.clip_norm;
  args.average = rules_.average ? average_ : nullptr;
  args.average_momentum = T(rules_.average_momentum);
  return args;
}

template class Rules<float>;
template class Rules<double>;

}  // namespace cuda
}  // namespace fastbp
