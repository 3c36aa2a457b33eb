// Instructions of compute capability 9.0 alone (sm_90a), as ptx.cuh has those of 8.0: products that four
// warps make from shared memory (wgmma), copies of whole boxes (TMA), and barriers in shared memory
// that wait for both (mbarrier). The C++ bodies are in emulation/wgmma.h.
//
// A slab is what a TMA copy of a box leaves in shared memory: its rows, 128 bytes each, one behind the
// other from a multiple of 1024, the eight groups of 16 bytes of row r exchanged: group c lies at
// c ^ (r % 8) (128-byte swizzle). wgmma undoes that. A product's operand is described by where it
// begins and by two distances in bytes; with a row of 64 values of 16 bits
//   k along the rows    (K-major)   stride: from 8 rows to the next 8; leading: not used. The next 16
//                                   along k: 32 bytes further on.
//   k across the rows   (MN-major)  stride: from 8 values of k to the next 8; leading: from 64 rows of
//                                   A (columns of B) to the next 64. The next 16 along k: 16 rows.
// D is 64 x 128: warp w of the four has its rows 16 w..16 w + 15, and with g = lane / 4, t = lane % 4
//   d[4 j..4 j + 3]   D[g][8 j + 2t], D[g][8 j + 2t + 1], D[g + 8][8 j + 2t], D[g + 8][8 j + 2t + 1]
#pragma once

#include <cstdint>

#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/tensor_map.h"

#if defined(FASTBP_EMULATION)
#include "emulation/wgmma.h"
#endif

namespace fastbp {
namespace cuda {

// A barrier in shared memory. Its phases take turns in parity, from 0 on. One ends when as many threads
// have arrived as it was made for, and as many bytes have come as they expect.
using SharedBarrier = std::uint64_t;

// Where a multiplicand lies, for multiply_async_bf16 and multiply_async_f16: 128-byte swizzle, offsets in bytes.
FBP_FN std::uint64_t matrix_descriptor(std::uint32_t address, int leading, int stride) {
  constexpr std::uint64_t swizzle_128 = std::uint64_t(1) << 62;
  return swizzle_128 | std::uint64_t(stride >> 4) << 32 | std::uint64_t(leading >> 4) << 16 |
         (address & 0x3ffff) >> 4;
}

#if defined(FASTBP_EMULATION)

using emulation::barrier_arrive;
using emulation::barrier_arrive_expecting;
using emulation::barrier_init;
using emulation::barrier_wait;
using emulation::barriers_are_made;
using emulation::load_box;
using emulation::multiply_async_bf16;
using emulation::multiply_async_f16;
using emulation::multiply_commit;
using emulation::multiply_fence;
using emulation::multiply_wait;
using emulation::prefetch_map;
using emulation::set_registers;
using emulation::shared_address;
using emulation::store_pair;

inline constexpr bool kHasWgmma = true;

#else

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
inline constexpr bool kHasWgmma = true;
#else
inline constexpr bool kHasWgmma = false;  // kernels hold none of the below
#endif

__device__ inline void barrier_init(SharedBarrier* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)),
               "r"(arrivals)
               : "memory");
}
// For the thread that made them, before a barrier of the block: then copies and threads may use them.
__device__ inline void barriers_are_made() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
__device__ inline void barrier_arrive(SharedBarrier* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier))
               : "memory");
}
// The phase ends no sooner than `bytes` more have come.
__device__ inline void barrier_arrive_expecting(SharedBarrier* barrier, int bytes) {
  asm volatile(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
      "r"(bytes)
      : "memory");
}
// Waits for the end of the running phase where its parity is this, of the one before otherwise: which
// has ended already.
__device__ inline void barrier_wait(SharedBarrier* barrier, int parity) {
  std::uint32_t done = 0;
  do {
    asm volatile("{\n"
                 ".reg .pred p;\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
                 "selp.u32 %0, 1, 0, p;\n"
                 "}"
                 : "=r"(done)
                 : "r"(shared_address(barrier)), "r"(parity)
                 : "memory");
  } while (!done);
}

// Begins to copy a box of the map's matrix, from (row, col) on, with zeros where that is outside; all
// of the box's bytes count for the barrier.
__device__ inline void load_box(void* slab, const TensorMap& map, int row, int col,
                                SharedBarrier* barrier) {
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
               " [%0], [%1, {%2, %3}], [%4];" ::"r"(shared_address(slab)),
               "l"(&map), "r"(col), "r"(row), "r"(shared_address(barrier))
               : "memory");
}
__device__ inline void prefetch_map(const TensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

// to[0] = low, to[1] = high, in shared memory, at a multiple of 8 bytes.
__device__ inline void store_pair(float* to, float low, float high) {
  asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(shared_address(to)), "f"(low), "f"(high)
               : "memory");
}

// The warp group has `count` registers a thread from now on, a multiple of 8: it gives back what it has
// above that, or waits until it gets more.
template <int count, bool more> __device__ inline void set_registers() {
  if constexpr (more)
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(count));
  else
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(count));
}

// Around products of a warp group: a fence before the first one that reads registers as others than
// products have left them; the products since the last commit are a group; all groups but the
// latest `left` are done.
__device__ inline void multiply_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void multiply_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int left> __device__ inline void multiply_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(left) : "memory");
}

#define FBP_FOUR(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define FBP_SIXTEEN(d, i)                                                                          \
  FBP_FOUR(d, i), FBP_FOUR(d, i + 4), FBP_FOUR(d, i + 8), FBP_FOUR(d, i + 12)

// D (64 x 128) = A (64 x 16) B (16 x 128), plus D where `add`. k lies across the rows of an operand in
// shared memory where it is transposed.
#define FBP_WGMMA(name, kinds)                                                                     \
  template <bool a_transposed, bool b_transposed>                                                  \
  __device__ inline void name(float (&d)[64], std::uint64_t a, std::uint64_t b, bool add) {        \
    asm volatile("{\n"                                                                             \
                 ".reg .pred p;\n"                                                                 \
                 "setp.ne.b32 p, %66, 0;\n"                                                        \
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32." kinds " "                          \
                 "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"                         \
                 "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,"                \
                 "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,"                \
                 "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63},"               \
                 " %64, %65, p, 1, 1, %67, %68;\n"                                                 \
                 "}"                                                                               \
                 : FBP_SIXTEEN(d, 0), FBP_SIXTEEN(d, 16), FBP_SIXTEEN(d, 32), FBP_SIXTEEN(d, 48)   \
                 : "l"(a), "l"(b), "r"(int(add)), "n"(int(a_transposed)), "n"(int(b_transposed))); \
  }
FBP_WGMMA(multiply_async_bf16, "bf16.bf16")
FBP_WGMMA(multiply_async_f16, "f16.f16")
#undef FBP_WGMMA
#undef FBP_SIXTEEN
#undef FBP_FOUR

#endif

}  // namespace cuda
}  // namespace fastbp
