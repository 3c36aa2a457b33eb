// Activations and losses that are Python functions, as the engine calls them (engine/host_functions.h).
#pragma once

#include <pybind11/pybind11.h>

#include <exception>
#include <vector>

#include "backend/denormals.h"
#include "engine/host_functions.h"

namespace fastbp {

namespace py = pybind11;

class PythonFunctions {
 public:
  // An object with methods forward(z, 0.0) and derivative(z, 0.0) on float64 arrays (n, columns), of
  // sequences (n, steps, columns); its number.
  int add_activation(py::object activation);
  // An object with a method elements(y, t, 0.0, None) on float64 arrays (n, outputs), which returns
  // (losses, gradient), the losses (n, outputs) or (n,); None for none.
  void set_loss(py::object loss);

  bool any() const { return !activations_.empty() || !loss_.is_none(); }

  // Around a run of the engine by this thread: what a function raises in it ends it, and is thrown by
  // rethrow(). Functions are called in the thread's own floating-point mode.
  void begin();
  void rethrow();

  template <class T> HostFunctions<T> table() { return {call_activation<T>, call_loss<T>, this}; }

 private:
  template <class T> static bool call_activation(void* self, const HostActivation<T>& args);
  template <class T> static bool call_loss(void* self, const HostLoss<T>& args);
  template <class F> bool guarded(F&& f);

  std::vector<py::object> activations_;
  py::object loss_ = py::none();
  FpControl control_ = 0;
  std::exception_ptr raised_;
};

}  // namespace fastbp
