// build: kernels/cpu/cpuid.cpp kernels/cpu/bf16.cpp kernels/cpu/dispatch.cpp
// Every bit that the compiler flags enable is asked for, of the processor and of the operating system.
#include <cstdio>

#include "check.h"
#include "kernels/cpu/bf16.h"
#include "kernels/cpu/cpuid.h"

using namespace fastbp;

namespace {

// A processor and a system that have everything.
constexpr CpuidWords kEverything{0xffffffffu, 0xffffffffu, 0xffffffffu,
                                 0xffffffffu, 0x68747541u, 0xffffffffu};

template <class Member> CpuFeatures without(Member member, int bit) {
  CpuidWords words = kEverything;
  words.*member &= ~(1u << bit);
  return decode_features(words);
}

void every_bit_counts() {
  FBP_EXPECT(decode_features(kEverything).avx2);
  FBP_EXPECT(decode_features(kEverything).avx512);
  FBP_EXPECT(!decode_features({}).avx2);
  FBP_EXPECT(!decode_features({}).avx512);
  for (int bit : {0, 9, 12, 19, 20, 23, 26, 27, 28}) {
    FBP_EXPECT(!without(&CpuidWords::leaf1_ecx, bit).avx2);
    FBP_EXPECT(!without(&CpuidWords::leaf1_ecx, bit).avx512);
  }
  FBP_EXPECT(!without(&CpuidWords::leaf7_ebx, 5).avx2);
  for (int bit : {5, 16, 17, 30, 31}) FBP_EXPECT(!without(&CpuidWords::leaf7_ebx, bit).avx512);
  for (int bit : {16, 17, 30, 31}) FBP_EXPECT(without(&CpuidWords::leaf7_ebx, bit).avx2);
}

void the_system_must_save_the_registers() {
  for (int bit : {1, 2}) FBP_EXPECT(!without(&CpuidWords::xcr0, bit).avx2);
  for (int bit : {1, 2, 5, 6, 7}) FBP_EXPECT(!without(&CpuidWords::xcr0, bit).avx512);
  for (int bit : {5, 6, 7}) FBP_EXPECT(without(&CpuidWords::xcr0, bit).avx2);
}

constexpr std::uint32_t kIntel = 0x756e6547;  // "Genu"
constexpr Bf16Compiled kBoth{true, true};

bool says(const CpuFeatures& cpu, const char* word, const std::string& isa = "avx512",
          Bf16Compiled compiled = kBoth) {
  const Bf16Choice choice = choose_bf16(cpu, isa, compiled);
  return choice.unit == Bf16Unit::none && choice.problem.find(word) != std::string::npos;
}

// bfloat16 needs its bit, AVX-512, and AMD's name or AMX; without one of them there is a reason.
void bfloat16() {
  const CpuFeatures tiles = decode_features(kEverything);
  FBP_EXPECT(tiles.avx512_bf16 && tiles.amx_bf16 && tiles.amd);
  FBP_EXPECT(choose_bf16(tiles, "avx512", kBoth).unit == Bf16Unit::tiles);
  FBP_EXPECT(choose_bf16(tiles, "avx512", kBoth).problem.empty());
  FBP_EXPECT(says(tiles, "no bfloat16 kernels", "avx512", {true, false}));
  FBP_EXPECT(says(tiles, "avx2", "avx2"));
  FBP_EXPECT(!without(&CpuidWords::leaf7_1_eax, 5).avx512_bf16);
  FBP_EXPECT(!without(&CpuidWords::leaf7_1_eax, 5).amx_bf16);
  FBP_EXPECT(!without(&CpuidWords::leaf7_ebx, 30).avx512_bf16);
  FBP_EXPECT(!without(&CpuidWords::xcr0, 7).avx512_bf16);
  FBP_EXPECT(says(without(&CpuidWords::leaf7_1_eax, 5), "AVX512_BF16"));
  for (int bit : {22, 24}) FBP_EXPECT(!without(&CpuidWords::leaf7_edx, bit).amx_bf16);
  for (int bit : {17, 18}) FBP_EXPECT(!without(&CpuidWords::xcr0, bit).amx_bf16);

  CpuidWords words = kEverything;
  words.leaf7_edx = 0;
  const CpuFeatures amd = decode_features(words);
  FBP_EXPECT(choose_bf16(amd, "avx512", kBoth).unit == Bf16Unit::vectors);
  FBP_EXPECT(says(amd, "no bfloat16 kernels", "avx512", {false, true}));
  words.vendor_ebx = kIntel;
  FBP_EXPECT(says(decode_features(words), "slower"));
  FBP_EXPECT(says(decode_features(words), "AMX"));
}

// The compiler's run-time support knows the same from its own reading.
void this_machine() {
  const CpuFeatures& features = cpu_features();
#if defined(__x86_64__)
  __builtin_cpu_init();
  FBP_EXPECT(features.avx2 == (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")));
  FBP_EXPECT(features.avx512 ==
             (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
              __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw")));
#endif
#if defined(__aarch64__)
  FBP_EXPECT(features.neon);
#endif
  const CpuDescription cpu = describe_cpu();
  std::printf("%s: avx2 %d, avx512 %d, neon %d; L1d %zu, L2 %zu, L3 %zu bytes\n", cpu.brand.c_str(),
              features.avx2, features.avx512, features.neon, cpu.l1d_bytes, cpu.l2_bytes,
              cpu.l3_bytes);
}

}  // namespace

int main() {
  every_bit_counts();
  the_system_must_save_the_registers();
  bfloat16();
  this_machine();
  return fbp_test_result();
}
