// The functional layer: single kernels on NumPy arrays, behind fastbp.ops. Denormals are kept, as
// NumPy does.
#include <vector>

#include "bindings/arrays.h"
#include "bindings/bind.h"
#include "bindings/python_lock.h"
#include "bindings/names.h"
#include "core/arena.h"
#include "engine/network.h"
#include "kernels/cpu/bf16.h"
#include "kernels/cpu/dispatch.h"

namespace fastbp {
namespace {

template <class T> const KernelTable<T>& kernels();
template <> const KernelTable<float>& kernels<float>() { return active_isa().table_f32(); }
template <> const KernelTable<double>& kernels<double>() { return active_isa().table_f64(); }

// Runs work(Share) on as many threads as `flop` operations are worth, without the Python lock where
// it takes long: handing the lock over costs about as much as 10^4 operations.
template <class Work> void run_shared(double flop, const Work& work) {
  const int threads = worthwhile_threads(flop);
  const Job job = [](void* context, Worker& worker) {
    (*static_cast<const Work*>(context))(Share{worker.id, worker.count});
  };
  void* context = const_cast<void*>(static_cast<const void*>(&work));
  if (threads == 1 && flop < 2e5) {
    work(Share{});
    return;
  }
  const PythonUnlocked unlocked;
  Team::instance().run(threads, job, context, false);
}

constexpr double kFlopPerElement = 30;  // of an activation, roughly

// `op` on n contiguous values, as a matrix of one row.
template <class T>
void run_flat_tile(TileOp<T> op, const ActivationTile<T>& tile, const T* c, index_t n) {
  run_shared(kFlopPerElement * double(n), [&](Share share) {
    const Range part = split(n, 1024, share);
    if (part.begin < part.end)
      op(&tile, c + part.begin, 0, 0, 1, part.begin, part.end - part.begin);
  });
}

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
    ActivationTile<T> tile;
    tile.out = output<T>(out, "out");
    tile.param = T(param);
    run_flat_tile(kernels<T>().activation_forward[activation], tile, from, x.size());
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
    ActivationTile<T> tile;
    tile.saved = input<T>(saved, "saved");
    tile.out = output<T>(out, "out");
    tile.param = T(param);
    run_flat_tile(kernels<T>().activation_backward[activation], tile, from, dy.size());
  });
}

void vector_math(const std::string& name, const py::array& x, py::array out) {
  const int function = vector_function_index(name);
  with_dtype(float_dtype(x, "x"), [&](auto zero) {
    using T = decltype(zero);
    const T* from = input<T>(x, "x");
    require_size(out, "out", x.size());
    T* to = output<T>(out, "out");
    const auto kernel = kernels<T>().vector_function[function];
    run_shared(kFlopPerElement * double(x.size()),
               [&](Share share) { kernel(from, to, x.size(), share); });
  });
}

// A matrix of a stack, strides in elements.
template <class T> struct StackView {
  const T* data;
  index_t step, row, col;  // from one matrix, row, column to the next
};

// A view of a 3-D array. The kernel wants rows or columns contiguous: a copy is made where neither
// is.
template <class T> StackView<T> stack_view(py::array& a, const char* name) {
  const index_t item = index_t(sizeof(T));
  if (a.ndim() != 3)
    throw py::value_error(std::string(name) + ": expected a stack of matrices, got a " +
                          describe(a));
  const bool aligned = a.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_;
  const auto unit = [&](int axis) { return a.shape(axis) <= 1 || a.strides(axis) == item; };
  bool whole = aligned;
  for (int axis = 0; axis < 3; ++axis) whole = whole && a.strides(axis) % item == 0;
  if (!whole || !(unit(1) || unit(2)))
    a = py::array_t<T, py::array::c_style | py::array::forcecast>(a.attr("copy")("C"));
  StackView<T> view{static_cast<const T*>(a.data()), a.strides(0) / item, a.strides(1) / item,
                    a.strides(2) / item};
  // The stride of an axis of one element is never used for a step: it may stand for contiguous.
  if (unit(2))
    view.col = 1;
  else
    view.row = 1;
  return view;
}

