// A user's own functions (python_functions.h) as the CUDA library calls them.
#pragma once

#include "backend/cuda_library.h"
#include "bindings/python_functions.h"

namespace fastbp {

template <class T> int32_t call_activation(void* context, const fbp_host_activation* given) {
  const auto table = static_cast<PythonFunctions*>(context)->table<T>();
  HostActivation<T> call;
  call.function = given->function;
  call.rows = given->rows, call.cols = given->cols;
  call.steps = given->steps;
  call.z = static_cast<const T*>(given->z);
  call.dy = static_cast<const T*>(given->dy);
  call.out = static_cast<T*>(given->out);
  call.z_row = call.dy_row = call.out_row = given->cols;
  return table.activation(table.context, call) ? 0 : 1;
}

template <class T> int32_t call_loss(void* context, const fbp_host_loss* given) {
  const auto table = static_cast<PythonFunctions*>(context)->table<T>();
  HostLoss<T> call;
  call.rows = given->rows, call.cols = given->cols;
  call.counted = given->counted;
  call.y = static_cast<const T*>(given->y);
  call.target = static_cast<const T*>(given->target);
  call.weight = static_cast<const T*>(given->weight);
  call.dy = static_cast<T*>(given->dy);
  call.block_loss = given->block_loss;
  return table.loss(table.context, call) ? 0 : 1;
}

template <class T> fbp_host_functions cuda_functions(PythonFunctions* functions) {
  return {call_activation<T>, call_loss<T>, functions};
}

}  // namespace fastbp
