// A matrix product that the engine can be given in the place of its table's own.
#pragma once

#include "kernels/args.h"

namespace fastbp {

template <class T> struct GemmKernel {
  void (*run)(const GemmArgs<T>&, Share) = nullptr;
  index_t scratch = 0;  // elements of GemmArgs::scratch that each worker needs
};

// What a processor that multiplies bfloat16 fast offers beside the kernels of its instruction set. A and B are float32 in
// memory, and are rounded to bfloat16 (nearest even) for the product; sums, bias and C are float32.
struct Bf16Kernels {
  GemmKernel<float> gemm;
  // KernelTable::fma_probe for products of bfloat16.
  double (*fma_probe)(double flop);
};

}  // namespace fastbp
