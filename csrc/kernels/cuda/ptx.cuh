// Instructions that C++ has no name for, each with a PTX body for nvcc and a C++ body for the
// emulated device (emulation/ptx.cpp) that follows the same page of the PTX manual. Kernels call
// these and hold no assembly of their own.
//
// Tensor cores, from compute capability 8.0 on, float16 from 7.5 on; all 32 lanes call with the same instruction. D (16 x
// 8, float32) += A (16 x k) B (k x 8). With g = lane / 4 and t = lane % 4 a lane holds
//   d[0..3]  D[g][2t], D[g][2t + 1], D[g + 8][2t], D[g + 8][2t + 1]
// for 16-bit operands, k = 16, two to a register, the lower column (of B: row) in the lower half,
//   a[0..3]  A[g][2t..], A[g + 8][2t..], A[g][2t + 8..], A[g + 8][2t + 8..]
//   b[0..1]  B[2t..][g], B[2t + 8..][g]
// and for TF32, k = 8, float32 bit patterns whose lower 13 bits do not count,
//   a[0..3]  A[g][t], A[g + 8][t], A[g][t + 4], A[g + 8][t + 4]
//   b[0..1]  B[t][g], B[t + 4][g]
// Products are exact; in which order and how they are summed is the hardware's affair.
#pragma once

#include <cstdint>

#include "kernels/cuda/launch.cuh"

#if defined(FASTBP_EMULATION)
#include "emulation/ptx.h"
#endif

namespace fastbp {
namespace cuda {

#if defined(FASTBP_EMULATION)

using emulation::copy_async_16;
using emulation::copy_async_4;
using emulation::copy_async_commit;
using emulation::copy_async_wait;
using emulation::from_f16;
using emulation::load_matrices;
using emulation::load_matrices_transposed;
using emulation::multiply_bf16;
using emulation::multiply_f16_long;
using emulation::multiply_f16_short;
using emulation::multiply_tf32;
using emulation::pack_bf16;
using emulation::pack_bf16_relu;
using emulation::pack_f16;
using emulation::to_tf32;

FBP_DEVICE int thread_number() { return int(threadIdx.x); }
FBP_DEVICE void prefetch(const void*) {}
FBP_DEVICE std::uint32_t spread_signs(std::uint32_t pair) {
  return (pair & 0x8000 ? 0xffff : 0) | (pair & 0x80000000 ? 0xffff0000 : 0);
}

#else

// threadIdx.x, read anew: what follows from it is made again where it is used, and not kept in
// registers over a whole kernel.
__device__ inline int thread_number() {
  int number = 0;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(number));
  return number;
}

// Asks for the line of global memory to be brought to L2.
__device__ inline void prefetch(const void* global) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(global));
}

// Of each half of the register its sign bit, 16 times.
__device__ inline std::uint32_t spread_signs(std::uint32_t pair) {
  std::uint32_t bits = 0;
  asm("prmt.b32 %0, %1, 0, 0xbb99;" : "=r"(bits) : "r"(pair));
  return bits;
}

// Device code of an architecture without the instruction is never called, and says so if it is.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
#define FBP_PTX(...) asm volatile(__VA_ARGS__)
#else
#define FBP_PTX(...) __trap()
#endif

