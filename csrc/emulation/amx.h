// The tiles of kernels/cpu/simd/amx.h in memory, for processors that have none: as Intel's Software Developer's Manual
// describes TILELOADD, TILESTORED and TDPBF16PS. A tile that is used before set_up_tiles(), or behind release_tiles(),
// traps, as the processor would.
#pragma once

#include <cmath>
#include <cstring>

#include "kernels/cpu/simd/amx.h"

namespace fastbp {
namespace amx {

struct Tiles {
  bool set_up = false;
  std::uint32_t word[kTiles][kTileLines][kTileLineBytes / 4] = {};
};
static thread_local Tiles tiles;

[[gnu::noinline]] static inline std::uint32_t (*tile_words(int tile)) [kTileLineBytes / 4] {
  if (!tiles.set_up) __builtin_trap();
  return tiles.word[tile];
}

// Denormals count as 0, of operands and of results.
static inline float flushed(float x) {
  return std::fabs(x) < 1.17549435e-38f ? std::copysign(0.0f, x) : x;
}
static inline float as_float(std::uint32_t word) {
  float x;
  std::memcpy(&x, &word, sizeof x);
  return flushed(x);
}
static inline std::uint32_t as_word(float x) {
  x = flushed(x);
  std::uint32_t word;
  std::memcpy(&word, &x, sizeof word);
  return word;
}

static inline void set_up_tiles() { tiles = {true, {}}; }
static inline void release_tiles() { tiles.set_up = false; }

template <int tile> static inline void clear_tile() {
  std::memset(tile_words(tile), 0, sizeof tiles.word[tile]);
}
template <int tile> static inline void load_tile(const void* p, index_t row_bytes) {
  auto* line = tile_words(tile);
  for (int i = 0; i < kTileLines; ++i)
    std::memcpy(line[i], static_cast<const char*>(p) + i * row_bytes, kTileLineBytes);
}
template <int tile> static inline void store_tile(void* p, index_t row_bytes) {
  auto* line = tile_words(tile);
  for (int i = 0; i < kTileLines; ++i)
    std::memcpy(static_cast<char*>(p) + i * row_bytes, line[i], kTileLineBytes);
}

// The even values of k in one sum, the odd ones in another, by fused multiply-adds; their sum is added to c.
[[gnu::noinline]] static inline void add_tile_products(int c, int a, int b) {
  auto *sum = tile_words(c), *left = tile_words(a), *right = tile_words(b);
  for (int i = 0; i < kTileLines; ++i)
    for (int j = 0; j < kTileLineBytes / 4; ++j) {
      float even = 0, odd = 0;
      for (int q = 0; q < kTileLineBytes / 4; ++q) {
        even = flushed(std::fma(as_float(left[i][q] << 16), as_float(right[q][j] << 16), even));
        odd = flushed(
            std::fma(as_float(left[i][q] & 0xffff0000u), as_float(right[q][j] & 0xffff0000u), odd));
      }
      sum[i][j] = as_word(as_float(sum[i][j]) + flushed(even + odd));
    }
}
template <int c, int a, int b> static inline void add_products() { add_tile_products(c, a, b); }

}  // namespace amx
}  // namespace fastbp
