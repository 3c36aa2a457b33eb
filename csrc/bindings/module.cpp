#include <pybind11/pybind11.h>

#include "bindings/bind.h"

PYBIND11_MODULE(_core, m) {
  m.doc() = "fastbp's compiled engine; use it through the fastbp package.";
  fastbp::bind_names(m);
  fastbp::bind_device_arrays(m);
  fastbp::bind_device_ops(m);
  fastbp::bind_engine(m);
  fastbp::bind_ops(m);
  fastbp::bind_quick_ops(m);
  fastbp::bind_cuda(m);
  fastbp::bind_cuda_network(m);
  fastbp::bind_machine(m);
}
