// build: amxbf16 kernels/cpu/isa_amxbf16.cpp kernels/cpu/cpuid.cpp -Og
// The products of bfloat16 by AMX's tiles.

#include "bf16_products.h"
#include "kernels/cpu/cpuid.h"

namespace fastbp::amxbf16 {
const Bf16Kernels& kernels();
}

int main() {
#if !defined(FASTBP_EMULATE_AVX512)
  FBP_EXPECT(fastbp::may_use_tiles());
#endif
  products::expect_exact(fastbp::amxbf16::kernels());
  return fbp_test_result();
}
