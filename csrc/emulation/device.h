// The part of CUDA that the kernels use, for a C++ compiler: with it the .cu files run on an
// emulated device, to be tested where there is no GPU. kernels/cuda/launch.cuh includes this header
// in the place of <cuda_runtime.h> where FASTBP_EMULATION is defined; names and values are CUDA's.
//
// Every thread of a block is a fiber, and a block runs on the OS thread that launched it, one block
// after another (of a cooperative launch, all together). Threads run from one meeting point to the
// next, __syncthreads() or a warp function, in an order that can be chosen (set_schedule): a result
// that depends on it is a race. A kernel that goes wrong gives an error with its reason in
// cudaGetErrorString, never a crash:
//   cudaErrorLaunchFailure         threads of a block at different __syncthreads(), or some at one
//                                  while others have ended; a warp function without a lane that
//                                  its mask names, or read from one that is not there; and, where
//                                  the kernels are compiled with -fsanitize=thread (hazards.cpp),
//                                  data races and reads of memory that nothing has written
//   cudaErrorIllegalAddress        an access beyond an end of an allocation or of shared memory
//   cudaErrorInvalidConfiguration  a grid, block or shared memory that no device takes
// Memory that nothing has written holds NaN. All that is slow, and says nothing about a GPU's
// speed.
#pragma once

#include <cstddef>
#include <functional>

#include "backend/denormals.h"
#include "emulation/runtime_api.h"
#include "emulation/warp.h"

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)
#define __grid_constant__
#define __syncthreads() ::fastbp::emulation::sync_threads(__FILE__, __LINE__)

struct uint3 { unsigned x, y, z; };
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned nx = 1, unsigned ny = 1, unsigned nz = 1) : x(nx), y(ny), z(nz) {}
};

// Where the running thread is. Plain variables: the device runs one kernel at a time.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

namespace fastbp {
namespace emulation {

// Shared memory of a block: without asking, and at most, as on compute capability 9.0.
constexpr std::size_t kSharedBytes = 48 * 1024, kMaxSharedBytes = 227 * 1024;
// Processors (SMs) of the device: what a grid that fills it is made for.
constexpr int kProcessors = 2;
constexpr int kThreadsOfProcessor = 2048;

// "forward", "reverse" or "random:<seed>": the order in which blocks, and between meeting points
// the threads of a block, run. At first what the environment's FASTBP_EMULATION_SCHEDULE says, else
// forward. False, and no change, for other texts.
bool set_schedule(const char* text);
// How many kernels of this name have run.
long long launches_of(const char* name);
void note_launch(const char* name);

void sync_threads(const char* file, int line);
// Waits for all threads of the grid; in a cooperative launch only.
void sync_grid(const char* file, int line);
// The block's dynamic shared memory.
void* shared_memory();

struct LaunchShape {
  dim3 grid, block;
  std::size_t shared_bytes;
  bool cooperative;
};
// Runs `thread` once for every thread of the grid, now or when the graph that `stream` is recording
// is launched. An error of the shape is left for cudaGetLastError.
void launch(const char* name, const void* kernel, const LaunchShape& shape,
            std::function<void()> thread, cudaStream_t stream);

// What cudaFuncSetAttribute and the like know a kernel by.
cudaError_t set_shared_limit(const void* kernel, int bytes);
int blocks_of_processor(int threads, std::size_t shared_bytes);

template <class... Parameters> struct Launcher {
  const char* name;
  void (*kernel)(Parameters...);
  LaunchShape shape;
  cudaStream_t stream;
  // The threads treat denormals as the thread that launches them, or records them, does.
  void operator()(Parameters... arguments) const {
    const auto function = kernel;
    const FpControl control = read_fp_control();
    launch(
        name, reinterpret_cast<const void*>(function), shape,
        [=] {
          write_fp_control(control);
          function(arguments...);
        },
        stream);
  }
};
template <class... Parameters>
Launcher<Parameters...> launcher(const char* name, void (*kernel)(Parameters...), dim3 grid,
                                 dim3 block, std::size_t shared_bytes, cudaStream_t stream,
                                 bool cooperative = false) {
  return {name, kernel, {grid, block, shared_bytes, cooperative}, stream};
}

}  // namespace emulation
}  // namespace fastbp

enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel* kernel, cudaFuncAttribute, int bytes) {
  return fastbp::emulation::set_shared_limit(reinterpret_cast<const void*>(kernel), bytes);
}
// Registers are not emulated: a thread has all that there are.
struct cudaFuncAttributes { int numRegs; };
template <class Kernel> cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, Kernel*) {
  attributes->numRegs = 255;
  return cudaSuccess;
}
template <class Kernel>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, Kernel*, int threads,
                                                          std::size_t shared_bytes) {
  *blocks = fastbp::emulation::blocks_of_processor(threads, shared_bytes);
  return cudaSuccess;
}
