// Whether the caller wants the work to end, asked not too often.
#pragma once

#include <chrono>

#include "engine/step.h"

namespace fastbp {

// Asks `interrupt` at most every 40 ms.
class Poll {
 public:
  explicit Poll(const Interrupt& interrupt) : interrupt_(interrupt) {}
  bool operator()() {
    if (!interrupt_.pending) return false;
    const auto now = std::chrono::steady_clock::now();
    if (now - last_ < std::chrono::milliseconds(40)) return false;
    last_ = now;
    return interrupt_.pending(interrupt_.context);
  }

 private:
  Interrupt interrupt_;
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

// Interrupt::pending of a Poll.
inline bool ask_poll(void* poll) { return (*static_cast<Poll*>(poll))(); }

}  // namespace fastbp
