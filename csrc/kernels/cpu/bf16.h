// Whether bfloat16 is multiplied fast here, and by which kernels. Never emulated: where the processor has no instruction
// for it, or one that is slower than float32, there are none. AMD's have VDPBF16PS, at twice the speed of float32; Intel's
// since Sapphire Rapids the tiles of AMX, whose own rate is sixteen times that of float32.
#pragma once

#include <string>

#include "kernels/cpu/cpuid.h"
#include "kernels/gemm_kernel.h"

namespace fastbp {

enum class Bf16Unit { none, vectors, tiles };

// The unit to use. None: `problem` says why in words. Pure, so that a test can play any processor; `compiled`
// are this build's kernels.
struct Bf16Choice {
  Bf16Unit unit = Bf16Unit::none;
  std::string problem;
};
struct Bf16Compiled { bool vectors, tiles; };
Bf16Choice choose_bf16(const CpuFeatures& cpu, const std::string& isa, Bf16Compiled compiled);

// Of this machine and the instruction set in use. The first call asks the system for leave to use AMX, where there is AMX.
std::string bf16_problem();
// Null where bf16_problem() has something to say.
const Bf16Kernels* bf16_kernels();

}  // namespace fastbp
