// Memory of the emulated device, for the C++ tests of kernels.
#pragma once

#include <cstddef>
#include <vector>

#include "check.h"
#include "kernels/cuda/launch.cuh"

// Device memory with a vector's values.
template <class T> class Device {
 public:
  explicit Device(std::size_t size) : size_(size) {
    void* pointer = nullptr;
    FBP_EXPECT(cudaMalloc(&pointer, size * sizeof(T)) == cudaSuccess);
    data_ = static_cast<T*>(pointer);
  }
  explicit Device(const std::vector<T>& values) : Device(values.size()) {
    FBP_EXPECT(cudaMemcpyAsync(data_, values.data(), size_ * sizeof(T), cudaMemcpyHostToDevice,
                               nullptr) == cudaSuccess);
  }
  ~Device() { FBP_EXPECT(cudaFree(data_) == cudaSuccess); }
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  T* data() const { return data_; }
  std::vector<T> values() const {
    std::vector<T> result(size_);
    FBP_EXPECT(cudaMemcpyAsync(result.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost,
                               nullptr) == cudaSuccess);
    return result;
  }

 private:
  T* data_;
  std::size_t size_;
};
