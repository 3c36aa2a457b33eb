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
// Once, at import.
void watch_forks_for_signals();

// One call at a time. A second call by the thread that is inside one already comes
// from a signal handler, or a function of the user's own: it would wait for itself.
class Turn {
 public:
  // To be asked before the Python lock is given up.
  static void require_other_thread(const std::atomic<std::thread::id>& owner) {
    if (owner.load(std::memory_order_relaxed) == std::this_thread::get_id())
      throw std::runtime_error(
          "the model is in use further up in this thread, which is running a signal handler or an "
          "activation or loss of your own: leave the model alone there; a handler may set a flag");
  }
  Turn(std::mutex& mutex, std::atomic<std::thread::id>& owner) : lock_(mutex), owner_(owner) {
    owner_.store(std::this_thread::get_id(), std::memory_order_relaxed);
  }
  ~Turn() { owner_.store(std::thread::id(), std::memory_order_relaxed); }

 private:
  std::lock_guard<std::mutex> lock_;
  std::atomic<std::thread::id>& owner_;
};

}  // namespace fastbp
