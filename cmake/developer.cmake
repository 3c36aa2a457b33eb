# Options for people who change fastbp: warnings as errors, sanitizers, AVX-512 where there is none.

option(FASTBP_WERROR "Treat compiler warnings as errors" OFF)
set(FASTBP_SANITIZE "" CACHE STRING "Sanitizer to build with: address (with undefined), thread, or empty")
set_property(CACHE FASTBP_SANITIZE PROPERTY STRINGS "" address thread)
option(FASTBP_EMULATE_AVX512 "Run the AVX-512 kernels on AVX2, slowly: csrc/emulation/avx512.h" OFF)

target_compile_options(fastbp_common INTERFACE -Wall -Wextra -Wshadow -Wconversion)
if(FASTBP_WERROR)
  target_compile_options(fastbp_common INTERFACE -Werror)
endif()

set(FASTBP_SANITIZE_FLAGS "")
set(FASTBP_SANITIZE_KERNEL_FLAGS "")
if(FASTBP_SANITIZE STREQUAL "address")
  set(common -O1 -g1 -fno-sanitize-recover=undefined -fno-omit-frame-pointer)
  set(FASTBP_SANITIZE_FLAGS -fsanitize=address,undefined ${common})
  # The kernels are unrolled code over arrays in registers: checks on each of those would take g++ ten minutes. What is
  # kept sees every access to memory, every index and every overflow.
  set(FASTBP_SANITIZE_KERNEL_FLAGS -fsanitize=address,bounds,shift,signed-integer-overflow ${common})
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    list(APPEND FASTBP_SANITIZE_KERNEL_FLAGS
      "SHELL:--param asan-instrumentation-with-call-threshold=0" "SHELL:--param asan-stack=0")
  endif()
elseif(FASTBP_SANITIZE STREQUAL "thread")
  set(FASTBP_SANITIZE_FLAGS -fsanitize=thread -fno-omit-frame-pointer -g)
  set(FASTBP_SANITIZE_KERNEL_FLAGS ${FASTBP_SANITIZE_FLAGS} -O1)
elseif(FASTBP_SANITIZE)
  message(FATAL_ERROR "FASTBP_SANITIZE is '${FASTBP_SANITIZE}', expected address, thread or nothing.")
endif()
