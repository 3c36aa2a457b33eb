// A network of narrow dense layers, ready to be run: what two kernels need to take a batch up and down
// without asking again. At this size a call costs more than its arithmetic.
#pragma once

#include "kernels/args.h"

namespace fastbp {

// A dense layer and its activation over the rows of a batch. Pointers lead to the batch's first row.
template <class T> struct SmallStage {
  index_t inputs = 0, outputs = 0;
  index_t input_chunk = 0;  // its inputs are summed in pieces of so many
  bool bias = false;
  index_t parameter_offset = 0;  // of the kernel, in the flat parameters and their gradient
  const T* x = nullptr;          // the inputs, with a 1 behind each row where there is a bias
  index_t x_row = 0;
  T* z = nullptr;  // pre-activations; may be y's memory
  index_t z_row = 0;
  T* y = nullptr;
  index_t y_row = 0;
  T* dz = nullptr;
  index_t dz_row = 0;
  TileOp<T> forward = nullptr;   // null: identity
  TileOp<T> backward = nullptr;  // null: identity
  const T* saved = nullptr;      // what `backward` reads
  index_t saved_row = 0;
  T param = 0;
};

template <class T> struct SmallNetwork {
  static constexpr int capacity = 8;
  int count = 0;  // stages; 0: not a small network
  SmallStage<T> stage[capacity];
  const T* w = nullptr;
  T* scratch = nullptr;  // KernelTable::gemm_scratch elements
};

// Rows of a matrix in any order: to[i] = from[order[i]], or from[i] where order is null. `from` is
// contiguous.
template <class T> struct GatherArgs {
  const T* from = nullptr;
  const std::int64_t* order = nullptr;
  index_t rows = 0, cols = 0;
  T* to = nullptr;
  index_t to_row = 0;
};

}  // namespace fastbp
