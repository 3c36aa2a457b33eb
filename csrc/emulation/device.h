// The part of CUDA that the kernels use, for a C++ compiler: with it the .cu files run on an
// emulated device, to be tested where there is no GPU. kernels/cuda/launch.cuh includes this header
// in the place of <cuda_runtime.h> where FASTBP_EMULATION is defined; names and values are CUDA's.
//
// Every thread of a block is a fiber, and a block runs on the OS thread that launched it, one block
// after another. Threads run from barrier to barrier in an order that can be chosen (set_schedule):
// a result that depends on it is a race. A kernel that goes wrong gives an error with its reason in
// cudaGetErrorString, never a crash:
//   cudaErrorLaunchFailure         threads of a block at different __syncthreads(), or some at one
//                                  while others have ended
//   cudaErrorIllegalAddress        an access beyond an end of an allocation or of shared memory
//   cudaErrorInvalidConfiguration  a grid, block or shared memory that no device takes
// Memory that nothing has written holds NaN. All that is slow, and says nothing about a GPU's
// speed.
#pragma once

#include <cstddef>
#include <functional>

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)
#define __syncthreads() ::fastbp::emulation::sync_threads(__FILE__, __LINE__)

struct uint3 { unsigned x, y, z; };
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned nx = 1, unsigned ny = 1, unsigned nz = 1) : x(nx), y(ny), z(nz) {}
};

// Where the running thread is. Plain variables: the device runs one kernel at a time.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorInvalidDevice = 101,
  cudaErrorIllegalAddress = 700,
  cudaErrorLaunchFailure = 719,
};
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2 };
using cudaStream_t = struct CUstream_st*;  // ignored: every call has finished when it returns
struct cudaDeviceProp {
  char name[256];  // "emulated"
};

cudaError_t cudaGetDeviceCount(int* count);  // 1
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
// The error of the calling thread's last launch, which is thereby forgotten.
cudaError_t cudaGetLastError();
// What the code means; for the calling thread's last failure, what it was.
const char* cudaGetErrorString(cudaError_t error);
// Memory that ends at a guard page and holds NaN. Its address is a multiple of what its size is a
// multiple of, not of 256.
cudaError_t cudaMalloc(void** pointer, std::size_t bytes);
// Fails where the page in front of the memory was written to.
cudaError_t cudaFree(void* pointer);
cudaError_t cudaMemcpyAsync(void* target, const void* source, std::size_t bytes,
                            cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);

namespace fastbp {
namespace emulation {

// "forward", "reverse" or "random:<seed>": the order in which blocks, and from barrier to barrier
// the threads of a block, run. At first what the environment's FASTBP_EMULATION_SCHEDULE says, else
// forward. False, and no change, for other texts.
bool set_schedule(const char* text);

void sync_threads(const char* file, int line);
// The block's dynamic shared memory.
void* shared_memory();

struct LaunchShape {
  dim3 grid, block;
  std::size_t shared_bytes;
};
// Runs `thread` once for every thread of the grid. An error is left for cudaGetLastError, as after
// a <<<>>> launch.
void launch(const LaunchShape& shape, const std::function<void()>& thread);

template <class... Parameters> struct Launcher {
  void (*kernel)(Parameters...);
  LaunchShape shape;
  void operator()(Parameters... arguments) const {
    launch(shape, [&] { kernel(arguments...); });
  }
};
template <class... Parameters>
Launcher<Parameters...> launcher(void (*kernel)(Parameters...), dim3 grid, dim3 block,
                                 std::size_t shared_bytes, cudaStream_t) {
  return {kernel, {grid, block, shared_bytes}};
}

}  // namespace emulation
}  // namespace fastbp
