// The end of a step whose gradient is whole before any parameter changes: averaged over batches,
// penalized, limited (engine/update_rules.h), then the update. The gradient of a scaled loss is divided
// by the scale first, and where it is not finite nothing is updated. The device's twin of engine/finish.cpp
// and kernels/cpu/gradient.inl, with their sums.
#pragma once

#include "kernels/cuda/kernels.h"
#include "kernels/cuda/train/loss_scale.h"

namespace fastbp {
namespace cuda {

// Parameters of one block (kGradientBlock) that follow each other and have the same rule.
template <class T> struct RulePiece {
  index_t begin = 0, count = 0;
  int variant = 0;  // which of the step's rates
  bool trained = false, penalized = false;
  T l1 = 0, l2 = 0;
};

// Weights (rows, cols) from a parameter on, whose columns are no longer than `limit` after each update.
template <class T> struct LimitedColumns {
  index_t begin = 0, rows = 0, cols = 0;
  T limit = 0;
};

// In device memory.
template <class T> struct FinishTables {
  const RulePiece<T>* pieces = nullptr;       // of all parameters, in order
  const index_t* first_piece = nullptr;       // of each block, and one past the last
  double* squares = nullptr;                  // of each block
  double* penalties = nullptr;                // of each block
  double* factor = nullptr;                   // what the gradient's norm is scaled by
  std::int32_t* overflow = nullptr;           // of each block: whether a value is not finite
  const LimitedColumns<T>* limits = nullptr;  // of what is trained
  index_t limit_count = 0, most_limited = 0;  // matrices; columns of the widest
};

// What a step has that does not depend on rules.
template <class T> struct FinishState {
  T* gradient = nullptr;
  Parameters<T> to;
  int optimizer = 0;
  StepTable<T> steps;            // a hyper for each batch and variant
  double* penalties = nullptr;   // of each batch of the run
  LossScale* scaling = nullptr;  // of the loss that the gradient is of; null: none
};

// measure: penalties alone; store: they are added to the gradient; update: all of it.
enum class FinishUse { measure, store, update };

template <class T> struct FinishArgs {
  FinishUse use = FinishUse::update;
  FinishState<T> state;
  FinishTables<T> tables;
  index_t parameters = 0, variants = 1;
  index_t accumulation = 1;
  T share = 1;  // 1 / accumulation
  T* accumulated = nullptr;
  bool penalize = false;
  T clip_value = 0;      // 0: no limit
  double clip_norm = 0;  // 0: no limit
  T* average = nullptr;  // null: none
  T average_momentum = 0;
};
template <class T> cudaError_t finish_gradient(const FinishArgs<T>& args, cudaStream_t stream);
// The last of it, behind the update, where there are limits: columns that are too long, then the average.
template <class T> cudaError_t limit_columns(const FinishArgs<T>& args, cudaStream_t stream);

}  // namespace cuda
}  // namespace fastbp
