#include "kernels/cpu/cpuid.h"

#include <algorithm>
#include <cctype>
#include <cstring>
#include <fstream>

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace fastbp {

namespace {

bool has_bits(std::uint32_t word, std::uint32_t bits) { return (word & bits) == bits; }
constexpr std::uint32_t bit(int n) { return std::uint32_t{1} << n; }

#if defined(__x86_64__)
CpuidWords read_cpuid() {
  CpuidWords words;
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid(1, &eax, &ebx, &ecx, &edx)) words.leaf1_ecx = ecx;
  if (__get_cpuid(0, &eax, &ebx, &ecx, &edx)) words.vendor_ebx = ebx;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) {
    words.leaf7_ebx = ebx;
    words.leaf7_edx = edx;
    // eax is the last subleaf.
    if (eax >= 1 && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx)) words.leaf7_1_eax = eax;
  }
  if (words.leaf1_ecx & bit(27)) {  // OSXSAVE: XGETBV may be used
    std::uint32_t low = 0, high = 0;
    __asm__ __volatile__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    words.xcr0 = low;
  }
  return words;
}

std::string read_brand() {
  unsigned words[12] = {};
  for (unsigned i = 0; i < 3; ++i) {
    unsigned* w = words + 4 * i;
    if (!__get_cpuid(0x80000002u + i, w, w + 1, w + 2, w + 3)) return "";
  }
  char text[sizeof words + 1] = {};
  std::memcpy(text, words, sizeof words);
  return text;
}
#else
CpuidWords read_cpuid() { return {}; }

// Linux names ARM processors by numbers; the device tree's model, where there is one, says more.
std::string read_brand() {
  std::ifstream file("/proc/device-tree/model");
  std::string model;
  std::getline(file, model, '\0');
  return model;
}
#endif

std::string trimmed(const std::string& text) {
  const auto is_space = [](unsigned char c) { return std::isspace(c) != 0; };
  const auto begin = std::find_if_not(text.begin(), text.end(), is_space);
  const auto end = std::find_if_not(text.rbegin(), text.rend(), is_space).base();
  return begin < end ? std::string(begin, end) : std::string();
}

// Linux describes each cache of CPU 0 in a folder: level "2", type "Data", "Instruction" or "Unified", size "1024K".
void read_caches(CpuDescription& cpu) {
  for (int i = 0; i < 8; ++i) {
    const std::string folder = "/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(i) + "/";
    std::ifstream level_file(folder + "level"), type_file(folder + "type"),
        size_file(folder + "size");
    int level = 0;
    std::string type;
    std::size_t size = 0;
    char unit = ' ';
    if (!(level_file >> level && type_file >> type && size_file >> size)) return;
    size_file >> unit;
    if (unit == 'K') size <<= 10;
    if (unit == 'M') size <<= 20;
    if (type == "Instruction") continue;
    if (level == 1) cpu.l1d_bytes = size;
    if (level == 2) cpu.l2_bytes = size;
    if (level == 3) cpu.l3_bytes = size;
  }
}

}  // namespace

// Leaf 1 ecx: 0 SSE3, 9 SSSE3, 12 FMA, 19 SSE4.1, 20 SSE4.2, 23 POPCNT, 26 XSAVE, 27 OSXSAVE, 28 AVX (-mavx2 enables all
// but FMA). Leaf 7 ebx: 5 AVX2, 16 AVX512F, 17 DQ, 30 BW, 31 VL. XCR0: 1 XMM, 2 YMM, 5 opmask, 6 ZMM0-15's upper halves,
// 7 ZMM16-31, 17 the tiles' setting, 18 the tiles. Leaf 7.1 eax: 5 AVX512_BF16. Leaf 7 edx: 22 AMX-BF16, 24 AMX-TILE.
// Leaf 0 ebx: "Auth" of AuthenticAMD.
CpuFeatures decode_features(const CpuidWords& words) {
  constexpr std::uint32_t avx_and_fma =
      bit(0) | bit(9) | bit(12) | bit(19) | bit(20) | bit(23) | bit(26) | bit(27) | bit(28);
  constexpr std::uint32_t avx512 = bit(16) | bit(17) | bit(30) | bit(31);
  constexpr std::uint32_t ymm_saved = bit(1) | bit(2);
  constexpr std::uint32_t zmm_saved = ymm_saved | bit(5) | bit(6) | bit(7);

  CpuFeatures features;
  features.avx2 = has_bits(words.leaf1_ecx, avx_and_fma) && has_bits(words.leaf7_ebx, bit(5)) &&
                  has_bits(words.xcr0, ymm_saved);
  features.avx512 =
      features.avx2 && has_bits(words.leaf7_ebx, avx512) && has_bits(words.xcr0, zmm_saved);
  features.avx512_bf16 = features.avx512 && has_bits(words.leaf7_1_eax, bit(5));
  features.amx_bf16 = features.avx512_bf16 && has_bits(words.leaf7_edx, bit(22) | bit(24)) &&
                      has_bits(words.xcr0, bit(17) | bit(18));
  features.amd = words.vendor_ebx == 0x68747541;
#if defined(__aarch64__)
  features.neon = true;
#endif
  return features;
}

const CpuFeatures& cpu_features() {
  static const CpuFeatures features = [] {
    CpuFeatures found = decode_features(read_cpuid());
#if defined(FASTBP_EMULATE_AVX512)
    found.avx512 = found.avx512_bf16 = found.amd = found.avx2;
    found.amx_bf16 = false;
#endif
    return found;
  }();
  return features;
}

bool may_use_tiles() {
#if defined(__linux__) && defined(__x86_64__)
  // arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILE_DATA), by Linux's Documentation/arch/x86/xstate.rst.
  static const bool allowed = syscall(SYS_arch_prctl, 0x1023, 18) == 0;
  return allowed;
#else
  return false;
#endif
}

CpuDescription describe_cpu() {
  CpuDescription cpu;
  cpu.brand = trimmed(read_brand());
  read_caches(cpu);
  return cpu;
}

}  // namespace fastbp
