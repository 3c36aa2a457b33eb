// Calls of an Engine without pybind11's overhead, for arguments that need no conversion.
#pragma once

#include "bindings/held_network.h"
#include "bindings/plain_array.h"

namespace fastbp {

class QuickCalls : public HeldNetwork {
  // Whether x and y are right as they are, in dtype, shape, layout and values; then `samples` are
  // theirs, `n` rows. No error: the general path explains.
  template <class Net, class T>
  bool plain_samples(Net& net, PyObject* x, PyObject* y, Samples<T>* samples, index_t* n) const {
    const PlainArray *rows = plain_array(x), *targets = plain_array(y);
    const index_t inputs = net.layout().inputs, outputs = net.layout().outputs;
    if (!compiled_ || functions_.any() || net.layout().sequences || !is_packed<T>(rows) ||
        !targets || rows->nd != 2 || rows->dimensions[0] == 0 || rows->dimensions[1] != inputs)
      return false;
    *n = rows->dimensions[0];
    samples->x = data_of<const T>(rows);
    const bool takes_labels = loss_takes_labels(net.loss().loss);
    const bool column = targets->nd == 1 || (targets->nd == 2 && targets->dimensions[1] == 1);
    const bool fits = column && targets->dimensions[0] == *n;
    if (takes_labels && fits && is_packed<std::int64_t>(targets)) {
      samples->labels = data_of<const std::int64_t>(targets);
      if (!are_labels(samples->labels, *n, outputs)) return false;
    } else {
      const ssize_t shape[2] = {*n, outputs};
      if (!is_packed<T>(targets) || !(has_shape(targets, 2, shape) || (fits && outputs == 1)))
        return false;
      samples->target = data_of<const T>(targets);
      const TargetRange range = loss_target_range(net.loss().loss);
      if (!all_within(samples->target, *n * outputs, range.low, range.high)) return false;
    }
    return kernels<T>().first_non_finite(samples->x, *n * inputs) < 0;
  }

  // f(network, samples, n) as a Python object, None where x and y are not plain.
  template <class F> PyObject* with_plain_samples(PyObject* x, PyObject* y, F&& f) {
    return visit([&](auto& net) -> PyObject* {
      using T = std::remove_pointer_t<decltype(net.block().w)>;
      Samples<T> samples;
      index_t n = 0;
      if (!plain_samples(net, x, y, &samples, &n)) Py_RETURN_NONE;
      return f(net, samples, n);
    });
  }

 public:
  using HeldNetwork::HeldNetwork;

  // The quick calls: None, with nothing done, unless every argument is right as it is.

  PyObject* quick_step(PyObject* const* call) {
    return with_plain_samples(call[0], call[1], [&](auto& net, const auto& samples, index_t n) {
      return PyFloat_FromDouble(exclusively(net, net.layout().training_flop(n),
                                            [&](auto& same) { return same.step(samples, n); }));
    });
  }

  // True where x and y can be given to the engine's methods without further checks.
  PyObject* accepts(PyObject* const* call) {
    return with_plain_samples(call[0], call[1], [&](auto&, const auto& samples, index_t) {
      const int axes = samples.labels ? 1 : 2;
      return PyBool_FromLong(plain_array(call[1])->nd == axes);
    });
  }

  PyObject* quick_predict(PyObject* const* call) {
    return visit([&](auto& net) -> PyObject* {
      using T = std::remove_pointer_t<decltype(net.block().w)>;
      const PlainArray* x = plain_array(call[0]);
      if (functions_.any() || net.layout().sequences || !is_packed<T>(x) || x->nd != 2 ||
          x->dimensions[0] == 0 || x->dimensions[1] != net.layout().inputs)
        Py_RETURN_NONE;
      const index_t n = x->dimensions[0];
      const ssize_t shape[2] = {n, net.layout().outputs};
      Result<T> out = new_array<T>(2, shape);
      if (!out.object) Py_RETURN_NONE;
      const double flop = net.layout().inference_flop(n);
      const Interrupt signals = flop < kShortFlop ? Interrupt{} : python_signals();
      const bool finished = exclusively(net, flop, [&](auto& same) {
        Samples<T> samples;
        samples.x = data_of<const T>(x);
        return same.predict(samples, n, out.data, signals);
      });
      return finished ? out.object.release().ptr() : nullptr;  // the handler's exception is set
    });
  }
};

}  // namespace fastbp
