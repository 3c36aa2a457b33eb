#include "kernels/cpu/bf16.h"

#include "kernels/cpu/dispatch.h"

// Defined as 1 where the build compiles isa_avx512bf16.cpp.
#if !defined(FASTBP_WITH_AVX512BF16)
#define FASTBP_WITH_AVX512BF16 0
#endif

namespace fastbp {

namespace avx512bf16 {
const Bf16Kernels& kernels();
}

std::string bf16_problem(const CpuFeatures& cpu, const std::string& isa, bool compiled) {
  if (!cpu.avx512_bf16) return "this processor or operating system offers no AVX512_BF16";
  // Intel's takes two clocks for what AMD's does in one: slower than float32.
  if (!cpu.amd) return "AVX512_BF16 of this processor, which is not AMD's, is slower than float32";
  if (!compiled) return "this build of fastbp has no bfloat16 kernels";
  if (isa != "avx512") return "it goes with the avx512 kernels, but " + isa + " is in use";
  return "";
}

std::string bf16_problem() {
  return bf16_problem(cpu_features(), active_isa().name, FASTBP_WITH_AVX512BF16);
}

const Bf16Kernels* bf16_kernels() {
#if FASTBP_WITH_AVX512BF16
  if (bf16_problem().empty()) return &avx512bf16::kernels();
#endif
  return nullptr;
}

}  // namespace fastbp
