// build: avx512bf16 kernels/cpu/isa_avx512bf16.cpp -Og
// Products of bfloat16: where its 8 bits hold the operands and float32 every sum they are exact, for any form, size and
// number of workers; and they touch their matrices alone. (tests/test_bfloat16.py has the rounding and the rest.)

#include "products.h"

namespace fastbp::avx512bf16 {
const Bf16Kernels& kernels();
}

using namespace products;

namespace {

float small_integer() { return float(random_word() % 65) - 32; }

void exact(Shape shape) {
  shape.chunk = 0;
  Product<float> product(shape, avx512bf16::kernels().gemm, small_integer);
  product.run();
  product.check("bfloat16", product.c);
}

}  // namespace

int main() {
  for (int turn = 0; turn < 1500; ++turn) exact(random_shape(300000));
  // Groups of k, blocks of A by rows and by columns, panels of B that are kept and that are not.
  for (const bool a_by_columns : {false, true})
    for (const bool b_by_columns : {false, true}) {
      exact({33, 65, 2050, a_by_columns, b_by_columns, 3, 0, 1, true, 2});
      exact({300, 70, 130, a_by_columns, b_by_columns, 0, 5, 0, true, 3});
      exact({47, 600, 1100, a_by_columns, b_by_columns});
    }
  return fbp_test_result();
}
