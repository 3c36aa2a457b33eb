// Environment variables, read through a function so that a test can feed them.
#pragma once

#include <cstdlib>

namespace fastbp {

// The value of a variable, or null where it is not set.
using Environment = const char* (*)(const char* name);

inline const char* process_environment(const char* name) { return std::getenv(name); }

// The value of a variable that is set and not empty, else null: `FASTBP_ISA= python ...` means no choice.
inline const char* setting(Environment environment, const char* name) {
  const char* value = environment(name);
  return value && *value ? value : nullptr;
}

}  // namespace fastbp
