// Plain types that every layer shares. No dependency, no code.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fastbp {

// Sizes, strides and offsets, in elements unless said otherwise. Signed and 64 bits wide: 2^31
// elements are not a limit.
using index_t = std::ptrdiff_t;

enum class DType { float32, float64 };

template <class T> struct DTypeOf;
template <> struct DTypeOf<float> { static constexpr DType value = DType::float32; };
template <> struct DTypeOf<double> { static constexpr DType value = DType::float64; };

}  // namespace fastbp
