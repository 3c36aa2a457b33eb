#include "bindings/python_functions.h"

#include <utility>

#include "bindings/arrays.h"
#include "bindings/python_lock.h"
#include "kernels/kernel_table.h"

namespace fastbp {
namespace {

using Doubles = py::array_t<double, py::array::c_style | py::array::forcecast>;

// The rows of a matrix as an array of its own, in float64.
template <class T> Doubles copy_of(const T* rows, index_t row, index_t n, index_t cols) {
  Doubles copy({n, cols});
  double* to = copy.mutable_data();
  for (index_t i = 0; i < n; ++i)
    for (index_t j = 0; j < cols; ++j) *to++ = double(rows[i * row + j]);
  return copy;
}

// What a function returned, which its object has checked in words.
Doubles matrix_of(const py::object& returned, const char* name, index_t n, index_t cols) {
  const auto array = py::cast<Doubles>(returned);
  require_shape(array, name, n, cols);
  return array;
}

// Puts the sums of the rows' losses times `share`, with weights, where the engine adds them up.
template <class T>
void sum_blocks(const HostLoss<T>& args, const double* losses, index_t each, double share) {
  for (index_t i = 0; i < args.rows; ++i) {
    double sum = 0;
    for (index_t j = 0; j < each; ++j) sum += losses[i * each + j];
    if (args.weight) sum *= double(args.weight[i * args.cols]);
    double& block = args.block_loss[i / kLossBlockRows];
    block = (i % kLossBlockRows == 0 ? 0 : block) + sum * share;
  }
}

}  // namespace

int PythonFunctions::add_activation(py::object activation) {
  activations_.push_back(std::move(activation));
  return int(activations_.size()) - 1;
}

void PythonFunctions::set_loss(py::object loss) { loss_ = std::move(loss); }

void PythonFunctions::begin() { control_ = read_fp_control(); }

void PythonFunctions::rethrow() {
  if (raised_) std::rethrow_exception(std::exchange(raised_, nullptr));
}

// Runs f with the Python lock; false where it threw.
template <class F> bool PythonFunctions::guarded(F&& f) {
  const PythonLocked locked;
  const FpControlScope control(control_);
  try {
    f();
    return true;
  } catch (const std::exception&) {
    raised_ = std::current_exception();
    return false;
  } catch (...) { sleep_for_ever(); }  // the interpreter is ending: see python_lock.h
}

template <class T>
bool PythonFunctions::call_activation(void* self, const HostActivation<T>& args) {
  auto& functions = *static_cast<PythonFunctions*>(self);
  return functions.guarded([&] {
    const py::object& entry = functions.activations_[std::size_t(args.function)];
    const Doubles z = copy_of(args.z, args.z_row, args.rows, args.cols);
    const char* what = args.dy ? "derivative" : "forward";
    const Doubles found = matrix_of(entry.attr(what)(z, 0.0), what, args.rows, args.cols);
    const double* from = found.data();
    for (index_t i = 0; i < args.rows; ++i) {
      T* out = args.out + i * args.out_row;
      const T* dy = args.dy ? args.dy + i * args.dy_row : nullptr;
      for (index_t j = 0; j < args.cols; ++j, ++from)
        out[j] = T(dy ? double(dy[j]) * *from : *from);
    }
  });
}

template <class T> bool PythonFunctions::call_loss(void* self, const HostLoss<T>& args) {
  auto& functions = *static_cast<PythonFunctions*>(self);
  return functions.guarded([&] {
    const index_t n = args.rows, cols = args.cols;
    const Doubles y = copy_of(args.y, cols, n, cols), t = copy_of(args.target, cols, n, cols);
    const py::object elements = functions.loss_.attr("elements");
    const auto found = py::cast<std::pair<Doubles, py::object>>(elements(y, t, 0.0, py::none()));
    const Doubles gradient = matrix_of(found.second, "gradient", n, cols);
    const Doubles& losses = found.first;
    // Losses of rows are a mean over rows: they count as if all of a row's elements had them.
    const bool of_rows = losses.ndim() == 1;
    if (of_rows)
      require_length(losses, "losses", n);
    else
      require_shape(losses, "losses", n, cols);
    sum_blocks(args, losses.data(), of_rows ? 1 : cols, of_rows ? double(cols) : 1.0);
    const double divisor = of_rows ? double(n) : double(n) * double(cols);
    for (index_t i = 0; i < n * cols; ++i) {
      const double slope = gradient.data()[i];
      args.dy[i] = T((args.weight ? slope * double(args.weight[i]) : slope) / divisor);
    }
  });
}

template HostFunctions<float> PythonFunctions::table<float>();
template HostFunctions<double> PythonFunctions::table<double>();

}  // namespace fastbp
