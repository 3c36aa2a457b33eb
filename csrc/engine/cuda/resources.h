// What a network holds of a device: memory, pinned host memory, events, a stream. Released by
// destructors, which report nothing: a device that has failed fails again at the next call.
#pragma once

#include <cstddef>
#include <stdexcept>
#include <string>
#include <utility>

#include "kernels/cuda/fastbp_cuda.h"
#include "kernels/cuda/launch.cuh"

namespace fastbp {
namespace cuda {

// A call of the C interface fails with this code and text.
class Failure : public std::runtime_error {
 public:
  Failure(int32_t code_, const std::string& text) : std::runtime_error(text), code(code_) {}
  const int32_t code;
};

inline void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  throw Failure(error == cudaErrorMemoryAllocation ? FBP_OUT_OF_MEMORY : FBP_DEVICE_ERROR,
                std::string(what) + ": " + cudaGetErrorString(error));
}

// Something that a pair of CUDA functions makes and unmakes.
template <class Handle, cudaError_t (*release)(Handle)> class Owned {
 public:
  Owned() = default;
  explicit Owned(Handle handle) : handle_(handle) {}
  Owned(Owned&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Owned& operator=(Owned&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Owned() {
    if (handle_) release(handle_);
  }
  Handle get() const { return handle_; }

 private:
  Handle handle_ = nullptr;
};

using Event = Owned<cudaEvent_t, cudaEventDestroy>;
inline Event make_event() {
  cudaEvent_t event = nullptr;
  check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "making an event");
  return Event(event);
}

// Own streams do not wait for the default stream's work, nor it for theirs.
using Stream = Owned<cudaStream_t, cudaStreamDestroy>;
inline Stream make_stream() {
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "making a stream");
  return Stream(stream);
}

// Host memory that the device reads and writes without the host's help. Grows, never shrinks.
class PinnedMemory {
 public:
  template <class T> T* require(std::size_t count) {
    if (count * sizeof(T) > bytes_) {
      block_ = {};
      bytes_ = 0;
      void* data = nullptr;
      check(cudaMallocHost(&data, count * sizeof(T)), "pinned host memory");
      block_ = Owned<void*, cudaFreeHost>(data);
      bytes_ = count * sizeof(T);
    }
    return static_cast<T*>(block_.get());
  }

 private:
  Owned<void*, cudaFreeHost> block_;
  std::size_t bytes_ = 0;
};

}  // namespace cuda
}  // namespace fastbp
