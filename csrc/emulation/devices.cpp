// Which emulated devices there are, and what they say of themselves.
#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "core/check.h"
#include "core/environment.h"
#include "emulation/runtime.h"

namespace fastbp {
namespace emulation {
namespace {

thread_local int device_of_thread = 0;

cudaError_t require_device(int device) {
  const int count = device_count();
  if (device >= 0 && device < count) return cudaSuccess;
  return failed(cudaErrorInvalidDevice,
                count == 1 ? std::string("there is one emulated device, number 0")
                           : text("there are ", count, " emulated devices, from number 0"));
}

}  // namespace

long long environment_number(const char* name, long long otherwise, long long low, long long high) {
  const char* const given = setting(process_environment, name);
  if (!given) return otherwise;
  const std::size_t digits = std::strspn(given, "0123456789");
  const long long value = digits && digits < 19 ? std::stoll(given) : -1;
  if (given[digits] || value < low || value > high)
    throw std::invalid_argument(text(name, " is '", given, "', expected ", low, " to ", high));
  return value;
}

int device_count() {
  static const int count = int(environment_number("FASTBP_EMULATION_DEVICES", 1, 1, 16));
  return count;
}

int current_device() { return device_of_thread; }

}  // namespace emulation
}  // namespace fastbp

using namespace fastbp::emulation;

cudaError_t cudaGetDeviceCount(int* count) try {
  *count = device_count();
  return cudaSuccess;
} catch (const std::invalid_argument& error) {
  *count = 0;
  return failed(cudaErrorInvalidValue, error.what());
}

cudaError_t cudaGetDevice(int* device) {
  *device = device_of_thread;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  const cudaError_t error = require_device(device);
  if (error == cudaSuccess) device_of_thread = device;
  return error;
}

// Which products are made, and by which instructions, depends on it; limits stay those of 9.0.
int fastbp::emulation::emulated_capability() {
  return int(environment_number("FASTBP_EMULATION_CAPABILITY", 90, 75, 129));
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) try {
  const cudaError_t error = require_device(device);
  if (error != cudaSuccess) return error;
  const int capability = emulated_capability();
  *properties = {};
  std::strcpy(properties->name, "emulated");
  std::size_t free = 0;
  cudaMemGetInfo(&free, &properties->totalGlobalMem);
  // An H100's limits (CUDA C++ programming guide, technical specifications of 9.0), but few
  // processors, so that a grid that fills the device is small.
  properties->sharedMemPerBlock = 48 * 1024;
  properties->sharedMemPerBlockOptin = kMaxSharedBytes;
  properties->sharedMemPerMultiprocessor = 228 * 1024;
  properties->regsPerBlock = 65536;
  properties->warpSize = 32;
  properties->maxThreadsPerBlock = 1024;
  properties->maxThreadsPerMultiProcessor = 2048;
  properties->major = capability / 10;
  properties->minor = capability % 10;
  properties->multiProcessorCount = kProcessors;
  properties->l2CacheSize = 50 << 20;
  properties->cooperativeLaunch = 1;
  return cudaSuccess;
} catch (const std::invalid_argument& error) { return failed(cudaErrorInvalidValue, error.what()); }

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  cudaDeviceProp properties;
  const cudaError_t error = cudaGetDeviceProperties(&properties, device);
  if (error != cudaSuccess) return error;
  switch (attribute) {
  case cudaDevAttrMultiProcessorCount:
    *value = properties.multiProcessorCount;
    return cudaSuccess;
  case cudaDevAttrComputeCapabilityMajor:
    *value = properties.major;
    return cudaSuccess;
  case cudaDevAttrComputeCapabilityMinor:
    *value = properties.minor;
    return cudaSuccess;
  case cudaDevAttrCooperativeLaunch:
    *value = properties.cooperativeLaunch;
    return cudaSuccess;
  case cudaDevAttrMaxSharedMemoryPerBlockOptin:
    *value = int(properties.sharedMemPerBlockOptin);
    return cudaSuccess;
  }
  return failed(cudaErrorInvalidValue, "the emulated device has no such attribute");
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = 0;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 0;
  return cudaSuccess;
}
