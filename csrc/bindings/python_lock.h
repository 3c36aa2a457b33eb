// Giving up Python's lock while C++ works, and taking it again for a moment.
#pragma once

#include <pybind11/pybind11.h>

#include <chrono>
#include <thread>

namespace fastbp {

inline bool python_is_ending() {
#if PY_VERSION_HEX >= 0x030d0000
  return Py_IsFinalizing() != 0;
#else
  return _Py_IsFinalizing() != 0;
#endif
}

[[noreturn]] inline void sleep_for_ever() {
  for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
}

// The Python lock given up for a scope. A thread that comes back to an interpreter that is ending
// sleeps until the process is gone: CPython before 3.14 would end it by unwinding its stack, which no
// noexcept function survives.
class PythonUnlocked {
 public:
  PythonUnlocked() : state_(PyEval_SaveThread()) {}
  ~PythonUnlocked() {
    if (python_is_ending()) sleep_for_ever();
    try {
      PyEval_RestoreThread(state_);
    } catch (...) {  // the end began while this thread waited: the unwinding, held up here
      sleep_for_ever();
    }
  }
  PythonUnlocked(const PythonUnlocked&) = delete;
  PythonUnlocked& operator=(const PythonUnlocked&) = delete;

 private:
  PyThreadState* state_;
};

// The lock taken again by a thread that gave it up, for a scope. The same is true of an ending
// interpreter, here and in whatever runs meanwhile.
class PythonLocked {
 public:
  PythonLocked() {
    if (python_is_ending()) sleep_for_ever();
    try {
      state_ = PyGILState_Ensure();
    } catch (...) { sleep_for_ever(); }
  }
  ~PythonLocked() { PyGILState_Release(state_); }
  PythonLocked(const PythonLocked&) = delete;
  PythonLocked& operator=(const PythonLocked&) = delete;

 private:
  PyGILState_STATE state_;
};

}  // namespace fastbp
