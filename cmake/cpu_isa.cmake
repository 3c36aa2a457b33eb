# One object library per instruction set, from csrc/kernels/cpu/isa_<name>.cpp and the flags of isa_flags.txt.
#
#   fastbp_add_isa(avx2 -mavx2 -mfma)   defines fastbp_isa_avx2 and appends avx2 to FASTBP_ISAS_BUILT
#   fastbp_add_isas()                   does so for each row of isa_flags.txt that suits the target processor
#   fastbp_link_isas(_core)             links those kernels into a target and tells it which there are

set(FASTBP_ISAS "" CACHE STRING "Instruction sets to build beside scalar, such as avx2;avx512 (empty: all that suit the processor)")
set(FASTBP_ISAS_BUILT "")

include(CheckCXXCompilerFlag)

# The processor that is compiled for, under the names that isa_flags.txt uses.
if(CMAKE_OSX_ARCHITECTURES)
  string(TOLOWER "${CMAKE_OSX_ARCHITECTURES}" FASTBP_PROCESSOR)
else()
  string(TOLOWER "${CMAKE_SYSTEM_PROCESSOR}" FASTBP_PROCESSOR)
endif()
if(FASTBP_PROCESSOR MATCHES "^(x86_64|amd64)$")
  set(FASTBP_PROCESSOR x86_64)
elseif(FASTBP_PROCESSOR MATCHES "^(aarch64|arm64)$")
  set(FASTBP_PROCESSOR aarch64)
endif()

function(fastbp_add_isa name)
  set(flags ${ARGN})
  if(flags)
    string(REPLACE ";" " " flag_string "${flags}")
    check_cxx_compiler_flag("${flag_string}" FASTBP_COMPILER_HAS_${name})
    if(NOT FASTBP_COMPILER_HAS_${name})
      message(WARNING "The compiler does not know '${flag_string}': the ${name} kernels are left out.")
      return()
    endif()
  endif()

  # Clang 16 recurses without end in these; 19 is the first that has been seen to compile them.
  if(name MATCHES "bf16$" AND CMAKE_CXX_COMPILER_ID STREQUAL "Clang"
     AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 19)
    message(STATUS "Clang ${CMAKE_CXX_COMPILER_VERSION} cannot compile the ${name} kernels: they are left out.")
    return()
  endif()

  set(library fastbp_isa_${name})
  add_library(${library} OBJECT ${PROJECT_SOURCE_DIR}/csrc/kernels/cpu/isa_${name}.cpp)
  target_compile_options(${library} PRIVATE ${flags} ${FASTBP_SANITIZE_KERNEL_FLAGS})
  target_link_libraries(${library} PRIVATE fastbp_common)

  set(FASTBP_ISAS_BUILT ${FASTBP_ISAS_BUILT} ${name} PARENT_SCOPE)
endfunction()

# Sets FASTBP_FLAGS_<name> and FASTBP_TABLE_ISAS (the rows for this processor) from isa_flags.txt.
macro(fastbp_read_isa_flags)
  set(table ${PROJECT_SOURCE_DIR}/cmake/isa_flags.txt)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${table})
  file(STRINGS ${table} rows REGEX "^[a-z]")
  set(FASTBP_TABLE_ISAS "")
  foreach(row IN LISTS rows)
    string(REGEX REPLACE "[ \t]+" ";" row "${row}")
    list(POP_FRONT row name processor)
    if(FASTBP_EMULATE_AVX512)
      list(FILTER row EXCLUDE REGEX "^-m(avx512|amx)")
    endif()
    set(FASTBP_FLAGS_${name} ${row})
    if(NOT name STREQUAL "common" AND processor MATCHES "^(any|${FASTBP_PROCESSOR})$")
      list(APPEND FASTBP_TABLE_ISAS ${name})
    endif()
  endforeach()
  if(FASTBP_EMULATE_AVX512)
    list(APPEND FASTBP_FLAGS_common -DFASTBP_EMULATE_AVX512)
  endif()
endmacro()

macro(fastbp_add_isas)
  foreach(name IN LISTS FASTBP_ISAS)
    if(NOT name IN_LIST FASTBP_TABLE_ISAS)
      message(FATAL_ERROR "FASTBP_ISAS names '${name}', but ${FASTBP_PROCESSOR} has: ${FASTBP_TABLE_ISAS}.")
    endif()
  endforeach()
  foreach(name IN LISTS FASTBP_TABLE_ISAS)
    if(NOT FASTBP_ISAS OR name STREQUAL "scalar" OR name IN_LIST FASTBP_ISAS)
      fastbp_add_isa(${name} ${FASTBP_FLAGS_${name}})
    endif()
  endforeach()
endmacro()

# Each object is compiled with its own flags, so an inline function that two of them emit must not be shared: the linker
# could keep the AVX-512 copy for all. Hence linking fails on anything weak or global outside fastbp::<name>.
function(fastbp_link_isas target)
  foreach(name IN LISTS FASTBP_ISAS_BUILT)
    string(TOUPPER FASTBP_WITH_${name} macro)
    target_compile_definitions(${target} PRIVATE ${macro}=1)
    target_link_libraries(${target} PRIVATE fastbp_isa_${name})
    add_custom_command(
      TARGET ${target} POST_BUILD
      COMMAND ${CMAKE_COMMAND} -DNM=${CMAKE_NM} -DNAMESPACE=${name}
              -DOBJECTS=$<TARGET_OBJECTS:fastbp_isa_${name}>
              -P ${PROJECT_SOURCE_DIR}/cmake/check_symbols.cmake
      COMMENT "Checking the symbols of the ${name} kernels"
      VERBATIM)
  endforeach()
endfunction()
