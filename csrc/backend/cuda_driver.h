// The NVIDIA driver, asked without a CUDA library: is there one, how new is it, which devices has
// it. So that every reason why a GPU cannot be used has a name before anything is tried on it.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace fastbp {

struct CudaDriver {
  bool found = false;
  int version = 0;      // newest CUDA that it serves: 13000 for 13.0
  std::string problem;  // where not found: the loader's words
};
// Loads libcuda.so.1 and asks its version, which starts nothing: a fork afterwards does no harm.
CudaDriver find_cuda_driver();

struct CudaDevice {
  std::string name;
  int capability = 0;  // 90 for compute capability 9.0
  std::size_t memory = 0;
};
// Starts the driver and lists its devices, as CUDA_VISIBLE_DEVICES leaves them. Throws
// CudaUnavailable: "no_driver", "no_device", "driver_error".
std::vector<CudaDevice> list_cuda_devices();

}  // namespace fastbp
