// How many threads the steps of a training run should use while other programs want the CPUs too.
//
// Workers that poll at barriers lose whole time slices when one of them has been put aside: on a
// busy machine two threads can be thirty times slower than one. The governor notices waits that
// outlasted spinning, tries one thread for a moment, keeps what was faster, and tries the team again
// later. Results never depend on its choice.
#pragma once

#include <chrono>
#include <cstdint>

namespace fastbp {

class ThreadGovernor {
 public:
  using Clock = std::chrono::steady_clock;
  using Seconds = std::chrono::duration<double>;

  // Threads for the next steps, of at most `wanted` (the cost model's choice).
  int threads(int wanted) const { return mode_ == Mode::team ? wanted : 1; }

  // A run begins. After a pause the workers sleep, perhaps on one CPU, and their first waits say
  // nothing about who else wants it.
  void start(Clock::time_point now) {
    if (now - last_ > after(kPause)) settled_ = now + after(kSettling);
  }

  // Tells of `steps` steps that took `seconds` with threads(), during which `stalls` waits
  // outlasted spinning. True if the choice has changed.
  bool observe(std::int64_t steps, double seconds, std::int64_t stalls, Clock::time_point now) {
    last_ = now;
    if (mode_ == Mode::team && now < settled_) return false;
    steps_ += steps;
    seconds_ += seconds;
    stalls_ += stalls;
    const Mode before = mode_;
    switch (mode_) {
    case Mode::team:
      if (seconds_ < kWindow || steps_ < 4) return false;
      team_rate_ = seconds_ / double(steps_);
      if (stalls_ * kStepsPerStall <= steps_ || double(stalls_) * kSlice <= kLittle * seconds_ ||
          now < trusted_until_) {
        backoff_ = kFirstBackoff;
      } else {
        mode_ = Mode::trial;
      }
      break;
    case Mode::trial:
      if (seconds_ < kWindow / 2 || steps_ < 2) return false;
      if (seconds_ / double(steps_) < team_rate_) {
        mode_ = Mode::alone;
        until_ = now + after(backoff_);
        backoff_ = backoff_ < kLastBackoff ? 2 * backoff_ : kLastBackoff;
      } else {
        mode_ = Mode::team;
        trusted_until_ = now + after(kTrust);
      }
      break;
    case Mode::alone:
      if (now < until_) return false;
      mode_ = Mode::team;
      break;
    }
    steps_ = stalls_ = 0;
    seconds_ = 0;
    return mode_ != before;
  }

 private:
  static Clock::duration after(double seconds) {
    return std::chrono::duration_cast<Clock::duration>(Seconds(seconds));
  }

  enum class Mode { team, trial, alone };
  static constexpr double kWindow = 0.004;  // seconds: about one time slice
  static constexpr std::int64_t kStepsPerStall =
      20;  // one lost slice of 4 ms in 20 steps of 50 us costs four times the steps
  // Long steps wait for each other now and then without losing much: so little is not worth a trial.
  static constexpr double kSlice = 0.004, kLittle = 0.25;
  static constexpr double kPause = 0.005, kSettling = 0.02;
  static constexpr double kFirstBackoff = 0.05, kLastBackoff = 1.6, kTrust = 0.5;

  Mode mode_ = Mode::team;
  std::int64_t steps_ = 0, stalls_ = 0;
  double seconds_ = 0, team_rate_ = 0, backoff_ = kFirstBackoff;
  Clock::time_point until_{}, trusted_until_{}, settled_{}, last_{};
};

}  // namespace fastbp
