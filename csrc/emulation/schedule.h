// In which order the emulated device runs what a GPU runs at the same time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace fastbp {
namespace emulation {

struct Schedule {
  enum class Kind { forward, reverse, random };
  Kind kind = Kind::forward;
  std::uint64_t state = 0;  // of the random numbers; at first the seed

  // Reads "forward", "reverse" or "random:<seed>". False, and no change, for other texts.
  bool parse(const char* text);
  // Whether something that may happen now or later happens now: forward always, reverse never.
  bool hurries();
  // order = a permutation of 0 ... count - 1; another one at each call where kind is random.
  void arrange(std::size_t count, std::vector<std::size_t>& order);
};

}  // namespace emulation
}  // namespace fastbp
