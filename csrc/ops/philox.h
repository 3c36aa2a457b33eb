// The random numbers of core/random.h in the lanes of a vector, and how dropout uses them.
//
// B is Bits<float> of any instruction set, or of one lane: 32-bit words with + ^ shr and mul_wide.
#pragma once

#include <cstdint>

#include "ops/fbp_fn.h"
#include "ops/lane.h"

namespace fastbp {

// Words of ten rounds of Philox4x32, in the counter's place.
template <class B> FBP_FN void philox_rounds(B (&c)[4], std::uint64_t key) {
  std::uint32_t k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
#if !defined(__CUDACC__)  // which unrolls it by itself, and knows the pragma by another name
#pragma GCC unroll 10
#endif
  for (int round = 0; round < 10; ++round) {
    B high0, low0, high1, low1;
    mul_wide(c[0], 0xD2511F53u, &high0, &low0);
    mul_wide(c[2], 0xCD9E8D57u, &high1, &low1);
    c[0] = high1 ^ c[1] ^ B(std::int64_t{k0});
    c[1] = low1;
    c[2] = high0 ^ c[3] ^ B(std::int64_t{k1});
    c[3] = low0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
}

// Dropout draws for a row in groups of so many columns: word w of block 16 g + l, counted through
// the batch's rows, is column 16 w + l of group g. So 16 blocks lie side by side in a vector.
inline constexpr int kDropoutGroup = 64;

// The counter's words behind the block: the lower half of the step; the layer, counted among the
// network's dropouts; the purpose, with the upper half of the step above it.
struct DropoutStream { std::uint32_t step, layer, purpose; };
FBP_FN DropoutStream dropout_stream(std::uint64_t step, std::uint32_t layer,
                                    std::uint32_t purpose) {
  return {static_cast<std::uint32_t>(step), layer,
          purpose + (static_cast<std::uint32_t>(step >> 32) << 8)};
}

// An element is kept where the upper 23 bits of its word, as a fraction of 2^23, are not below
// `rate`. Here as 1 + fraction, to be compared with dropout_threshold().
template <class B> FBP_FN auto dropout_fraction(B word) {
  return from_bits(shr<9>(word) | B(std::int64_t{0x3f800000}));
}
FBP_FN float dropout_threshold(double rate) {
  return 1.0f + static_cast<float>(static_cast<std::int32_t>(rate * 0x1p23 + 0.5)) * 0x1p-23f;
}

}  // namespace fastbp
