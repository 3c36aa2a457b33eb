# Options for people who change fastbp: warnings as errors and sanitizers.

option(FASTBP_WERROR "Treat compiler warnings as errors" OFF)
set(FASTBP_SANITIZE "" CACHE STRING "Sanitizer to build with: address (with undefined), thread, or empty")
set_property(CACHE FASTBP_SANITIZE PROPERTY STRINGS "" address thread)

target_compile_options(fastbp_common INTERFACE -Wall -Wextra -Wshadow -Wconversion)
if(FASTBP_WERROR)
  target_compile_options(fastbp_common INTERFACE -Werror)
endif()

if(FASTBP_SANITIZE STREQUAL "address")
  set(sanitize -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g)
elseif(FASTBP_SANITIZE STREQUAL "thread")
  set(sanitize -fsanitize=thread -fno-omit-frame-pointer -g)
elseif(FASTBP_SANITIZE)
  message(FATAL_ERROR "FASTBP_SANITIZE is '${FASTBP_SANITIZE}', expected address, thread or nothing.")
endif()
if(FASTBP_SANITIZE)
  target_compile_options(fastbp_common INTERFACE ${sanitize})
  target_link_options(fastbp_common INTERFACE ${sanitize})
endif()
