#include "bindings/plain_array.h"

namespace fastbp {

void load_numpy_objects() {
  const auto& api = pybind11::detail::npy_api::get();
  numpy.array = api.PyArray_Type_;
  numpy.float32 = api.PyArray_DescrFromType_(api.NPY_FLOAT_);
  numpy.float64 = api.PyArray_DescrFromType_(api.NPY_DOUBLE_);
  numpy.int64 = api.PyArray_DescrFromType_(api.NPY_INT64_);
  numpy.make = api.PyArray_NewFromDescr_;
}

namespace {

struct Extent { const char *begin, *end; };

// Of an array that is not empty. Its dtype has 4 or 8 bytes an element; 8 covers both.
Extent extent(const PlainArray* a) {
  Extent bytes{a->data, a->data + 8};
  for (int axis = 0; axis < a->nd; ++axis) {
    const ssize_t reach = (a->dimensions[axis] - 1) * a->strides[axis];
    (reach < 0 ? bytes.begin : bytes.end) += reach;
  }
  return bytes;
}

}  // namespace

bool may_overlap(const PlainArray* a, const PlainArray* b) {
  const Extent one = extent(a), other = extent(b);
  return one.begin < other.end && other.begin < one.end;
}

}  // namespace fastbp
