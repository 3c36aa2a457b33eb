// Sleeping on a 32-bit word: the futex of Linux, elsewhere a table of condition variables.
#pragma once

#include <atomic>
#include <cstdint>

namespace fastbp {

// Sleeps while word == value, until futex_wake_all(word); returns at once if it differs, and may return for no reason.
void futex_sleep(std::atomic<std::uint32_t>& word, std::uint32_t value);

// Wakes every thread that sleeps on the word.
void futex_wake_all(std::atomic<std::uint32_t>& word);

// To be called in the child of a fork, where locks may be held by threads that no longer exist.
void futex_after_fork();

}  // namespace fastbp
