// What the processor can do and the operating system lets it: asked of both, for exactly the bits that the compiler flags
// of cmake/isa_flags.txt enable.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace fastbp {

// The registers that decide, as x86's CPUID and XGETBV give them (0 where the processor has no such leaf).
struct CpuidWords {
  std::uint32_t leaf1_ecx = 0;
  std::uint32_t leaf7_ebx = 0;
  std::uint32_t xcr0 = 0;  // the register state that the operating system saves
  std::uint32_t leaf7_1_eax = 0;
  std::uint32_t vendor_ebx = 0;  // the first four letters of the maker's name
  std::uint32_t leaf7_edx = 0;
};

struct CpuFeatures {
  bool avx2 = false;    // AVX2 and FMA, with YMM registers saved
  bool avx512 = false;  // AVX-512 F, VL, DQ, BW, AVX2 and FMA, with opmask and ZMM registers saved
  bool avx512_bf16 = false;  // products of bfloat16, besides avx512
  bool amx_bf16 = false;     // by tiles, besides those
  bool amd = false;
  bool neon = false;  // every 64-bit ARM has it
};

// Pure, so that a test can play any processor.
CpuFeatures decode_features(const CpuidWords& words);

// This machine's, asked once.
const CpuFeatures& cpu_features();

// Whether the system lets this process use AMX's tiles: asked once, where amx_bf16 is true. Having it makes what the
// system keeps for a signal 8 KiB larger, so it is not asked for before it is needed.
bool may_use_tiles();

// For info() only: nothing is decided by these. Empty or 0 where not known.
struct CpuDescription {
  std::string brand;
  std::size_t l1d_bytes = 0;
  std::size_t l2_bytes = 0;
  std::size_t l3_bytes = 0;
};
CpuDescription describe_cpu();

}  // namespace fastbp