#define FBP_MMA(name, shape)                                                                       \
  __device__ inline void name(float (&d)[4], const std::uint32_t (&a)[4],                          \
                              const std::uint32_t (&b)[2]) {                                       \
    FBP_PTX("mma.sync.aligned." shape                                                              \
            " {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};" : "+f"(d[0]),                 \
            "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]),       \
            "r"(b[0]), "r"(b[1]));                                                                 \
  }
FBP_MMA(multiply_bf16, "m16n8k16.row.col.f32.bf16.bf16.f32")
FBP_MMA(multiply_tf32, "m16n8k8.row.col.f32.tf32.tf32.f32")
FBP_MMA(multiply_f16_long, "m16n8k16.row.col.f32.f16.f16.f32")
#undef FBP_MMA
// k = 8, from 7.5 on: the fragments are the first half of k = 16's.
__device__ inline void multiply_f16_short(float (&d)[4], std::uint32_t a0, std::uint32_t a1,
                                          std::uint32_t b) {
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32"
               " {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a0), "r"(a1), "r"(b));
}

__device__ inline std::uint32_t shared_address(const void* p) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
}

// Four 8 x 8 matrices of 16-bit elements from shared memory: lane l gives the address, a multiple of
// 16, of row l % 8 of matrix l / 8; r[i] = matrix i's [g][2t] and [g][2t + 1], transposed [2t][g] and
// [2t + 1][g].
__device__ inline void load_matrices(std::uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
__device__ inline void load_matrices_transposed(std::uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
// The first `bytes` of 16, and zeros.
__device__ inline uint4 first_bytes(const std::uint16_t* from, int bytes) {
  std::uint32_t word[4];
  FBP_UNROLL(4)
  for (int w = 0; w < 4; ++w) {
    const std::uint32_t low = 4 * w < bytes ? from[2 * w] : 0;
    word[w] = low | (4 * w + 2 < bytes ? std::uint32_t(from[2 * w + 1]) << 16 : 0);
  }
  return make_uint4(word[0], word[1], word[2], word[3]);
}
#endif

// Copies `bytes` of 16 from global memory to shared memory and fills up with zeros; both addresses
// are multiples of 16. Done for the calling thread once it has waited; for others after a barrier. On
// 7.5, which has no such copies, at once.
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
__device__ inline void copy_async_16(void* shared, const void* global, int bytes) {
  FBP_PTX("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)),
          "l"(global), "r"(bytes) : "memory");
}
// The same of 4 bytes, or of none and a zero; not on 7.5.
__device__ inline void copy_async_4(void* shared, const void* global, int bytes) {
  FBP_PTX("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(shared)), "l"(global),
          "r"(bytes) : "memory");
}
// The copies begun since the last commit are a group.
__device__ inline void copy_async_commit() { FBP_PTX("cp.async.commit_group;" :: : "memory"); }
// Waits until all groups but the latest `left` are done.
template <int left> __device__ inline void copy_async_wait() {
  FBP_PTX("cp.async.wait_group %0;" ::"n"(left) : "memory");
}
#else
__device__ inline void copy_async_16(void* shared, const void* global, int bytes) {
  uint4 all = make_uint4(0, 0, 0, 0);
  if (bytes == 16)
    all = *static_cast<const uint4*>(global);
  else if (bytes > 0)
    all = first_bytes(static_cast<const std::uint16_t*>(global), bytes);
  *static_cast<uint4*>(shared) = all;
}
__device__ inline void copy_async_4(void*, const void*, int) { __trap(); }
__device__ inline void copy_async_commit() {}
template <int left> __device__ inline void copy_async_wait() {}
#endif

// float32 rounded to nearest: to TF32, ties away from zero; to bfloat16 and float16, ties to even, `low`
// in the lower half, beyond the range to infinity.
__device__ inline std::uint32_t to_tf32(float x) {
  std::uint32_t bits = 0;
  FBP_PTX("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
  return bits;
}
__device__ inline std::uint32_t pack_bf16(float low, float high) {
  std::uint32_t bits = 0;
  FBP_PTX("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
  return bits;
}
// The same with 0 for what is below it, and NaN for NaN.
__device__ inline std::uint32_t pack_bf16_relu(float low, float high) {
  std::uint32_t bits = 0;
  FBP_PTX("cvt.rn.relu.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
  return bits;
}
#undef FBP_PTX
__device__ inline std::uint32_t pack_f16(float low, float high) {
  std::uint16_t bits[2];
  asm volatile("cvt.rn.f16.f32 %0, %1;" : "=h"(bits[0]) : "f"(low));
  asm volatile("cvt.rn.f16.f32 %0, %1;" : "=h"(bits[1]) : "f"(high));
  return bits[0] | std::uint32_t(bits[1]) << 16;
}
// What the lower half stands for.
__device__ inline float from_f16(std::uint32_t half) {
  float x = 0;
  asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(static_cast<std::uint16_t>(half)));
  return x;
}

#endif

// All bits of each half, a bfloat16, that is neither 0 nor -0.
FBP_DEVICE std::uint32_t nonzero_halves(std::uint32_t pair) {
  return spread_signs((pair & 0x7fff7fff) + 0x7fff7fff);
}

// Before 8.0 there is the half along k alone, of float16: these fragments are those of two such.
FBP_DEVICE void multiply_f16(float (&d)[4], const std::uint32_t (&a)[4],
                             const std::uint32_t (&b)[2]) {
#if defined(FASTBP_EMULATION)
  const bool is_long = emulation::capability() >= 80;
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
  constexpr bool is_long = false;
#else
  constexpr bool is_long = true;
#endif
  if (is_long) {
    multiply_f16_long(d, a, b);
  } else {
    FBP_UNROLL(2)
    for (int half = 0; half < 2; ++half)
      multiply_f16_short(d, a[2 * half], a[2 * half + 1], b[half]);
  }
}

}  // namespace cuda
}  // namespace fastbp
