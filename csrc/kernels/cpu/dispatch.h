// Which instruction set's kernels run: the best that was compiled and that this machine supports, or the one that
// FASTBP_ISA or set_active_isa() names. Names: scalar, avx2, avx512, neon.
#pragma once

#include <string>
#include <vector>

#include "core/environment.h"

namespace fastbp {

template <class T> struct KernelTable;

// One row for each instruction set that fastbp knows, compiled or not.
struct Isa {
  const char* name;
  const char* needs;    // what the processor and the operating system must offer, in words
  bool (*supported)();  // by this machine
  const KernelTable<float>& (*table_f32)();  // null where not compiled
  const KernelTable<double>& (*table_f64)();

  bool compiled() const { return table_f32 != nullptr; }
};

// Known rows, slowest first; those that were compiled; those of them that can run here (never empty: scalar always can).
std::vector<const Isa*> known_isas();
std::vector<const Isa*> compiled_isas();
std::vector<const Isa*> available_isas();

// The row of that name. std::invalid_argument where it is unknown, not compiled or not supported here: the message says
// which, names `source` ("FASTBP_ISA") and lists the choices.
const Isa& find_isa(const std::string& name, const char* source);

// What FASTBP_ISA names, else the last of available_isas().
const Isa& choose_isa(Environment environment);

// The row in use. Chosen at the first call; throws as choose_isa does, and asks again at the next call.
const Isa& active_isa();
void set_active_isa(const std::string& name);

}  // namespace fastbp
