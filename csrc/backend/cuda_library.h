// libfastbp_cuda.so at run time: found by Python (fastbp/cuda_library.py), loaded and checked here,
// called by the engine through cuda_api().
//
// Why here and not with ctypes: the engine calls the table from C++, a dozen times a step and
// without the Python lock; a call through cuda_api() costs a load and a compare.
#pragma once

#include <stdexcept>
#include <string>

#include "kernels/cuda/fastbp_cuda.h"

namespace fastbp {

// A device cannot be used. Python sees fastbp.DeviceNotAvailableError; `reason` is its word for
// programs, what() says what was found, and Python adds what to do.
class CudaUnavailable : public std::runtime_error {
 public:
  CudaUnavailable(const char* why, const std::string& message)
      : std::runtime_error(message), reason(why) {}
  const char* const reason;
};

// Loads the library of that path, once for a process: a call for the file that is loaded does
// nothing. Touches no driver. Throws CudaUnavailable: "bad_library" for a file that is no library,
// cut short, for another machine, or not fastbp's; "version_mismatch" for another release's;
// "already_loaded" where another file serves this process.
void load_cuda_library(const std::string& path);

// What the library said that it is, as fbp_build_info; null before it is loaded.
const char* cuda_build_info();
// The file that is loaded; empty before.
const std::string& cuda_library_path();

// Says that the device is used from now on: what a fork begins cannot use it any more.
void mark_cuda_used();
// False before the library is loaded, and in a process that was forked after the device was used:
// nothing of the device may be called then, not even to release memory.
bool cuda_is_usable();
// The library's functions. Throws CudaUnavailable: "no_backend" before load_cuda_library, "forked".
const fbp_api& cuda_api();

}  // namespace fastbp
