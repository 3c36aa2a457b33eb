// An element of a gradient, to where it goes (GradientSink).
#pragma once

#include "kernels/cuda/epilogues.cuh"
#include "kernels/cuda/train/norms.h"

namespace fastbp {
namespace cuda {
namespace {

template <class T> FBP_FN void sink(const GradientSink<T>& to, index_t e, Lane<T> g) {
  if (to.optimizer >= 0)
    Update<T>{to.to, 0, to.optimizer, to.steps}.at(e, g);
  else
    g.store(to.gradient + index_t(blockIdx.y) * to.apart + e);
}

}  // namespace
}  // namespace cuda
}  // namespace fastbp
