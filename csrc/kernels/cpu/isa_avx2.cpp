// The kernels for avx2: the generic sources, compiled with this ISA's flags over its vector wrapper.
#define FBP_ISA avx2
#include "kernels/cpu/simd/avx2.h"

#include "kernels/cpu/blocking.h"

namespace fastbp::avx2 {
using GemmTile = Tile<6, 1>;
}

#include "kernels/cpu/table.inl"
