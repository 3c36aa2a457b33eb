#include "backend/futex.h"

#if defined(__linux__) && !defined(FBP_NO_FUTEX)

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>

namespace fastbp {

static_assert(sizeof(std::atomic<std::uint32_t>) == 4, "the kernel reads the word itself");

void futex_sleep(std::atomic<std::uint32_t>& word, std::uint32_t value) {
  syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, value, nullptr, nullptr, 0);
}

void futex_wake_all(std::atomic<std::uint32_t>& word) {
  syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}

void futex_after_fork() {}

}  // namespace fastbp

#else

#include <condition_variable>
#include <mutex>

namespace fastbp {

namespace {

// Words share a few bins by their address. Never destroyed: threads may sleep in it when the process ends.
struct Bin {
  std::mutex mutex;
  std::condition_variable changed;
};
struct Bins { Bin bin[16]; };

std::atomic<Bins*> bins{new Bins};

Bin& bin_of(const void* word) {
  const auto address = reinterpret_cast<std::uintptr_t>(word);
  return bins.load(std::memory_order_acquire)->bin[(address >> 7) % 16];
}

}  // namespace

void futex_sleep(std::atomic<std::uint32_t>& word, std::uint32_t value) {
  Bin& bin = bin_of(&word);
  std::unique_lock<std::mutex> lock(bin.mutex);
  if (word.load(std::memory_order_acquire) == value) bin.changed.wait(lock);
}

void futex_wake_all(std::atomic<std::uint32_t>& word) {
  Bin& bin = bin_of(&word);
  std::lock_guard<std::mutex> lock(bin.mutex);
  bin.changed.notify_all();
}

void futex_after_fork() { bins.store(new Bins, std::memory_order_release); }

}  // namespace fastbp

#endif
