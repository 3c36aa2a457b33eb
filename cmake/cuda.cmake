# libfastbp_cuda.so, from csrc/kernels/cuda/*.cu: a library of its own, never a requirement of the package.

# nvcc takes minutes where the CPU kernels take seconds, so `pip install` builds CUDA only when asked:
#   pip install . -Ccmake.define.FASTBP_CUDA=ON
if(SKBUILD)
  set(default OFF)
else()
  set(default AUTO)
endif()
set(FASTBP_CUDA ${default} CACHE STRING
    "Build libfastbp_cuda.so: ON (fail without nvcc), AUTO (if nvcc works), OFF. Default: OFF under pip, else AUTO")
set_property(CACHE FASTBP_CUDA PROPERTY STRINGS AUTO ON OFF)
# Machine code for each generation, and PTX for those to come. 90a: with wgmma, which 9.0 alone has.
set(FASTBP_CUDA_ARCHITECTURES "75-real;80-real;86-real;89-real;90a-real;100-real;120" CACHE STRING
    "GPU architectures to compile for")

# Kernels for calls of their own keep denormals; those of a training step flush them, as the CPU's
# engine does. Then the engine that launches them, and what it shares with the CPU's.
set(csrc ${PROJECT_SOURCE_DIR}/csrc)
file(GLOB cuda_training_sources CONFIGURE_DEPENDS ${csrc}/kernels/cuda/train/*.cu)
file(GLOB cuda_kernels CONFIGURE_DEPENDS ${csrc}/kernels/cuda/*.cu)
list(APPEND cuda_kernels ${cuda_training_sources})
file(GLOB cuda_sources CONFIGURE_DEPENDS ${csrc}/engine/cuda/*.cu)
list(APPEND cuda_sources ${cuda_kernels})
set(cuda_host_sources ${csrc}/core/arena.cpp ${csrc}/core/random.cpp ${csrc}/engine/layout.cpp
                      ${csrc}/engine/plan.cpp ${csrc}/engine/step_scales.cpp)

add_subdirectory(${PROJECT_SOURCE_DIR}/csrc/emulation)

if(FASTBP_CUDA STREQUAL "OFF")
  return()
elseif(FASTBP_CUDA STREQUAL "ON")
  if(NOT cuda_sources)
    message(FATAL_ERROR "FASTBP_CUDA=ON, but csrc/kernels/cuda holds no .cu file.")
  endif()
elseif(NOT FASTBP_CUDA STREQUAL "AUTO")
  message(FATAL_ERROR "FASTBP_CUDA is '${FASTBP_CUDA}', expected AUTO, ON or OFF.")
elseif(NOT cuda_sources)
  return()
endif()

include(CheckLanguage)
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  if(FASTBP_CUDA STREQUAL "ON")
    message(FATAL_ERROR "FASTBP_CUDA=ON, but no working nvcc was found: put it on PATH or set CUDACXX.")
  endif()
  message(STATUS "No working nvcc: libfastbp_cuda.so is left out")
  return()
endif()
enable_language(CUDA)

add_library(fastbp_cuda SHARED ${cuda_sources} ${cuda_host_sources})
set_source_files_properties(${cuda_training_sources} PROPERTIES COMPILE_OPTIONS -ftz=true)
target_include_directories(fastbp_cuda PRIVATE ${PROJECT_SOURCE_DIR}/csrc)
target_compile_definitions(fastbp_cuda PRIVATE FASTBP_VERSION="${FASTBP_VERSION}")
# A kernel whose registers spill is an error: it needs smaller tiles or other launch bounds.
target_compile_options(fastbp_cuda PRIVATE
  "$<$<COMPILE_LANGUAGE:CXX>:${FASTBP_FLAGS_common}>"
  "$<$<COMPILE_LANGUAGE:CUDA>:--compress-mode=size;-fmad=false;-Xcompiler=-ffp-contract=off;-Xptxas=-Werror,-warn-spills,-warn-lmem-usage;SHELL:-Werror all-warnings>")
set_target_properties(fastbp_cuda PROPERTIES
  CUDA_STANDARD 17
  CUDA_STANDARD_REQUIRED ON
  CUDA_ARCHITECTURES "${FASTBP_CUDA_ARCHITECTURES}"
  CUDA_RUNTIME_LIBRARY Static
  CUDA_VISIBILITY_PRESET hidden
  POSITION_INDEPENDENT_CODE ON)
# It needs nothing but the C library and a driver, and exports nothing but its interface.
target_link_options(fastbp_cuda PRIVATE -static-libstdc++ -static-libgcc -Wl,--exclude-libs,ALL
  "LINKER:--version-script=${PROJECT_SOURCE_DIR}/csrc/kernels/cuda/exports.map")
if(FASTBP_CUDA_ONLY)
  install(TARGETS fastbp_cuda LIBRARY DESTINATION fastbp_cuda13)
else()
  install(TARGETS fastbp_cuda LIBRARY DESTINATION fastbp)
endif()
