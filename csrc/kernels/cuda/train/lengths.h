// Outputs at every step of sequences that end at different steps: those that count stand side by side
// while losses and metrics are summed. The device's twin of close_up and open_up of
// engine/sequences.cpp.
#pragma once

#include "kernels/cuda/train/scan.h"

namespace fastbp {
namespace cuda {

// Where the row of step t of sequence i comes to stand, which is in front of its end: behind the rows of
// its part's earlier steps, and of the sequences before it. A part has at most 32 sequences.
FBP_FN index_t closed_row(const SequenceRows& at, const std::int64_t* lengths, index_t i,
                          index_t t) {
  const index_t first = i / at.chunk * at.chunk, end = first + at.part_rows(first);
  index_t row = first * at.steps;
  for (index_t s = first; s < end; ++s) {
    const index_t length = index_t(lengths[s]);
    row += (length < t ? length : t) + (s < i && length > t ? 1 : 0);
  }
  return row;
}

// closed (contiguous, (.., cols)) = the rows of x that count; lengths (sequences).
template <class T>
cudaError_t close_up(const T* x, index_t x_row, const SequenceRows& at, index_t cols,
                     const std::int64_t* lengths, T* closed, cudaStream_t stream);
// Back to their places in x; the others are 0.
template <class T>
cudaError_t open_up(const T* closed, const SequenceRows& at, index_t cols,
                    const std::int64_t* lengths, T* x, index_t x_row, cudaStream_t stream);

}  // namespace cuda
}  // namespace fastbp
