// What the parts of the emulated device tell each other.
#pragma once

#include <functional>
#include <string>

#include "emulation/device.h"

// Of what tests call in the library by name.
#define FBP_EXPORT extern "C" __attribute__((visibility("default")))

namespace fastbp {
namespace emulation {

// Sets what the calling thread's cudaGetErrorString says of `error`, and returns it.
cudaError_t failed(cudaError_t error, const std::string& reason);

// Sets what the calling thread's cudaGetLastError returns.
void set_last_error(cudaError_t error);

// What a kernel ended with; the next call that waits reports it.
void set_pending_error(cudaError_t error, const std::string& reason);
// That error, which is thereby forgotten; for the calling thread's cudaGetErrorString.
cudaError_t take_pending_error();

// Does `work` now, or adds it to the graph that `stream` is recording.
using Work = std::function<void()>;
cudaError_t enqueue(cudaStream_t stream, Work work);
// For a call that waits or allocates: an error where the calling thread is recording a graph, which
// is spoiled by it.
cudaError_t require_no_capture(const char* what);

// What events tell in the place of the host's clock, where a test has set what kernels take: the sum of
// what has been done since, in microseconds. Negative: the host's clock.
double told_time();
void spend_kernel(const char* name);

// The value of a whole number in the environment, or `otherwise` where it is not set. Throws
// std::invalid_argument for texts that are none within [low, high].
long long environment_number(const char* name, long long otherwise, long long low, long long high);
int device_count();
// 90 for 9.0; std::invalid_argument as environment_number.
int emulated_capability();
int current_device();

// Where an address lies beside the allocations of cudaMalloc, as GuardedMemory::describe.
std::string describe_allocated(const void* address);

}  // namespace emulation
}  // namespace fastbp
