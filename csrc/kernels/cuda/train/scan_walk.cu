// All steps of one way of a recurrent layer by one kernel (scan_walk.h).
//
//   each block loads its units' weights into shared memory, and for each step, for its sequences:
//     the states before the step, or on the way back the gates' gradients of the step behind
//     their product with the weights, in shared memory
//     the cell
//   and all blocks that work on the same sequences meet
//
// A block that has all units keeps what the next step multiplies in shared memory, and fetches nothing.
// What the cells read besides is loaded before the meeting, a step ahead. How the product is made says
// `Held`: exactly, by threads (scan_held.cuh), or on tensor cores (scan_held_rounded.cuh); both by the CPU's
// chunks along k. The arithmetic is in docs/cuda.md.
#include "kernels/cuda/train/scan_walk.h"

#include "kernels/cuda/train/scan_cell.cuh"
#include "kernels/cuda/train/scan_held_rounded.cuh"

namespace fastbp {
namespace cuda {
namespace {

// The cells of a block at a step of some sequences: a thread goes through units first. What a cell reads
// is loaded one cell ahead.
template <class T, class CellWork> struct Cells {
  const ScanBlocks& b;
  index_t unit0, rows, units;
  const SequenceRows::Part* parts;
  Tour first;
  CellWork ahead;

  FBP_DEVICE Cells(const ScanStep<T>& s, const ScanBlocks& blocks,
                   const SequenceRows::Part* of_rows)
      : b(blocks), unit0(index_t(blockIdx.x) * blocks.units), rows(s.at.rows), units(s.units),
        parts(of_rows), first(blocks.units) {}

  FBP_DEVICE bool has(const Tour& at, index_t row0) const {
    return at.row < b.rows && row0 + at.row < rows && unit0 + at.col < units;
  }
  FBP_DEVICE ScanPlace<T> place(const ScanStep<T>& s, const Tour& at, index_t row0) const {
    return {s, row0 + at.row, parts[at.row]};
  }
  FBP_DEVICE void load(const ScanStep<T>& s, const Tour& at, index_t row0) {
    if (has(at, row0)) ahead.load(s, place(s, at, row0), unit0 + at.col);
  }
  // finish(cell, place, row of the block, unit of the block)
  template <class Finish>
  FBP_DEVICE void go(const ScanStep<T>& s, index_t row0, const Finish& finish) {
    FBP_UNROLL(1)
    for (Tour at = first; at.row < b.rows;) {
      CellWork cell = ahead;
      const Tour here = at;
      at.next();
      load(s, at, row0);
      if (has(here, row0)) finish(cell, place(s, here, row0), here.row, here.col);
    }
  }
};

// Whether rows from `from` on, `row` values apart, can be read by four.
template <class T> FBP_DEVICE bool in_packs(const T* from, index_t row, int k) {
  return reinterpret_cast<std::uintptr_t>(from) % 16 == 0 && row * sizeof(T) % 16 == 0 &&
         k % 4 == 0;
}

// One way of a walk in a block: what the two ways do not share. T is Held::Value.
template <class Held, class Cell> struct WayForward {
  using T = typename Held::Value;
  using Work = CellForward<T, Cell>;
  static constexpr int gates = Cell::gates;
  const ScanWalk<T>& walk;
  const ScanBlocks& b;
  Held held;
  int units, unit0;
  bool once, stays, packed;

  // once: the block takes all its sequences together. stays: what the next step multiplies, in the block.
  FBP_DEVICE WayForward(const ScanWalk<T>& of, const ScanBlocks& blocks, bool takes_once,
                        unsigned char* shared)
      : walk(of), b(blocks), held(WalkProduct::forward(gates, int(of.every.units), blocks,
                                                       Held::operands(of.every.rounding)),
                                  of.every.rounding, shared),
        units(int(of.every.units)), unit0(int(blockIdx.x) * blocks.units), once(takes_once),
        stays(gridDim.x == 1 && once && !of.every.masked),
        packed(in_packs(of.every.h, of.every.h_row, units)) {}

  FBP_DEVICE ScanStep<T> step(index_t number) const { return walk.forward(number); }
  FBP_DEVICE void load_weights() const {
    const ScanStep<T>& every = walk.every;
    const auto there = [&](int col) { return col < held.is.cols && unit0 + col % b.units < units; };
    copy_all<T, 8>(
        held.is.k_held(), held.wide,
        [&](int p, int col) {
          return p < units && there(col)
                     ? every.weights[(p * gates + col / b.units) * units + unit0 + col % b.units]
                     : T(0);
        },
        [&](int p, int col, T x) { held.put_weight(p, col, x); });
    FBP_UNROLL(1)
    for (int col = threadIdx.x; every.bias && col < held.wide; col += kWalkThreads)
      held.biases[col] =
          there(col) ? every.bias[col / b.units * units + unit0 + col % b.units] : T(0);
  }
  // Where h before a step is fetched from.
  FBP_DEVICE void point(const ScanStep<T>& s, index_t row0, int count) const {
    held.point(count, [&](int r) {
      return s.h +
             SequenceRows::row_of(held.parts[r], row0 + r, s.before, s.at.steps + 1) * s.h_row;
    });
  }
  FBP_DEVICE bool multiplies(const ScanStep<T>&) const { return true; }
  FBP_DEVICE bool biased() const { return walk.every.bias != nullptr; }
  FBP_DEVICE void fetch(const ScanStep<T>& s, index_t row0, int count, bool first) const {
    if (s.masked)
      copy_all<T, 1>(
          count, units,
          [&](int r, int p) {
            const Lane<T> h(held.from[r][p]);
            return (h * state_factor(s, row0 + r, p)).v;
          },
          [&](int r, int p, T x) {
            held.put(r, p, x);
            if (p < unit0 || p >= unit0 + b.units) return;
            s.masked[SequenceRows::row_of(held.parts[r], row0 + r, s.step, s.at.steps) *
                         s.masked_row +
                     p] = x;
          });
    else if (!stays || first)
      held.fetch(count, packed);
  }
  FBP_DEVICE void finish(Work& cell, const ScanStep<T>& s, const ScanPlace<T>& place, int r,
                         int u) const {
    Lane<T> sums[gates] = {};
    FBP_UNROLL(4)
    for (int g = 0; g < gates; ++g) sums[g] = held.sum(r, g * b.units + u);
    const T h = cell.finish(s, place, unit0 + u, sums);
    if (stays) held.put(r, u, h);
  }
};

template <class Held, class Cell> struct WayBackward {
  using T = typename Held::Value;
  using Work = CellBackward<T, Cell>;
  static constexpr int gates = Cell::gates;
  const ScanWalk<T>& walk;
  const ScanBlocks& b;
  Held held;
  int units, unit0, cols;
  bool once, stays, packed;

  FBP_DEVICE WayBackward(const ScanWalk<T>& of, const ScanBlocks& blocks, bool takes_once,
                         unsigned char* shared)
      : walk(of), b(blocks), held(WalkProduct::backward(gates, int(of.every.units), blocks,
                                                        Held::operands(of.every.rounding)),
                                  of.every.rounding, shared),
        units(int(of.every.units)), unit0(int(blockIdx.x) * blocks.units), cols(gates * units),
        once(takes_once), stays(gridDim.x == 1 && once),
        packed(Cell::keeps ? in_packs(of.gate_deltas[0], cols, cols) &&
                                 in_packs(of.gate_deltas[1], cols, cols)
                           : in_packs(of.every.a, of.every.a_row, cols)) {}

  FBP_DEVICE ScanStep<T> step(index_t number) const {
    return walk.backward(walk.steps() - 1 - number);
  }
  FBP_DEVICE void load_weights() const {
    copy_all<T, 8>(
        held.wide, held.is.k_held(),
        [&](int u, int p) {
          return p < cols && u < b.units && unit0 + u < units
                     ? walk.every.weights[(unit0 + u) * cols + p]
                     : T(0);
        },
        [&](int u, int p, T x) { held.put_weight(p, u, x); });
  }
  // Where the gates' gradients of the step behind are fetched from.
  FBP_DEVICE void point(const ScanStep<T>& s, index_t row0, int count) const {
    held.point(count, [&](int r) {
      if (Cell::keeps) return s.dr_behind + (row0 + r) * cols;
      const index_t behind = SequenceRows::row_of(held.parts[r], row0 + r, s.behind, s.at.steps);
      return static_cast<const T*>(s.a + behind * s.a_row);
    });
  }
  FBP_DEVICE bool multiplies(const ScanStep<T>& s) const { return s.comes_through(); }
  FBP_DEVICE bool biased() const { return false; }
  FBP_DEVICE void fetch(const ScanStep<T>&, index_t, int count, bool) const {
    if (!stays) held.fetch(count, packed);
  }
  FBP_DEVICE void finish(Work& cell, const ScanStep<T>& s, const ScanPlace<T>& place, int r,
                         int u) const {
    cell.finish(s, place, unit0 + u, s.comes_through() ? held.sum(r, u) : Lane<T>(T(0)));
    if (!stays) return;
    FBP_UNROLL(4)
    for (int g = 0; g < gates; ++g) held.put(r, g * units + u, cell.dr(g).v);
  }
};

template <class T, class Way>
__global__ void __launch_bounds__(kWalkThreads, 1)
    walk_steps_kernel(ScanWalk<T> walk, ScanBlocks b) {
  FBP_SHARED(unsigned char, shared);
  const ScanStep<T>& every = walk.every;
  const index_t begin = index_t(blockIdx.y) * b.rows, apart = index_t(gridDim.y) * b.rows;
  const bool once = begin + apart >= every.at.rows;
  const Way way(walk, b, once, shared);
  way.load_weights();
  copy_all<T, 1>(
      way.held.is.rows_held(), way.held.pitch, [](int, int) { return T(0); },
      [&](int r, int p, T x) { way.held.put(r, p, x); });
  Cells<T, typename Way::Work> cells(every, b, way.held.parts);
  const auto count_from = [&](index_t row0) {
    const index_t left = every.at.rows - row0;
    return left < b.rows ? int(left) : b.rows;
  };
  FBP_UNROLL(1)
  for (index_t i = 0; i < walk.steps(); ++i) {
    const ScanStep<T> s = way.step(i);
    FBP_UNROLL(1)
    for (index_t row0 = begin; row0 < s.at.rows; row0 += apart) {
      if (!once || i == 0) {
        __syncthreads();
        way.held.locate(s.at, row0);
        __syncthreads();
        way.point(s, row0, count_from(row0));
        cells.load(s, cells.first, row0);
        __syncthreads();
      }
      if (way.multiplies(s)) {
        way.fetch(s, row0, count_from(row0), i == 0);
        __syncthreads();
        way.held.multiply(b.columns, way.biased());
        __syncthreads();
      }
      cells.go(s, row0, [&](auto& cell, const ScanPlace<T>& place, int r, int u) {
        way.finish(cell, s, place, r, u);
      });
    }
    if (once && i + 1 < walk.steps()) {
      const ScanStep<T> next = way.step(i + 1);
      way.point(next, begin, count_from(begin));
      cells.load(next, cells.first, begin);
    }
    meet();
  }
}

template <class T> using WalkKernel = void (*)(ScanWalk<T>, ScanBlocks);
#define FBP_KERNEL(C) walk_steps_kernel<typename Held::Value, WayForward<Held, C>>,
template <class Held>
constexpr WalkKernel<typename Held::Value> walks_forward[] = {FBP_CELLS(FBP_KERNEL)};
#undef FBP_KERNEL
#define FBP_KERNEL(C) walk_steps_kernel<typename Held::Value, WayBackward<Held, C>>,
template <class Held>
constexpr WalkKernel<typename Held::Value> walks_backward[] = {FBP_CELLS(FBP_KERNEL)};
#undef FBP_KERNEL

// There and back.
template <class T> struct WalkKernels { WalkKernel<T> forward, backward; };
template <class T> WalkKernels<T> walks_of(int cell, Rounding rounding) {
  if constexpr (std::is_same<T, float>::value)
    if (rounding != Rounding::none)
      return {walks_forward<RoundedHeld>[cell], walks_backward<RoundedHeld>[cell]};
  return {walks_forward<ExactHeld<T>>[cell], walks_backward<ExactHeld<T>>[cell]};
}

template <class T>
cudaError_t launch_walk(WalkKernel<T> walk_kernel, const ScanWalk<T>& walk, const ScanBlocks& b,
                        cudaStream_t stream) {
  const dim3 grid(unsigned(b.slices), unsigned(b.groups)), block(kWalkThreads);
  if (b.slices > 1)
    FBP_LAUNCH_COOPERATIVE(walk_kernel, grid, block, std::size_t(b.shared_bytes), stream)
  (walk, b);
  else FBP_LAUNCH(walk_kernel, grid, block, std::size_t(b.shared_bytes), stream)(walk, b);
  return cudaGetLastError();
}

}  // namespace

template <class T>
cudaError_t walk_forward(int cell, const ScanWalk<T>& walk, const ScanBlocks& blocks,
                         cudaStream_t stream) {
  return launch_walk<T>(walks_of<T>(cell, walk.every.rounding).forward, walk, blocks, stream);
}

template <class T>
cudaError_t walk_backward(int cell, const ScanWalk<T>& walk, const ScanBlocks& blocks,
                          cudaStream_t stream) {
  return launch_walk<T>(walks_of<T>(cell, walk.every.rounding).backward, walk, blocks, stream);
}

template <class T> cudaError_t let_walk(int cell, Rounding rounding, int shared_bytes) {
  const WalkKernels<T> walks = walks_of<T>(cell, rounding);
  const WalkKernel<T> there_and_back[] = {walks.forward, walks.backward};
  for (const WalkKernel<T> kernel : there_and_back) {
    const cudaError_t error =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

#define FBP_INSTANTIATE(T)                                                                         \
  template cudaError_t walk_forward(int, const ScanWalk<T>&, const ScanBlocks&, cudaStream_t);     \
  template cudaError_t walk_backward(int, const ScanWalk<T>&, const ScanBlocks&, cudaStream_t);    \
  template cudaError_t let_walk<T>(int, Rounding, int);
FBP_INSTANTIATE(float)
FBP_INSTANTIATE(double)
#undef FBP_INSTANTIATE

}  // namespace cuda
}  // namespace fastbp
