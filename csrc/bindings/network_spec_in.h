// A network's description from Python.
#pragma once

#include <cstdint>

#include <pybind11/pybind11.h>

#include "bindings/python_functions.h"
#include "engine/network_spec.h"

namespace fastbp {

// Of layers ("dense", units, use_bias), ("activation", name, parameter), ... in their order.
// An activation that is an object in the place of a name becomes one of `functions`. ValueError where a
// layer is not right, or does not fit those before it.
NetworkSpec network_spec(index_t inputs, const pybind11::list& layers, std::uint64_t seed,
                         bool sequences, PythonFunctions& functions);

}  // namespace fastbp
