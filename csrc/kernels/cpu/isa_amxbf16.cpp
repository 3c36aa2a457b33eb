// The matrix product on bfloat16 operands by AMX's tiles. Everything else of a network runs on the float32 kernels of avx512.
#include <cstdint>

#include "kernels/cpu/simd/amx.h"
#include "kernels/cpu/simd/avx512.h"
#include "kernels/gemm_kernel.h"
#include "kernels/kernel_table.h"

namespace fastbp {
namespace amxbf16 {

#include "kernels/cpu/bf16_pack.inl"
#include "kernels/cpu/amx_pack.inl"
#include "kernels/cpu/amx_gemm.inl"

// Four sums hide the latency of a product, which is that of three.
static double fma_probe(double flop) {
  const double per_turn = 4.0 * 2 * amx::kTileLines * kLanes * amx::kTileDepth;
  const index_t turns = index_t(flop / per_turn) + 1;
  amx::set_up_tiles();
  for (index_t i = 0; i < turns; ++i) {
    amx::add_products<0, 4, 6>();
    amx::add_products<1, 4, 7>();
    amx::add_products<2, 5, 6>();
    amx::add_products<3, 5, 7>();
  }
  amx::release_tiles();
  return per_turn * double(turns);
}

static constexpr Bf16Kernels kKernels{{gemm, kGemmScratch}, fma_probe};

const Bf16Kernels& kernels();
const Bf16Kernels& kernels() { return kKernels; }

}  // namespace amxbf16
}  // namespace fastbp
