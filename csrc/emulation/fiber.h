// A stack of its own for each emulated thread, and the switch between it and the code that resumes
// it.
#pragma once

#include <ucontext.h>

#include <cstddef>

namespace fastbp {
namespace emulation {

// Runs body() on an own stack, a piece at a time. All of a body's pieces run on one OS thread, and
// only one fiber of the process runs at a time.
class Fiber {
 public:
  Fiber();  // std::bad_alloc
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Makes the next resume() begin a new body(). One that was under way is forgotten, its
  // destructors not run.
  void start(void (*body)());
  // Runs body() until it ends (true) or suspends itself (false).
  bool resume();

  // For the running body: returns to resume(). Also from a signal handler on the fiber's stack.
  static void suspend();

 private:
  enum class State { fresh, under_way, ended };

  static void enter();
  void switch_out();

  static Fiber* running_;
  void* mapping_;  // a guard page, then the stack
  void (*body_)() = nullptr;
  State state_ = State::fresh;
  ucontext_t own_, caller_;
  // For AddressSanitizer: its shadow of this stack, and where the resuming code's stack is.
  void* fake_stack_ = nullptr;
  const void* caller_stack_ = nullptr;
  std::size_t caller_stack_bytes_ = 0;
};

}  // namespace emulation
}  // namespace fastbp
