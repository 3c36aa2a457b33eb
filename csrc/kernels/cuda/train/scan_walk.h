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
// Of a matrix for tensor cores: values along k and columns that a warp multiplies at once. Of the
// columns, and of the sequences, the second eight may be missing.
inline constexpr int kWalkFragment = 16;

// How the operands of a walk's products lie in shared memory: as they are, or rounded for tensor cores, to
// 16 bits or to float32's with zeros at their end.
enum class WalkOperands { exact, half, tf32 };
FBP_FN constexpr WalkOperands operands_of(Rounding rounding) {
  return rounding == Rounding::none   ? WalkOperands::exact
         : rounding == Rounding::tf32 ? WalkOperands::tf32
                                      : WalkOperands::half;
}

// The product of a step in a block, (rows, k) times (k, cols), summed in chunks along k: so that sums do
// not depend on how a walk is shared out.
struct WalkProduct {
  int k, cols, rows, chunk;
  WalkOperands operands;

  // Forward h U, with the bias; back dr U^T.
  FBP_FN static WalkProduct forward(int gates, int all_units, const ScanBlocks& b,
                                    WalkOperands operands) {
    return {all_units, gates * b.units, b.rows, int(k_chunk(all_units)), operands};
  }
  FBP_FN static WalkProduct backward(int gates, int all_units, const ScanBlocks& b,
                                     WalkOperands operands) {
    return {gates * all_units, b.units, b.rows, int(k_chunk(gates * all_units)), operands};
  }
  FBP_FN bool rounded() const { return operands != WalkOperands::exact; }
  FBP_FN int chunks() const { return (k + chunk - 1) / chunk; }
  // Columns in shared memory: whole quads, or halves of fragments.
  FBP_FN int wide() const {
    const int whole = rounded() ? kWalkFragment / 2 : 4;
    return (cols + whole - 1) / whole * whole;
  }
  // Rows of the left side, and k, with zeros behind what there is.
  FBP_FN int rows_held() const {
    if (!rounded()) return rows;
    return rows > kWalkFragment / 2 ? kWalkFragment : kWalkFragment / 2;
  }
  FBP_FN int k_held() const {
    return rounded() ? (k + kWalkFragment - 1) / kWalkFragment * kWalkFragment : k;
  }
  // From a row of the left side to the next: the same quad of 8 rows is in different banks.
  FBP_FN int pitch() const {
    return rounded() ? k_held() + (operands == WalkOperands::half ? 8 : 4) : (k + 31) / 32 * 32 + 4;
  }
  // And of the weights: for fragments eight values of k are, at an odd number of eights.
  FBP_FN int weights_row() const { return rounded() && wide() % 16 == 0 ? wide() + 8 : wide(); }
  // In shared memory, in this order, behind the rows' parts: the left side, the sums of the chunks, the
  // weights and their biases. size: of T; operands may have another.
  FBP_FN index_t operand_size(index_t size) const {
    return operands == WalkOperands::half ? 2 : size;
  }
  FBP_FN index_t in_bytes(index_t size) const {
    return index_t(pitch()) * rows_held() * operand_size(size);
  }
  FBP_FN index_t out_bytes(index_t size) const { return index_t(chunks()) * rows * wide() * size; }
  FBP_FN index_t weights_bytes(index_t size) const {
    return index_t(k_held()) * weights_row() * operand_size(size);
  }
  FBP_FN static index_t parts_bytes() {
    return kMostWalkRows * (sizeof(SequenceRows::Part) + sizeof(void*));
  }
  FBP_FN index_t bytes(index_t size) const {
    return parts_bytes() + in_bytes(size) + out_bytes(size) + weights_bytes(size) +
           (wide() * size + 15) / 16 * 16;
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
template <class T> cudaError_t let_walk(int cell, Rounding rounding, int shared_bytes);

}  // namespace cuda
}  // namespace fastbp
