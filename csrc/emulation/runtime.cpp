// The runtime API of the emulated device: memory, copies, errors.
#include "emulation/runtime.h"

#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <new>

#include "emulation/memory.h"

namespace fastbp {
namespace emulation {
namespace {

// The blocks of cudaMalloc, by address.
std::mutex blocks_mutex;
std::map<const void*, std::unique_ptr<GuardedMemory>> blocks;

thread_local cudaError_t last_error = cudaSuccess;
thread_local cudaError_t failed_with = cudaSuccess;
thread_local std::string failure;

// Whether one block holds [pointer, pointer + bytes).
bool is_allocated(const void* pointer, std::size_t bytes) {
  const std::lock_guard<std::mutex> lock(blocks_mutex);
  auto after = blocks.upper_bound(pointer);
  if (after == blocks.begin()) return false;
  const GuardedMemory& block = *std::prev(after)->second;
  const auto offset = static_cast<std::size_t>(static_cast<const char*>(pointer) -
                                               static_cast<const char*>(block.data()));
  return offset <= block.bytes() && bytes <= block.bytes() - offset;
}

}  // namespace

cudaError_t failed(cudaError_t error, const std::string& reason) {
  failed_with = error;
  failure = reason;
  return error;
}

void set_last_error(cudaError_t error) { last_error = error; }

std::string describe_allocated(const void* address) {
  const std::lock_guard<std::mutex> lock(blocks_mutex);
  for (const auto& entry : blocks) {
    const std::string where = entry.second->describe(address);
    if (!where.empty()) return where;
  }
  return "";
}

}  // namespace emulation
}  // namespace fastbp

using namespace fastbp::emulation;

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (device != 0) return failed(cudaErrorInvalidDevice, "there is one emulated device, number 0");
  std::strcpy(properties->name, "emulated");
  return cudaSuccess;
}

cudaError_t cudaGetLastError() {
  const cudaError_t error = last_error;
  last_error = cudaSuccess;
  return error;
}

const char* cudaGetErrorString(cudaError_t error) {
  if (error == failed_with && error != cudaSuccess) return failure.c_str();
  switch (error) {
  case cudaSuccess:
    return "no error";
  case cudaErrorInvalidValue:
    return "invalid argument";
  case cudaErrorMemoryAllocation:
    return "out of memory";
  case cudaErrorInvalidConfiguration:
    return "invalid configuration argument";
  case cudaErrorInvalidDevice:
    return "invalid device ordinal";
  case cudaErrorIllegalAddress:
    return "an illegal memory access was encountered";
  case cudaErrorLaunchFailure:
    return "unspecified launch failure";
  }
  return "unrecognized error code";
}

cudaError_t cudaMalloc(void** pointer, std::size_t bytes) try {
  *pointer = nullptr;
  if (bytes == 0) return cudaSuccess;
  auto block = std::make_unique<GuardedMemory>(bytes);
  const std::lock_guard<std::mutex> lock(blocks_mutex);
  *pointer = block->data();
  blocks[*pointer] = std::move(block);
  return cudaSuccess;
} catch (const std::bad_alloc&) {
  *pointer = nullptr;
  return failed(cudaErrorMemoryAllocation,
                "out of memory: " + std::to_string(bytes) + " bytes were asked for");
}

cudaError_t cudaFree(void* pointer) {
  if (!pointer) return cudaSuccess;
  const std::lock_guard<std::mutex> lock(blocks_mutex);
  const auto found = blocks.find(pointer);
  if (found == blocks.end())
    return failed(cudaErrorInvalidValue, "the pointer to free is not one of cudaMalloc");
  const bool intact = found->second->slack_is_intact();
  const std::size_t bytes = found->second->bytes();
  blocks.erase(found);
  if (intact) return cudaSuccess;
  return failed(cudaErrorIllegalAddress,
                "memory in front of " + std::to_string(bytes) + " bytes was written to");
}

cudaError_t cudaMemcpyAsync(void* target, const void* source, std::size_t bytes,
                            cudaMemcpyKind kind, cudaStream_t) {
  const bool to_device = kind == cudaMemcpyHostToDevice;
  if (bytes == 0) return cudaSuccess;
  if (!is_allocated(to_device ? target : source, bytes))
    return failed(cudaErrorInvalidValue, "the device's side of a copy of " + std::to_string(bytes) +
                                             " bytes is not within one allocation");
  std::memcpy(target, source, bytes);
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
