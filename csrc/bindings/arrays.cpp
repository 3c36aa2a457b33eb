#include "bindings/arrays.h"

namespace fastbp {

std::string describe(const py::array& a) {
  return py::cast<std::string>(py::str(a.dtype())) + " array of shape " +
         py::cast<std::string>(py::str(a.attr("shape")));
}

void require_array(const py::array& a, const char* name, const py::dtype& dtype, bool writeable) {
  if (!a.dtype().is(dtype) && !a.dtype().equal(dtype))
    throw py::type_error(std::string(name) + ": expected dtype " +
                         py::cast<std::string>(py::str(dtype)) + ", got a " + describe(a) +
                         "; convert it with .astype()");
  const int wanted = py::array::c_style | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
  if ((a.flags() & wanted) != wanted)
    throw py::value_error(std::string(name) + ": expected a C-contiguous, aligned array, got a " +
                          describe(a) + " with strides " +
                          py::cast<std::string>(py::str(a.attr("strides"))) +
                          "; pass numpy.ascontiguousarray(" + name + ")");
  if (writeable && !a.writeable())
    throw py::value_error(std::string(name) +
                          ": the array is read-only, but would be written; pass a writeable copy");
}

void require_shape(const py::array& a, const char* name, index_t rows, index_t cols) {
  if (a.ndim() == 2 && (rows < 0 || a.shape(0) == rows) && (cols < 0 || a.shape(1) == cols)) return;
  require_rows(a, name, rows, {cols});
}

void require_rows(const py::array& a, const char* name, index_t rows, std::vector<index_t> row) {
  row.insert(row.begin(), rows);
  bool right = a.ndim() == index_t(row.size());
  std::string shape;
  for (std::size_t i = 0; i < row.size(); ++i) {
    right = right && (row[i] < 0 || a.shape(index_t(i)) == row[i]);
    shape += (i ? ", " : "") + (row[i] < 0 ? std::string("n") : std::to_string(row[i]));
  }
  if (!right)
    throw py::value_error(std::string(name) + ": expected shape (" + shape + "), got a " +
                          describe(a));
}

void require_length(const py::array& a, const char* name, index_t n) {
  if (a.ndim() != 1 || a.shape(0) != n)
    throw py::value_error(std::string(name) + ": expected shape (" + std::to_string(n) +
                          ",), got a " + describe(a));
}

DType float_dtype(const py::array& a, const char* name) {
  if (a.dtype().equal(py::dtype::of<float>())) return DType::float32;
  if (a.dtype().equal(py::dtype::of<double>())) return DType::float64;
  throw py::type_error(std::string(name) + ": expected float32 or float64, got a " + describe(a));
}

void require_labels(const std::int64_t* labels, index_t n, index_t classes) {
  for (index_t i = 0; i < n; ++i)
    if (labels[i] < 0 || labels[i] >= classes)
      throw py::value_error("y[" + std::to_string(i) + "] = " + std::to_string(labels[i]) +
                            " is not a class number in 0.." + std::to_string(classes - 1));
}

}  // namespace fastbp
