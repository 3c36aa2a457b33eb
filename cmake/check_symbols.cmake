# Fails where an object of one instruction set defines a global or weak symbol outside fastbp::<NAMESPACE>.
#
#   cmake -DNM=nm -DNAMESPACE=avx2 -DOBJECTS=isa_avx2.o -P check_symbols.cmake
#
# Mangled names are compared, for they begin with the namespace whatever the function returns: _ZN6fastbp4avx2...,
# with a prefix for guards, local statics, virtual tables and constant members. Two kinds are harmless and let
# through: DW.ref.* (pointers for exception handling) and __odr_asan* (AddressSanitizer's own check).

string(LENGTH "${NAMESPACE}" length)
set(allowed "^_?_Z(GV|TV|TI|TS|TT|GR)?Z?NK?6fastbp${length}${NAMESPACE}|^DW\\.ref\\.|^_*odr_asan")
set(bad "")
foreach(object IN LISTS OBJECTS)
  execute_process(COMMAND ${NM} -P -g ${object} OUTPUT_VARIABLE output COMMAND_ERROR_IS_FATAL ANY)
  string(REPLACE "\n" ";" lines "${output}")
  foreach(line IN LISTS lines)
    # "name type value size"; U, w and v are references to something defined elsewhere.
    if(line MATCHES "^[^ ]+ [A-TV-Zu]( |$)" AND NOT line MATCHES "${allowed}")
      string(REGEX REPLACE "^([^ ]+ [^ ]+).*" "  \\1\n" symbol "${line}")
      string(APPEND bad "${symbol}")
    endif()
  endforeach()
endforeach()

if(bad)
  message(FATAL_ERROR "The ${NAMESPACE} kernels define symbols outside fastbp::${NAMESPACE} (c++filt makes them readable):"
                      "\n${bad}Force their inlining (FBP_FN), or give them internal linkage or the namespace.")
endif()
