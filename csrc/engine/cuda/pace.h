// How far the host may run ahead of the device, and when it asks whether to stop.
#pragma once

#include <chrono>
#include <thread>

#include "engine/cuda/resources.h"

namespace fastbp {
namespace cuda {

// Asks the caller at most every 40 ms; once interrupted, always.
class Poll {
 public:
  explicit Poll(const fbp_interrupt& interrupt) : interrupt_(interrupt) {}
  bool operator()() {
    if (stopped_ || !interrupt_.pending) return stopped_;
    const auto now = Clock::now();
    if (now - last_ < std::chrono::milliseconds(40)) return false;
    last_ = now;
    return stopped_ = interrupt_.pending(interrupt_.context) != 0;
  }
  bool stopped() const { return stopped_; }
  void stop() { stopped_ = true; }

 private:
  using Clock = std::chrono::steady_clock;
  fbp_interrupt interrupt_;
  Clock::time_point last_ = Clock::now();
  bool stopped_ = false;
};

// Waits for an event, asking meanwhile. At first without going to sleep: that takes a Linux thread 70 us
// at least, and a step of a small network 10.
inline void wait_for(cudaEvent_t event, Poll& poll) {
  using Clock = std::chrono::steady_clock;
  const auto patience = Clock::now() + std::chrono::microseconds(200);
  for (;;) {
    const cudaError_t state = cudaEventQuery(event);
    if (state != cudaErrorNotReady) return check(state, "the device's work");
    poll();
    if (Clock::now() > patience) std::this_thread::sleep_for(std::chrono::microseconds(20));
  }
}

// Keeps what is enqueued short, so that an interrupt is heeded soon, and the device busy: at most two
// windows of steps are under way, and a window grows while the device takes less than 10 ms for it.
class Pace {
 public:
  static constexpr int kLongest = 1024;  // window

  // A new run, for which the events of the one before serve again.
  void begin() {
    current_ = recorded_ = in_window_ = 0;
    window_ = 1;
    last_ = std::chrono::steady_clock::now();
  }

  // Steps that may be enqueued together.
  int room() const { return window_ - in_window_; }
  // After so many steps. False: stop here.
  bool step(cudaStream_t stream, Poll& poll, int steps = 1) {
    if (poll()) return false;
    if ((in_window_ += steps) < window_) return true;
    in_window_ = 0;
    if (!events_[current_].get()) events_[current_] = make_event();
    check(cudaEventRecord(events_[current_].get(), stream), "the device's work");
    current_ = 1 - current_;
    if (recorded_ < 2) ++recorded_;
    if (recorded_ < 2) return true;
    wait_for(events_[current_].get(), poll);
    const auto now = std::chrono::steady_clock::now();
    if (now - last_ < std::chrono::milliseconds(10) && window_ < kLongest) window_ *= 2;
    last_ = now;
    return !poll();
  }

 private:
  Event events_[2];
  int current_ = 0, recorded_ = 0, window_ = 1, in_window_ = 0;
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

}  // namespace cuda
}  // namespace fastbp
