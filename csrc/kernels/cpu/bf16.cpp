#include "kernels/cpu/bf16.h"

#include "kernels/cpu/dispatch.h"

// Defined as 1 where the build compiles isa_avx512bf16.cpp, isa_amxbf16.cpp.
#if !defined(FASTBP_WITH_AVX512BF16)
#define FASTBP_WITH_AVX512BF16 0
#endif
#if !defined(FASTBP_WITH_AMXBF16)
#define FASTBP_WITH_AMXBF16 0
#endif

namespace fastbp {

namespace avx512bf16 {
const Bf16Kernels& kernels();
}
namespace amxbf16 {
const Bf16Kernels& kernels();
}

namespace {

Bf16Choice refused(const std::string& problem) { return {Bf16Unit::none, problem}; }

Bf16Choice choose_bf16() {
  Bf16Choice choice = choose_bf16(cpu_features(), active_isa().name,
                                  {FASTBP_WITH_AVX512BF16 != 0, FASTBP_WITH_AMXBF16 != 0});
  if (choice.unit == Bf16Unit::tiles && !may_use_tiles())
    return refused("the operating system does not let this process use AMX (an alternate signal "
                   "stack may be too "
                   "small for its registers)");
  return choice;
}

}  // namespace

Bf16Choice choose_bf16(const CpuFeatures& cpu, const std::string& isa, Bf16Compiled compiled) {
  if (!cpu.avx512_bf16) return refused("this processor or operating system offers no AVX512_BF16");
  // Intel's VDPBF16PS takes two clocks for what AMD's does in one: slower than float32.
  const Bf16Unit unit = cpu.amx_bf16 ? Bf16Unit::tiles
                        : cpu.amd    ? Bf16Unit::vectors
                                     : Bf16Unit::none;
  if (unit == Bf16Unit::none)
    return refused(
        "AVX512_BF16 of this processor, which is not AMD's, is slower than float32, and it "
        "or the operating system offers no AMX");
  if (!(unit == Bf16Unit::tiles ? compiled.tiles : compiled.vectors))
    return refused("this build of fastbp has no bfloat16 kernels for this processor");
  if (isa != "avx512") return refused("it goes with the avx512 kernels, but " + isa + " is in use");
  return {unit, ""};
}

std::string bf16_problem() { return choose_bf16().problem; }

const Bf16Kernels* bf16_kernels() {
  switch (choose_bf16().unit) {
#if FASTBP_WITH_AVX512BF16
  case Bf16Unit::vectors:
    return &avx512bf16::kernels();
#endif
#if FASTBP_WITH_AMXBF16
  case Bf16Unit::tiles:
    return &amxbf16::kernels();
#endif
  default:
    return nullptr;
  }
}

}  // namespace fastbp
