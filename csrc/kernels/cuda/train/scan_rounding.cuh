// A value as an operand of a product with the recurrent weights (scan.h).
#pragma once

#include <type_traits>

#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/train/scan.h"
#include "ops/lane.h"

namespace fastbp {
namespace cuda {
namespace {

FBP_DEVICE std::uint16_t half_bits(Rounding kind, float x) {
  return std::uint16_t(kind == Rounding::float16 ? pack_f16(x, 0) : pack_bf16(x, 0));
}

FBP_DEVICE float float_of(std::uint32_t bits) {
  return from_bits<float>(LaneBits<float>(std::int64_t(bits))).v;
}

// rounded: whether the kernel is for rounded operands.
template <bool rounded, class T> FBP_DEVICE T operand(Rounding kind, T x) {
  if constexpr (rounded) {
    static_assert(std::is_same<T, float>::value, "float64 is never rounded");
    if (kind == Rounding::tf32) return float_of(to_tf32(x));
    const std::uint32_t half = half_bits(kind, x);
    return kind == Rounding::float16 ? from_f16(half) : float_of(half << 16);
  } else {
    return x;
  }
}

}  // namespace
}  // namespace cuda
}  // namespace fastbp
