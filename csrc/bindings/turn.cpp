#include "bindings/turn.h"

#include <pthread.h>
#include <pybind11/pybind11.h>

#include "backend/pool_terms.h"

namespace py = pybind11;

namespace fastbp {
namespace {

// Runs Python's signal handlers; true if one raised (KeyboardInterrupt), which is then the thread's
// pending exception.
bool python_signal_raised(void*) {
  py::gil_scoped_acquire gil;
  return PyErr_CheckSignals() != 0;
}

// The same for a thread that trains beside others: the main thread has told it of a signal.
bool told_to_stop(void* context) {
  if (!static_cast<PoolTerms*>(context)->stop) return false;
  py::gil_scoped_acquire gil;
  PyErr_SetNone(PyExc_KeyboardInterrupt);
  return true;
}

// Python's identifier of its main thread, 0 until asked; in the child of a fork another thread may be
// it.
std::atomic<unsigned long> main_thread{0};
std::atomic<unsigned> forks{0};

unsigned long ask_main_thread() {
  const py::object thread = py::module_::import("threading").attr("main_thread")();
  return py::cast<unsigned long>(thread.attr("ident"));
}

}  // namespace

// Python runs signal handlers in its main thread only; elsewhere there is nothing to ask for but
// whether that has said so.
Interrupt python_signals() {
  if (PoolTerms* terms = pool_terms()) return {told_to_stop, terms};
  if (main_thread == 0) main_thread = ask_main_thread();
  if (PyThread_get_thread_ident() != main_thread) return {};
  return {python_signal_raised, nullptr};
}

void watch_forks() {
  pthread_atfork(nullptr, nullptr, [] {
    main_thread = 0;
    ++forks;
  });
}

unsigned forks_so_far() { return forks.load(std::memory_order_relaxed); }

}  // namespace fastbp
