// A jump from one stack to another is meant here; the checked longjmp would take it for a mistake.
#undef _FORTIFY_SOURCE
#include "emulation/fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <new>

// AddressSanitizer must be told of every change of stack, and that a stack begun anew holds no live
// variables.
#if defined(FBP_ADDRESS_SANITIZER)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define FBP_IF_ASAN(...) __VA_ARGS__
#else
#define FBP_IF_ASAN(...)
#endif

namespace fastbp {
namespace emulation {
namespace {

// A kernel's frames are a few KiB, under AddressSanitizer a few times that. Pages exist once they
// are touched.
constexpr std::size_t kStackBytes = 256 * 1024;

std::size_t page_bytes() { return static_cast<std::size_t>(sysconf(_SC_PAGESIZE)); }

}  // namespace

Fiber* Fiber::running_ = nullptr;

Fiber::Fiber() {
  mapping_ = mmap(nullptr, page_bytes() + kStackBytes, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping_ == MAP_FAILED) throw std::bad_alloc();
  mprotect(mapping_, page_bytes(), PROT_NONE);
}

Fiber::~Fiber() { munmap(mapping_, page_bytes() + kStackBytes); }

void Fiber::start(void (*body)()) {
  body_ = body;
  if (state_ == State::ended) {  // enter() waits for the next body
    state_ = State::under_way;
    return;
  }
  state_ = State::under_way;
  ucontext_t& begin = own_.context;
  getcontext(&begin);
  begin.uc_stack.ss_sp = static_cast<char*>(mapping_) + page_bytes();
  begin.uc_stack.ss_size = kStackBytes;
  begin.uc_link = nullptr;
  FBP_IF_ASAN(__asan_unpoison_memory_region(begin.uc_stack.ss_sp, kStackBytes);)
  FBP_IF_ASAN(fake_stack_ = nullptr;)
  makecontext(&begin, enter, 0);
  own_.fresh = true;
}

#if defined(FBP_ADDRESS_SANITIZER)
void Fiber::change(Place& from, Place& to) { swapcontext(&from.context, &to.context); }
#else
// As swapcontext, without the mask of signals, which takes two calls of the system: four fifths of
// the time of a kernel. Writing the control word is slow, and seldom has to be.
void Fiber::change(Place& from, Place& to) {
  const FpControl control = read_fp_control();
  if (!FBP_SETJMP(from.registers)) go_on(to);
  if (read_fp_control() != control) write_fp_control(control);
}

// A function of its own, as the compiler's jump asks for.
void Fiber::go_on(Place& place) {
  if (!place.fresh) FBP_LONGJMP(place.registers);
  place.fresh = false;
  setcontext(&place.context);
  __builtin_unreachable();
}
#endif

bool Fiber::resume() {
  running_ = this;
  FBP_IF_ASAN(void* caller_fake_stack = nullptr;)
  FBP_IF_ASAN(
      __sanitizer_start_switch_fiber(&caller_fake_stack, own_.context.uc_stack.ss_sp, kStackBytes);)
  change(caller_, own_);
  FBP_IF_ASAN(__sanitizer_finish_switch_fiber(caller_fake_stack, nullptr, nullptr);)
  running_ = nullptr;
  return state_ == State::ended;
}

void Fiber::suspend() { running_->switch_out(); }

void Fiber::enter() {
  Fiber& self = *running_;
  FBP_IF_ASAN(
      __sanitizer_finish_switch_fiber(nullptr, &self.caller_stack_, &self.caller_stack_bytes_);)
  for (;;) {
    self.body_();
    self.state_ = State::ended;
    self.switch_out();
  }
}

void Fiber::switch_out() {
  FBP_IF_ASAN(__sanitizer_start_switch_fiber(&fake_stack_, caller_stack_, caller_stack_bytes_);)
  change(own_, caller_);
  FBP_IF_ASAN(__sanitizer_finish_switch_fiber(fake_stack_, &caller_stack_, &caller_stack_bytes_);)
}

}  // namespace emulation
}  // namespace fastbp
