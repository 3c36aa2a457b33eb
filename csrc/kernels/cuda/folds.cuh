// Sums over as many threads as the CPU's vector has lanes, by the vector's tree.
#pragma once

#include "kernels/cuda/launch.cuh"
#include "ops/lane.h"

namespace fastbp {
namespace cuda {
namespace {

template <class T> constexpr int kLanes = 64 / sizeof(T);

// The tree that folds a vector: lane i with i + L/2, then i + L/4, ... values[0] of every group of L
// threads is the result; `values` has a place for each thread of the block. All threads must call.
template <class T, class Combine>
FBP_DEVICE Lane<T> fold(T* values, Lane<T> mine, Combine combine) {
  const int lane = int(threadIdx.x) % kLanes<T>;
  T* const here = values + threadIdx.x;
  mine.store(here);
  for (int half = kLanes<T> / 2; half > 0; half /= 2) {
    __syncthreads();
    if (lane < half) combine(Lane<T>(here[0]), Lane<T>(here[half])).store(here);
  }
  __syncthreads();
  const Lane<T> result(here[-lane]);
  __syncthreads();  // the next fold writes there
  return result;
}
template <class T> FBP_DEVICE Lane<T> fold_sum(T* values, Lane<T> mine) {
  return fold(values, mine, [](Lane<T> a, Lane<T> b) { return a + b; });
}
template <class T> FBP_DEVICE Lane<T> fold_max(T* values, Lane<T> mine) {
  return fold(values, mine, [](Lane<T> a, Lane<T> b) { return max(a, b); });
}

}  // namespace
}  // namespace cuda
}  // namespace fastbp
