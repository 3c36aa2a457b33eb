// What the parts of the emulated device tell each other.
#pragma once

#include <string>

#include "emulation/device.h"

namespace fastbp {
namespace emulation {

// Sets what the calling thread's cudaGetErrorString says of `error`, and returns it.
cudaError_t failed(cudaError_t error, const std::string& reason);

// Sets what the calling thread's cudaGetLastError returns.
void set_last_error(cudaError_t error);

// Where an address lies beside the allocations of cudaMalloc, as GuardedMemory::describe.
std::string describe_allocated(const void* address);

}  // namespace emulation
}  // namespace fastbp
