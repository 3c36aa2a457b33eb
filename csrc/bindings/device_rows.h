// Rows in a device's memory as Python hands them over: an object with the attributes pointer (an
// address), shape, dtype (of NumPy) and device (its number), contiguous; sequences have one as `values`.
#pragma once

#include <pybind11/stl.h>

#include <vector>

#include "bindings/arrays.h"

namespace fastbp {

struct DeviceRows {
  void* pointer;
  std::vector<index_t> shape;
  py::dtype dtype;

  static bool is_one(const py::object& given) { return py::hasattr(given, "pointer"); }

  explicit DeviceRows(const py::object& given)
      : pointer(reinterpret_cast<void*>(given.attr("pointer").cast<std::uintptr_t>())),
        shape(given.attr("shape").cast<std::vector<index_t>>()), dtype(given.attr("dtype")) {}

  // Raises TypeError or ValueError unless it has that dtype and shape.
  void require(const char* name, const py::dtype& wanted, const std::vector<index_t>& sizes) const {
    if (!dtype.is(wanted) && !dtype.equal(wanted))
      throw py::type_error(std::string(name) + ": expected " + words(wanted) + ", got " +
                           words(dtype) + " on the device");
    if (shape != sizes)
      throw py::value_error(std::string(name) + ": expected shape " + words(py::cast(sizes)) +
                            ", got " + words(py::cast(shape)) + " on the device");
  }

 private:
  static std::string words(const py::object& value) { return py::str(value); }
};

}  // namespace fastbp
