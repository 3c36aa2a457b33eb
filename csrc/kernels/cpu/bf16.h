// Whether bfloat16 is multiplied fast here, and by which kernels. Never emulated: where the processor has no instruction
// for it, or one that is slower than float32, there are none.
#pragma once

#include <string>

#include "kernels/cpu/cpuid.h"
#include "kernels/gemm_kernel.h"

namespace fastbp {

// Why there are none, in words; empty where there are. Pure, so that a test can play any processor.
std::string bf16_problem(const CpuFeatures& cpu, const std::string& isa, bool compiled);

// Of this machine and the instruction set in use.
std::string bf16_problem();
// Null where bf16_problem() has something to say.
const Bf16Kernels* bf16_kernels();

}  // namespace fastbp
