// Launching, for nvcc and for the emulated device: the one place of the CUDA kernels that knows
// which of the two it is.
//
//   FBP_LAUNCH(kernel, grid, block, shared_bytes, stream)(arguments...);
//       in the place of kernel<<<...>>>(arguments...)
//   FBP_SHARED(T, name);
//       in a kernel: T* name = the block's dynamic shared memory; shared_bytes is a multiple of
//       alignof(T), which is at most 16
//   FBP_UNROLL(times)
//       before a loop, for nvcc
#pragma once

#if defined(FASTBP_EMULATION)

#include "emulation/device.h"

#define FBP_LAUNCH(kernel, grid, block, shared_bytes, stream)                                      \
  ::fastbp::emulation::launcher(kernel, grid, block, shared_bytes, stream)
#define FBP_SHARED(T, name) T* const name = static_cast<T*>(::fastbp::emulation::shared_memory())

#else

#include <cuda_runtime.h>

#define FBP_LAUNCH(kernel, grid, block, shared_bytes, stream)                                      \
  (kernel)<<<grid, block, shared_bytes, stream>>>
#define FBP_SHARED(T, name)                                                                        \
  extern __shared__ __align__(16) unsigned char fbp_shared_bytes[];                                \
  T* const name = reinterpret_cast<T*>(fbp_shared_bytes)

#endif

#if defined(__CUDA_ARCH__)
#define FBP_PRAGMA(text) _Pragma(#text)
#define FBP_UNROLL(times) FBP_PRAGMA(unroll times)
#else
#define FBP_UNROLL(times)
#endif

#include "core/types.h"
#include "ops/fbp_fn.h"

namespace fastbp {
namespace cuda {

// The greatest gridDim.x, and gridDim.y.
inline constexpr index_t kMaxGridX = 2147483647;
inline constexpr index_t kMaxGridY = 65535;

FBP_FN constexpr index_t ceil_div(index_t a, index_t b) { return (a + b - 1) / b; }

}  // namespace cuda
}  // namespace fastbp
