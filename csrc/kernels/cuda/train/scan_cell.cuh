// A recurrent cell at one step of one sequence: one unit, behind the product that it waits for. Of the
// kernels that take a step each and of those that walk over all of them.
#pragma once

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/train/scan.h"
#include "ops/lane.h"
#include "ops/philox.h"

namespace fastbp {
namespace cuda {
namespace {

// What state j of sequence i is multiplied by (ops/philox.h): 0, or 1 / (1 - rate).
template <class T> FBP_FN Lane<T> state_factor(const ScanStep<T>& s, index_t i, index_t j) {
  constexpr int side = kDropoutGroup / 4;  // from one of a block's four columns to the next
  const DropoutStream stream =
      dropout_stream(std::uint64_t(s.counter->steps_done + s.counter->batch + 1), s.stream.layer,
                     s.stream.purpose);
  const index_t groups = parts_of(s.units, kDropoutGroup), column = j % kDropoutGroup;
  const index_t block = (i * groups + j / kDropoutGroup) * side + column % side;
  using Word = LaneBits<float>;
  Word words[4] = {Word(std::int64_t{std::uint32_t(block)}), Word(std::int64_t{stream.step}),
                   Word(std::int64_t{stream.layer}), Word(std::int64_t{stream.purpose})};
  philox_rounds(words, s.seed);
  // By masks: an array with a variable index would be in memory.
  Word mine(0);
  FBP_UNROLL(4)
  for (int w = 0; w < 4; ++w) mine = mine | (words[w] & Word(-std::int64_t{column / side == w}));
  const bool kept = (dropout_fraction(mine) >= Lf(dropout_threshold(s.state_rate))).m;
  return Lane<T>(kept ? T(1 / (1 - s.state_rate)) : T(0));
}

// r: h U of the unit's gates.
template <class T, class Cell>
FBP_DEVICE void cell_forward(const ScanStep<T>& s, index_t i, index_t j,
                             const Lane<T> (&r)[Cell::gates]) {
  constexpr int gates = Cell::gates;
  const SequenceRows states{s.at.rows, s.at.chunk, s.at.steps + 1};
  const index_t here = s.at.of(i, s.step);
  const index_t before = states.of(i, s.before), after = states.of(i, s.after);
  T* const a = s.a + here * s.a_row + j;
  Lane<T> va[gates], kept[1] = {Lane<T>(T(0))}, c(T(0)), h(s.h[before * s.h_row + j]);
  if (Cell::states == 2) c = Lane<T>(s.c[before * s.units + j]);
  if (!s.lengths || s.step < s.lengths[i]) {
    for (int g = 0; g < gates; ++g) va[g] = Lane<T>(a[g * s.units]);
    Cell::forward(va, r, kept, h, c);
    for (int g = 0; g < gates; ++g) va[g].store(a + g * s.units);
    if (Cell::keeps) kept[0].store(s.kept + here * s.units + j);
  }
  h.store(s.h + after * s.h_row + j);
  if (Cell::states == 2) c.store(s.c + after * s.units + j);
  if (!s.out) return;
  T* const out = s.out + s.out_at.of(i, s.out_step) * s.out_row + j;
  (s.adds ? Lane<T>(*out) + h : h).store(out);
}

// through: what comes through the weights from the step behind, where it does.
template <class T, class Cell>
FBP_DEVICE void cell_backward(const ScanStep<T>& s, index_t i, index_t j, Lane<T> through) {
  constexpr int gates = Cell::gates, same = gates - Cell::keeps;
  const SequenceRows states{s.at.rows, s.at.chunk, s.at.steps + 1};
  const index_t at = i * s.units + j;
  const index_t here = s.at.of(i, s.step), before = states.of(i, s.before);
  const bool ended = s.begins || (s.cuts && !(s.lengths && s.behind >= s.lengths[i]));
  const bool runs = !s.lengths || s.step < s.lengths[i];
  Lane<T> va[gates], kept[1] = {Lane<T>(T(0))}, c_before(T(0)), c_after(T(0));
  Lane<T> dh(ended ? T(0) : s.dh[at]), dc(Cell::states == 2 && !ended ? s.dc[at] : T(0));
  if (s.comes_through()) {
    if (s.state_rate > 0) through = through * state_factor(s, i, j);
    dh = dh + through;
  }
  if (s.dy) dh = dh + Lane<T>(s.dy[s.out_at.of(i, s.out_step) * s.out_row + j]);
  T* const a = s.a + here * s.a_row + j;
  for (int g = 0; g < gates; ++g) va[g] = Lane<T>(runs ? a[g * s.units] : T(0));
  if (runs) {
    if (Cell::states == 2) {
      c_before = Lane<T>(s.c[before * s.units + j]);
      c_after = Lane<T>(s.c[states.of(i, s.after) * s.units + j]);
    }
    if (Cell::keeps) kept[0] = Lane<T>(s.kept[here * s.units + j]);
    Cell::backward(va, kept, Lane<T>(s.h[before * s.h_row + j]), c_before, c_after, dh, dc);
  }
  for (int g = 0; g < gates; ++g) va[g].store(a + g * s.units);
  if (Cell::keeps) {
    T* const dr = s.dr + i * gates * s.units + j;
    kept[0].store(s.kept + here * s.units + j);
    for (int g = 0; g < same; ++g) va[g].store(dr + g * s.units);
    kept[0].store(dr + same * s.units);
  }
  dh.store(s.dh + at);
  if (Cell::states == 2) dc.store(s.dc + at);
}

}  // namespace
}  // namespace cuda
}  // namespace fastbp
