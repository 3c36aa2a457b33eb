// An epilogue (epilogues.cuh) that writes the shadow of what it makes.
#pragma once

#include "kernels/cuda/epilogues.cuh"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/train/tensor.h"

namespace fastbp {
namespace cuda {
namespace {

__device__ inline void store_shadow(const Shadow& to, index_t i, index_t j, float x) {
  to.at[i * to.row + j] =
      static_cast<std::uint16_t>(to.kind == Half::float16 ? pack_f16(x, 0) : pack_bf16(x, 0));
}

// What `inner` makes of an element, and its shadow where there is one.
template <class Inner> struct WithShadow {
  Inner inner;
  Shadow shadow;

  struct Held {
    typename Inner::Held inner;
    float made;
  };

  FBP_DEVICE void operator()(index_t i, index_t j, Lf z) const {
    const Lf made = inner(i, j, z);
    if (shadow.at) store_shadow(shadow, i, j, made.v);
  }
  FBP_DEVICE Held read(index_t i, index_t j) const { return {inner.read(i, j), 0}; }
  FBP_DEVICE void make(Held& held, Lf z) const { held.made = inner.make(held.inner, z).v; }
  FBP_DEVICE void store(index_t i, index_t j, const Held& held, index_t) const {
    inner.store(i, j, held.inner);
    if (shadow.at) store_shadow(shadow, i, j, held.made);
  }
};

}  // namespace
}  // namespace cuda
}  // namespace fastbp
