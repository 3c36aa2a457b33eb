// AMX: eight tiles of 16 rows of 64 bytes, and products of bfloat16 between them.
//
// Tiles are named by number when they are compiled. Those of this file are whole: 16 rows of 16 floats, or of 32
// values of bfloat16. A thread may use them from set_up_tiles() to release_tiles(), once the system has given the
// process leave (cpuid.h). The instructions are spelled out, since the compilers' own names for them do not
// say that they read memory.
#pragma once

#include <cstdint>

#include "core/types.h"
#include "ops/fbp_fn.h"

namespace fastbp {
namespace amx {

inline constexpr int kTiles = 8;
inline constexpr int kTileLines = 16;      // rows
inline constexpr int kTileLineBytes = 64;  // 16 floats, or 16 pairs of bfloat16
inline constexpr int kTileDepth = 32;      // values of k in a row of bfloat16

}  // namespace amx
}  // namespace fastbp

#if defined(FASTBP_EMULATE_AVX512)
#include "emulation/amx.h"
#else

namespace fastbp {
namespace amx {

// What LDTILECFG reads: Intel's Software Developer's Manual, volume 1, 18.2.
struct alignas(64) TileConfig {
  std::uint8_t palette = 1;
  std::uint8_t start_row = 0;
  std::uint8_t reserved[14] = {};
  std::uint16_t line_bytes[16] = {};
  std::uint8_t lines[16] = {};
};

FBP_FN void set_up_tiles() {
  TileConfig config;
  for (int t = 0; t < kTiles; ++t) {
    config.line_bytes[t] = kTileLineBytes;
    config.lines[t] = kTileLines;
  }
  __asm__ volatile("ldtilecfg %0" ::"m"(config));
}
FBP_FN void release_tiles() { __asm__ volatile("tilerelease"); }

template <int tile> FBP_FN void clear_tile() { __asm__ volatile("tilezero %%tmm%c0" ::"i"(tile)); }
// Rows lie `row_bytes` apart; 0 repeats one.
template <int tile> FBP_FN void load_tile(const void* p, index_t row_bytes) {
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(p), "r"(row_bytes), "i"(tile) : "memory");
}
template <int tile> FBP_FN void store_tile(void* p, index_t row_bytes) {
  __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(p), "r"(row_bytes), "i"(tile) : "memory");
}
// Row i, column j of c: += the sum over q of a's pair (i, q) times b's pair (q, j).
template <int c, int a, int b> FBP_FN void add_products() {
  __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(c), "i"(a), "i"(b));
}

}  // namespace amx
}  // namespace fastbp

#endif
