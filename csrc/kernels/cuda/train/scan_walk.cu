// All steps of one way of a recurrent layer by one kernel (scan_walk.h).
//
//   each block loads its units' weights into shared memory, and for each step, for its sequences:
//     the states before the step, or on the way back the gates' gradients of the step behind
//     their product with the weights, in shared memory
//     the cell
//   and all blocks that work on the same sequences meet
//
// A block that has all units keeps what the next step multiplies in shared memory, and fetches nothing.
// What the cells read besides is loaded before the meeting, a step ahead. A thread adds up 2 sequences
// of 1, 2 or 4 columns, in order along k in the CPU's chunks; the chunks of a sum are different threads'.
// The arithmetic is in docs/cuda.md.
#include "kernels/cuda/train/scan_walk.h"

#include "kernels/cuda/train/scan_cell.cuh"

namespace fastbp {
namespace cuda {
namespace {

// So many values next to each other, read at once.
template <class T, int count> struct alignas(sizeof(T) * count < 16 ? sizeof(T) * count : 16) Pack {
  T v[count];
};

// Where a thread is when all of a block go through a matrix, row by row: without a division at each
// turn.
struct Tour {
  int row, col, cols, rows_on, cols_on;
  FBP_DEVICE explicit Tour(int across)
      : row(int(threadIdx.x) / across), col(int(threadIdx.x) % across), cols(across),
        rows_on(kWalkThreads / across), cols_on(kWalkThreads % across) {}
  FBP_DEVICE void next() {
    row += rows_on;
    col += cols_on;
    if (col < cols) return;
    col -= cols;
    ++row;
  }
};

// to(row, col, from(row, col)) of a matrix. Loads are in flight together: a store that might change
// what a load reads would have each of them waited for.
template <class V, int at_once, class From, class To>
FBP_DEVICE void copy_all(int rows, int cols, const From& from, const To& to) {
  FBP_UNROLL(1)
  for (Tour at(cols); at.row < rows;) {
    V values[at_once] = {};
    Tour stored = at;
    FBP_UNROLL(at_once)
    for (int n = 0; n < at_once; ++n, at.next())
      if (at.row < rows) values[n] = from(at.row, at.col);
    FBP_UNROLL(at_once)
    for (int n = 0; n < at_once; ++n, stored.next())
      if (stored.row < rows) to(stored.row, stored.col, values[n]);
  }
}

// A block's shared memory.
template <class T> struct Held {
  using Part = SequenceRows::Part;
  WalkProduct is;
  int pitch, wide;
  Part* parts;     // of the rows' sequences
  const T** from;  // where the rows are fetched from
  T* in;           // [rows][pitch]
  T* out;          // [chunk][rows][wide]
  T* weights;      // [k][wide], and biases

  FBP_DEVICE Held(const WalkProduct& product, unsigned char* shared)
      : is(product), pitch(product.pitch()), wide(product.wide()),
        parts(reinterpret_cast<Part*>(shared)),
        from(reinterpret_cast<const T**>(parts + kMostWalkRows)),
        in(reinterpret_cast<T*>(shared + WalkProduct::parts_bytes())),
        out(in + product.in_values()), weights(out + product.out_values()) {}

  FBP_DEVICE void locate(const SequenceRows& at, index_t row0) const {
    const index_t row = row0 + threadIdx.x;
    if (int(threadIdx.x) < is.rows && row < at.rows) parts[threadIdx.x] = at.part(row);
  }
  // Row r is fetched from row(r), r < count.
  template <class Row> FBP_DEVICE void point(int count, const Row& row) const {
    if (int(threadIdx.x) < count) from[threadIdx.x] = row(threadIdx.x);
  }
  // Row r of `in` = k values from from[r] on, r < count.
  FBP_DEVICE void fetch(int count, bool packed) const {
    using Four = Pack<T, 4>;
    if (packed)
      copy_all<Four, 8>(
          count, is.k / 4,
          [&](int r, int p) { return *reinterpret_cast<const Four*>(from[r] + 4 * p); },
          [&](int r, int p, const Four& x) {
            *reinterpret_cast<Four*>(in + r * pitch + 4 * p) = x;
          });
    else
      copy_all<T, 8>(
          count, is.k, [&](int r, int p) { return from[r][p]; },
          [&](int r, int p, T x) { in[r * pitch + p] = x; });
  }

  // out = in times weights, of each chunk; from the biases on where there are any. Neighbouring threads
  // have neighbouring rows: a half-warp then reads the weights of 8 packs at most.
  template <int columns> FBP_DEVICE void multiply_by(bool biased) const {
    using Right = Pack<T, columns>;
    const int pairs = is.rows / 2, across = wide / columns;
    FBP_UNROLL(1)
    for (int task = threadIdx.x; task < is.chunks() * pairs * across; task += kWalkThreads) {
      const int row = task % pairs, col = task / pairs % across * columns;
      const int chunk = task / pairs / across, begin = chunk * is.chunk;
      const int end = is.k - begin < is.chunk ? is.k : begin + is.chunk;
      const T* const left[2] = {in + row * pitch, in + (row + pairs) * pitch};
      const T* const right = weights + col;
      Lane<T> sum[2][columns];
      FBP_UNROLL(columns)
      for (int c = 0; c < columns; ++c)
        sum[0][c] = sum[1][c] =
            Lane<T>(biased && begin == 0 ? weights[is.k * wide + col + c] : T(0));
      const auto add = [&](T x0, T x1, const Right& y) {
        FBP_UNROLL(columns)
        for (int c = 0; c < columns; ++c) {
          sum[0][c] = fma(Lane<T>(x0), Lane<T>(y.v[c]), sum[0][c]);
          sum[1][c] = fma(Lane<T>(x1), Lane<T>(y.v[c]), sum[1][c]);
        }
      };
      const auto at = [&](int p) { return *reinterpret_cast<const Right*>(right + p * wide); };
      // Four terms are added up while the next four are on their way.
      struct Terms {
        Pack<T, 4> x[2];
        Right y[4];
      };
      const auto terms = [&](int p) {
        Terms read;
        FBP_UNROLL(2)
        for (int e = 0; e < 2; ++e) read.x[e] = *reinterpret_cast<const Pack<T, 4>*>(left[e] + p);
        FBP_UNROLL(4)
        for (int e = 0; e < 4; ++e) read.y[e] = at(p + e);
        return read;
      };
      const int whole = begin + (end - begin) / 4 * 4;
      if (whole > begin) {
        Terms now = terms(begin);
        FBP_UNROLL(2)
        for (int p = begin + 4; p < whole; p += 4) {
          const Terms next = terms(p);
          FBP_UNROLL(4)
          for (int e = 0; e < 4; ++e) add(now.x[0].v[e], now.x[1].v[e], now.y[e]);
          now = next;
        }
        FBP_UNROLL(4)
        for (int e = 0; e < 4; ++e) add(now.x[0].v[e], now.x[1].v[e], now.y[e]);
      }
      FBP_UNROLL(1)
      for (int p = whole; p < end; ++p) add(left[0][p], left[1][p], at(p));
      T* const to = out + (chunk * is.rows + row) * wide + col;
      FBP_UNROLL(columns)
      for (int c = 0; c < columns; ++c) {
        to[c] = sum[0][c].v;
        to[pairs * wide + c] = sum[1][c].v;
      }
    }
  }
  FBP_DEVICE void multiply(int columns, bool biased) const {
    if (columns == 4)
      multiply_by<4>(biased);
    else if (columns == 2)
      multiply_by<2>(biased);
    else
      multiply_by<1>(biased);
  }

  FBP_DEVICE Lane<T> sum(int r, int col) const {
    const T* const from = out + r * wide + col;
    Lane<T> total(*from);
    FBP_UNROLL(4)
    for (int c = 1; c < is.chunks(); ++c) total = total + Lane<T>(from[c * is.rows * wide]);
    return total;
  }
};

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

template <class T, class Cell>
__global__ void __launch_bounds__(kWalkThreads, 1)
    walk_forward_kernel(ScanWalk<T> walk, ScanBlocks b) {
  FBP_SHARED(unsigned char, shared);
  constexpr int gates = Cell::gates;
  const ScanStep<T>& every = walk.every;
  const int units = int(every.units), unit0 = int(blockIdx.x) * b.units;
  const Held<T> held(WalkProduct::forward(gates, units, b), shared);
  const bool biased = every.bias != nullptr;
  const index_t begin = index_t(blockIdx.y) * b.rows, apart = index_t(gridDim.y) * b.rows;
  const bool once = begin + apart >= every.at.rows;
  const bool stays = gridDim.x == 1 && once && !every.masked;
  const bool packed = in_packs(every.h, every.h_row, units);
  copy_all<T, 8>(
      units + biased, held.wide,
      [&](int p, int col) {
        const int j = unit0 + col % b.units;
        const bool there = col < held.is.cols && j < units;
        return there ? every.weights[(p * gates + col / b.units) * units + j] : T(0);
      },
      [&](int p, int col, T x) { held.weights[p * held.wide + col] = x; });
  copy_all<T, 1>(
      b.rows, held.pitch, [](int, int) { return T(0); },
      [&](int r, int p, T x) { held.in[r * held.pitch + p] = x; });
  Cells<T, CellForward<T, Cell>> cells(every, b, held.parts);
  const auto count_from = [&](index_t row0) {
    const index_t left = every.at.rows - row0;
    return left < b.rows ? int(left) : b.rows;
  };
  // Where h before a step is fetched from.
  const auto point = [&](const ScanStep<T>& s, index_t row0) {
    held.point(count_from(row0), [&](int r) {
      return s.h +
             SequenceRows::row_of(held.parts[r], row0 + r, s.before, s.at.steps + 1) * s.h_row;
    });
  };
  FBP_UNROLL(1)
  for (index_t i = 0; i < walk.steps(); ++i) {
    const ScanStep<T> s = walk.forward(i);
    FBP_UNROLL(1)
    for (index_t row0 = begin; row0 < s.at.rows; row0 += apart) {
      if (!once || i == 0) {
        __syncthreads();
        held.locate(s.at, row0);
        __syncthreads();
        point(s, row0);
        cells.load(s, cells.first, row0);
        __syncthreads();
      }
      const int count = count_from(row0);
      if (s.masked)
        copy_all<T, 1>(
            count, units,
            [&](int r, int p) {
              const Lane<T> h(held.from[r][p]);
              return (h * state_factor(s, row0 + r, p)).v;
            },
            [&](int r, int p, T x) {
              held.in[r * held.pitch + p] = x;
              if (p < unit0 || p >= unit0 + b.units) return;
              s.masked[SequenceRows::row_of(held.parts[r], row0 + r, s.step, s.at.steps) *
                           s.masked_row +
                       p] = x;
            });
      else if (!stays || i == 0)
        held.fetch(count, packed);
      __syncthreads();
      held.multiply(b.columns, biased);
      __syncthreads();
      cells.go(s, row0, [&](auto& cell, const ScanPlace<T>& place, int r, int u) {
        Lane<T> sums[gates] = {};
        FBP_UNROLL(4)
        for (int g = 0; g < gates; ++g) sums[g] = held.sum(r, g * b.units + u);
        const T h = cell.finish(s, place, unit0 + u, sums);
        if (stays) held.in[r * held.pitch + u] = h;
      });
    }
    if (once && i + 1 < walk.steps()) {
      const ScanStep<T> next = walk.forward(i + 1);
      point(next, begin);
      cells.load(next, cells.first, begin);
    }
    meet();
  }
}

template <class T, class Cell>
__global__ void __launch_bounds__(kWalkThreads, 1)
    walk_backward_kernel(ScanWalk<T> walk, ScanBlocks b) {
  FBP_SHARED(unsigned char, shared);
  constexpr int gates = Cell::gates;
  const ScanStep<T>& every = walk.every;
  const int units = int(every.units), unit0 = int(blockIdx.x) * b.units;
  const Held<T> held(WalkProduct::backward(gates, units, b), shared);
  const int cols = held.is.k;
  const index_t begin = index_t(blockIdx.y) * b.rows, apart = index_t(gridDim.y) * b.rows;
  const bool once = begin + apart >= every.at.rows, stays = gridDim.x == 1 && once;
  const bool packed = Cell::keeps ? in_packs(walk.gate_deltas[0], cols, cols) &&
                                        in_packs(walk.gate_deltas[1], cols, cols)
                                  : in_packs(every.a, every.a_row, cols);
  copy_all<T, 8>(
      held.wide, cols,
      [&](int u, int p) {
        return u < b.units && unit0 + u < units ? every.weights[(unit0 + u) * cols + p] : T(0);
      },
      [&](int u, int p, T x) { held.weights[p * held.wide + u] = x; });
  copy_all<T, 1>(
      b.rows, held.pitch, [](int, int) { return T(0); },
      [&](int r, int p, T x) { held.in[r * held.pitch + p] = x; });
  Cells<T, CellBackward<T, Cell>> cells(every, b, held.parts);
  const auto count_from = [&](index_t row0) {
    const index_t left = every.at.rows - row0;
    return left < b.rows ? int(left) : b.rows;
  };
  // Where the gates' gradients of the step behind are fetched from.
  const auto point = [&](const ScanStep<T>& s, index_t row0) {
    held.point(count_from(row0), [&](int r) {
      if (Cell::keeps) return s.dr_behind + (row0 + r) * cols;
      const index_t behind = SequenceRows::row_of(held.parts[r], row0 + r, s.behind, s.at.steps);
      return static_cast<const T*>(s.a + behind * s.a_row);
    });
  };
  FBP_UNROLL(1)
  for (index_t i = walk.steps() - 1; i >= 0; --i) {
    const ScanStep<T> s = walk.backward(i);
    FBP_UNROLL(1)
    for (index_t row0 = begin; row0 < s.at.rows; row0 += apart) {
      if (!once || s.begins) {
        __syncthreads();
        held.locate(s.at, row0);
        __syncthreads();
        point(s, row0);
        cells.load(s, cells.first, row0);
        __syncthreads();
      }
      if (s.comes_through()) {
        if (!stays) held.fetch(count_from(row0), packed);
        __syncthreads();
        held.multiply(b.columns, false);
        __syncthreads();
      }
      cells.go(s, row0, [&](auto& cell, const ScanPlace<T>& place, int r, int u) {
        const Lane<T> through = s.comes_through() ? held.sum(r, u) : Lane<T>(T(0));
        cell.finish(s, place, unit0 + u, through);
        if (!stays) return;
        FBP_UNROLL(4)
        for (int g = 0; g < gates; ++g) cell.dr(g).store(held.in + r * held.pitch + g * units + u);
      });
    }
    if (once && i > 0) {
      const ScanStep<T> next = walk.backward(i - 1);
      point(next, begin);
      cells.load(next, cells.first, begin);
    }
    meet();
  }
}

template <class T> using WalkKernel = void (*)(ScanWalk<T>, ScanBlocks);
#define FBP_KERNEL(C) walk_forward_kernel<T, C>,
template <class T> constexpr WalkKernel<T> walks_forward[] = {FBP_CELLS(FBP_KERNEL)};
#undef FBP_KERNEL
#define FBP_KERNEL(C) walk_backward_kernel<T, C>,
template <class T> constexpr WalkKernel<T> walks_backward[] = {FBP_CELLS(FBP_KERNEL)};
#undef FBP_KERNEL

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
  return launch_walk<T>(walks_forward<T>[cell], walk, blocks, stream);
}

template <class T>
cudaError_t walk_backward(int cell, const ScanWalk<T>& walk, const ScanBlocks& blocks,
                          cudaStream_t stream) {
  return launch_walk<T>(walks_backward<T>[cell], walk, blocks, stream);
}

template <class T> cudaError_t let_walk(int cell, int shared_bytes) {
  for (const WalkKernel<T> kernel : {walks_forward<T>[cell], walks_backward<T>[cell]}) {
    const cudaError_t error =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

#define FBP_INSTANTIATE(T)                                                                         \
  template cudaError_t walk_forward(int, const ScanWalk<T>&, const ScanBlocks&, cudaStream_t);     \
  template cudaError_t walk_backward(int, const ScanWalk<T>&, const ScanBlocks&, cudaStream_t);    \
  template cudaError_t let_walk<T>(int, int);
FBP_INSTANTIATE(float)
FBP_INSTANTIATE(double)
#undef FBP_INSTANTIATE

}  // namespace cuda
}  // namespace fastbp
