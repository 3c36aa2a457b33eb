// Memory of the emulated devices, and copies.
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <set>
#include <stdexcept>

#include "emulation/hazards.h"
#include "emulation/memory.h"
#include "emulation/runtime.h"

namespace fastbp {
namespace emulation {
namespace {

struct Allocation {
  std::unique_ptr<GuardedMemory> memory;
  int device;
};

std::mutex blocks_mutex;
std::map<const void*, Allocation> blocks;  // by address
std::set<const void*> pinned;
std::size_t bytes_in_use[16] = {};            // of each device
std::atomic<long long> copied_bytes[4] = {};  // by cudaMemcpyKind

std::size_t memory_limit() {
  return std::size_t(environment_number("FASTBP_EMULATION_MEMORY", 80ll << 30, 0, 1ll << 40));
}

// What is left on the device; the limit may have come down since. To be called under the mutex.
std::size_t memory_left(int device) {
  const std::size_t limit = memory_limit(), used = bytes_in_use[device];
  return used < limit ? limit - used : 0;
}

// The block that holds [pointer, pointer + bytes), or null. To be called under the mutex.
const Allocation* block_of(const void* pointer, std::size_t bytes) {
  const auto after = blocks.upper_bound(pointer);
  if (after == blocks.begin()) return nullptr;
  const Allocation& block = std::prev(after)->second;
  const auto offset = static_cast<std::size_t>(static_cast<const char*>(pointer) -
                                               static_cast<const char*>(block.memory->data()));
  const std::size_t size = block.memory->bytes();
  return offset <= size && bytes <= size - offset ? &block : nullptr;
}

cudaError_t require_allocated(const void* pointer, std::size_t bytes) {
  const std::lock_guard<std::mutex> lock(blocks_mutex);
  if (block_of(pointer, bytes)) return cudaSuccess;
  return failed(cudaErrorInvalidValue, "the device's side of a copy of " + std::to_string(bytes) +
                                           " bytes is not within one allocation");
}

cudaError_t allocate(void** pointer, std::size_t bytes) try {
  *pointer = nullptr;
  if (bytes == 0) return cudaSuccess;
  const std::lock_guard<std::mutex> lock(blocks_mutex);
  const int device = current_device();
  if (bytes > memory_left(device)) throw std::bad_alloc();
  auto memory = std::make_unique<GuardedMemory>(bytes);
  *pointer = memory->data();
  watch(*memory, false);
  blocks[*pointer] = {std::move(memory), device};
  bytes_in_use[device] += bytes;
  return cudaSuccess;
} catch (const std::bad_alloc&) {
  return failed(cudaErrorMemoryAllocation,
                "out of memory: " + std::to_string(bytes) + " bytes were asked for");
} catch (const std::invalid_argument& error) { return failed(cudaErrorInvalidValue, error.what()); }

cudaError_t release(void* pointer) {
  if (!pointer) return cudaSuccess;
  const std::lock_guard<std::mutex> lock(blocks_mutex);
  const auto found = blocks.find(pointer);
  if (found == blocks.end())
    return failed(cudaErrorInvalidValue, "the pointer to free is not one of cudaMalloc");
  const bool intact = found->second.memory->slack_is_intact();
  const std::size_t bytes = found->second.memory->bytes();
  bytes_in_use[found->second.device] -= bytes;
  unwatch(*found->second.memory);
  blocks.erase(found);
  if (intact) return cudaSuccess;
  return failed(cudaErrorIllegalAddress,
                "memory in front of " + std::to_string(bytes) + " bytes was written to");
}

}  // namespace

std::string describe_allocated(const void* address) {
  const std::lock_guard<std::mutex> lock(blocks_mutex);
  for (const auto& entry : blocks) {
    const std::string where = entry.second.memory->describe(address);
    if (!where.empty()) return where;
  }
  return "";
}

}  // namespace emulation
}  // namespace fastbp

using namespace fastbp::emulation;

cudaError_t cudaMalloc(void** pointer, std::size_t bytes) {
  *pointer = nullptr;
  const cudaError_t error = require_no_capture("cudaMalloc");
  return error == cudaSuccess ? allocate(pointer, bytes) : error;
}

cudaError_t cudaMallocAsync(void** pointer, std::size_t bytes, cudaStream_t) {
  return cudaMalloc(pointer, bytes);
}

cudaError_t cudaFree(void* pointer) {
  const cudaError_t error = require_no_capture("cudaFree");
  return error == cudaSuccess ? release(pointer) : error;
}

