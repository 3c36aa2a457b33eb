// An epilogue (epilogues.cuh) that writes the shadow of what it makes.
#pragma once

#include "kernels/cuda/epilogues.cuh"
#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/train/tensor.h"

namespace fastbp {
namespace cuda {
namespace {

// Four 16-bit values, stored at once.
struct alignas(8) ShadowQuad { std::uint32_t word[2]; };

__device__ inline void store_shadow(const Shadow& to, index_t i, index_t j, float x) {
  to.at[i * to.row + j] =
      static_cast<std::uint16_t>(to.kind == Half::float16 ? pack_f16(x, 0) : pack_bf16(x, 0));
}

// The same of four values, j a multiple of 4.
__device__ inline void store_shadow_4(const Shadow& to, index_t i, index_t j, const float (&x)[4]) {
  const bool f16 = to.kind == Half::float16;
  ShadowQuad quad;
  quad.word[0] = f16 ? pack_f16(x[0], x[1]) : pack_bf16(x[0], x[1]);
  quad.word[1] = f16 ? pack_f16(x[2], x[3]) : pack_bf16(x[2], x[3]);
  *reinterpret_cast<ShadowQuad*>(to.at + i * to.row + j) = quad;
}

// What `inner` makes of an element, and its shadow where there is one; or with `alone` the shadow and
// nothing else.
template <class Inner> struct WithShadow {
  Inner inner;
  Shadow shadow;
  bool alone = false;

  struct Held {
    typename Inner::Held inner;
    float made;
  };

  FBP_DEVICE void operator()(index_t i, index_t j, Lf z) const {
    Held held = read(i, j);
    make(held, z);
    store(i, j, held, 0);
  }
  FBP_DEVICE Held read(index_t i, index_t j) const { return {inner.read(i, j), 0}; }
  FBP_DEVICE void make(Held& held, Lf z) const { held.made = inner.make(held.inner, z).v; }
  FBP_DEVICE void store(index_t i, index_t j, const Held& held, index_t) const {
    if (!alone) inner.store(i, j, held.inner);
    if (shadow.at) store_shadow(shadow, i, j, held.made);
  }
};

}  // namespace
}  // namespace cuda
}  // namespace fastbp
