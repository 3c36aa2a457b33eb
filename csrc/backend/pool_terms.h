// What a thread is held to that is one of several which train networks side by side.
//
// The team serves one caller at a time, and a small network makes nothing of a second thread: many
// of them are trained fastest each on one thread, as many at once as the team has. Such threads are
// Python's; for as long as one has terms, num_threads() is at most theirs, and its long calls end
// between two steps once it is told to stop.
#pragma once

#include <atomic>

namespace fastbp {

struct PoolTerms {
  std::atomic<int> threads{1};    // of the team, for each call
  std::atomic<bool> stop{false};  // nobody waits for the results any more
};

// Those of the calling thread; null: none.
PoolTerms* pool_terms();
// They must outlive the thread's last call.
void set_pool_terms(PoolTerms* terms);

}  // namespace fastbp
