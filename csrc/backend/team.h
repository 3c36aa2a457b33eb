// The thread team: runs one function on several threads at once (SPMD), with barriers between its phases.
//
//   Team::instance().run(num_threads(), [](void* context, Worker& worker) {
//     first_phase(context, worker.id, worker.count);
//     worker.barrier();
//     second_phase(context, worker.id, worker.count);
//   }, &state, /*flush_denormals=*/true);
//
// Threads are made when they are first needed and kept. They poll for a moment, then sleep, so a job that follows at once
// starts within a microsecond and an idle program costs nothing.
#pragma once

#include <atomic>
#include <chrono>
#include <vector>

#include "backend/denormals.h"
#include "backend/wait_word.h"

namespace fastbp {

inline constexpr int kMaxThreads = 1024;

class Team;

// One of the threads that run a job.
class Worker {
 public:
  const int id;     // 0 is the caller of run()
  const int count;  // may be smaller than what run() was asked for: results must not depend on it

  // Returns once all workers of the job have called it; what they wrote before is then visible to all.
  void barrier();

 private:
  friend class Team;
  Worker(int id_, int count_, Team* team, Patience patience)
      : id(id_), count(count_), team_(team), patience_(patience) {}

  Team* team_;
  Patience patience_;
};

using Job = void (*)(void* context, Worker& worker);  // must not throw
using Piece = void (*)(void* context, int piece);     // the same

class Team {
 public:
  // The process's team. A forked child gets a new one.
  static Team& instance();

  // Runs job(context, worker) on `count` threads, of which the caller is one, and returns when all have finished.
  //
  // The caller works alone (count 1) when another thread is using the team, and when called from inside a job; the count
  // also shrinks when no more threads can be made. All workers have the same floating-point control word for the length
  // of the job, the caller's own or, with flush_denormals, kFlushDenormals; the caller's is restored.
  void run(int count, Job job, void* context, bool flush_denormals);

  // Runs piece(context, i) for every i below `count`, each once, on up to `count` threads, of which the caller is one.
  //
  // No thread is waited for that has not begun: where the others sleep, or other programs have their CPUs, the caller
  // does the work itself. Otherwise as run().
  void run_pieces(int count, Piece piece, void* context, bool flush_denormals);

  // Waits at barriers, since the team began, that outlasted spinning: a worker was late by tens of microseconds.
  std::int64_t stalls() const { return stalls_.load(std::memory_order_relaxed); }

 private:
  friend class Worker;
  struct Member;

  Team();
  void live(Member& member);
  void help(std::uint32_t ticket);
  void work_off();
  void call(int members, std::uint32_t kind);
  void note_caller(bool crowded);
  void leave_caller();
  int recruit(int count);
  bool add_member();

  struct Task {
    Job job;
    Piece piece;
    void* context;
    int count;
    FpControl control;
    Patience patience;
  };

  // Written by the thread that holds busy_; a member reads it after its own ticket has changed, and where there are
  // pieces, once it has joined.
  Task task_{};
  std::uint32_t ticket_ = 0;  // the last one
  std::vector<Member*> members_;
  std::chrono::steady_clock::time_point
      retry_{};  // no new thread before, after one could not be made
  const int usable_cpus_;

  alignas(kNoSharing) std::atomic<bool> busy_{false};
  alignas(kNoSharing) std::atomic<std::int64_t> stalls_{0};
  std::atomic<int> caller_cpu_{-1};  // where the caller was last seen; -1 where it doesn't matter
  WaitWord barrier_;                 // phase << kPhaseShift | workers that have arrived * 2
  WaitWord running_;                 // members that have not finished * 2
  // The ticket with which members may join in working off pieces, and how many have; 0 where none may.
  alignas(kNoSharing) std::atomic<std::uint64_t> gate_{0};
  alignas(kNoSharing) std::atomic<int> next_piece_{0};
};

// How many threads to use: what set_num_threads() said, else FASTBP_NUM_THREADS, else the CPUs that this process may use;
// in a thread with terms (pool_terms.h) no more than those allow.
// std::invalid_argument where the environment's value, or n, is not in 1..kMaxThreads.
int num_threads();
void set_num_threads(int n);

}  // namespace fastbp
