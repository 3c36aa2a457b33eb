// The emulated device's memory: poisoned, and fenced by pages that nobody may touch.
#pragma once

#include <cstddef>
#include <string>

namespace fastbp {
namespace emulation {

// `bytes` of memory whose end is the beginning of a guard page. In front of it lies the rest of its
// first page, the slack, and in front of that another guard page.
class GuardedMemory {
 public:
  explicit GuardedMemory(std::size_t bytes);  // std::bad_alloc; poisoned
  ~GuardedMemory();
  GuardedMemory(const GuardedMemory&) = delete;
  GuardedMemory& operator=(const GuardedMemory&) = delete;

  void* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }
  // Fills memory and slack with words that are NaN: signalling ones as float64 and, every other, as
  // float32.
  void poison();
  // Whether the slack is still as poison() left it.
  bool slack_is_intact() const;
  // Where `address` lies beside this memory, as "8 bytes past the end of 64 bytes"; empty where it
  // is outside the guard pages.
  std::string describe(const void* address) const;

 private:
  std::size_t bytes_, mapped_bytes_;
  char* mapping_;
  char* data_;
};

}  // namespace emulation
}  // namespace fastbp
