// The kernels for scalar: the generic sources, compiled with this ISA's flags over its vector wrapper.
#define FBP_ISA scalar
#include "kernels/cpu/simd/scalar.h"

#include "kernels/cpu/blocking.h"

namespace fastbp::scalar {
using GemmTile = Tile<2, 1>;
}

#include "kernels/cpu/table.inl"
