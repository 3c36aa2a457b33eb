#include "backend/team.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <cstdio>
#include <system_error>
#include <thread>

#include "backend/cpu_count.h"
#include "backend/placement.h"
#include "backend/pool_terms.h"
#include "core/check.h"

namespace fastbp {

namespace {

// The barrier word: bit 0 is WaitWord's, 11 bits count up to kMaxThreads arrivals, 20 bits count phases.
constexpr std::uint32_t kOne = 2;
constexpr int kPhaseShift = 12;
static_assert(kMaxThreads * kOne < (1u << kPhaseShift), "arrivals must fit below the phase");

// With a CPU for each thread, polling; otherwise the CPU is better used by those who are waited for.
constexpr Patience kSpin{40, 0};
constexpr Patience kCrowded{0, 32};
constexpr Patience kIdleSpin{50, 0};
constexpr Patience kIdleCrowded{0, 8};

std::atomic<Team*> the_team{nullptr};
std::atomic<int> thread_count{0};  // 0: not decided yet

// The child of a fork has none of its parent's threads: it forgets their team (a leak of a few hundred bytes), in
// whatever state that was.
[[maybe_unused]] const int fork_handler = pthread_atfork(nullptr, nullptr, [] {
  the_team.store(nullptr, std::memory_order_relaxed);
  futex_after_fork();
});

// Blocks the signals that the process may be sent, so that they go to threads that expect them: a new thread inherits the
// mask. Those that a fault raises in its own thread stay, for Python's faulthandler.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t mask;
    sigfillset(&mask);
    for (int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP}) sigdelset(&mask, fault);
    pthread_sigmask(SIG_SETMASK, &mask, &saved_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &saved_, nullptr); }

 private:
  sigset_t saved_;
};

// Tickets: bit 0 is WaitWord's, bit 1 says that pieces are to be worked off, the others count.
constexpr std::uint32_t kPieces = 2;
constexpr std::uint32_t kNextTicket = 4;
constexpr int kGateShift = 32;  // the ticket in the gate, above the number of those who have joined

void execute(Job job, void* context, Worker& worker) noexcept { job(context, worker); }
void execute(Piece piece, void* context, int i) noexcept { piece(context, i); }

}  // namespace

// A kept thread and the word that tells it of a new task.
struct Team::Member {
  int id;
  WaitWord ticket;
};

void Worker::barrier() {
  if (count == 1) return;
  WaitWord& word = team_->barrier_;
  const std::uint32_t before = word.add(kOne);
  const std::uint32_t phase = before >> kPhaseShift;
  const std::uint32_t arrived = (before & ((1u << kPhaseShift) - 1)) / kOne + 1;
  if (arrived == static_cast<std::uint32_t>(count)) {
    word.publish((phase + 1) << kPhaseShift);
  } else {
    bool stalled = false;
    word.wait([phase](std::uint32_t now) { return now >> kPhaseShift != phase; }, patience_,
              &stalled);
    if (stalled) {
      team_->stalls_.fetch_add(1, std::memory_order_relaxed);
      if (id == 0)
        team_->note_caller(count > team_->usable_cpus_);
      else
        team_->leave_caller();
    }
  }
}

// The system wakes a thread where it likes. One on its caller's CPU may stay there for many milliseconds: the two then wait
// for each other at every barrier, and of pieces the caller makes all. So both look where they are when they begin, and
// where they have slept.
void Team::note_caller(bool crowded) {
  caller_cpu_.store(crowded ? -1 : current_cpu(), std::memory_order_relaxed);
}

void Team::leave_caller() {
  const int cpu = current_cpu();
  if (cpu >= 0 && cpu == caller_cpu_.load(std::memory_order_relaxed)) leave_cpu(cpu);
}

// Never destroyed: its threads sleep in it when the process ends. Made without a lock, which a fork could leave locked.
Team& Team::instance() {
  Team* team = the_team.load(std::memory_order_acquire);
  if (!team) {
    auto* created = new Team;
    if (the_team.compare_exchange_strong(team, created, std::memory_order_acq_rel)) return *created;
    delete created;
  }
  return *team;
}

Team::Team() : usable_cpus_(usable_cpus()) {}

void Team::run(int count, Job job, void* context, bool flush_denormals) {
  const FpControl control = flush_denormals ? kFlushDenormals : read_fp_control();
  const FpControlScope scope(control);
  if (count <= 1 || busy_.exchange(true, std::memory_order_acquire)) {
    Worker alone(0, 1, nullptr, {});
    execute(job, context, alone);
    return;
  }

  count = recruit(count);
  const bool crowded = count > usable_cpus_;
  task_ = {job, nullptr, context, count, control, crowded ? kCrowded : kSpin};
  note_caller(crowded);
  barrier_.reset(0);
  running_.reset(static_cast<std::uint32_t>(count - 1) * kOne);
  call(count - 1, 0);
  Worker caller(0, count, this, task_.patience);
  execute(job, context, caller);
  running_.wait([](std::uint32_t members) { return members == 0; }, task_.patience);
  busy_.store(false, std::memory_order_release);
}

