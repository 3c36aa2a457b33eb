// Functions of the user's own in the place of an activation or of the loss. They get whole batches:
// one worker calls them while the others wait (engine/host_functions.cpp). Of sequences they get parts
// of a batch, and there is but one worker.
#pragma once

#include "core/types.h"

namespace fastbp {

// out = f(z) or, where dy is given, out = dy f'(z), over the rows of a batch; out overlaps nothing. Of
// sequences all rows' first step comes first, then the second of all.
template <class T> struct HostActivation {
  int function = 0;  // which of those that the network has
  index_t rows = 0, cols = 0;
  index_t steps = 0;  // of each row's sequence; 0: rows are none
  const T* z = nullptr;
  index_t z_row = 0;
  const T* dy = nullptr;
  index_t dy_row = 0;
  T* out = nullptr;
  index_t out_row = 0;
};

// The loss of a batch, or of a part of it, and its gradient. Matrices are contiguous.
template <class T> struct HostLoss {
  index_t rows = 0, cols = 0;
  index_t counted = 0;  // rows of the whole batch
  const T* y = nullptr;
  const T* target = nullptr;
  const T* weight = nullptr;  // of each element; null: none
  T* dy = nullptr;
  double* block_loss = nullptr;  // by blocks of kLossBlockRows rows: rows times cols times the mean
};

// Each returns false where it failed, upon which the pass is given up; `context` knows why.
template <class T> struct HostFunctions {
  bool (*activation)(void* context, const HostActivation<T>&) = nullptr;
  bool (*loss)(void* context, const HostLoss<T>&) = nullptr;
  void* context = nullptr;
};

}  // namespace fastbp
