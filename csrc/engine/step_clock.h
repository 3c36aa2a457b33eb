// Where the time of training steps goes.
#pragma once

#include <chrono>
#include <cstddef>
#include <vector>

namespace fastbp {

// The first three are of one stage, or of all of them where one call takes the rows through all; `whole`
// is a step that one kernel makes.
enum class StepPart { forward, delta, gradient, gather, loss, update, wait, between, whole };
inline constexpr const char* kStepPartNames[] = {"forward", "delta", "gradient", "gather", "loss",
                                                 "update",  "wait",  "between",  "whole"};
inline constexpr std::size_t kStepParts = 9;

class StepTimes {
 public:
  explicit StepTimes(std::size_t stages) : places_(stages + 1), seconds_(kStepParts * places_) {}

  // place: a stage, or `all()`.
  void add(StepPart part, std::size_t place, double seconds) {
    seconds_[std::size_t(part) * places_ + place] += seconds;
  }
  std::size_t all() const { return places_ - 1; }
  // [stages + 1]: of each stage, and of all of them together.
  const double* seconds(StepPart part) const {
    return seconds_.data() + std::size_t(part) * places_;
  }

 private:
  std::size_t places_;
  std::vector<double> seconds_;
};

// As worker 0 sees it: what it waits for others counts with the part that it waits in. A look at the
// clock takes about 25 ns.
class StepClock {
 public:
  explicit StepClock(std::size_t stages) : times_(stages), last_(Clock::now()) {}

  // The time since the call before goes to this part of that stage, or of all of them.
  void spent(StepPart part, std::size_t stage) { add(part, stage); }
  void spent(StepPart part) { add(part, times_.all()); }

  const StepTimes& times() const { return times_; }

 private:
  using Clock = std::chrono::steady_clock;

  void add(StepPart part, std::size_t place) {
    const Clock::time_point now = Clock::now();
    times_.add(part, place, std::chrono::duration<double>(now - last_).count());
    last_ = now;
  }

  StepTimes times_;
  Clock::time_point last_;
};

}  // namespace fastbp
