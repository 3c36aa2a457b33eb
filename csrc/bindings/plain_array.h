// NumPy arrays that the kernels can read as they lie, seen without pybind11's references and
// conversions: for the quick calls. What is not plain gives null or false; the general path then
// takes the call, converts or explains.
#pragma once

#include <pybind11/numpy.h>

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <limits>

#include "core/types.h"

namespace fastbp {

using PlainArray = pybind11::detail::PyArray_Proxy;

// NumPy's own objects, looked up once: an array of a native dtype holds the very same descriptor.
struct NumpyObjects {
  PyTypeObject* array = nullptr;
  PyObject *float32 = nullptr, *float64 = nullptr, *int64 = nullptr;
  decltype(pybind11::detail::npy_api::PyArray_NewFromDescr_) make = nullptr;
};
inline NumpyObjects numpy;
void load_numpy_objects();

template <class T> PyObject* descriptor();
template <> inline PyObject* descriptor<float>() { return numpy.float32; }
template <> inline PyObject* descriptor<double>() { return numpy.float64; }
template <> inline PyObject* descriptor<std::int64_t>() { return numpy.int64; }

// The ndarray itself, no subclass; null for anything else.
inline const PlainArray* plain_array(PyObject* object) {
  return Py_TYPE(object) == numpy.array ? reinterpret_cast<const PlainArray*>(object) : nullptr;
}

inline bool has_flags(const PlainArray* a, int flags) { return (a->flags & flags) == flags; }

// Native dtype T, aligned; rows in any order.
template <class T> bool is_plain(const PlainArray* a) {
  return a && a->descr == descriptor<T>() &&
         has_flags(a, pybind11::detail::npy_api::NPY_ARRAY_ALIGNED_);
}

// The same, and C-contiguous.
template <class T> bool is_packed(const PlainArray* a) {
  return is_plain<T>(a) && has_flags(a, pybind11::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_);
}

template <class T> T* data_of(const PlainArray* a) { return reinterpret_cast<T*>(a->data); }

inline index_t size_of(const PlainArray* a) {
  index_t size = 1;
  for (int axis = 0; axis < a->nd; ++axis) size *= a->dimensions[axis];
  return size;
}

inline bool has_shape(const PlainArray* a, int nd, const ssize_t* dimensions) {
  bool same = a->nd == nd;
  for (int axis = 0; same && axis < nd; ++axis) same = a->dimensions[axis] == dimensions[axis];
  return same;
}
inline bool same_shape(const PlainArray* a, const PlainArray* b) {
  return has_shape(a, b->nd, b->dimensions);
}

// Whether the memory from the first to the last element of one meets that of the other.
bool may_overlap(const PlainArray* a, const PlainArray* b);

// Whether all of n values are from low to high; NaN is not. Bounds beyond T's are T's own.
template <class T> bool all_within(const T* values, index_t n, double low, double high) {
  constexpr double most = double(std::numeric_limits<T>::max());
  const T least = T(std::max(low, -most)), largest = T(std::min(high, most));
  int outside = 0;
  for (index_t i = 0; i < n; ++i) outside |= !(values[i] >= least) | !(values[i] <= largest);
  return !outside;
}

// Whether all of n numbers are from 0 to classes - 1.
inline bool are_labels(const std::int64_t* labels, index_t n, index_t classes) {
  std::uint64_t largest = 0;  // a negative number is a large one
  for (index_t i = 0; i < n; ++i) largest = std::max(largest, std::uint64_t(labels[i]));
  return largest < std::uint64_t(classes);
}

// Where a result goes, and its memory; no object where there is no such place.
template <class T> struct Result {
  pybind11::object object;
  T* data = nullptr;
};

// A new C-contiguous array.
template <class T> Result<T> new_array(int nd, const ssize_t* dimensions) {
  Py_INCREF(descriptor<T>());
  PyObject* made =
      numpy.make(numpy.array, descriptor<T>(), nd, dimensions, nullptr, nullptr, 0, nullptr);
  if (!made) {
    PyErr_Clear();  // the general path raises it again
    return {};
  }
  return {pybind11::reinterpret_steal<pybind11::object>(made),
          data_of<T>(reinterpret_cast<PlainArray*>(made))};
}

enum class InPlace { refused, allowed };

// `out` if it can take the result as it lies, a new array if it is None, else none. It may be one of
// the arrays that are read only where `in_place` says so, and must not overlap the others.
template <class T>
Result<T> result_place(PyObject* out, int nd, const ssize_t* dimensions, InPlace in_place,
                       std::initializer_list<const PlainArray*> reads) {
  if (out == Py_None) return new_array<T>(nd, dimensions);
  const PlainArray* place = plain_array(out);
  if (!is_packed<T>(place) || !has_flags(place, pybind11::detail::npy_api::NPY_ARRAY_WRITEABLE_) ||
      !has_shape(place, nd, dimensions))
    return {};
  for (const PlainArray* read : reads)
    if (read && !(in_place == InPlace::allowed && read == place) && may_overlap(place, read))
      return {};
  return {pybind11::reinterpret_borrow<pybind11::object>(out), data_of<T>(place)};
}

// A row of a table of C functions or methods that Python calls with an array of arguments: what
// pybind11's conversion of arguments costs is as much as the rest of a short call.
inline PyMethodDef fast_call(const char* name,
                             PyObject* (*function)(PyObject*, PyObject* const*, Py_ssize_t)) {
  return {name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function)),
          METH_FASTCALL, nullptr};
}

// Calls f(T()) with the T that the array holds, float or double; None for any other array.
template <class F> PyObject* with_plain(const PlainArray* a, F&& f) {
  if (is_plain<float>(a)) return f(float());
  if (is_plain<double>(a)) return f(double());
  Py_RETURN_NONE;
}

}  // namespace fastbp
