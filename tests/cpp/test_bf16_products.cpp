// build: avx512bf16 kernels/cpu/isa_avx512bf16.cpp -Og
// The products of bfloat16 by VDPBF16PS.

#include "bf16_products.h"

namespace fastbp::avx512bf16 {
const Bf16Kernels& kernels();
}

int main() {
  products::expect_exact(fastbp::avx512bf16::kernels());
  return fbp_test_result();
}
