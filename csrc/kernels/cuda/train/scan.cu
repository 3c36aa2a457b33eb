// A step of a recurrent cell: the product of the states with the recurrent weights, or on the way back
// of the gates' gradients with their transpose, and the cell, in one kernel. A thread has all gates of
// one unit of some sequences; it sums along k as the CPU does, by FMA in order in chunks.
#include "kernels/cuda/train/scan.h"

#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/train/lengths.h"
#include "kernels/cuda/train/scan_cell.cuh"
#include "kernels/cuda/train/scan_rounding.cuh"
#include "kernels/kernel_table.h"

namespace fastbp {
namespace cuda {
namespace {

// 16 units by 16 sequences in a block, a sequence to a thread: small, as steps have few rows and wait for
// each other.
constexpr int kScanUnits = 16, kScanRows = 16;
constexpr int kScanThreads = kScanUnits * kScanRows;
constexpr int kScanDepth = 16;              // of a slab, along k
constexpr int kScanPitch = kScanDepth + 1;  // of a slab whose rows run along k: a bank further each

// The unit and the sequence of a thread; the first of its block's.
struct ScanThread {
  int column, side;
  index_t unit0, row0, unit, row;
  FBP_FN ScanThread()
      : column(int(threadIdx.x) % kScanUnits), side(int(threadIdx.x) / kScanUnits),
        unit0(index_t(blockIdx.x) * kScanUnits), row0(index_t(blockIdx.y) * kScanRows),
        unit(unit0 + column), row(row0 + side) {}
};

template <class T> __global__ void __launch_bounds__(kElementThreads) mask_kernel(ScanStep<T> s) {
  const SequenceRows states{s.at.rows, s.at.chunk, s.at.steps + 1};
  for_each_element(s.at.rows, s.units, [&](index_t i, index_t j) {
    const Lane<T> h(s.h[states.of(i, s.before) * s.h_row + j]);
    (h * state_factor(s, i, j)).store(s.masked + s.at.of(i, s.step) * s.masked_row + j);
  });
}

// slab[i][p] = source(i, p) of 16 rows, p < depth; 0 beyond `count` rows.
template <class T, class Source>
FBP_FN void fetch_rows(T* slab, index_t count, int depth, const Source& source) {
  static_assert(kScanRows * kScanDepth == kScanThreads && kScanUnits == kScanRows,
                "one value each");
  const int i = int(threadIdx.x) / kScanDepth, p = int(threadIdx.x) % kScanDepth;
  if (p < depth) slab[i * kScanPitch + p] = i < count ? source(i, p) : T(0);
}

// r[g] = bias + sum over k of h[i, k] U[k, g units + j].
template <class T, int gates, bool rounded>
FBP_DEVICE void state_product(const ScanStep<T>& s, const ScanThread& me, T* shared,
                              Lane<T> (&r)[gates]) {
  const index_t cols = gates * s.units, chunk = k_chunk(s.units);
  const SequenceRows states{s.at.rows, s.at.chunk, s.at.steps + 1};
  T* const h = shared;
  T* const u = shared + kScanRows * kScanPitch;
  Lane<T> sum[gates];
  FBP_UNROLL(1)
  for (index_t begin = 0; begin < s.units; begin += chunk) {
    const index_t end = s.units - begin < chunk ? s.units : begin + chunk;
    const bool biased = begin == 0 && s.bias && me.unit < s.units;
    for (int g = 0; g < gates; ++g) sum[g] = Lane<T>(biased ? s.bias[g * s.units + me.unit] : T(0));
    FBP_UNROLL(1)
    for (index_t p = begin; p < end; p += kScanDepth) {
      const int depth = end - p < kScanDepth ? int(end - p) : kScanDepth;
      fetch_rows(h, s.at.rows - me.row0, depth, [&](int i, int k) {
        const index_t row = me.row0 + i;
        return operand<rounded>(s.rounding,
                                s.masked ? s.masked[s.at.of(row, s.step) * s.masked_row + p + k]
                                         : s.h[states.of(row, s.before) * s.h_row + p + k]);
      });
      FBP_UNROLL(1)
      for (int e = threadIdx.x; e < depth * gates * kScanUnits; e += kScanThreads) {
        const int k = e / (gates * kScanUnits), g = e / kScanUnits % gates;
        const index_t j = me.unit0 + e % kScanUnits;
        u[e] = j < s.units
                   ? operand<rounded>(s.rounding, s.weights[(p + k) * cols + g * s.units + j])
                   : T(0);
      }
      __syncthreads();
      FBP_UNROLL(1)
      for (int k = 0; k < depth; ++k) {
        const Lane<T> state(h[me.side * kScanPitch + k]);
        for (int g = 0; g < gates; ++g)
          sum[g] = fma(state, Lane<T>(u[(k * gates + g) * kScanUnits + me.column]), sum[g]);
      }
      __syncthreads();
    }
    for (int g = 0; g < gates; ++g) r[g] = begin == 0 ? sum[g] : r[g] + sum[g];
  }
}

template <class T, class Cell, bool rounded>
__global__ void __launch_bounds__(kScanThreads) scan_forward_kernel(ScanStep<T> s) {
  FBP_SHARED(T, shared);
  const ScanThread me;
  Lane<T> r[Cell::gates] = {};
  state_product<T, Cell::gates, rounded>(s, me, shared, r);
  if (me.unit >= s.units || me.row >= s.at.rows) return;
  const ScanPlace<T> place(s, me.row, s.at.part(me.row));
  CellForward<T, Cell> cell;
  cell.load(s, place, me.unit);
  cell.finish(s, place, me.unit, r);
}

// The sum over k of dr[i, k] U[j, k].
template <class T, class Cell, bool rounded>
FBP_DEVICE Lane<T> gate_product(const ScanStep<T>& s, const ScanThread& me, T* shared) {
  const index_t cols = Cell::gates * s.units, chunk = k_chunk(cols);
  T* const dr = shared;
  T* const u = shared + kScanRows * kScanPitch;
  Lane<T> total(T(0));
  FBP_UNROLL(1)
  for (index_t begin = 0; begin < cols; begin += chunk) {
    const index_t end = cols - begin < chunk ? cols : begin + chunk;
    Lane<T> sum(T(0));
    FBP_UNROLL(1)
    for (index_t p = begin; p < end; p += kScanDepth) {
      const int depth = end - p < kScanDepth ? int(end - p) : kScanDepth;
      fetch_rows(dr, s.at.rows - me.row0, depth, [&](int i, int k) {
        const index_t row = me.row0 + i;
        return operand<rounded>(s.rounding, Cell::keeps
                                                ? s.dr_behind[row * cols + p + k]
                                                : s.a[s.at.of(row, s.behind) * s.a_row + p + k]);
      });
      fetch_rows(u, s.units - me.unit0, depth, [&](int j, int k) {
        return operand<rounded>(s.rounding, s.weights[(me.unit0 + j) * cols + p + k]);
      });
      __syncthreads();
      FBP_UNROLL(1)
      for (int k = 0; k < depth; ++k)
        sum =
            fma(Lane<T>(dr[me.side * kScanPitch + k]), Lane<T>(u[me.column * kScanPitch + k]), sum);
      __syncthreads();
    }
    total = begin == 0 ? sum : total + sum;
  }
  return total;
}

template <class T, class Cell, bool rounded>
__global__ void __launch_bounds__(kScanThreads) scan_backward_kernel(ScanStep<T> s) {
  FBP_SHARED(T, shared);
  const ScanThread me;
  const bool mine = me.unit < s.units && me.row < s.at.rows;
  const index_t row = mine ? me.row : 0;
  const ScanPlace<T> place(s, row, s.at.part(row));
  CellBackward<T, Cell> cell;
  if (mine) cell.load(s, place, me.unit);
  Lane<T> through(T(0));
  if (s.comes_through()) through = gate_product<T, Cell, rounded>(s, me, shared);
  if (mine) cell.finish(s, place, me.unit, through);
}

template <class T>
__global__ void __launch_bounds__(kElementThreads)
    begin_states_kernel(T* x, index_t x_row, SequenceRows at, index_t block, index_t cols,
                        const T* states, index_t states_row) {
  const SequenceRows places{at.rows, at.chunk, at.steps + 1};
  for_each_element(at.rows, cols, [&](index_t i, index_t j) {
    x[places.of(i, block) * x_row + j] = states ? states[i * states_row + j] : T(0);
  });
}

template <class T>
__global__ void __launch_bounds__(kElementThreads)
    keep_states_kernel(const T* x, index_t x_row, SequenceRows at, index_t block, index_t cols,
                       T* states, index_t states_row) {
  const SequenceRows places{at.rows, at.chunk, at.steps + 1};
  for_each_element(at.rows, cols, [&](index_t i, index_t j) {
    states[i * states_row + j] = x[places.of(i, block) * x_row + j];
  });
}

template <class T>
__global__ void __launch_bounds__(kElementThreads) gather_sequences_kernel(SequenceGather<T> g) {
  const index_t first = g.counter ? g.counter->first_row + g.counter->batch * g.rows_per_batch : 0;
  for_each_element(g.at.all(), g.inputs, [&](index_t row, index_t j) {
    index_t i, t;
    g.at.find(row, &i, &t);
    const index_t from = g.order ? index_t(g.order[first + i]) : first + i;
    const index_t length = g.lengths ? index_t(g.lengths[from]) : g.at.steps;
    g.x_out[row * g.x_row + j] = t < length ? g.x[(from * g.at.steps + t) * g.inputs + j] : T(0);
    if (t == 0 && j == 0) g.lengths_out[i] = length;
  });
}

template <class T>
__global__ void __launch_bounds__(kElementThreads) gather_targets_kernel(SequenceGather<T> g) {
  const index_t first = g.counter ? g.counter->first_row + g.counter->batch * g.rows_per_batch : 0;
  const index_t width = g.target ? g.outputs : 0, labels_at = width + (g.labels ? 1 : 0);
  for_each_element(g.out_at.all(), labels_at + (g.weight ? g.weight_copies : 0),
                   [&](index_t row, index_t j) {
                     index_t i, t;
                     g.out_at.find(row, &i, &t);
                     const index_t from = g.order ? index_t(g.order[first + i]) : first + i;
                     const index_t place = from * g.out_at.steps + t;
                     if (g.closes) {
                       if (t >= index_t(g.lengths_out[i])) return;
                       row = closed_row(g.out_at, g.lengths_out, i, t);
                     }
                     if (j < width)
                       g.target_out[row * width + j] = g.target[place * width + j];
                     else if (j < labels_at)
                       g.labels_out[row] = g.labels[place];
                     else
                       g.weight_out[row * g.weight_copies + j - labels_at] = g.weight[place];
                   });
}

template <class T>
__global__ void __launch_bounds__(kElementThreads)
    by_sequences_kernel(const T* x, index_t x_row, SequenceRows at, index_t cols, T* out) {
  for_each_element(at.all(), cols, [&](index_t row, index_t j) {
    index_t i, t;
    at.find(row, &i, &t);
    out[(i * at.steps + t) * cols + j] = x[row * x_row + j];
  });
}

template <class T> using ScanKernel = void (*)(ScanStep<T>);
#define FBP_KERNEL(C) scan_forward_kernel<T, C, rounded>,
template <class T, bool rounded> constexpr ScanKernel<T> scans_forward[] = {FBP_CELLS(FBP_KERNEL)};
#undef FBP_KERNEL
#define FBP_KERNEL(C) scan_backward_kernel<T, C, rounded>,
template <class T, bool rounded> constexpr ScanKernel<T> scans_backward[] = {FBP_CELLS(FBP_KERNEL)};
#undef FBP_KERNEL

template <class T> ScanKernel<T> forward_of(int cell, Rounding rounding) {
  if constexpr (std::is_same<T, float>::value)
    if (rounding != Rounding::none) return scans_forward<T, true>[cell];
  return scans_forward<T, false>[cell];
}
template <class T> ScanKernel<T> backward_of(int cell, Rounding rounding) {
  if constexpr (std::is_same<T, float>::value)
    if (rounding != Rounding::none) return scans_backward<T, true>[cell];
  return scans_backward<T, false>[cell];
}

template <class T> dim3 scan_grid(const ScanStep<T>& s) {
  return dim3(unsigned(ceil_div(s.units, kScanUnits)), unsigned(ceil_div(s.at.rows, kScanRows)));
}

}  // namespace

template <class T>
cudaError_t scan_forward(int cell, const ScanStep<T>& step, cudaStream_t stream) {
  if (step.masked) {
    const ElementGrid shape(step.at.rows, step.units);
    FBP_LAUNCH(mask_kernel<T>, shape.grid, shape.block, 0, stream)(step);
  }
  const int values = kScanRows * kScanPitch + kScanDepth * cell_info(cell).gates * kScanUnits;
  const ScanKernel<T> scan_kernel = forward_of<T>(cell, step.rounding);
  FBP_LAUNCH(scan_kernel, scan_grid(step), dim3(kScanThreads), values * sizeof(T), stream)(step);
  return cudaGetLastError();
}

template <class T>
cudaError_t scan_backward(int cell, const ScanStep<T>& step, cudaStream_t stream) {
  const int values = (kScanRows + kScanUnits) * kScanPitch;
  const ScanKernel<T> scan_kernel = backward_of<T>(cell, step.rounding);
  FBP_LAUNCH(scan_kernel, scan_grid(step), dim3(kScanThreads), values * sizeof(T), stream)(step);
  return cudaGetLastError();
}

template <class T>
cudaError_t begin_states(T* x, index_t x_row, const SequenceRows& at, index_t block, index_t cols,
                         const T* states, index_t states_row, cudaStream_t stream) {
  const ElementGrid shape(at.rows, cols);
  FBP_LAUNCH(begin_states_kernel<T>, shape.grid, shape.block, 0, stream)
  (x, x_row, at, block, cols, states, states_row);
  return cudaGetLastError();
}

template <class T>
cudaError_t keep_states(const T* x, index_t x_row, const SequenceRows& at, index_t block,
                        index_t cols, T* states, index_t states_row, cudaStream_t stream) {
  const ElementGrid shape(at.rows, cols);
  FBP_LAUNCH(keep_states_kernel<T>, shape.grid, shape.block, 0, stream)
  (x, x_row, at, block, cols, states, states_row);
  return cudaGetLastError();
}

template <class T>
cudaError_t gather_sequences(const SequenceGather<T>& args, cudaStream_t stream) {
  const ElementGrid inputs(args.at.all(), args.inputs);
  FBP_LAUNCH(gather_sequences_kernel<T>, inputs.grid, inputs.block, 0, stream)(args);
  if (!args.target && !args.labels) return cudaGetLastError();
  const ElementGrid targets(args.out_at.all(), (args.target ? args.outputs : 1) +
                                                   (args.weight ? args.weight_copies : 0));
  FBP_LAUNCH(gather_targets_kernel<T>, targets.grid, targets.block, 0, stream)(args);
  return cudaGetLastError();
}

template <class T>
cudaError_t by_sequences(const T* x, index_t x_row, const SequenceRows& at, index_t cols, T* out,
                         cudaStream_t stream) {
  const ElementGrid shape(at.all(), cols);
  FBP_LAUNCH(by_sequences_kernel<T>, shape.grid, shape.block, 0, stream)(x, x_row, at, cols, out);
  return cudaGetLastError();
}

#define FBP_INSTANTIATE(T)                                                                         \
  template cudaError_t scan_forward(int, const ScanStep<T>&, cudaStream_t);                        \
  template cudaError_t scan_backward(int, const ScanStep<T>&, cudaStream_t);                       \
  template cudaError_t begin_states(T*, index_t, const SequenceRows&, index_t, index_t, const T*,  \
                                    index_t, cudaStream_t);                                        \
  template cudaError_t keep_states(const T*, index_t, const SequenceRows&, index_t, index_t, T*,   \
                                   index_t, cudaStream_t);                                         \
  template cudaError_t gather_sequences(const SequenceGather<T>&, cudaStream_t);                   \
  template cudaError_t by_sequences(const T*, index_t, const SequenceRows&, index_t, T*,           \
                                    cudaStream_t);
FBP_INSTANTIATE(float)
FBP_INSTANTIATE(double)
#undef FBP_INSTANTIATE

}  // namespace cuda
}  // namespace fastbp
