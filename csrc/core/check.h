// Errors that teach: which argument, what was expected, what came.
//
//   FBP_CHECK(rows > 0, "x", "at least one row", rows);    // std::invalid_argument: x: expected at least one row, got 0
//   FBP_CHECK(n == m, "y", text("one row for each of the ", m, " rows of x"), n);
//
// The message is built only when the check fails; Python sees a ValueError.
#pragma once

#include <cstdio>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>

namespace fastbp {

namespace detail {

inline void append(std::string& out, std::string_view part) { out += part; }
inline void append(std::string& out, const char* part) { out += part; }
inline void append(std::string& out, char part) { out += part; }
inline void append(std::string& out, bool part) { out += part ? "true" : "false"; }

template <class T> std::enable_if_t<std::is_integral_v<T>> append(std::string& out, T part) {
  out += std::to_string(part);
}

template <class T> std::enable_if_t<std::is_floating_point_v<T>> append(std::string& out, T part) {
  char digits[32];
  std::snprintf(digits, sizeof digits, "%.9g", static_cast<double>(part));
  out += digits;
}

}  // namespace detail

// The parts (strings, numbers, bools) written one after the other.
template <class... Parts> std::string text(const Parts&... parts) {
  std::string out;
  (detail::append(out, parts), ...);
  return out;
}

// "argument: expected ..., got ..."
template <class Expected, class Got>
[[noreturn]] void throw_invalid(const char* argument, const Expected& expected, const Got& got) {
  throw std::invalid_argument(text(argument, ": expected ", expected, ", got ", got));
}

}  // namespace fastbp

#define FBP_CHECK(condition, argument, expected, got)                                              \
  do {                                                                                             \
    if (!(condition)) ::fastbp::throw_invalid(argument, expected, got);                            \
  } while (false)
