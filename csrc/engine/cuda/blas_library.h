// cuBLASLt at run time: loaded from a file that Python has found (fastbp/cublaslt.py), checked, and
// one for the process.
#pragma once

#include <cstdint>
#include <string>

#include "engine/cuda/blas_interface.h"

namespace fastbp {
namespace cuda {

// The library of that file makes products from now on, where that is allowed and faster; "" : none
// does. Returns its version, 130100 for 13.1.0. Throws Failure of FBP_INVALID_ARGUMENT, and changes
// nothing, where the file is no cuBLASLt of this CUDA version.
std::int64_t load_blas(const std::string& path);

// What serves now.
struct BlasService {
  const lt::Functions* functions = nullptr;  // null: none
  std::int64_t number = 0;                   // of the change that brought it
};
BlasService blas_service();

// The library's handle for the calling thread's device, made when it is first asked for; null where it
// cannot be made. Kept to the end of the process.
lt::Handle blas_handle(const BlasService& service, int device);

}  // namespace cuda
}  // namespace fastbp
