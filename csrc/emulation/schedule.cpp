#include "emulation/schedule.h"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace fastbp {
namespace emulation {
namespace {

// Steele, Lea and Flood's SplitMix64 (2014).
std::uint64_t next(std::uint64_t& state) {
  std::uint64_t z = state += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

}  // namespace

bool Schedule::parse(const char* text) {
  constexpr char random[] = "random:";
  constexpr std::size_t prefix = sizeof random - 1;
  if (std::strcmp(text, "forward") == 0) {
    *this = {Kind::forward, 0};
  } else if (std::strcmp(text, "reverse") == 0) {
    *this = {Kind::reverse, 0};
  } else if (std::strncmp(text, random, prefix) == 0) {
    const char* const digits = text + prefix;
    if (!*digits || digits[std::strspn(digits, "0123456789")]) return false;
    errno = 0;
    const std::uint64_t seed = std::strtoull(digits, nullptr, 10);
    if (errno) return false;
    *this = {Kind::random, seed};
  } else {
    return false;
  }
  return true;
}

bool Schedule::hurries() { return kind == Kind::random ? next(state) & 1 : kind == Kind::forward; }

void Schedule::arrange(std::size_t count, std::vector<std::size_t>& order) {
  order.resize(count);
  for (std::size_t i = 0; i < count; ++i) order[i] = kind == Kind::reverse ? count - 1 - i : i;
  if (kind != Kind::random) return;
  for (std::size_t i = count; i > 1; --i) std::swap(order[i - 1], order[next(state) % i]);
}

}  // namespace emulation
}  // namespace fastbp
