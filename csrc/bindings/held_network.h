// The network behind a Python Engine, in float32 or float64, and how calls of several threads get to it.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "bindings/bind.h"
#include "bindings/network_spec_in.h"
#include "bindings/python_functions.h"
#include "bindings/run_ops.h"
#include "bindings/turn.h"
#include "engine/network.h"
#include "kernels/cpu/bf16.h"
#include "kernels/cpu/dispatch.h"

namespace fastbp {

class HeldNetwork {
  std::unique_ptr<Network<float>> f32_;
  std::unique_ptr<Network<double>> f64_;
  std::mutex busy_;
  Occupant owner_;  // of busy_

 protected:
  bool compiled_ = false;
  PythonFunctions functions_;  // of the user's own

  // f(network) without the Python lock, one call at a time. The lock is given up first: a call in
  // progress may wait for it to run signal handlers or functions of the user's own. What such a
  // function raises is thrown from here.
  template <class Net, class F> auto unlocked(Net& net, F&& f) {
    Turn::require_other_thread(owner_);
    const PythonUnlocked unlocked;
    const Turn turn(busy_, owner_);
    functions_.begin();
    if constexpr (std::is_void_v<decltype(f(net))>) {
      f(net);
      functions_.rethrow();
    } else {
      const auto result = f(net);
      functions_.rethrow();
      return result;
    }
  }

  // The same for about `flop` operations. Short work keeps the Python lock, unless it would wait for
  // another thread's call: giving the lock up and taking it again costs as much as a small step. No
  // Python code runs meanwhile, so nobody can ask who is inside.
  template <class Net, class F> auto exclusively(Net& net, double flop, F&& f) {
    Turn::require_other_thread(owner_);
    if (flop < kShortFlop) {
      const std::unique_lock<std::mutex> turn(busy_, std::try_to_lock);
      if (turn) return f(net);
    }
    return unlocked(net, f);
  }

  // Calls f(network) for the dtype in use.
  template <class F> auto visit(F&& f) { return f32_ ? f(*f32_) : f(*f64_); }

  template <class F> auto run(F&& f) {
    return visit([&](auto& net) { return unlocked(net, f); });
  }

  void require_compiled() const {
    if (!compiled_)
      throw py::value_error("the engine has no loss and optimizer yet: call compile() first");
  }

 public:
  HeldNetwork(index_t inputs, const py::list& layers, const std::string& dtype, std::uint64_t seed,
              bool sequences) {
    const NetworkSpec spec = network_spec(inputs, layers, seed, sequences, functions_);
    const Isa& isa = active_isa();
    if (dtype == "float32")
      f32_ = std::make_unique<Network<float>>(spec, isa.table_f32());
    else if (dtype == "float64")
      f64_ = std::make_unique<Network<double>>(spec, isa.table_f64());
    else if (dtype != "bfloat16")
      throw py::value_error("dtype: expected 'float32', 'float64' or 'bfloat16', got '" + dtype +
                            "'");
    else if (const Bf16Kernels* bf16 = bf16_kernels())
      f32_ = std::make_unique<Network<float>>(spec, isa.table_f32(), bf16->gemm);
    else
      throw std::runtime_error("dtype 'bfloat16' is not available: " + bf16_problem());
    visit([&](auto& net) {
      using T = std::remove_pointer_t<decltype(net.block().w)>;
      net.set_host_functions(functions_.table<T>());
    });
  }

  // work(), while no call of another thread's is at work here. A signal handler comes between two
  // steps of this thread's own call, or before anything of one has changed.
  py::object still(const py::function& work) {
    if (Turn::is_mine(owner_)) return work();
    Turn::require_other_thread(owner_);
    std::optional<Turn> turn;
    {
      const PythonUnlocked unlocked;
      turn.emplace(busy_, owner_);
    }
    return work();
  }
};

}  // namespace fastbp
