#include "bindings/python_functions.h"

#include <algorithm>
#include <string>
#include <utility>

#include "bindings/arrays.h"
#include "bindings/python_lock.h"
#include "kernels/kernel_table.h"

namespace fastbp {
namespace {

using Doubles = py::array_t<double, py::array::c_style | py::array::forcecast>;

// The rows of a contiguous matrix as an array of its own, in float64.
template <class T> Doubles copy_of(const T* rows, index_t n, index_t cols) {
  Doubles copy({n, cols});
  std::copy_n(rows, n * cols, copy.mutable_data());
  return copy;
}

// What a function returned, which its object has checked in words.
Doubles matrix_of(const py::object& returned, const char* name, index_t n, index_t cols) {
  const auto array = py::cast<Doubles>(returned);
  require_shape(array, name, n, cols);
  return array;
}

// body(value's place in an array (n, cols) or (n, steps, cols), its row and column in the engine's
// matrix), for all of them in the array's order.
template <class T, class Body> void for_each_value(const HostActivation<T>& args, Body body) {
  const index_t steps = args.steps > 0 ? args.steps : 1;
  index_t place = 0;
  for (index_t i = 0; i < args.rows; ++i)
    for (index_t t = 0; t < steps; ++t)
      for (index_t j = 0; j < args.cols; ++j) body(place++, t * args.rows + i, j);
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
    std::vector<py::ssize_t> shape{args.rows, args.cols};
    if (args.steps > 0) shape.insert(shape.begin() + 1, args.steps);
    Doubles z(shape);
    double* to = z.mutable_data();
    for_each_value(args, [&](index_t place, index_t row, index_t column) {
      to[place] = double(args.z[row * args.z_row + column]);
    });
    const char* what = args.dy ? "derivative" : "forward";
    const auto found = py::cast<Doubles>(entry.attr(what)(z, 0.0));
    if (!std::equal(shape.begin(), shape.end(), found.shape(), found.shape() + found.ndim()))
      throw py::value_error(std::string(what) + ": expected the shape of z");
    const double* from = found.data();
    for_each_value(args, [&](index_t place, index_t row, index_t column) {
      const double dy = args.dy ? double(args.dy[row * args.dy_row + column]) : 1;
      args.out[row * args.out_row + column] = T(dy * from[place]);
    });
  });
}

template <class T> bool PythonFunctions::call_loss(void* self, const HostLoss<T>& args) {
  auto& functions = *static_cast<PythonFunctions*>(self);
  return functions.guarded([&] {
    const index_t n = args.rows, cols = args.cols;
    const Doubles y = copy_of(args.y, n, cols), t = copy_of(args.target, n, cols);
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
    const double divisor = double(args.counted) * (of_rows ? 1 : double(cols));
    for (index_t i = 0; i < n * cols; ++i) {
      const double slope = gradient.data()[i];
      args.dy[i] = T((args.weight ? slope * double(args.weight[i]) : slope) / divisor);
    }
  });
}

template HostFunctions<float> PythonFunctions::table<float>();
template HostFunctions<double> PythonFunctions::table<double>();

}  // namespace fastbp