// Packing buffers of the calling thread, kept between calls.
template <class T> T* gemm_scratch(const GemmKernel<T>& gemm, int threads) {
  thread_local Arena arena;
  const std::size_t bytes = array_bytes<T>(gemm.scratch, threads);
  if (arena.size() < bytes) arena = Arena(bytes);
  return arena.at<T>(0);
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
  return {kernels<T>().gemm, kernels<T>().gemm_scratch};
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
    ActivationTile<T> tile;
    tile.out_row = n;
    tile.param = T(param);
    GemmArgs<T> g;
    g.m = m, g.n = n, g.k = k;
    g.a_row = va.row, g.a_col = va.col;
    g.b_row = vb.row, g.b_col = vb.col;
    g.c_row = n;
    if (!bias.is_none()) {
      bias_array = py::cast<py::array>(bias);
      g.bias = input<T>(bias_array, "bias");
      require_size(bias_array, "bias", n);
    }
    g.op = index == 0 ? nullptr : kernels<T>().activation_forward[index];
    const double flop = 2.0 * double(stack) * double(m) * double(n) * double(k);
    T* scratch = gemm_scratch(gemm, worthwhile_threads(flop));
    run_shared(flop, [&](Share share) {
      for (index_t s = 0; s < stack; ++s) {
        ActivationTile<T> here = tile;
        GemmArgs<T> args = g;
        args.a = va.data + s * va.step;
        args.b = vb.data + s * vb.step;
        args.c = here.out = c + s * m * n;
        args.context = &here;
        args.scratch = scratch + share.id * gemm.scratch;
        gemm.run(args, share);
      }
    });
  });
}

void softmax(const py::array& x, py::array out) {
  with_dtype(float_dtype(x, "x"), [&](auto zero) {
    using T = decltype(zero);
    const T* from = input<T>(x, "x");
    require_shape(x, "x", -1, -1);
    require_shape(out, "out", x.shape(0), x.shape(1));
    T* to = output<T>(out, "out");
    run_shared(kFlopPerElement * double(x.size()),
               [&](Share share) { kernels<T>().softmax(from, to, x.shape(0), x.shape(1), share); });
  });
}

void column_sum(const py::array& x, py::array out) {
  with_dtype(float_dtype(x, "x"), [&](auto zero) {
    using T = decltype(zero);
    const T* from = input<T>(x, "x");
    require_shape(x, "x", -1, -1);
    require_size(out, "out", x.shape(1));
    T* to = output<T>(out, "out");
    run_shared(double(x.size()), [&](Share share) {
      kernels<T>().column_sum(from, x.shape(1), x.shape(0), x.shape(1), to, share);
    });
  });
}

double loss(const std::string& name, const py::array& y, const py::array& t, py::array dy,
            double param) {
  const int index = loss_index(name);
  return with_dtype(float_dtype(y, "y"), [&](auto zero) {
    using T = decltype(zero);
    require_shape(y, "y", -1, -1);
    require_shape(dy, "dy", y.shape(0), y.shape(1));
    LossArgs<T> args;
    args.rows = y.shape(0);
    args.cols = y.shape(1);
    args.y = input<T>(y, "y");
    args.dy = output<T>(dy, "dy");
    if (t.ndim() == 1 && loss_takes_labels(index)) {
      args.labels = input<std::int64_t>(t, "t");
      require_size(t, "t", args.rows);
      require_labels(args.labels, args.rows, args.cols);
    } else {
      args.target = input<T>(t, "t");
      require_shape(t, "t", args.rows, args.cols);
    }
    const double divisor = loss_divisor({index, param}, args.rows, args.cols);
    args.dy_scale = T(1 / divisor);
    args.param = T(param);
    std::vector<double> sums(std::size_t((args.rows + kLossBlockRows - 1) / kLossBlockRows));
    args.block_loss = sums.data();
    run_shared(kFlopPerElement * double(y.size()),
               [&](Share share) { kernels<T>().loss[index](args, share); });
    double total = 0;
    for (const double sum : sums) total += sum;
    return total / divisor;
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
    BetaPowers powers;
    powers.advance(h, step);
    tile.hyper = step_hyper<T>({index, h}, powers);
    run_shared(kFlopPerElement * double(w.size()), [&](Share share) {
      const Range part = split(w.size(), 1024, share);
      if (part.begin < part.end)
        kernels<T>().update[index](&tile, gradient + part.begin, 0, 0, 1, part.begin,
                                   part.end - part.begin);
    });
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
