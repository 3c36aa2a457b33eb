// The kernels for avx512: the generic sources, compiled with this ISA's flags over its vector
// wrapper.
#define FBP_ISA avx512
#include "kernels/cpu/simd/avx512.h"

#include "kernels/cpu/avx512_tiles.inl"
#include "kernels/cpu/table.inl"
