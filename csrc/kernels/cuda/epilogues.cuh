// What happens to an element of a product as it leaves the kernel (gemm.cuh, tensor_gemm.cuh); each
// returns what it has made of it. The formula is found by a chain of comparisons, the same way for all
// threads: one kernel for all of a list.
//
// In three steps for kernels that have several elements under way at once (wide_gemm.cuh): read loads
// what the element needs besides, make computes, store writes. A call does all three. `together`:
// elements that gemm.cuh has under way at once, as many as the code of `make` is worth. `at_step`: the same with
// what is the same for all elements found, for kernels that have time for it at their beginning.
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
  static constexpr int together = 1;
  T* c;
  index_t c_row;
  int activation;
  ActivationTile<T> tile;

  struct Held { Lane<T> z, y; };
  FBP_FN const Forward& at_step() const { return *this; }

  FBP_FN Lane<T> operator()(index_t i, index_t j, Lane<T> z) const {
    Held held = read(i, j);
    make(held, z);
    store(i, j, held);
    return held.y;
  }
  FBP_FN Held read(index_t, index_t) const { return {}; }
  FBP_FN Lane<T> make(Held& held, Lane<T> z) const {
    held.z = z;
    held.y = activation == kNoActivation ? z : apply(z);
    return held.y;
  }
  FBP_FN void store(index_t i, index_t j, const Held& held) const {
    if (c) held.z.store(c + i * c_row + j);
    if (activation != kNoActivation) held.y.store(tile.out + i * tile.out_row + j);
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
  static constexpr int together = 2;
  int activation;
  ActivationTile<T> tile;

  struct Held { Lane<T> x; };  // saved, later dz
  FBP_FN const Backward& at_step() const { return *this; }

  FBP_FN Lane<T> operator()(index_t i, index_t j, Lane<T> dy) const {
    Held held = read(i, j);
    make(held, dy);
    store(i, j, held);
    return held.x;
  }
  // An activation that saves nothing reads nothing.
  FBP_FN Held read(index_t i, index_t j) const {
    return {Lane<T>(tile.saved ? tile.saved[i * tile.saved_row + j] : T(0))};
  }
  FBP_FN Lane<T> make(Held& held, Lane<T> dy) const { return held.x = of(held.x, dy); }
  FBP_FN void store(index_t i, index_t j, const Held& held) const {
    held.x.store(tile.out + i * tile.out_row + j);
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
  static constexpr int together = 4;
  Parameters<T> to;
  index_t row;
  int optimizer;
  StepTable<T> steps;
  const T* of_step = nullptr;  // the running step's hyper-parameters, where somebody has looked

  struct Held { Lane<T> w, s[2]; };
  FBP_FN Update at_step() const {
    Update found = *this;
    found.of_step = hyper();
    return found;
  }

  FBP_FN Lane<T> operator()(index_t i, index_t j, Lane<T> g) const { return at(i * row + j, g); }
  FBP_FN Held read(index_t i, index_t j) const { return read(i * row + j); }
  FBP_FN Lane<T> make(Held& held, Lane<T> g) const {
    return make(held, g, of_step ? of_step : hyper());
  }
  FBP_FN void store(index_t i, index_t j, const Held& held) const { store(i * row + j, held); }

  FBP_FN Lane<T> at(index_t e, Lane<T> g) const { return apply(e, g, hyper()); }
  FBP_FN Lane<T> apply(index_t e, Lane<T> g, const T* hyper) const {
    Held held = read(e);
    make(held, g, hyper);
    store(e, held);
    return held.w;
  }

 private:
  FBP_FN const T* hyper() const { return steps.hyper[steps.counter->batch].value; }
  FBP_FN Held read(index_t e) const {
    Held held;
    held.w = Lane<T>(to.w[e]);
    for (int k = 0; k < 2; ++k) held.s[k] = Lane<T>(k < slots() ? to.slot[k][e] : T(0));
    return held;
  }
  FBP_FN Lane<T> make(Held& held, Lane<T> g, const T* hyper) const {
    int index = 0;
#define FBP_APPLY(O)                                                                               \
  if (optimizer == index++) held.w = O::update(held.w, g, held.s, hyper);
    FBP_OPTIMIZERS(FBP_APPLY)
#undef FBP_APPLY
    return held.w;
  }
  FBP_FN void store(index_t e, const Held& held) const {
    held.w.store(to.w + e);
    for (int k = 0; k < 2; ++k)
      if (k < slots()) held.s[k].store(to.slot[k] + e);
  }
  FBP_FN int slots() const {
    int index = 0, count = 0;
#define FBP_COUNT(O)                                                                               \
  if (optimizer == index++) count = O::slots;
    FBP_OPTIMIZERS(FBP_COUNT)
#undef FBP_COUNT
    return count;
  }
};

// A part of a sum, `part` elements behind the part before: number blockIdx.y, or as store is told.
template <class T> struct StorePart {
  static constexpr int together = 1;
  T* c;
  index_t row;
  index_t part;

  struct Held { Lane<T> z; };
  FBP_FN const StorePart& at_step() const { return *this; }

  FBP_FN void operator()(index_t i, index_t j, Lane<T> z) const { store(i, j, {z}); }
  FBP_FN Held read(index_t, index_t) const { return {}; }
  FBP_FN Lane<T> make(Held& held, Lane<T> z) const { return held.z = z; }
  FBP_FN void store(index_t i, index_t j, const Held& held) const { store(i, j, held, blockIdx.y); }
  FBP_FN void store(index_t i, index_t j, const Held& held, index_t number) const {
    held.z.store(c + number * part + i * row + j);
  }
};

}  // namespace
}  // namespace cuda
}  // namespace fastbp
