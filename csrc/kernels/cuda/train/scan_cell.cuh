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

// Of a sequence at a step: rows of the matrices with a row for each.
template <class T> struct ScanPlace {
  using Part = SequenceRows::Part;
  index_t i, here, before, after, out;  // the sequence; `a`, `kept`; h and c; `out`, dy
  FBP_FN ScanPlace(const ScanStep<T>& s, index_t sequence, const Part& part)
      : i(sequence), here(SequenceRows::row_of(part, i, s.step, s.at.steps)),
        before(SequenceRows::row_of(part, i, s.before, s.at.steps + 1)),
        after(SequenceRows::row_of(part, i, s.after, s.at.steps + 1)),
        out(SequenceRows::row_of(part, i, s.out_step, s.out_at.steps)) {}
};

// A cell on the way forward. What it reads of unit j besides r, h U, is loaded apart: in the walk a
// step ahead.
template <class T, class Cell> struct CellForward {
  static constexpr int gates = Cell::gates;
  Lane<T> a[gates] = {}, h = {}, c = {};
  bool runs = false;

  FBP_DEVICE void load(const ScanStep<T>& s, const ScanPlace<T>& at, index_t j) {
    runs = !s.lengths || s.step < s.lengths[at.i];
    h = Lane<T>(s.h[at.before * s.h_row + j]);
    c = Lane<T>(Cell::states == 2 ? s.c[at.before * s.units + j] : T(0));
    const T* const from = s.a + at.here * s.a_row + j;
    FBP_UNROLL(4)
    for (int g = 0; g < gates; ++g) a[g] = Lane<T>(from[g * s.units]);
  }
  // h after the step.
  FBP_DEVICE T finish(const ScanStep<T>& s, const ScanPlace<T>& at, index_t j,
                      const Lane<T> (&r)[gates]) {
    if (runs) {
      Lane<T> kept[1] = {Lane<T>(T(0))};
      Cell::forward(a, r, kept, h, c);
      T* const to = s.a + at.here * s.a_row + j;
      FBP_UNROLL(4)
      for (int g = 0; g < gates; ++g) a[g].store(to + g * s.units);
      if (Cell::keeps) kept[0].store(s.kept + at.here * s.units + j);
    }
    h.store(s.h + at.after * s.h_row + j);
    if (Cell::states == 2) c.store(s.c + at.after * s.units + j);
    if (s.out) {
      T* const out = s.out + at.out * s.out_row + j;
      (s.adds ? Lane<T>(*out) + h : h).store(out);
    }
    return h.v;
  }
};

// And on the way back.
template <class T, class Cell> struct CellBackward {
  static constexpr int gates = Cell::gates, same = gates - Cell::keeps;
  Lane<T> a[gates] = {}, kept[1] = {};
  Lane<T> h_before = {}, c_before = {}, c_after = {}, dh = {}, dc = {}, dy = {};
  bool runs = false;

  FBP_DEVICE void load(const ScanStep<T>& s, const ScanPlace<T>& at, index_t j) {
    const bool ended = s.begins || (s.cuts && !(s.lengths && s.behind >= s.lengths[at.i]));
    const index_t unit = at.i * s.units + j;
    runs = !s.lengths || s.step < s.lengths[at.i];
    dh = Lane<T>(ended ? T(0) : s.dh[unit]);
    dc = Lane<T>(Cell::states == 2 && !ended ? s.dc[unit] : T(0));
    dy = Lane<T>(s.dy ? s.dy[at.out * s.out_row + j] : T(0));
    const T* const from = s.a + at.here * s.a_row + j;
    FBP_UNROLL(4)
    for (int g = 0; g < gates; ++g) a[g] = Lane<T>(runs ? from[g * s.units] : T(0));
    const bool both = runs && Cell::states == 2;
    h_before = Lane<T>(runs ? s.h[at.before * s.h_row + j] : T(0));
    c_before = Lane<T>(both ? s.c[at.before * s.units + j] : T(0));
    c_after = Lane<T>(both ? s.c[at.after * s.units + j] : T(0));
    kept[0] = Lane<T>(runs && Cell::keeps ? s.kept[at.here * s.units + j] : T(0));
  }
  // through: what comes through the weights from the step behind, where it does. Afterwards dr(g) is
  // the gradient of the gates' products.
  FBP_DEVICE void finish(const ScanStep<T>& s, const ScanPlace<T>& at, index_t j, Lane<T> through) {
    const index_t unit = at.i * s.units + j;
    if (s.comes_through()) {
      if (s.state_rate > 0) through = through * state_factor(s, at.i, j);
      dh = dh + through;
    }
    if (s.dy) dh = dh + dy;
    if (runs) Cell::backward(a, kept, h_before, c_before, c_after, dh, dc);
    T* const to = s.a + at.here * s.a_row + j;
    FBP_UNROLL(4)
    for (int g = 0; g < gates; ++g) a[g].store(to + g * s.units);
    if (Cell::keeps) {
      kept[0].store(s.kept + at.here * s.units + j);
      T* const dr_to = s.dr + at.i * gates * s.units + j;
      FBP_UNROLL(4)
      for (int g = 0; g < gates; ++g) dr(g).store(dr_to + g * s.units);
    }
    dh.store(s.dh + unit);
    if (Cell::states == 2) dc.store(s.dc + unit);
  }
  FBP_FN Lane<T> dr(int g) const { return g < same ? a[g] : kept[0]; }
};

}  // namespace
}  // namespace cuda
}  // namespace fastbp
