// Random numbers that depend on nothing but (seed, stream, purpose, element): Philox4x32-10.
//
// Integers and exactly rounded float64 operations only (+ - * / sqrt, no libm, no contraction): the
// same bits on every machine, for any split of the work, and in the NumPy twin
// python/fastbp/reference/random.py. Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as
// easy as 1, 2, 3", SC 2011.
#pragma once

#include <cstdint>

#include "core/types.h"

namespace fastbp {

enum class Purpose : std::uint32_t { init = 1, shuffle = 2, dropout = 3, split = 4 };

// What a sequence is keyed by. stream: the layer's index or the epoch.
struct RandomStream {
  std::uint64_t seed = 0;
  std::uint32_t stream = 0;
  std::uint32_t purpose = 0;
};

// words = ten rounds of Philox4x32 of counter under key.
void philox4x32(const std::uint32_t counter[4], const std::uint32_t key[2], std::uint32_t words[4]);

// words 4 block .. 4 block + 3 of the sequence.
void random_block(const RandomStream& stream, std::uint64_t block, std::uint32_t words[4]);

// One of 2^24 equidistant numbers strictly inside (0, 1), symmetric about 1/2; exact.
inline double uniform01(std::uint32_t word) { return (word >> 8) * 0x1p-24 + 0x1p-25; }

// Standard normal z with Phi(z) = (53 bits of the two words + 1/2) 2^-53; relative error below
// 1e-15, |z| < 8.3.
double normal_of_words(std::uint32_t high, std::uint32_t low);

// out[i] = low + (high - low) u, in float64, rounded once to T = float or double; u is element
// first + i of the sequence, i < n.
template <class T>
void random_uniform(T* out, index_t n, double low, double high, const RandomStream& stream,
                    std::uint64_t first = 0);

// out[i] = mean + stddev z, in float64, rounded once to T = float or double; z is normal number
// first + i of the sequence, i < n.
template <class T>
void random_normal(T* out, index_t n, double mean, double stddev, const RandomStream& stream,
                   std::uint64_t first = 0);

// Blocks that are made at a time, since they do not depend on each other, and their words.
inline constexpr int kBatchBlocks = 32;
inline constexpr int kBatchWords = 4 * kBatchBlocks;

// words[w * kBatchBlocks + i] = word w of block `batch * kBatchBlocks + i`.
using RandomBatch = void (*)(const RandomStream& stream, std::uint64_t batch, std::uint32_t* words);
void random_batch(const RandomStream& stream, std::uint64_t batch, std::uint32_t* words);

// order[0 .. n-1] = a random order of 0 .. n-1, n < 2^32, by Fisher and Yates: for i = n-1 .. 1
// swap elements i and (word_i (i + 1)) >> 32. `draw` is random_batch or a faster one.
void random_permutation(std::int64_t* order, index_t n, std::uint64_t seed, std::uint32_t epoch,
                        RandomBatch draw = random_batch);

}  // namespace fastbp
