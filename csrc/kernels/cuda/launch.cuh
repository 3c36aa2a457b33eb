// Launching, for nvcc and for the emulated device: the one place of the CUDA kernels that knows
// which of the two it is.
//
//   FBP_LAUNCH(kernel, grid, block, shared_bytes, stream)(arguments...);
//       in the place of kernel<<<...>>>(arguments...)
//   FBP_LAUNCH_COOPERATIVE(...)
//       the same for a kernel whose blocks are on the device all at once, and may meet:
//   FBP_SYNC_GRID();
//       in such a kernel: waits for all threads of the grid
//   FBP_SHARED(T, name);
//       in a kernel: T* name = the block's dynamic shared memory; shared_bytes is a multiple of
//       alignof(T), which is at most 16
//   FBP_UNROLL(times)
//       before a loop, for nvcc
#pragma once

#if defined(FASTBP_EMULATION)

#include "emulation/device.h"

#define FBP_LAUNCH(kernel, grid, block, shared_bytes, stream)                                      \
  ::fastbp::emulation::launcher(#kernel, kernel, grid, block, shared_bytes, stream)
#define FBP_LAUNCH_COOPERATIVE(kernel, grid, block, shared_bytes, stream)                          \
  ::fastbp::emulation::launcher(#kernel, kernel, grid, block, shared_bytes, stream, true)
#define FBP_SYNC_GRID() ::fastbp::emulation::sync_grid(__FILE__, __LINE__)
#define FBP_SHARED(T, name) T* const name = static_cast<T*>(::fastbp::emulation::shared_memory())

#else

#include <cooperative_groups.h>
#include <cuda_runtime.h>

#define FBP_LAUNCH(kernel, grid, block, shared_bytes, stream)                                      \
  (kernel)<<<grid, block, shared_bytes, stream>>>
#define FBP_LAUNCH_COOPERATIVE(kernel, grid, block, shared_bytes, stream)                          \
  ::fastbp::cuda::cooperative_launch(kernel, grid, block, shared_bytes, stream)
#define FBP_SYNC_GRID() ::cooperative_groups::this_grid().sync()
#define FBP_SHARED(T, name)                                                                        \
  extern __shared__ __align__(16) unsigned char fbp_shared_bytes[];                                \
  T* const name = reinterpret_cast<T*>(fbp_shared_bytes)

namespace fastbp {
namespace cuda {

template <class... Parameters> struct CooperativeLaunch {
  void (*kernel)(Parameters...);
  dim3 grid, block;
  std::size_t shared_bytes;
  cudaStream_t stream;
  void operator()(Parameters... arguments) const {
    void* pointers[] = {static_cast<void*>(&arguments)..., nullptr};
    cudaLaunchCooperativeKernel(reinterpret_cast<const void*>(kernel), grid, block, pointers,
                                shared_bytes, stream);
  }
};
template <class... Parameters>
CooperativeLaunch<Parameters...> cooperative_launch(void (*kernel)(Parameters...), dim3 grid,
                                                    dim3 block, std::size_t shared_bytes,
                                                    cudaStream_t stream) {
  return {kernel, grid, block, shared_bytes, stream};
}

}  // namespace cuda
}  // namespace fastbp

#endif

#if defined(__CUDA_ARCH__)
#define FBP_PRAGMA(text) _Pragma(#text)
#define FBP_UNROLL(times) FBP_PRAGMA(unroll times)
#else
#define FBP_UNROLL(times)
#endif

#include "core/types.h"
#include "ops/fbp_fn.h"

// A function for kernels alone, that may wait at a barrier.
#define FBP_DEVICE __device__ inline __attribute__((always_inline))

namespace fastbp {
namespace cuda {

// The greatest gridDim.x, and gridDim.y.
inline constexpr index_t kMaxGridX = 2147483647;
inline constexpr index_t kMaxGridY = 65535;

FBP_FN constexpr index_t ceil_div(index_t a, index_t b) { return (a + b - 1) / b; }

// Where all threads of the grid, which one block alone or a cooperative launch has, wait for each
// other: what one has written before, the others read after.
FBP_DEVICE void meet() {
  if (gridDim.x > 1)
    FBP_SYNC_GRID();
  else
    __syncthreads();
}

}  // namespace cuda
}  // namespace fastbp