cudaError_t cudaFreeAsync(void* pointer, cudaStream_t) { return cudaFree(pointer); }

cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) try {
  const std::lock_guard<std::mutex> lock(blocks_mutex);
  *total = memory_limit();
  *free = memory_left(current_device());
  return cudaSuccess;
} catch (const std::invalid_argument& error) {
  *free = *total = 0;
  return failed(cudaErrorInvalidValue, error.what());
}

cudaError_t cudaMallocHost(void** pointer, std::size_t bytes) {
  *pointer = bytes ? std::malloc(bytes) : nullptr;
  if (bytes && !*pointer)
    return failed(cudaErrorMemoryAllocation,
                  "out of host memory: " + std::to_string(bytes) + " bytes were asked for");
  const std::lock_guard<std::mutex> lock(blocks_mutex);
  if (*pointer) pinned.insert(*pointer);
  return cudaSuccess;
}

cudaError_t cudaFreeHost(void* pointer) {
  const std::lock_guard<std::mutex> lock(blocks_mutex);
  if (pointer && !pinned.erase(pointer))
    return failed(cudaErrorInvalidValue, "the pointer to free is not one of cudaMallocHost");
  std::free(pointer);
  return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* pointer) {
  const std::lock_guard<std::mutex> lock(blocks_mutex);
  void* const writable = const_cast<void*>(pointer);
  const Allocation* const block = block_of(pointer, 0);
  if (block)
    *attributes = {cudaMemoryTypeDevice, block->device, writable, nullptr};
  else if (pinned.count(pointer))
    *attributes = {cudaMemoryTypeHost, current_device(), writable, writable};
  else
    *attributes = {cudaMemoryTypeUnregistered, -1, nullptr, writable};
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* target, const void* source, std::size_t bytes,
                            cudaMemcpyKind kind, cudaStream_t stream) {
  if (bytes == 0) return cudaSuccess;
  cudaError_t error = cudaSuccess;
  if (kind & cudaMemcpyHostToDevice) error = require_allocated(target, bytes);
  if (error == cudaSuccess && kind & cudaMemcpyDeviceToHost)
    error = require_allocated(source, bytes);
  if (error != cudaSuccess) return error;
  return enqueue(stream, [=] {
    std::memcpy(target, source, bytes);
    copied_bytes[kind] += static_cast<long long>(bytes);
    if (kind & cudaMemcpyHostToDevice) note_written(target, bytes);
  });
}

cudaError_t cudaMemcpy2DAsync(void* target, std::size_t target_row, const void* source,
                              std::size_t source_row, std::size_t width, std::size_t rows,
                              cudaMemcpyKind kind, cudaStream_t stream) {
  if (width > target_row || width > source_row) return cudaErrorInvalidValue;
  cudaError_t error = cudaSuccess;
  for (std::size_t r = 0; r < rows && error == cudaSuccess; ++r)
    error = cudaMemcpyAsync(static_cast<char*>(target) + r * target_row,
                            static_cast<const char*>(source) + r * source_row, width, kind, stream);
  return error;
}

cudaError_t cudaMemcpy(void* target, const void* source, std::size_t bytes, cudaMemcpyKind kind) {
  const cudaError_t error = cudaMemcpyAsync(target, source, bytes, kind, nullptr);
  return error == cudaSuccess ? cudaStreamSynchronize(nullptr) : error;
}

cudaError_t cudaMemsetAsync(void* target, int value, std::size_t bytes, cudaStream_t stream) {
  if (bytes == 0) return cudaSuccess;
  const cudaError_t error = require_allocated(target, bytes);
  if (error != cudaSuccess) return error;
  return enqueue(stream, [=] {
    std::memset(target, value, bytes);
    note_written(target, bytes);
  });
}

cudaError_t cudaMemset(void* target, int value, std::size_t bytes) {
  const cudaError_t error = cudaMemsetAsync(target, value, bytes, nullptr);
  return error == cudaSuccess ? cudaStreamSynchronize(nullptr) : error;
}

// How many bytes have been copied so far, of a cudaMemcpyKind.
FBP_EXPORT long long fbp_emulation_copied(int kind) {
  return kind >= 0 && kind < 4 ? copied_bytes[kind].load() : -1;
}
// How many bytes are allocated on a device.
FBP_EXPORT long long fbp_emulation_held(int device) {
  const std::lock_guard<std::mutex> lock(blocks_mutex);
  return device >= 0 && device < 16 ? static_cast<long long>(bytes_in_use[device]) : -1;
}
