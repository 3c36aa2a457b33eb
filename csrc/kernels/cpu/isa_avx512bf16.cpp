// The matrix product on bfloat16 operands, for processors that do a VDPBF16PS of a zmm register each clock. Everything
// else of a network runs on the float32 kernels of avx512.
#include <cstdint>

#include "kernels/cpu/simd/avx512.h"
#include "kernels/gemm_kernel.h"
#include "kernels/kernel_table.h"

namespace fastbp {
namespace avx512bf16 {

#include "kernels/cpu/bf16_pack.inl"
#include "kernels/cpu/bf16_pack_a.inl"
#include "kernels/cpu/bf16_gemm.inl"

// Twelve independent sums hide the latency of six clocks twice over. The sums are named to the compiler one by one
// (an array of them would live in memory), and decide the result, so that none is removed.
static double fma_probe(double flop) {
  constexpr int chains = 12;
  const __m512bh x = (__m512bh)_mm512_set1_epi16(0x3f00);  // 0.5
  __m512 sum[chains];
#pragma GCC unroll 12
  for (int c = 0; c < chains; ++c) sum[c] = _mm512_set1_ps(1e-3f * float(c + 1));
  const double per_turn = 4.0 * chains * kLanes;
  const index_t turns = index_t(flop / per_turn) + 1;
  for (index_t i = 0; i < turns; ++i) {
#pragma GCC unroll 12
    for (int c = 0; c < chains; ++c) sum[c] = _mm512_dpbf16_ps(sum[c], x, x);
  }
  __m512 total = _mm512_setzero_ps();
#pragma GCC unroll 12
  for (int c = 0; c < chains; ++c) total = _mm512_add_ps(total, sum[c]);
  return per_turn * double(turns) + (_mm512_cvtss_f32(total) < 0 ? 1.0 : 0.0);
}

static constexpr Bf16Kernels kKernels{{gemm, kGemmScratch}, fma_probe};

const Bf16Kernels& kernels();
const Bf16Kernels& kernels() { return kKernels; }

}  // namespace avx512bf16
}  // namespace fastbp
