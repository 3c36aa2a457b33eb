// The functional layer: single kernels on NumPy arrays, behind fastbp.ops.
#include "bindings/arrays.h"
#include "bindings/bind.h"
#include "bindings/names.h"
#include "bindings/run_ops.h"
#include "kernels/cpu/bf16.h"

namespace fastbp {
namespace {

void require_size(const py::array& a, const char* name, index_t size) {
  if (a.size() != size)
    throw py::value_error(std::string(name) + ": expected " + std::to_string(size) +
                          " elements, got a " + describe(a));
}

void activation_forward(const std::string& name, const py::array& x, py::array out, double param) {
  const int activation = activation_index(name);
  with_dtype(float_dtype(x, "x"), [&](auto zero) {
    using T = decltype(zero);
    const T* from = input<T>(x, "x");
    require_size(out, "out", x.size());
    run_activation_forward(activation, param, from, output<T>(out, "out"), x.size());
  });
}

void activation_backward(const std::string& name, const py::array& saved, const py::array& dy,
                         py::array out, double param) {
  const int activation = activation_index(name);
  with_dtype(float_dtype(dy, "dy"), [&](auto zero) {
    using T = decltype(zero);
    const T* from = input<T>(dy, "dy");
    require_size(saved, "saved", dy.size());
    require_size(out, "out", dy.size());
    run_activation_backward(activation, param, input<T>(saved, "saved"), from,
                            output<T>(out, "out"), dy.size());
  });
}

void vector_math(const std::string& name, const py::array& x, py::array out) {
  const int function = vector_function_index(name);
  with_dtype(float_dtype(x, "x"), [&](auto zero) {
    using T = decltype(zero);
    const T* from = input<T>(x, "x");
    require_size(out, "out", x.size());
    run_vector_function(function, from, output<T>(out, "out"), x.size());
  });
}

// A view of a 3-D array. The kernel wants rows or columns contiguous: a copy is made where neither
// is.
template <class T> StackView<T> stack_view(py::array& a, const char* name) {
  const index_t item = index_t(sizeof(T));
  if (a.ndim() != 3)
    throw py::value_error(std::string(name) + ": expected a stack of matrices, got a " +
                          describe(a));
  bool whole = a.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_;
  for (int axis = 0; axis < 3; ++axis) whole = whole && a.strides(axis) % item == 0;
  const auto view_of = [&] {
    return StackView<T>{static_cast<const T*>(a.data()), a.strides(0) / item, a.strides(1) / item,
                        a.strides(2) / item};
  };
  StackView<T> view = view_of();
  if (!whole || !view.settle(a.shape(1), a.shape(2))) {
    a = py::array_t<T, py::array::c_style | py::array::forcecast>(a.attr("copy")("C"));
    view = view_of();
    view.settle(a.shape(1), a.shape(2));
  }
  return view;
}

// The kernel for T whose operands are of that precision: T's own where it is none.
template <class T> GemmKernel<T> gemm_kernel(bool bfloat16) {
  if constexpr (std::is_same_v<T, float>) {
    if (bfloat16) {
      const Bf16Kernels* bf16 = bf16_kernels();
      if (!bf16)
        throw std::runtime_error("precision 'bfloat16' is not available: " + bf16_problem());
      return bf16->gemm;
    }
  } else if (bfloat16) {
    throw py::type_error("precision 'bfloat16' takes float32 arrays, got float64");
  }
  return own_gemm<T>();
}

void matmul(py::array a, py::array b, const py::object& bias, const py::object& activation,
            double param, py::array out, bool bfloat16) {
  const int index = activation.is_none() ? 0 : activation_index(py::cast<std::string>(activation));
  with_dtype(float_dtype(out, "out"), [&](auto zero) {
    using T = decltype(zero);
    if (!a.dtype().equal(out.dtype()) || !b.dtype().equal(out.dtype()))
      throw py::type_error("matmul: expected one dtype, got a " + describe(a) + ", b " +
                           describe(b) + ", out " + describe(out));
    const GemmKernel<T> gemm = gemm_kernel<T>(bfloat16);
    const StackView<T> va = stack_view<T>(a, "a"), vb = stack_view<T>(b, "b");
    T* c = output<T>(out, "out");
    const index_t stack = a.shape(0), m = a.shape(1), k = a.shape(2), n = b.shape(2);
    if (b.shape(0) != stack || b.shape(1) != k || out.ndim() != 3 || out.shape(0) != stack ||
        out.shape(1) != m || out.shape(2) != n)
      throw py::value_error("matmul: shapes do not match: a " + describe(a) + ", b " + describe(b) +
                            ", out " + describe(out));
    py::array bias_array;
    const T* bias_data = nullptr;
    if (!bias.is_none()) {
      bias_array = py::cast<py::array>(bias);
      bias_data = input<T>(bias_array, "bias");
      require_size(bias_array, "bias", n);
    }
    run_matmul({stack, m, n, k}, va, vb, bias_data, index, param, c, gemm);
  });
}

void softmax(const py::array& x, py::array out) {
  with_dtype(float_dtype(x, "x"), [&](auto zero) {
    using T = decltype(zero);
    const T* from = input<T>(x, "x");
    require_shape(x, "x", -1, -1);
    require_shape(out, "out", x.shape(0), x.shape(1));
    run_softmax(from, output<T>(out, "out"), x.shape(0), x.shape(1));
  });
}

void column_sum(const py::array& x, py::array out) {
  with_dtype(float_dtype(x, "x"), [&](auto zero) {
    using T = decltype(zero);
    const T* from = input<T>(x, "x");
    require_shape(x, "x", -1, -1);
    require_size(out, "out", x.shape(1));
    run_column_sum(from, output<T>(out, "out"), x.shape(0), x.shape(1));
  });
}

double loss(const std::string& name, const py::array& y, const py::array& t, py::array dy,
            double param) {
  const int index = loss_index(name);
  return with_dtype(float_dtype(y, "y"), [&](auto zero) {
    using T = decltype(zero);
    require_shape(y, "y", -1, -1);
    require_shape(dy, "dy", y.shape(0), y.shape(1));
    const index_t rows = y.shape(0), cols = y.shape(1);
    const T *from = input<T>(y, "y"), *target = nullptr;
    const std::int64_t* labels = nullptr;
    T* to = output<T>(dy, "dy");
    if (t.ndim() == 1 && loss_takes_labels(index)) {
      labels = input<std::int64_t>(t, "t");
      require_size(t, "t", rows);
      require_labels(labels, rows, cols);
    } else {
      target = input<T>(t, "t");
      require_shape(t, "t", rows, cols);
    }
    return run_loss({index, param}, rows, cols, from, target, labels, to);
  });
}

void update(const std::string& name, py::array w, const py::array& g, const py::list& states,
            const py::dict& hyper, std::int64_t step) {
  const int index = optimizer_index(name);
  const Hyper h = hyper_from(hyper);
  if (step < 1)
    throw py::value_error("step: expected at least 1 (the first update), got " +
                          std::to_string(step));
  if (int(states.size()) != optimizer_slots(index))
    throw py::value_error("states: " + name + " keeps " + std::to_string(optimizer_slots(index)) +
                          " arrays, got " + std::to_string(states.size()));
  with_dtype(float_dtype(w, "w"), [&](auto zero) {
    using T = decltype(zero);
    UpdateTile<T> tile;
    tile.w = output<T>(w, "w");
    const T* gradient = input<T>(g, "g");
    require_size(g, "g", w.size());
    for (std::size_t k = 0; k < states.size(); ++k) {
      py::array state = py::cast<py::array>(states[k]);
      require_size(state, "state", w.size());
      tile.slot[k] = output<T>(state, "state");
    }
    run_update({index, h}, step, tile, gradient, w.size());
  });
}

index_t all_finite(const py::array& x) {
  return with_dtype(float_dtype(x, "x"), [&](auto zero) {
    using T = decltype(zero);
    return kernels<T>().first_non_finite(input<T>(x, "x"), x.size());
  });
}

}  // namespace

void bind_ops(py::module_& m) {
  using namespace py::literals;
  m.def("matmul", &matmul, "a"_a, "b"_a, "bias"_a, "activation"_a, "param"_a, "out"_a,
        "bfloat16"_a = false);
  m.def("activation_forward", &activation_forward, "name"_a, "x"_a, "out"_a, "param"_a);
  m.def("activation_backward", &activation_backward, "name"_a, "saved"_a, "dy"_a, "out"_a,
        "param"_a);
  m.def("vector_math", &vector_math, "name"_a, "x"_a, "out"_a);
  m.def("softmax", &softmax, "x"_a, "out"_a);
  m.def("column_sum", &column_sum, "x"_a, "out"_a);
  m.def("loss", &loss, "name"_a, "y"_a, "t"_a, "dy"_a, "param"_a);
  m.def("update", &update, "name"_a, "w"_a, "g"_a, "states"_a, "hyper"_a, "step"_a);
  m.def("all_finite", &all_finite, "x"_a);
}

}  // namespace fastbp
