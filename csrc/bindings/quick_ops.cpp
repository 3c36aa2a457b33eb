// The functions of fastbp.ops for arrays that are right as they are: checks, kernel and result in
// one call of a few hundred nanoseconds, most of them NumPy's for the new array. Every function here
// returns None, with nothing changed, unless each of its arguments is plain; Python then takes the
// general path, which converts, explains or raises. So no error is raised here and no rule is stated
// that the general path does not have.
#include <array>
#include <cmath>
#include <limits>
#include <string_view>

#include "bindings/bind.h"
#include "bindings/names.h"
#include "bindings/plain_array.h"
#include "bindings/run_ops.h"

namespace py = pybind11;

namespace fastbp {
namespace {

using Arguments = PyObject* const*;

// The text of a str; empty for other objects.
std::string_view text_of(PyObject* object) {
  Py_ssize_t size = 0;
  if (!PyUnicode_Check(object)) return {};
  const char* text = PyUnicode_AsUTF8AndSize(object, &size);
  if (!text) PyErr_Clear();
  return text ? std::string_view(text, std::size_t(size)) : std::string_view();
}

// The parameter of an activation or a loss whose usual value is `usual`, 0 where it has none. NaN
// where the general path has to look at it.
double parameter(PyObject* given, double usual) {
  if (given == Py_None) return usual;
  const double value = usual != 0 && PyFloat_CheckExact(given) ? PyFloat_AS_DOUBLE(given) : 0;
  return value > 0 && std::isfinite(value) ? value : std::numeric_limits<double>::quiet_NaN();
}

constexpr int kMostNames = 3;

// values[i] = what a call (*args, **kwargs) gives the parameter names[i], None where nothing. False
// if the call does not fit the names.
bool bind_arguments(PyObject* names, PyObject* args, PyObject* kwargs, PyObject** values) {
  if (!PyTuple_Check(names) || !PyTuple_Check(args) || !PyDict_Check(kwargs)) return false;
  const Py_ssize_t count = PyTuple_GET_SIZE(names), given = PyTuple_GET_SIZE(args);
  if (count < 1 || count > kMostNames || given > count) return false;
  Py_ssize_t unused = PyDict_GET_SIZE(kwargs);
  for (Py_ssize_t i = 0; i < count; ++i) {
    values[i] = i < given ? PyTuple_GET_ITEM(args, i) : Py_None;
    if (i < given || unused == 0) continue;
    if (PyObject* value = PyDict_GetItemWithError(kwargs, PyTuple_GET_ITEM(names, i))) {
      values[i] = value;
      --unused;
    }
  }
  return unused == 0;
}

// (name, names, args, kwargs) of a function made for `name`, whose parameters are `names`: x, a
// parameter if there are three, out.
bool bind_elementwise(Arguments call, PyObject** x, PyObject** param, PyObject** out) {
  PyObject* values[kMostNames] = {Py_None, Py_None, Py_None};
  if (!bind_arguments(call[1], call[2], call[3], values)) return false;
  const Py_ssize_t count = PyTuple_GET_SIZE(call[1]);
  *x = values[0];
  *param = count == 3 ? values[1] : Py_None;
  *out = values[count - 1];
  return true;
}

// y = run(x, y, n) of every element, into `out` or a new array.
template <class Run> PyObject* elementwise(PyObject* x, PyObject* out, Run&& run) {
  const PlainArray* source = plain_array(x);
  return with_plain(source, [&](auto zero) -> PyObject* {
    using T = decltype(zero);
    const index_t n = size_of(source);
    if (!is_packed<T>(source) || source->nd == 0 || n == 0) Py_RETURN_NONE;
    Result<T> result =
        result_place<T>(out, source->nd, source->dimensions, InPlace::allowed, {source});
    if (!result.object) Py_RETURN_NONE;
    run(data_of<const T>(source), result.data, n);
    return result.object.release().ptr();
  });
}

// (name, names, args, kwargs)
PyObject* quick_vector_function(Arguments call) {
  PyObject *x, *param, *out;
  const int function = find_vector_function(text_of(call[0]));
  if (function < 0 || !bind_elementwise(call, &x, &param, &out)) Py_RETURN_NONE;
  return elementwise(
      x, out, [=](auto* from, auto* to, index_t n) { run_vector_function(function, from, to, n); });
}

// (name, names, args, kwargs)
PyObject* quick_activation(Arguments call) {
  PyObject *x, *param, *out;
  const int activation = find_activation(text_of(call[0]));
  if (activation < 0 || !bind_elementwise(call, &x, &param, &out)) Py_RETURN_NONE;
  const double value = parameter(param, activation_default_param(activation));
  if (std::isnan(value)) Py_RETURN_NONE;
  return elementwise(x, out, [=](auto* from, auto* to, index_t n) {
    run_activation_forward(activation, value, from, to, n);
  });
}

// (x, out)
PyObject* quick_softmax(Arguments call) {
  const PlainArray* source = plain_array(call[0]);
  if (!source || source->nd == 0) Py_RETURN_NONE;
  const index_t cols = source->dimensions[source->nd - 1];
  return elementwise(call[0], call[1], [=](auto* from, auto* to, index_t n) {
    run_softmax(from, to, n / cols, cols);
  });
}

// (name, dy, z, y, param, out)
PyObject* quick_activation_backward(Arguments call) {
  const int activation = find_activation(text_of(call[0]));
  if (activation < 0) Py_RETURN_NONE;
  const Saves saves = activation_saves(activation);
  // z is preferred where both are given; f'(z) from z where y is what counts takes a product more.
  PyObject* known = call[2] != Py_None ? call[2] : call[3];
  if (saves == (known == call[2] ? Saves::Output : Saves::Input)) Py_RETURN_NONE;
  const double value = parameter(call[4], activation_default_param(activation));
  const PlainArray *dy = plain_array(call[1]), *saved = plain_array(known);
  if (std::isnan(value)) Py_RETURN_NONE;
  return with_plain(dy, [&](auto zero) -> PyObject* {
    using T = decltype(zero);
    const index_t n = size_of(dy);
    if (!is_packed<T>(dy) || !is_packed<T>(saved) || !same_shape(dy, saved) || dy->nd == 0 ||
        n == 0)
      Py_RETURN_NONE;
    Result<T> result =
        result_place<T>(call[5], dy->nd, dy->dimensions, InPlace::allowed, {dy, saved});
    if (!result.object) Py_RETURN_NONE;
    run_activation_backward(activation, value, data_of<const T>(saved), data_of<const T>(dy),
                            result.data, n);
    return result.object.release().ptr();
  });
}

// A matrix for run_matmul, of one step.
template <class T> struct Operand {
  index_t rows = 0, cols = 0;
  StackView<T> view{};
};

// Fills `matrix` with a vector, as a row or a column, or a matrix, transposed or not. False unless it
// has elements, and rows or columns that are contiguous.
template <class T>
bool plain_operand(const PlainArray* a, bool as_column, bool transpose, Operand<T>* matrix) {
  constexpr ssize_t item = sizeof(T);
  if (!is_plain<T>(a) || (a->nd != 1 && a->nd != 2)) return false;
  const bool vector = a->nd == 1;
  const ssize_t lengths[2] = {vector ? 1 : a->dimensions[0], a->dimensions[a->nd - 1]};
  const ssize_t strides[2] = {vector ? item : a->strides[0], a->strides[a->nd - 1]};
  if (lengths[0] == 0 || lengths[1] == 0 || strides[0] % item || strides[1] % item) return false;
  const int row = vector ? as_column : transpose, col = 1 - row;
  matrix->rows = lengths[row];
  matrix->cols = lengths[col];
  matrix->view = {data_of<const T>(a), 0, strides[row] / item, strides[col] / item};
  return matrix->view.settle(matrix->rows, matrix->cols);
}

// (a, b, transpose_a, transpose_b, bias, activation, out)
PyObject* quick_matmul(Arguments call) {
  const PlainArray *a = plain_array(call[0]), *b = plain_array(call[1]);
  const bool transpose_a = call[2] == Py_True, transpose_b = call[3] == Py_True;
  if ((call[2] != Py_False && !transpose_a) || (call[3] != Py_False && !transpose_b))
    Py_RETURN_NONE;
  const int activation = call[5] == Py_None ? 0 : find_activation(text_of(call[5]));
  if (activation < 0) Py_RETURN_NONE;
  return with_plain(a, [&](auto zero) -> PyObject* {
    using T = decltype(zero);
    Operand<T> left, right;
    if (!plain_operand(a, false, transpose_a, &left) ||
        !plain_operand(b, true, transpose_b, &right) || left.cols != right.rows)
      Py_RETURN_NONE;
    const index_t m = left.rows, n = right.cols, k = left.cols;
    const PlainArray* bias = call[4] == Py_None ? nullptr : plain_array(call[4]);
    if (call[4] != Py_None &&
        (!is_packed<T>(bias) || bias->nd != 1 || bias->dimensions[0] != n || b->nd == 1))
      Py_RETURN_NONE;
    ssize_t shape[2];
    int nd = 0;
    if (a->nd == 2) shape[nd++] = m;
    if (b->nd == 2) shape[nd++] = n;
    Result<T> result = result_place<T>(call[6], nd, shape, InPlace::refused, {a, b, bias});
    if (!result.object) Py_RETURN_NONE;
    run_matmul({1, m, n, k}, left.view, right.view, bias ? data_of<const T>(bias) : nullptr,
               activation, activation_default_param(activation), result.data);
    // As NumPy's functions do, a number instead of an array without axes.
    if (nd == 0 && call[6] == Py_None)
      return PyObject_GetItem(result.object.ptr(), py::tuple().ptr());
    return result.object.release().ptr();
  });
}

// A (rows, cols) array, C-contiguous and not empty; null for any other object.
template <class T> const T* packed_matrix(PyObject* object, index_t rows, index_t cols) {
  const PlainArray* a = plain_array(object);
  const ssize_t shape[2] = {rows, cols};
  return is_packed<T>(a) && has_shape(a, 2, shape) ? data_of<const T>(a) : nullptr;
}

// What dense layers have in common: x (rows, inputs), kernel (inputs, units), the activation by name
// or None, and its parameter.
template <class T> struct DenseLayer {
  Operand<T> x, kernel;
  index_t rows = 0, inputs = 0, units = 0;
  int activation = 0;
  double param = 0;

  // False unless all are plain.
  bool read(PyObject* x_given, PyObject* kernel_given, PyObject* name, PyObject* param_given) {
    const PlainArray *a = plain_array(x_given), *b = plain_array(kernel_given);
    activation = name == Py_None ? 0 : find_activation(text_of(name));
    if (activation < 0 || !a || !b || a->nd != 2 || b->nd != 2 ||
        !plain_operand(a, false, false, &x) || !plain_operand(b, false, false, &kernel) ||
        x.cols != kernel.rows)
      return false;
    param = parameter(param_given, activation_default_param(activation));
    rows = x.rows, inputs = x.cols, units = kernel.cols;
    return !std::isnan(param);
  }
};

template <class T> StackView<T> transposed(const StackView<T>& a) {
  return {a.data, a.step, a.col, a.row};
}

// (x, kernel, bias, activation, param) -> (y, saved)
PyObject* quick_dense_forward(Arguments call) {
  return with_plain(plain_array(call[0]), [&](auto zero) -> PyObject* {
    using T = decltype(zero);
    DenseLayer<T> layer;
    if (!layer.read(call[0], call[1], call[3], call[4])) Py_RETURN_NONE;
    const PlainArray* bias = call[2] == Py_None ? nullptr : plain_array(call[2]);
    const ssize_t bias_shape[1] = {layer.units}, shape[2] = {layer.rows, layer.units};
    if (call[2] != Py_None && !(is_packed<T>(bias) && has_shape(bias, 1, bias_shape)))
      Py_RETURN_NONE;
    Result<T> z = new_array<T>(2, shape), y = z;
    if (activation_saves(layer.activation) == Saves::Input) y = new_array<T>(2, shape);
    if (!z.object || !y.object) Py_RETURN_NONE;
    run_matmul({1, layer.rows, layer.units, layer.inputs}, layer.x.view, layer.kernel.view,
               bias ? data_of<const T>(bias) : nullptr, 0, 0, z.data);
    run_activation_forward(layer.activation, layer.param, z.data, y.data, layer.rows * layer.units);
    return py::make_tuple(y.object, z.object).release().ptr();
  });
}

// (x, kernel, saved, dy, activation, param, use_bias, input_gradient) -> (dx, dkernel, dbias)
PyObject* quick_dense_backward(Arguments call) {
  const bool use_bias = call[6] == Py_True, input_gradient = call[7] == Py_True;
  if ((!use_bias && call[6] != Py_False) || (!input_gradient && call[7] != Py_False))
    Py_RETURN_NONE;
  return with_plain(plain_array(call[0]), [&](auto zero) -> PyObject* {
    using T = decltype(zero);
    DenseLayer<T> layer;
    if (!layer.read(call[0], call[1], call[4], call[5])) Py_RETURN_NONE;
    const auto [rows, inputs, units] = std::array{layer.rows, layer.inputs, layer.units};
    const T* dz = packed_matrix<T>(call[3], rows, units);
    const ssize_t dz_shape[2] = {rows, units}, dx_shape[2] = {rows, inputs};
    const ssize_t kernel_shape[2] = {inputs, units}, bias_shape[1] = {units};
    if (!dz) Py_RETURN_NONE;
    Result<T> through;  // dz where it is not dy itself
    if (layer.activation != 0) {
      const T* saved = packed_matrix<T>(call[2], rows, units);
      if (!saved || !(through = new_array<T>(2, dz_shape)).object) Py_RETURN_NONE;
      run_activation_backward(layer.activation, layer.param, saved, dz, through.data, rows * units);
      dz = through.data;
    }
    Result<T> dx, dkernel = new_array<T>(2, kernel_shape), dbias;
    if (input_gradient) dx = new_array<T>(2, dx_shape);
    if (use_bias) dbias = new_array<T>(1, bias_shape);
    if (!dkernel.object || (input_gradient && !dx.object) || (use_bias && !dbias.object))
      Py_RETURN_NONE;
    const StackView<T> gradient{dz, 0, units, 1};
    if (input_gradient)
      run_matmul<T>({1, rows, inputs, units}, gradient, transposed(layer.kernel.view), nullptr, 0,
                    0, dx.data);
    if (use_bias) run_column_sum(dz, dbias.data, rows, units);
    run_matmul<T>({1, inputs, units, rows}, transposed(layer.x.view), gradient, nullptr, 0, 0,
                  dkernel.data);
    const auto or_none = [](const Result<T>& result) {
      return result.object ? result.object : py::none();
    };
    return py::make_tuple(or_none(dx), dkernel.object, or_none(dbias)).release().ptr();
  });
}

// (name, names, args, kwargs) of a function made for `name`, whose parameters are `names`: outputs,
// target, and a parameter if there are three -> (loss, gradient)
PyObject* quick_loss(Arguments call) {
  PyObject* values[kMostNames] = {Py_None, Py_None, Py_None};
  const int index = find_loss(text_of(call[0]));
  if (index < 0 || !bind_arguments(call[1], call[2], call[3], values)) Py_RETURN_NONE;
  const LossSpec spec{index, parameter(values[2], loss_default_param(index))};
  const PlainArray *y = plain_array(values[0]), *t = plain_array(values[1]);
  if (!(spec.param < loss_param_high(index)) || !t) Py_RETURN_NONE;
  return with_plain(y, [&](auto zero) -> PyObject* {
    using T = decltype(zero);
    const index_t n = size_of(y);
    if (!is_packed<T>(y) || y->nd == 0 || n == 0) Py_RETURN_NONE;
    const bool by_rows = loss_takes_labels(index);
    const index_t cols = y->nd == 1 ? 1 : y->dimensions[y->nd - 1], rows = n / cols;
    const T* target = nullptr;
    const std::int64_t* labels = nullptr;
    if (by_rows && y->nd != 2) Py_RETURN_NONE;
    if (by_rows && is_packed<std::int64_t>(t) && t->nd == 1 && t->dimensions[0] == rows) {
      labels = data_of<const std::int64_t>(t);
      if (!are_labels(labels, rows, cols)) Py_RETURN_NONE;
    } else {
      const TargetRange range = loss_target_range(index);
      target = data_of<const T>(t);
      // Where any number goes, so do NaN and infinity.
      const bool any = range.low < -1;
      if (!is_packed<T>(t) || !same_shape(t, y) ||
          (!by_rows && !any && !all_within(target, n, range.low, range.high)))
        Py_RETURN_NONE;
    }
    Result<T> gradient = new_array<T>(y->nd, y->dimensions);
    if (!gradient.object) Py_RETURN_NONE;
    const double loss =
        run_loss(spec, rows, cols, data_of<const T>(y), target, labels, gradient.data);
    return py::make_tuple(py::float_(loss), gradient.object).release().ptr();
  });
}

constexpr int kMostSlots = int(sizeof(UpdateTile<float>::slot) / sizeof(float*));
constexpr char kOptimizerCapsule[] = "fastbp.OptimizerSpec";

// (arrays, spec, step): w, g and the states in `arrays` -> True if the update is done
PyObject* quick_update(Arguments call) {
  const auto* spec =
      static_cast<const OptimizerSpec*>(PyCapsule_GetPointer(call[1], kOptimizerCapsule));
  if (!spec || !PyLong_CheckExact(call[2])) {
    PyErr_Clear();
    Py_RETURN_NONE;
  }
  int overflow = 0;
  const long long step = PyLong_AsLongLongAndOverflow(call[2], &overflow);
  const int count = 2 + optimizer_slots(spec->optimizer);
  if (overflow || step < 1 || !PyTuple_Check(call[0]) || PyTuple_GET_SIZE(call[0]) != count)
    Py_RETURN_NONE;
  const PlainArray* arrays[2 + kMostSlots];
  for (int i = 0; i < count; ++i) arrays[i] = plain_array(PyTuple_GET_ITEM(call[0], i));
  return with_plain(arrays[0], [&](auto zero) -> PyObject* {
    using T = decltype(zero);
    const index_t n = size_of(arrays[0]);
    if (n == 0) Py_RETURN_NONE;
    for (int i = 0; i < count; ++i) {
      const bool written = i != 1;
      if (!is_packed<T>(arrays[i]) || !same_shape(arrays[i], arrays[0]) ||
          (written && !has_flags(arrays[i], py::detail::npy_api::NPY_ARRAY_WRITEABLE_)))
        Py_RETURN_NONE;
      for (int j = 0; j < i; ++j)
        if (may_overlap(arrays[i], arrays[j])) Py_RETURN_NONE;
    }
    UpdateTile<T> tile;
    tile.w = data_of<T>(arrays[0]);
    for (int k = 0; k < count - 2; ++k) tile.slot[k] = data_of<T>(arrays[2 + k]);
    run_update(*spec, step, tile, data_of<const T>(arrays[1]), n);
    Py_RETURN_TRUE;
  });
}

// The name and checked hyper-parameters of an optimizer, looked up for quick_update.
py::capsule optimizer_spec(const std::string& name, const py::dict& hyper) {
  auto* spec = new OptimizerSpec{optimizer_index(name), hyper_from(hyper)};
  return py::capsule(spec, kOptimizerCapsule,
                     [](void* data) { delete static_cast<OptimizerSpec*>(data); });
}

// A function of exactly Count arguments as Python calls it. What a kernel throws for want of memory,
// before it has changed anything, the general path throws again.
template <PyObject* (*Function)(Arguments), int Count>
PyObject* entry(PyObject*, Arguments call, Py_ssize_t count) {
  if (count != Count) Py_RETURN_NONE;
  try {
    return Function(call);
  } catch (const std::exception&) { Py_RETURN_NONE; }
}

template <PyObject* (*Function)(Arguments), int Count> PyMethodDef quick(const char* name) {
  return fast_call(name, entry<Function, Count>);
}

PyMethodDef functions[] = {
    quick<quick_matmul, 7>("quick_matmul"),
    quick<quick_vector_function, 4>("quick_vector_function"),
    quick<quick_activation, 4>("quick_activation"),
    quick<quick_activation_backward, 6>("quick_activation_backward"),
    quick<quick_softmax, 2>("quick_softmax"),
    quick<quick_dense_forward, 5>("quick_dense_forward"),
    quick<quick_dense_backward, 8>("quick_dense_backward"),
    quick<quick_loss, 4>("quick_loss"),
    quick<quick_update, 3>("quick_update"),
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

void bind_quick_ops(py::module_& m) {
  using namespace py::literals;
  load_numpy_objects();
  if (PyModule_AddFunctions(m.ptr(), functions) != 0) throw py::error_already_set();
  m.def("optimizer_spec", &optimizer_spec, "name"_a, "hyper"_a);
}

}  // namespace fastbp
