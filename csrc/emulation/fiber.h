// A stack of its own for each emulated thread, and the switch between it and the code that resumes
// it.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <cstddef>

#include "backend/denormals.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FBP_ADDRESS_SANITIZER
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define FBP_ADDRESS_SANITIZER
#endif

// What a jump from one stack to another keeps: g++'s own does no more than it must, inline; with
// that of the C library the tests of whole networks take a fifth longer.
#if defined(__GNUC__) && !defined(__clang__)
#define FBP_SETJMP(registers) __builtin_setjmp(registers)
#define FBP_LONGJMP(registers) __builtin_longjmp(registers, 1)
using FbpJump = void* [5];
#else
#define FBP_SETJMP(registers) _setjmp(registers)
#define FBP_LONGJMP(registers) _longjmp(registers, 1)
using FbpJump = jmp_buf;
#endif

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

  // For the running body: returns to resume(). Also from a handler, on the fiber's stack, of a
  // signal that it does not block (SA_NODEFER).
  static void suspend();

 private:
  enum class State { fresh, under_way, ended };

  // Where a stack was left.
  struct Place {
    ucontext_t context;  // of a body's begin
    FbpJump registers;   // of a piece's end
    bool fresh = false;  // nothing of the body has run
  };

  static void enter();
  static void change(Place& from, Place& to);
  [[noreturn, gnu::noinline]] static void go_on(Place& place);
  void switch_out();

  static Fiber* running_;
  void* mapping_;  // a guard page, then the stack
  void (*body_)() = nullptr;
  State state_ = State::fresh;
  Place own_, caller_;
  // For AddressSanitizer: its shadow of this stack, and where the resuming code's stack is.
  void* fake_stack_ = nullptr;
  const void* caller_stack_ = nullptr;
  std::size_t caller_stack_bytes_ = 0;
};

}  // namespace emulation
}  // namespace fastbp
