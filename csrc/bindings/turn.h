// One call at a time for each engine, and Ctrl-C while it runs.
#pragma once

#include <atomic>
#include <mutex>
#include <stdexcept>
#include <thread>

#include "engine/step.h"

namespace fastbp {

// What a long call asks: runs Python's signal handlers, and says whether one raised
// (KeyboardInterrupt), which is then the thread's pending exception. Nothing to ask for outside
// Python's main thread, but in a thread with terms (pool_terms.h) whether it is to stop.
Interrupt python_signals();
// Once, at import: for signals, and for who was inside an engine.
void watch_forks();
// How often this process has come out of a fork as the child.
unsigned forks_so_far();

// Who is inside an engine, and since when: of a child's ancestors, only the thread that forked is there.
struct Occupant {
  std::atomic<std::thread::id> thread{};
  std::atomic<unsigned> forks{0};
};

// One call at a time. A second call by the thread that is inside one already comes
// from a signal handler, or a function of the user's own: it would wait for itself.
class Turn {
 public:
  static bool is_mine(const Occupant& owner) {
    return owner.thread.load(std::memory_order_relaxed) == std::this_thread::get_id();
  }
  // To be asked before the Python lock is given up.
  static void require_other_thread(const Occupant& owner) {
    const std::thread::id thread = owner.thread.load(std::memory_order_relaxed);
    if (is_mine(owner))
      throw std::runtime_error(
          "the model is in use further up in this thread, which is running a signal handler or an "
          "activation or loss of your own: leave the model alone there; a handler may set a flag");
    if (thread != std::thread::id() &&
        owner.forks.load(std::memory_order_relaxed) != forks_so_far())
      throw std::runtime_error(
          "another thread was inside this model when the process was forked, and this child has "
          "not got that thread: its parameters may be those of half a step. Fork between two "
          "calls, or give the child a file of the model or a copy made before");
  }
  Turn(std::mutex& mutex, Occupant& owner) : lock_(mutex), owner_(owner) {
    owner_.forks.store(forks_so_far(), std::memory_order_relaxed);
    owner_.thread.store(std::this_thread::get_id(), std::memory_order_relaxed);
  }
  ~Turn() { owner_.thread.store(std::thread::id(), std::memory_order_relaxed); }

 private:
  std::lock_guard<std::mutex> lock_;
  Occupant& owner_;
};

}  // namespace fastbp