// Gives the first `members` a new ticket, of a number that none of them has, not even after 2^30 jobs.
void Team::call(int members, std::uint32_t kind) {
  const auto first = members_.begin(), last = first + members;
  do {
    ticket_ = ((ticket_ + kNextTicket) & ~kPieces) | kind;
  } while (std::any_of(first, last, [&](Member* m) { return m->ticket.value() == ticket_; }));
  if (kind == kPieces) gate_.store(std::uint64_t(ticket_) << kGateShift);
  std::for_each(first, last, [&](Member* m) { m->ticket.publish(ticket_); });
}

void Team::run_pieces(int count, Piece piece, void* context, bool flush_denormals) {
  const FpControl control = flush_denormals ? kFlushDenormals : read_fp_control();
  const FpControlScope scope(control);
  if (count <= 1 || busy_.exchange(true, std::memory_order_acquire)) {
    for (int i = 0; i < count; ++i) execute(piece, context, i);
    return;
  }
  const int team = recruit(count);
  const bool crowded = team > usable_cpus_;
  task_ = {nullptr, piece, context, count, control, crowded ? kCrowded : kSpin};
  note_caller(crowded);
  next_piece_.store(0, std::memory_order_relaxed);
  constexpr std::uint32_t unknown = kMaxThreads * kOne;  // how many will join
  running_.reset(unknown);
  call(team - 1, kPieces);
  work_off();
  const auto joined = static_cast<std::uint32_t>(gate_.exchange(0));
  running_.add(joined * kOne - unknown);
  running_.wait([](std::uint32_t members) { return members == 0; }, task_.patience);
  busy_.store(false, std::memory_order_release);
}

// Takes pieces of the task as long as there are any.
void Team::work_off() {
  for (int i; (i = next_piece_.fetch_add(1, std::memory_order_relaxed)) < task_.count;)
    execute(task_.piece, task_.context, i);
}

// A member that has been called to work off pieces; it may be late, and then finds the gate shut.
void Team::help(std::uint32_t ticket) {
  std::uint64_t gate = gate_.load();
  do {
    if (gate >> kGateShift != ticket) return;
  } while (!gate_.compare_exchange_weak(gate, gate + 1));
  write_fp_control(task_.control);
  work_off();
  running_.count_down(kOne);
}

// What a kept thread does: wait for a ticket, work, report.
void Team::live(Member& member) {
  std::uint32_t seen = 0;
  Patience idle = kIdleSpin;
  for (;;) {
    seen = member.ticket.wait([seen](std::uint32_t now) { return now != seen; }, idle);
    leave_caller();
    if (seen & kPieces) {
      help(seen);
      continue;
    }
    const Task task = task_;
    write_fp_control(task.control);
    Worker worker(member.id, task.count, this, task.patience);
    execute(task.job, task.context, worker);
    idle = task.count > usable_cpus_ ? kIdleCrowded : kIdleSpin;
    running_.count_down(kOne);
  }
}

// Makes the threads that `count` workers still need; returns how many workers there can be.
int Team::recruit(int count) {
  if (count > kMaxThreads) count = kMaxThreads;
  const auto wanted = static_cast<std::size_t>(count - 1);
  if (members_.size() < wanted && std::chrono::steady_clock::now() >= retry_) {
    const SignalsBlocked blocked;
    while (members_.size() < wanted) {
      if (add_member()) continue;
      retry_ = std::chrono::steady_clock::now() + std::chrono::seconds(1);
      break;
    }
  }
  return members_.size() < wanted ? static_cast<int>(members_.size()) + 1 : count;
}

// False where the system has no thread or no memory to give.
bool Team::add_member() {
  Member* member = nullptr;
  try {
    members_.reserve(members_.size() + 1);
    member = new Member{static_cast<int>(members_.size()) + 1, {}};
    std::thread thread([this, member] { live(*member); });
#if defined(__linux__)
    char name[16];
    std::snprintf(name, sizeof name, "fastbp-%d", member->id);
    pthread_setname_np(thread.native_handle(), name);
#endif
    thread.detach();
    members_.push_back(member);
    return true;
  } catch (const std::system_error&) {
  } catch (const std::bad_alloc&) {}
  delete member;
  return false;
}

int num_threads() {
  int count = thread_count.load(std::memory_order_relaxed);
  if (count == 0) {
    const int chosen = default_num_threads(process_environment);
    // Another thread may have decided meanwhile: then count is its choice.
    if (thread_count.compare_exchange_strong(count, chosen, std::memory_order_relaxed))
      count = chosen;
  }
  const PoolTerms* terms = pool_terms();
  return terms ? std::min(count, terms->threads.load(std::memory_order_relaxed)) : count;
}

void set_num_threads(int n) {
  FBP_CHECK(n >= 1 && n <= kMaxThreads, "num_threads",
            text("a whole number from 1 to ", kMaxThreads), n);
  thread_count.store(n, std::memory_order_relaxed);
}

}  // namespace fastbp
