// build: core/arena.cpp
#include <cstdint>
#include <limits>
#include <new>
#include <utility>
#include <vector>

#include "check.h"
#include "core/arena.h"
#include "core/check.h"

using namespace fastbp;

namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;
constexpr std::size_t kHuge = std::numeric_limits<std::size_t>::max();

void offsets_follow_each_other() {
  ArenaLayout layout;
  FBP_EXPECT(layout.add(1) == 0);
  FBP_EXPECT(layout.add(64) == 64);
  FBP_EXPECT(layout.add(0) == 128);
  FBP_EXPECT(layout.add(65) == 128);
  FBP_EXPECT(layout.total() == 256);
}

void sizes_are_checked() {
  FBP_EXPECT(array_bytes<float>(3, 5) == 60);
  FBP_EXPECT(array_bytes<double>(0, 5) == 0);
  FBP_EXPECT(array_bytes<double>(7) == 56);
  FBP_EXPECT_THROW(array_bytes<float>(-1), std::bad_alloc);
  FBP_EXPECT_THROW(array_bytes<float>(-1, -1), std::bad_alloc);
  FBP_EXPECT_THROW(array_bytes<float>(std::ptrdiff_t{1} << 32, std::ptrdiff_t{1} << 32),
                   std::bad_alloc);
  FBP_EXPECT_THROW(checked_sum(kHuge, 1), std::bad_alloc);
  FBP_EXPECT_THROW(checked_product(kHuge / 4, 3), std::bad_alloc);
  ArenaLayout layout;
  layout.add(kHuge / 4);
  FBP_EXPECT_THROW(layout.add(kHuge / 2), std::bad_alloc);
  FBP_EXPECT(layout.total() <= kHuge / 4 + kCacheLine);
}

// Sizes on both sides of every limit: memory that is zero, aligned, wholly writable, and given back.
void blocks_are_zero_and_aligned() {
  const std::vector<std::size_t> sizes = {1,
                                          63,
                                          64,
                                          65,
                                          4096,
                                          kMiB,
                                          2 * kMiB - 64,
                                          2 * kMiB - 1,
                                          2 * kMiB,
                                          2 * kMiB + 1,
                                          5 * kMiB + 123};
  for (std::size_t size : sizes) {
    for (int round = 0; round < 2;
         ++round) {  // the second may get memory that the first has written
      Arena arena(size);
      FBP_EXPECT(arena.size() >= size);
      auto* bytes = arena.at<unsigned char>(0);
      FBP_EXPECT(reinterpret_cast<std::uintptr_t>(bytes) % kCacheLine == 0);
      std::size_t used = 0;
      for (std::size_t i = 0; i < arena.size(); ++i) used += bytes[i] != 0;
      FBP_EXPECT(used == 0);
      for (std::size_t i = 0; i < arena.size(); ++i) bytes[i] = 0xff;
    }
  }
  FBP_EXPECT(arena_statistics().bytes_in_use == 0);
}

void owners_move() {
  const std::size_t before = arena_statistics().allocations;
  Arena empty(0);
  FBP_EXPECT(empty.at<float>(0) == nullptr && empty.size() == 0);
  Arena first(256), second(3 * kMiB);
  float* memory = first.at<float>(64);
  *memory = 3;
  second = std::move(first);
  FBP_EXPECT(second.at<float>(64) == memory && *memory == 3);
  FBP_EXPECT(first.size() == 0);
  FBP_EXPECT(arena_statistics().bytes_in_use == 256);
  FBP_EXPECT(arena_statistics().allocations == before + 2);
}

void failure_leaves_nothing() {
  const ArenaStatistics before = arena_statistics();
  FBP_EXPECT_THROW(Arena(std::size_t{1} << 60), std::bad_alloc);
  FBP_EXPECT_THROW(Arena{kHuge}, std::bad_alloc);
  FBP_EXPECT(arena_statistics().bytes_in_use == before.bytes_in_use);
  FBP_EXPECT(arena_statistics().allocations == before.allocations);
}

void messages_name_argument_expected_and_got() {
  const auto check = [](int rows) { FBP_CHECK(rows > 0, "x", "at least one row", rows); };
  check(1);
  FBP_EXPECT_THROW(check(0), std::invalid_argument);
  FBP_EXPECT(fbp_message == "x: expected at least one row, got 0");
  FBP_EXPECT(text("a", 'b', std::string("c"), 1.5, true, std::size_t{7}) == "abc1.5true7");
}

}  // namespace

int main() {
  offsets_follow_each_other();
  sizes_are_checked();
  blocks_are_zero_and_aligned();
  owners_move();
  failure_leaves_nothing();
  messages_name_argument_expected_and_got();
  return fbp_test_result();
}
