// How every formula and vector wrapper is declared.
//
// Forced inlining is a correctness matter: each ISA's translation unit is compiled with its own
// flags, and a shared weak symbol would let the linker keep one ISA's copy for all. An
// always-inlined function emits no symbol at all.
#pragma once

#if defined(__CUDACC__)
#define FBP_HOST_DEVICE __host__ __device__
#else
#define FBP_HOST_DEVICE
#endif

#if defined(_MSC_VER)
#define FBP_FN FBP_HOST_DEVICE __forceinline
#else
#define FBP_FN FBP_HOST_DEVICE inline __attribute__((always_inline))
#endif
