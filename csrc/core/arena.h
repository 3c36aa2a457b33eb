// One block of memory for everything that a plan needs, addressed by byte offsets that are fixed when the plan is made.
//
//   ArenaLayout layout;
//   const std::size_t y = layout.add(array_bytes<float>(rows, units));
//   Arena arena(layout);
//   float* y_values = arena.at<float>(y);
#pragma once

#include <cstddef>

namespace fastbp {

inline constexpr std::size_t kCacheLine = 64;

// Product and sum of sizes; std::bad_alloc where they exceed what an address can hold (half of std::size_t).
std::size_t checked_product(std::size_t a, std::size_t b);
std::size_t checked_sum(std::size_t a, std::size_t b);

// Bytes of a rows x cols array of T. Negative counts are refused like counts that are too large.
template <class T> std::size_t array_bytes(std::ptrdiff_t rows, std::ptrdiff_t cols = 1) {
  const std::size_t items =
      checked_product(static_cast<std::size_t>(rows), static_cast<std::size_t>(cols));
  return checked_product(items, sizeof(T));
}

// Hands out offsets, one piece after the other. Pieces begin at multiples of 64 bytes.
class ArenaLayout {
 public:
  // Reserves `bytes` (0 is allowed) and returns their offset.
  std::size_t add(std::size_t bytes);
  std::size_t total() const { return total_; }

 private:
  std::size_t total_ = 0;
};

// Owns a zero-initialised block that begins at a multiple of 64 bytes. From 2 MiB on it begins at a multiple of 2 MiB and
// asks for huge pages, and its pages appear when they are first touched. std::bad_alloc if there is no memory.
class Arena {
 public:
  Arena() = default;
  explicit Arena(std::size_t bytes);
  explicit Arena(const ArenaLayout& layout) : Arena(layout.total()) {}
  Arena(Arena&& other) noexcept : Arena() { swap(other); }
  Arena& operator=(Arena&& other) noexcept;
  ~Arena();

  std::size_t size() const { return size_; }

  // The object or array of T at a byte offset. Null for an empty arena.
  template <class T> T* at(std::size_t offset) const {
    return reinterpret_cast<T*>(static_cast<unsigned char*>(data_) + offset);
  }

 private:
  void swap(Arena& other) noexcept;

  void* data_ = nullptr;
  std::size_t size_ = 0;
};

// For tests of leaks and of steps that allocate nothing: blocks made so far in this process, and bytes held now.
struct ArenaStatistics {
  std::size_t allocations;
  std::size_t bytes_in_use;
};
ArenaStatistics arena_statistics();

}  // namespace fastbp
