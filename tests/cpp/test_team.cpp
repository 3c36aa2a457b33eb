// build: backend/team.cpp backend/futex.cpp backend/cpu_count.cpp backend/placement.cpp backend/pool_terms.cpp
// sanitize: thread
// The thread team: who works, what barriers promise, what happens to floating-point modes, signals, forks and exits.
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <fstream>
#include <limits>
#include <thread>
#include <vector>

#include "backend/cpu_count.h"
#include "backend/placement.h"
#include "backend/team.h"
#include "check.h"

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr bool kSanitized =
    true;  // sanitizers forbid forks beside threads, and limits on the address space
#else
constexpr bool kSanitized = false;
#endif

using namespace fastbp;
using Clock = std::chrono::steady_clock;

namespace {

const std::vector<int> kCounts = {1, 2, 3, 5, 8};

template <class F> void run(int count, F& function, bool flush_denormals = false) {
  const Job job = [](void* context, Worker& worker) { (*static_cast<F*>(context))(worker); };
  Team::instance().run(count, job, &function, flush_denormals);
}

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

void each_worker_runs_once() {
  for (int count : kCounts) {
    for (int round = 0; round < 200; ++round) {
      std::vector<int> runs(8, 0), counts(8, 0);
      auto job = [&](Worker& worker) {
        ++runs[static_cast<std::size_t>(worker.id)];
        counts[static_cast<std::size_t>(worker.id)] = worker.count;
      };
      run(count, job);
      for (int id = 0; id < 8; ++id) {
        FBP_EXPECT(runs[static_cast<std::size_t>(id)] == (id < count));
        FBP_EXPECT(counts[static_cast<std::size_t>(id)] == (id < count ? count : 0));
      }
    }
  }
}

// Plain memory written before a barrier is read by everybody after it; some workers come late.
void barriers_separate_phases() {
  for (int count : kCounts) {
    const auto n = static_cast<std::size_t>(count);
    std::vector<std::uint64_t> values(n, 1), next(n, 0);
    auto job = [&](Worker& worker) {
      const auto id = static_cast<std::size_t>(worker.id);
      for (int phase = 0; phase < 300; ++phase) {
        std::uint64_t sum = static_cast<std::uint64_t>(phase);
        for (std::uint64_t value : values) sum = sum * 31 + value;
        next[id] = sum + id;
        if (phase % 100 == 50 && worker.id == phase % worker.count) {
          std::this_thread::sleep_for(std::chrono::milliseconds(1));  // the others fall asleep
        }
        worker.barrier();
        values[id] = next[id];
        worker.barrier();
      }
    };
    run(count, job);

    std::vector<std::uint64_t> expected(n, 1);
    for (int phase = 0; phase < 300; ++phase) {
      std::uint64_t sum = static_cast<std::uint64_t>(phase);
      for (std::uint64_t value : expected) sum = sum * 31 + value;
      for (std::size_t id = 0; id < n; ++id) expected[id] = sum + id;
    }
    FBP_EXPECT(values == expected);
  }
}

// Each piece once, whoever takes it, and what it wrote is there when the call returns; jobs in between.
void pieces_run_once() {
  for (int count : kCounts) {
    for (int round = 0; round < 300; ++round) {
      const int pieces = round % 7;
      std::vector<int> runs(7, 0);
      const auto piece = [](void* context, int i) {
        ++(*static_cast<std::vector<int>*>(context))[static_cast<std::size_t>(i)];
        if (i == 3) std::this_thread::yield();
      };
      Team::instance().run_pieces(pieces, piece, &runs, round % 2 == 0);
      for (int i = 0; i < 7; ++i) FBP_EXPECT(runs[static_cast<std::size_t>(i)] == (i < pieces));
      if (round % 50 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      std::atomic<int> workers{0};
      auto job = [&](Worker& worker) {
        worker.barrier();
        ++workers;
      };
      run(count, job);
      FBP_EXPECT(workers == count);
    }
  }
}

void two_callers_have_their_own_pieces() {
  std::vector<std::thread> callers;
  for (int i = 0; i < 3; ++i) {
    callers.emplace_back([] {
      for (int round = 0; round < 300; ++round) {
        std::vector<int> runs(4, 0);
        const auto piece = [](void* context, int k) {
          ++(*static_cast<std::vector<int>*>(context))[static_cast<std::size_t>(k)];
        };
        Team::instance().run_pieces(4, piece, &runs, false);
        FBP_EXPECT(runs == std::vector<int>(4, 1));
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
}

void a_job_inside_a_job_runs_alone() {
  std::atomic<int> inner_workers{0}, inner_counts{0};
  auto inner = [&](Worker& worker) {
    worker.barrier();
    ++inner_workers;
    inner_counts += worker.count;
  };
  auto outer = [&](Worker&) { run(4, inner); };
  run(3, outer);
  FBP_EXPECT(inner_workers == 3);
  FBP_EXPECT(inner_counts == 3);
}

void two_callers_get_right_results() {
  std::vector<std::thread> callers;
  for (int i = 0; i < 3; ++i) {
    callers.emplace_back([] {
      for (int round = 0; round < 300; ++round) {
        std::atomic<int> sum{0}, count{0};
        auto job = [&](Worker& worker) {
          worker.barrier();
          sum += worker.id + 1;
          count = worker.count;
        };
        run(3, job);
        FBP_EXPECT(count == 1 || count == 3);
        FBP_EXPECT(sum == count * (count + 1) / 2);
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
}

void denormals_and_rounding() {
#if defined(__x86_64__) || defined(__aarch64__)
  const FpControl before = read_fp_control();
  std::vector<FpControl> seen(8);
  std::vector<std::uint32_t> products(8);
  const volatile float tiny = std::numeric_limits<float>::denorm_min(), one = 1, three = 3;
  auto job = [&](Worker& worker) {
    const auto id = static_cast<std::size_t>(worker.id);
    seen[id] = read_fp_control();
    const float product = tiny * one;
    std::memcpy(&products[id], &product, sizeof product);
    const volatile float third =
        one / three;  // raises the inexact flag, which must not reach the caller
    (void)third;
  };
  const auto all_products = [&](int count, bool zero) {
    for (int id = 0; id < count; ++id) {
      FBP_EXPECT((products[static_cast<std::size_t>(id)] == 0) == zero);
    }
  };
  for (int count : kCounts) {
    run(count, job, true);
    all_products(count, true);
    FBP_EXPECT(read_fp_control() == before);
    run(count, job, false);
    all_products(count, false);
    FBP_EXPECT(read_fp_control() == before);
#if defined(__x86_64__)
    const FpControl odd = (before & ~0x3fu) | 0x4000u | 0x8000u;  // round up, flush results only
    write_fp_control(odd);
    run(count, job, false);
    FBP_EXPECT(read_fp_control() == odd);
    for (int id = 0; id < count; ++id) {
      FBP_EXPECT((seen[static_cast<std::size_t>(id)] & ~0x3fu) == odd);
    }
    run(count, job, true);
    FBP_EXPECT(read_fp_control() == odd);
    for (int id = 0; id < count; ++id) {
      FBP_EXPECT((seen[static_cast<std::size_t>(id)] & ~0x3fu) == kFlushDenormals);
    }
    write_fp_control(before);
#endif
  }
#endif
}

void signals_go_elsewhere() {
  std::atomic<int> wrong{0};
  auto job = [&](Worker& worker) {
    if (worker.id == 0) return;
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, nullptr, &mask);
    for (int signal : {SIGINT, SIGTERM, SIGUSR1, SIGALRM}) wrong += sigismember(&mask, signal) != 1;
    for (int signal : {SIGSEGV, SIGFPE}) wrong += sigismember(&mask, signal) != 0;
  };
  run(3, job);
  FBP_EXPECT(wrong == 0);
  sigset_t mask;
  pthread_sigmask(SIG_SETMASK, nullptr, &mask);
  FBP_EXPECT(sigismember(&mask, SIGINT) == 0);
}

void idle_threads_sleep() {
  auto job = [](Worker& worker) { worker.barrier(); };
  run(2, job);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  rusage before{}, after{};
  getrusage(RUSAGE_SELF, &before);
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  getrusage(RUSAGE_SELF, &after);
  const auto microseconds = [](const rusage& usage) {
    return usage.ru_utime.tv_sec * 1000000 + usage.ru_utime.tv_usec;
  };
  FBP_EXPECT(microseconds(after) - microseconds(before) < 20000);
}

void counts_are_checked() {
  setenv("FASTBP_NUM_THREADS", "3", 1);
  FBP_EXPECT(num_threads() == 3);
  set_num_threads(7);
  FBP_EXPECT(num_threads() == 7);
  for (int bad : {0, -1, kMaxThreads + 1}) {
    FBP_EXPECT_THROW(set_num_threads(bad), std::invalid_argument);
    FBP_EXPECT(fbp_message_has("from 1 to 1024"));
  }
  FBP_EXPECT(num_threads() == 7);
}

// Runs `child` in a fork; true if it returned true within a minute.
template <class F> bool in_child(F child) {
  std::fflush(stdout);
  const pid_t pid = fork();
  if (pid == 0) _exit(child() ? 0 : 1);
  const Clock::time_point begin = Clock::now();
  int status = 0;
  while (waitpid(pid, &status, WNOHANG) == 0) {
    if (seconds_since(begin) > 60) {
      kill(pid, SIGKILL);
      waitpid(pid, &status, 0);
      return false;
    }
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

bool team_of_three_works() {
  int ids = 0;
  std::atomic<int> sum{0}, count{0};
  auto job = [&](Worker& worker) {
    worker.barrier();
    sum += worker.id + 1;
    count = worker.count;
    worker.barrier();
    if (worker.id == 0) ids = sum;
  };
  run(3, job);
  return count == 3 && ids == 6;
}

// The parent's team is idle, asleep or at work; the child's is new.
void forks_work() {
  if (kSanitized) return;
  FBP_EXPECT(in_child(team_of_three_works));
  std::atomic<bool> stop{false};
  std::thread busy([&] {
    while (!stop) team_of_three_works();
  });
  int failed = 0;
  for (int i = 0; i < 50; ++i) failed += !in_child(team_of_three_works);
  stop = true;
  busy.join();
  FBP_EXPECT(failed == 0);
  FBP_EXPECT(team_of_three_works());
  // A child of a child, and a team that sleeps.
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  FBP_EXPECT(in_child([] { return team_of_three_works() && in_child(team_of_three_works); }));
}

// No thread is to be had: the job runs on those that there are. Comes first: the stacks of a fork's lost threads are reused.
void fewer_threads_are_enough() {
  if (kSanitized) return;
  FBP_EXPECT(in_child([] {
    std::size_t pages = 0;
    std::ifstream("/proc/self/statm") >> pages;
    const std::size_t bytes =
        pages * 4096 + (std::size_t{1} << 20);  // less than one thread's stack more
    rlimit limit{bytes, bytes};
    if (setrlimit(RLIMIT_AS, &limit) != 0) return false;
    std::atomic<int> count{0}, runs{0};
    auto job = [&](Worker& worker) {
      worker.barrier();
      count = worker.count;
      ++runs;
    };
    run(4, job);
    return count == 1 && runs == 1;
  }));
}

// exit() beside sleeping members, and while another thread is inside a job.
void exits_end() {
  if (kSanitized) return;
  FBP_EXPECT(in_child([] {
    run(3, *new auto([](Worker& worker) { worker.barrier(); }));
    exit(0);
    return false;
  }));
  FBP_EXPECT(in_child([] {
    std::thread([] {
      for (;;) team_of_three_works();
    }).detach();
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    exit(0);
    return false;
  }));
}

// More threads than CPUs must not poll: 1000 barriers of 8 threads take milliseconds, seconds would be polling. That is
// CPU time, which others on the machine do not lengthen.
void costs() {
  for (int count : {1, 2, 5, 8}) {
    int barriers = 1000;
    auto job = [&](Worker& worker) {
      for (int i = 0; i < barriers; ++i) worker.barrier();
    };
    run(count, job);
    const Clock::time_point begin = Clock::now();
    const std::clock_t used = std::clock();
    run(count, job);
    const double barrier = seconds_since(begin) / barriers;
    const double busy = double(std::clock() - used) / CLOCKS_PER_SEC / barriers;
    const Clock::time_point start = Clock::now();
    barriers = 0;
    for (int i = 0; i < 1000; ++i) run(count, job);
    std::printf("%d threads: barrier %.2f us (%.2f of CPU), job %.2f us\n", count, barrier * 1e6,
                busy * 1e6, seconds_since(start) * 1e3);
    FBP_EXPECT(busy < 2e-3);
  }
}

// The system may bring it back at once, but not every time. What the thread may use stays as it was.
void threads_leave_a_cpu() {
  cpu_set_t before, after;
  if (affinity_cpus() < 2 || sched_getaffinity(0, sizeof before, &before) != 0) return;
  int left = 0;
  for (int i = 0; i < 100; ++i) {
    const int cpu = current_cpu();
    leave_cpu(cpu);
    left += current_cpu() != cpu;
  }
  FBP_EXPECT(left > 10);
  FBP_EXPECT(sched_getaffinity(0, sizeof after, &after) == 0 && CPU_EQUAL(&before, &after));
  // Without another CPU it stays.
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(current_cpu(), &one);
  FBP_EXPECT(sched_setaffinity(0, sizeof one, &one) == 0);
  leave_cpu(current_cpu());
  FBP_EXPECT(sched_getaffinity(0, sizeof after, &after) == 0 && CPU_EQUAL(&one, &after));
  FBP_EXPECT(sched_setaffinity(0, sizeof before, &before) == 0);
}

}  // namespace

int main() {
  fewer_threads_are_enough();
  counts_are_checked();
  each_worker_runs_once();
  barriers_separate_phases();
  pieces_run_once();
  two_callers_have_their_own_pieces();
  a_job_inside_a_job_runs_alone();
  two_callers_get_right_results();
  denormals_and_rounding();
  signals_go_elsewhere();
  idle_threads_sleep();
  forks_work();
  exits_end();
  threads_leave_a_cpu();
  costs();
  return fbp_test_result();
}
