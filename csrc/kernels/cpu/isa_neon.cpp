// The kernels for neon: the generic sources, compiled with this ISA's flags over its vector wrapper.
#define FBP_ISA neon
#include "kernels/cpu/simd/neon.h"

#include "kernels/cpu/blocking.h"

namespace fastbp::neon {
using GemmTile = Tile<5, 1>;
}

#include "kernels/cpu/table.inl"
