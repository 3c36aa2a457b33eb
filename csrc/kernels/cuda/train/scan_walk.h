// The walk of a recurrent cell over all steps by one kernel, which keeps the recurrent weights in
// shared memory.
#pragma once

#include "kernels/cuda/train/scan.h"
#include "kernels/kernel_table.h"

namespace fastbp {
namespace cuda {

// How a walk is shared out: a block has the weights of so many units, and takes so many sequences
// together, an even number. With more than one slice of the units all blocks are on the device at
// once, and meet behind every step.
struct ScanBlocks {
  int units = 0, rows = 0;
  int slices = 0, groups = 0;  // the grid
  int columns = 0;             // of a thread's sums, of 2 sequences each: 1, 2 or 4
  int shared_bytes = 0;
};
inline constexpr int kWalkThreads = 256;
inline constexpr int kMostWalkRows = 16;

// The product of a step in a block, (rows, k) times (k, cols), summed in chunks along k.
struct WalkProduct {
  int k, cols, rows, chunk;

  // Forward h U, with the bias; back dr U^T.
  FBP_FN static WalkProduct forward(int gates, int all_units, const ScanBlocks& b) {
    return {all_units, gates * b.units, b.rows, int(k_chunk(all_units))};
  }
  FBP_FN static WalkProduct backward(int gates, int all_units, const ScanBlocks& b) {
    return {gates * all_units, b.units, b.rows, int(k_chunk(gates * all_units))};
  }
  FBP_FN int chunks() const { return (k + chunk - 1) / chunk; }
  // Columns in shared memory, whole quads.
  FBP_FN int wide() const { return (cols + 3) / 4 * 4; }
  // From a row of the left side to the next: the same quad of 8 rows is in different banks.
  FBP_FN int pitch() const { return (k + 31) / 32 * 32 + 4; }
  // In shared memory, in this order, behind the rows' parts: the left side, the sums of the chunks, the
  // weights and the biases below them.
  FBP_FN index_t in_values() const { return index_t(pitch()) * rows; }
  FBP_FN index_t out_values() const { return index_t(chunks()) * rows * wide(); }
  FBP_FN index_t values() const { return in_values() + out_values() + (index_t(k) + 1) * wide(); }
  FBP_FN static index_t parts_bytes() {
    return kMostWalkRows * (sizeof(SequenceRows::Part) + sizeof(void*));
  }
  FBP_FN index_t bytes(index_t element_size) const {
    return parts_bytes() + (values() * element_size + 15) / 16 * 16;
  }
};

// cell: of FBP_CELLS.
template <class T>
cudaError_t walk_forward(int cell, const ScanWalk<T>& walk, const ScanBlocks& blocks,
                         cudaStream_t stream);
template <class T>
cudaError_t walk_backward(int cell, const ScanWalk<T>& walk, const ScanBlocks& blocks,
                          cudaStream_t stream);
// Lets the running device's kernels of the cell have so much shared memory.
template <class T> cudaError_t let_walk(int cell, int shared_bytes);

}  // namespace cuda
}  // namespace fastbp
