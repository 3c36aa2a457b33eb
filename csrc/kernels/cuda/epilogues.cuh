// What happens to an element of a product as it leaves the kernel (gemm.cuh, tensor_gemm.cuh); each
// returns what it has made of it. The formula is found by a chain of comparisons, the same way for all
// threads: one kernel for all of a list.
#pragma once

#include "kernels/cuda/kernels.h"
#include "ops/activations.h"
#include "ops/lane.h"
#include "ops/optimizers.h"

namespace fastbp {
namespace cuda {
namespace {

// out = f(z), f = entry `activation` of FBP_ACTIVATIONS unless kNoActivation; z itself goes to c
// where that is not null.
template <class T> struct Forward {
  T* c;
  index_t c_row;
  int activation;
  ActivationTile<T> tile;

  FBP_FN Lane<T> operator()(index_t i, index_t j, Lane<T> z) const {
    if (c) z.store(c + i * c_row + j);
    if (activation == kNoActivation) return z;
    const Lane<T> y = apply(z);
    y.store(tile.out + i * tile.out_row + j);
    return y;
  }
  FBP_FN Lane<T> apply(Lane<T> z) const {
    const Lane<T> param(tile.param);
    int index = 0;
#define FBP_APPLY(A)                                                                               \
  if (activation == index++) return A::forward(z, param);
    FBP_ACTIVATIONS(FBP_APPLY)
#undef FBP_APPLY
    return z;
  }
};

// out = dy f'(saved)
template <class T> struct Backward {
  int activation;
  ActivationTile<T> tile;

  FBP_FN Lane<T> operator()(index_t i, index_t j, Lane<T> dy) const {
    const Lane<T> dz = apply(i, j, dy);
    dz.store(tile.out + i * tile.out_row + j);
    return dz;
  }
  FBP_FN Lane<T> apply(index_t i, index_t j, Lane<T> dy) const {
    // An activation that saves nothing reads nothing.
    return of(tile.saved ? Lane<T>(tile.saved[i * tile.saved_row + j]) : dy, dy);
  }
  FBP_FN Lane<T> of(Lane<T> saved, Lane<T> dy) const {
    const Lane<T> param(tile.param);
    int index = 0;
#define FBP_APPLY(A)                                                                               \
  if (activation == index++) return A::backward(saved, dy, param);
    FBP_ACTIVATIONS(FBP_APPLY)
#undef FBP_APPLY
    return dy;
  }
};

// w, slots updated by the gradient g: of row i and column j where rows are `row` apart.
template <class T> struct Update {
  Parameters<T> to;
  index_t row;
  int optimizer;
  StepTable<T> steps;

  FBP_FN Lane<T> operator()(index_t i, index_t j, Lane<T> g) const { return at(i * row + j, g); }
  FBP_FN Lane<T> at(index_t e, Lane<T> g) const {
    return apply(e, g, steps.hyper[steps.counter->batch].value);
  }
  FBP_FN Lane<T> apply(index_t e, Lane<T> g, const T* hyper) const {
    const Lane<T> w(to.w[e]);
    int index = 0;
#define FBP_APPLY(O)                                                                               \
  if (optimizer == index++) {                                                                      \
    Lane<T> s[2];                                                                                  \
    for (int k = 0; k < O::slots; ++k) s[k] = Lane<T>(to.slot[k][e]);                              \
    const Lane<T> updated = O::update(w, g, s, hyper);                                             \
    updated.store(to.w + e);                                                                       \
    for (int k = 0; k < O::slots; ++k) s[k].store(to.slot[k] + e);                                 \
    return updated;                                                                                \
  }
    FBP_OPTIMIZERS(FBP_APPLY)
#undef FBP_APPLY
    return w;
  }
};

// Part blockIdx.y of a sum, `part` elements behind the part before.
template <class T> struct StorePart {
  T* c;
  index_t row;
  index_t part;

  FBP_FN void operator()(index_t i, index_t j, Lane<T> z) const {
    z.store(c + blockIdx.y * part + i * row + j);
  }
};

}  // namespace
}  // namespace cuda
}  // namespace fastbp
