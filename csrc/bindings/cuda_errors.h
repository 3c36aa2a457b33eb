// Codes of the CUDA library's C interface as Python exceptions, with its words.
#pragma once

#include <pybind11/pybind11.h>

#include "backend/cuda_library.h"

namespace fastbp {

namespace py = pybind11;

// Raises unless the call of this thread went well: MemoryError where the device's memory is too small,
// ValueError for arguments, RuntimeError for everything else.
inline void require_cuda(int32_t code) {
  if (code == FBP_OK) return;
  if (code == FBP_INTERRUPTED) throw py::error_already_set();
  const char* const text = cuda_api().last_error();
  if (code == FBP_INVALID_ARGUMENT) throw py::value_error(text);
  PyErr_SetString(code == FBP_OUT_OF_MEMORY ? PyExc_MemoryError : PyExc_RuntimeError, text);
  throw py::error_already_set();
}

}  // namespace fastbp
