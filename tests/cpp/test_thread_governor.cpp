// build: core/arena.cpp
// The governor on a clock of its own: a quiet team stays, a disturbed one is tried against one thread,
// the faster is kept, the team gets another chance, and what follows a pause does not count.
#include "check.h"
#include "engine/thread_governor.h"

using namespace fastbp;

namespace {

// A machine on which a step takes so many seconds with the team and alone.
struct Machine {
  double team, alone;
  std::int64_t stalls_per_step;
};

struct Run {
  ThreadGovernor governor;
  ThreadGovernor::Clock::time_point now =
      ThreadGovernor::Clock::time_point{} + std::chrono::hours(1);

  void pass(double seconds) {
    now += std::chrono::duration_cast<ThreadGovernor::Clock::duration>(
        ThreadGovernor::Seconds(seconds));
  }
  // Steps for so many seconds; the share of them that the team took.
  double steps(const Machine& machine, double seconds) {
    int team = 0, all = 0;
    for (double spent = 0; spent < seconds; ++all) {
      const bool together = governor.threads(4) == 4;
      const double step = together ? machine.team : machine.alone;
      pass(step);
      governor.observe(1, step, together ? machine.stalls_per_step : 0, now);
      spent += step;
      team += together;
    }
    return double(team) / all;
  }
};

constexpr Machine kQuiet{1e-3, 1.8e-3, 0};
constexpr Machine kBusy{8e-3, 1e-3, 2};
constexpr Machine kNoisy{1e-3, 1.8e-3, 1};  // stalls, and still faster together
constexpr Machine kLong{20e-3, 39e-3, 1};

void a_quiet_team_stays() {
  Run run;
  FBP_EXPECT(run.steps(kQuiet, 2) == 1);
}

void a_disturbed_team_rests() {
  Run run;
  run.steps(kBusy, 1);
  FBP_EXPECT(run.steps(kBusy, 4) < 0.1);
  // When the others are gone it is found out.
  run.steps(kQuiet, 2);
  FBP_EXPECT(run.steps(kQuiet, 1) == 1);
}

void what_is_faster_is_kept() {
  Run run;
  FBP_EXPECT(run.steps(kNoisy, 4) > 0.95);
}

// A wait in each step of 20 ms costs less than half of the threads would.
void long_steps_may_wait() {
  Run run;
  FBP_EXPECT(run.steps(kLong, 2) == 1);
}

void the_first_steps_after_a_pause_do_not_count() {
  Run run;
  run.governor.start(run.now);
  run.steps(kQuiet, 0.1);
  run.pass(0.4);
  run.governor.start(run.now);
  FBP_EXPECT(run.steps(kBusy, 0.015) == 1);
  FBP_EXPECT(run.steps(kQuiet, 0.5) == 1);
  // Without a pause they do.
  run.governor.start(run.now);
  FBP_EXPECT(run.steps(kBusy, 0.1) < 1);
}

}  // namespace

int main() {
  a_quiet_team_stays();
  a_disturbed_team_rests();
  what_is_faster_is_kept();
  long_steps_may_wait();
  the_first_steps_after_a_pause_do_not_count();
  return fbp_test_result();
}
