// The parts of the extension module, one function each.
#pragma once

#include <pybind11/pybind11.h>

namespace fastbp {

void bind_names(pybind11::module_& m);
void bind_device_arrays(pybind11::module_& m);
void bind_device_ops(pybind11::module_& m);
void bind_engine(pybind11::module_& m);
void bind_ops(pybind11::module_& m);
void bind_quick_ops(pybind11::module_& m);
void bind_cuda(pybind11::module_& m);
void bind_cuda_network(pybind11::module_& m);
void bind_machine(pybind11::module_& m);

}  // namespace fastbp
