// NumPy arrays at the boundary: pointer and layout checks, once, in words. Python has explained
// shapes and values before; a message from here names the argument all the same.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "core/types.h"

namespace fastbp {

namespace py = pybind11;

std::string describe(const py::array& a);  // "float64 array of shape (3, 4)"

// Raises TypeError or ValueError unless `a` is a C-contiguous, aligned array of `dtype`, writeable
// where asked.
void require_array(const py::array& a, const char* name, const py::dtype& dtype, bool writeable);

// Raises ValueError unless the shape is (rows, cols); -1 admits any number.
void require_shape(const py::array& a, const char* name, index_t rows, index_t cols);

// Raises ValueError unless the shape is (rows, ...row); -1 admits any number.
void require_rows(const py::array& a, const char* name, index_t rows, std::vector<index_t> row);

// Raises ValueError unless the shape is (n,).
void require_length(const py::array& a, const char* name, index_t n);

template <class T> const T* input(const py::array& a, const char* name) {
  require_array(a, name, py::dtype::of<T>(), false);
  return static_cast<const T*>(a.data());
}

template <class T> T* output(py::array& a, const char* name) {
  require_array(a, name, py::dtype::of<T>(), true);
  return static_cast<T*>(a.mutable_data());
}

// float32 or float64, native byte order; TypeError otherwise.
DType float_dtype(const py::array& a, const char* name);

// Calls f(T()) with T = float or double.
template <class F> auto with_dtype(DType dtype, F&& f) {
  return dtype == DType::float32 ? f(float()) : f(double());
}

// The label's range is checked: ValueError with position and value.
void require_labels(const std::int64_t* labels, index_t n, index_t classes);

}  // namespace fastbp
