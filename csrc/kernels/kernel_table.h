// The seam: what a device offers the engine, for one dtype. Filled once per ISA (cpu/table.inl);
// above it nothing knows which one runs. Contracts of the entries: args.h and docs/architecture.md.
#pragma once

#include "core/random.h"
#include "kernels/args.h"
#include "kernels/integer_rows.h"
#include "kernels/small_network.h"
#include "ops/activations.h"
#include "ops/losses.h"
#include "ops/optimizers.h"
#include "ops/recurrent.h"
#include "ops/vector_functions.h"

namespace fastbp {

// Length of the pieces in which a GEMM sums over k: as few as possible of at most 256, as equal as
// multiples of 16 allow. 256 x 64 floats are 64 KiB of B panel; the error of an in-order float sum
// grows with the root of its length; and the rows of a large batch are shared out among the threads
// by whole chunks (Step). Part of the numerics promise: a function of k alone.
inline constexpr index_t kMaxChunk = 256;
// k in `chunks` pieces.
FBP_FN index_t equal_chunk(index_t k, index_t chunks) {
  return parts_of(parts_of(k, chunks), 16) * 16;
}
FBP_FN index_t k_chunk(index_t k) {
  if (k <= kMaxChunk) return k > 0 ? k : 1;
  return equal_chunk(k, parts_of(k, kMaxChunk));
}

template <class T> struct KernelTable {
  const char* isa;
  index_t gemm_scratch;  // elements of GemmArgs::scratch that each worker needs
  index_t gemm_panel;    // columns of the panels in which gemm reads B

  void (*gemm)(const GemmArgs<T>&, Share);
  // Tile operations: usable as a GEMM's epilogue, or on a whole matrix as one tile.
  TileOp<T> activation_forward[kActivationCount];   // out = f(c)
  TileOp<T> activation_backward[kActivationCount];  // out = c * f'(saved)
  TileOp<T> add_saved;                              // out = c + saved
  TileOp<T> update[kOptimizerCount];                // w, slots updated by the gradient c
  void (*loss[kLossCount])(const LossArgs<T>&, Share);
  void (*metric)(const MetricArgs<T>&, Share);
  // y = softmax(x) along contiguous rows; in place allowed.
  void (*softmax)(const T* x, T* y, index_t rows, index_t cols, Share);
  // out[j] = sum over rows of x[i, j], in the order of a GEMM's sum over k.
  void (*column_sum)(const T* x, index_t x_row, index_t rows, index_t cols, T* out, Share);
  // total[j] = x[0, j] + x[1, j] + ..., in order; with `onward`, total[j] + x[0, j] + ...
  void (*add_rows)(const T* x, index_t x_row, index_t rows, index_t cols, T* total, bool onward);
  void (*gather_rows)(const GatherArgs<T>&);
  void (*gather_integers)(const IntegerGatherArgs<T>&);
  // A batch of a small network, by one worker: every y of some stages, and whatever backward reads;
  // from dz of the last stage the others, and the flat gradient, summed over `chunk` rows at a time. No
  // layer may be wider than kMaxChunk.
  void (*small_forward)(const SmallNetwork<T>&, index_t rows, Range stages);
  void (*small_backward)(const SmallNetwork<T>&, index_t rows, index_t chunk, T* gradient);
  void (*dropout)(const DropoutArgs<T>&);
  RandomBatch random_batch;                     // core/random.h
  void (*softmax_forward)(const NormArgs<T>&);  // of which x, d and y count
  void (*softmax_backward)(const NormArgs<T>&);
  // Normalisation, see norm.inl. `block`, `blocks`: of each block of rows two rows of cols values.
  void (*normalize)(const NormArgs<T>&);
  void (*layer_norm_forward)(const NormArgs<T>&);
  void (*layer_norm_backward)(const NormArgs<T>&);
  void (*layer_norm_gradient)(const NormArgs<T>&, Range columns, index_t chunk, T* dgamma,
                              T* dbeta);
  void (*batch_norm_block)(const NormArgs<T>&, T* block);
  void (*batch_norm_combine)(const T* blocks, index_t cols, index_t rows, index_t block_rows,
                             T* mean, T* variance);
  void (*batch_norm_forward)(const NormArgs<T>&);
  void (*batch_norm_sums)(const NormArgs<T>&, T* block);
  void (*batch_norm_backward)(const NormArgs<T>&);
  void (*batch_norm_gradient)(const NormArgs<T>&, Range columns, T* dgamma, T* dbeta);
  void (*batch_norm_moving)(const NormArgs<T>&, T momentum, T* mean, T* variance);
  // Of a gradient between backward pass and update (gradient.inl).
  double (*square_sum)(const T* x, index_t n);
  void (*limit)(T* x, index_t n, T scale, T bound);
  double (*penalty)(const T* w, T* g, index_t n, T l1, T l2);
  void (*blend)(const T* w, T* average, index_t n, T momentum);
  void (*limit_columns)(T* w, index_t w_row, index_t rows, index_t cols, T limit);
  void (*vector_function[kVectorFunctionCount])(const T* x, T* y, index_t n, Share);
  // One step of a recurrent cell, for the rows given.
  void (*cell_forward[kCellCount])(const CellArgs<T>&);
  void (*cell_backward[kCellCount])(const CellArgs<T>&);
  // Index of the first NaN or infinity, -1 if there is none.
  index_t (*first_non_finite)(const T* x, index_t n);
  // Runs about `flop` floating-point operations of independent FMAs in registers: the machine's
  // peak. Returns the count.
  double (*fma_probe)(double flop);
};

}  // namespace fastbp
