// A 32-bit word that one thread changes and others wait for: they poll it for a while, then sleep.
//
// Bit 0 belongs to the word: it says that somebody may be asleep, so that a change costs a system call only then. The
// value proper is even, in the 31 bits above.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>

#include "backend/futex.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace fastbp {

// Two lines of 64 bytes: the hardware fetches neighbouring lines in pairs.
inline constexpr std::size_t kNoSharing = 128;

inline void cpu_relax() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  __asm__ __volatile__("yield");
#endif
}

// What a waiting thread does before it sleeps: polls for so many microseconds, or gives its CPU away so many times.
// Falling asleep and being woken costs 5 to 50 us, so about that long is worth polling, if the CPU is not wanted elsewhere.
struct Patience {
  int spin_us;
  int yields;
};

class alignas(kNoSharing) WaitWord {
 public:
  static constexpr std::uint32_t kSleeper = 1;

  std::uint32_t value() const { return word_.load(std::memory_order_acquire) & ~kSleeper; }

  // Gives the word its first value; nobody may be waiting.
  void reset(std::uint32_t value) { word_.store(value, std::memory_order_relaxed); }

  // Changes the value and wakes all who sleep.
  void publish(std::uint32_t value) {
    if (word_.exchange(value, std::memory_order_acq_rel) & kSleeper) futex_wake_all(word_);
  }

  // Adds an even number and returns the value before it. Wakes nobody.
  std::uint32_t add(std::uint32_t amount) {
    return word_.fetch_add(amount, std::memory_order_acq_rel) & ~kSleeper;
  }

  // Subtracts an even number; wakes all who sleep when the value becomes 0.
  void count_down(std::uint32_t amount) {
    const std::uint32_t before = word_.fetch_sub(amount, std::memory_order_acq_rel);
    if (before == (amount | kSleeper)) futex_wake_all(word_);
  }

  // Returns the value once done(value) is true. Sets *stalled, if given, where the wait outlasted
  // spinning.
  template <class Done> std::uint32_t wait(Done done, Patience patience, bool* stalled = nullptr) {
    std::uint32_t now = value();
    if (done(now) || spin(done, patience.spin_us, now)) return now;
    if (stalled) *stalled = true;
    for (int i = 0; i < patience.yields; ++i) {
      std::this_thread::yield();
      if (done(now = value())) return now;
    }
    for (;;) {
      std::uint32_t word = word_.load(std::memory_order_acquire);
      if (done(word & ~kSleeper)) return word & ~kSleeper;
      if (!(word & kSleeper)) {
        if (!word_.compare_exchange_weak(word, word | kSleeper, std::memory_order_acq_rel))
          continue;
      }
      futex_sleep(word_, word | kSleeper);
    }
  }

 private:
  template <class Done> bool spin(Done done, int microseconds, std::uint32_t& now) const {
    using Clock = std::chrono::steady_clock;
    if (microseconds <= 0) return false;
    Clock::time_point end{};
    for (int i = 1;; ++i) {
      cpu_relax();
      if (done(now = value())) return true;
      if (i % 64 == 0) {  // the clock costs as much as a poll, so it is asked now and then
        const Clock::time_point time = Clock::now();
        if (i == 64) end = time + std::chrono::microseconds(microseconds);
        if (time >= end) return false;
      }
    }
  }

  std::atomic<std::uint32_t> word_{0};
};

}  // namespace fastbp
