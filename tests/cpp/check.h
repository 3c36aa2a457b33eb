// The smallest test harness: FBP_EXPECT counts and prints what does not hold, main() ends with return fbp_test_result().
#pragma once

#include <atomic>
#include <cstdio>
#include <stdexcept>
#include <string>

inline std::atomic<int> fbp_checks{0};
inline std::atomic<int> fbp_failures{0};

#define FBP_EXPECT(condition)                                                                      \
  do {                                                                                             \
    ++fbp_checks;                                                                                  \
    if (!(condition)) {                                                                            \
      ++fbp_failures;                                                                              \
      std::printf("%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition);                   \
    }                                                                                              \
  } while (false)

// The statement must throw Exception; its message is kept in fbp_message.
#define FBP_EXPECT_THROW(statement, Exception)                                                     \
  do {                                                                                             \
    bool fbp_thrown = false;                                                                       \
    try {                                                                                          \
      statement;                                                                                   \
    } catch (const Exception& error) {                                                             \
      fbp_thrown = true;                                                                           \
      fbp_message = error.what();                                                                  \
    }                                                                                              \
    FBP_EXPECT(fbp_thrown && #Exception " from " #statement);                                      \
  } while (false)

inline std::string fbp_message;

// Whether the last message kept holds this text.
inline bool fbp_message_has(const char* text) {
  const bool found = fbp_message.find(text) != std::string::npos;
  if (!found) std::printf("'%s' is not in the message: %s\n", text, fbp_message.c_str());
  return found;
}

inline int fbp_test_result() {
  std::printf("%d checks, %d failures\n", fbp_checks.load(), fbp_failures.load());
  return fbp_failures == 0 && fbp_checks > 0 ? 0 : 1;
}
