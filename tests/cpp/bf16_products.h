// Products of bfloat16: where its 8 bits hold the operands and float32 every sum they are exact, for any form, size and
// number of workers; and they touch their matrices alone. (tests/test_bfloat16.py has the rounding and the rest.)
#pragma once

#include "products.h"

namespace products {

inline float small_integer() { return float(random_word() % 65) - 32; }

inline void expect_exact(const Bf16Kernels& kernels, Shape shape) {
  Product<float> product(shape, kernels.gemm, small_integer);
  product.run();
  product.check("bfloat16", product.c);
}

inline void expect_exact(const Bf16Kernels& kernels) {
  for (int turn = 0; turn < 1500; ++turn) expect_exact(kernels, random_shape(300000));
  // Groups of k, blocks of A by rows and by columns, panels of B that are kept and that are not.
  for (const bool a_by_columns : {false, true})
    for (const bool b_by_columns : {false, true}) {
      expect_exact(kernels, {33, 65, 2050, a_by_columns, b_by_columns, 3, 0, 1, true, 2});
      expect_exact(kernels, {300, 70, 130, a_by_columns, b_by_columns, 0, 5, 0, true, 3});
      expect_exact(kernels, {47, 600, 1100, a_by_columns, b_by_columns});
      expect_exact(kernels, {530, 70, 1040, a_by_columns, b_by_columns});
    }
}

}  // namespace products
