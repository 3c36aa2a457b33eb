// All steps of one way of a recurrent layer by one kernel (scan_walk.h).
//
//   each block loads its units' weights into shared memory, and for each step, for its sequences:
//     the states before the step, or on the way back the gates' gradients of the step behind
//     their product with the weights, in shared memory
//     the cell
//   and all blocks that work on the same sequences meet
//
// A thread adds up 4 sequences of one column, so that it reads each weight once for 4 multiply-adds,
// in order along k in the CPU's chunks; the chunks of a sum are different threads'. The arithmetic is in
// docs/cuda.md.
#include "kernels/cuda/train/scan_walk.h"

#include "kernels/cuda/gemm.cuh"
#include "kernels/cuda/train/scan_cell.cuh"

namespace fastbp {
namespace cuda {
namespace {

constexpr int kWalkThreads = 256;

// A block's shared memory.
template <class T> struct Held {
  WalkProduct is;
  int quads;
  Quad<T>* in;   // [k][quads]
  Quad<T>* out;  // [chunk][quads][cols]
  T* weights;    // [k][cols], and biases

  FBP_FN Held(const WalkProduct& product, T* shared)
      : is(product), quads(product.rows / 4), in(reinterpret_cast<Quad<T>*>(shared)),
        out(reinterpret_cast<Quad<T>*>(shared + product.in_values())),
        weights(shared + product.in_values() + product.out_values()) {}

  // in = source(row, p), 0 beyond `count` rows.
  template <class Source> FBP_DEVICE void fetch(index_t count, const Source& source) const {
    FBP_UNROLL(1)
    for (int e = threadIdx.x; e < is.rows * is.k; e += kWalkThreads) {
      const int r = e / is.k, p = e % is.k;
      in[p * quads + r / 4].v[r % 4] = r < count ? source(r, p) : T(0);
    }
  }

  // out = in times weights, of each chunk; from the biases on where there are any.
  FBP_DEVICE void multiply(bool biased) const {
    FBP_UNROLL(1)
    for (int task = threadIdx.x; task < is.chunks() * quads * is.cols; task += kWalkThreads) {
      const int col = task % is.cols, quad = task / is.cols % quads;
      const int begin = task / (is.cols * quads) * is.chunk;
      const int end = is.k - begin < is.chunk ? is.k : begin + is.chunk;
      const Lane<T> start(biased && begin == 0 ? weights[is.k * is.cols + col] : T(0));
      Lane<T> sum[4] = {start, start, start, start};
      FBP_UNROLL(4)
      for (int p = begin; p < end; ++p) {
        const Lane<T> weight(weights[p * is.cols + col]);
        const Quad<T> left = in[p * quads + quad];
        for (int e = 0; e < 4; ++e) sum[e] = fma(Lane<T>(left.v[e]), weight, sum[e]);
      }
      Quad<T> sums;
      for (int e = 0; e < 4; ++e) sums.v[e] = sum[e].v;
      out[task] = sums;
    }
  }

  FBP_FN Lane<T> sum(int r, int col) const {
    const Quad<T>* from = out + r / 4 * is.cols + col;
    Lane<T> total(from->v[r % 4]);
    FBP_UNROLL(1)
    for (int c = 1; c < is.chunks(); ++c) {
      from += quads * is.cols;
      total = total + Lane<T>(from->v[r % 4]);
    }
    return total;
  }
};

// body(row of the group, unit of the block) for those that there are, units along the threads.
template <class T, class Body>
FBP_DEVICE void for_cells(const ScanStep<T>& s, const ScanBlocks& b, index_t row0, Body body) {
  const index_t unit0 = index_t(blockIdx.x) * b.units;
  FBP_UNROLL(1)
  for (int e = threadIdx.x; e < b.rows * b.units; e += kWalkThreads) {
    const int r = e / b.units, u = e % b.units;
    if (row0 + r < s.at.rows && unit0 + u < s.units) body(r, u);
  }
}

template <class T, class Cell>
__global__ void __launch_bounds__(kWalkThreads, 1)
    walk_forward_kernel(ScanWalk<T> walk, ScanBlocks b) {
  FBP_SHARED(T, shared);
  constexpr int gates = Cell::gates;
  const int units = int(walk.every.units), unit0 = int(blockIdx.x) * b.units;
  const Held<T> held(WalkProduct::forward(gates, units, b), shared);
  const bool biased = walk.every.bias != nullptr;
  FBP_UNROLL(1)
  for (int e = threadIdx.x; e < (units + biased) * held.is.cols; e += kWalkThreads) {
    const int p = e / held.is.cols, g = e % held.is.cols / b.units, j = unit0 + e % b.units;
    held.weights[e] = j < units ? walk.every.weights[(p * gates + g) * units + j] : T(0);
  }
  FBP_UNROLL(1)
  for (index_t i = 0; i < walk.steps(); ++i) {
    const ScanStep<T> s = walk.forward(i);
    const SequenceRows states{s.at.rows, s.at.chunk, s.at.steps + 1};
    FBP_UNROLL(1)
    for (index_t row0 = index_t(blockIdx.y) * b.rows; row0 < s.at.rows;
         row0 += index_t(gridDim.y) * b.rows) {
      held.fetch(s.at.rows - row0, [&](int r, int p) {
        const index_t row = row0 + r;
        const T h = s.h[states.of(row, s.before) * s.h_row + p];
        if (!s.masked) return h;
        const Lane<T> masked = Lane<T>(h) * state_factor(s, row, p);
        if (p >= unit0 && p < unit0 + b.units)
          masked.store(s.masked + s.at.of(row, s.step) * s.masked_row + p);
        return masked.v;
      });
      __syncthreads();
      held.multiply(biased);
      __syncthreads();
      for_cells(s, b, row0, [&](int r, int u) {
        Lane<T> sums[gates];
        for (int g = 0; g < gates; ++g) sums[g] = held.sum(r, g * b.units + u);
        cell_forward<T, Cell>(s, row0 + r, unit0 + u, sums);
      });
    }
    meet();
  }
}

template <class T, class Cell>
__global__ void __launch_bounds__(kWalkThreads, 1)
    walk_backward_kernel(ScanWalk<T> walk, ScanBlocks b) {
  FBP_SHARED(T, shared);
  const int units = int(walk.every.units), unit0 = int(blockIdx.x) * b.units;
  const Held<T> held(WalkProduct::backward(Cell::gates, units, b), shared);
  const int cols = held.is.k;
  FBP_UNROLL(1)
  for (int e = threadIdx.x; e < cols * b.units; e += kWalkThreads) {
    const int u = e / cols, p = e % cols;
    held.weights[p * b.units + u] =
        unit0 + u < units ? walk.every.weights[(unit0 + u) * cols + p] : T(0);
  }
  FBP_UNROLL(1)
  for (index_t i = walk.steps() - 1; i >= 0; --i) {
    const ScanStep<T> s = walk.backward(i);
    FBP_UNROLL(1)
    for (index_t row0 = index_t(blockIdx.y) * b.rows; row0 < s.at.rows;
         row0 += index_t(gridDim.y) * b.rows) {
      if (s.comes_through()) {
        held.fetch(s.at.rows - row0, [&](int r, int p) {
          const index_t row = row0 + r;
          return Cell::keeps ? s.dr_behind[row * cols + p]
                             : s.a[s.at.of(row, s.behind) * s.a_row + p];
        });
        __syncthreads();
        held.multiply(false);
        __syncthreads();
      }
      for_cells(s, b, row0, [&](int r, int u) {
        const Lane<T> through = s.comes_through() ? held.sum(r, u) : Lane<T>(T(0));
        cell_backward<T, Cell>(s, row0 + r, unit0 + u, through);
      });
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
