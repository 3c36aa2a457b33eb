// The order of an epoch's rows, drawn on the device: random_permutation (core/random.h), whose
// swaps follow one another, without its loop.
//
// Step i = n-1 .. 1 swaps cells i and h(i) <= i of 0 1 2 ..., and nobody touches cell i after step i,
// so the order has at i what lay in h(i) before step i. A cell c holds before step i what the step
// before that chose it has put there: i' = the least of those above i with h(i') = c. That is what
// lay in cell i' before step i'; and c itself where no step has chosen it. So each i follows its own
// chain, along lists of the steps that chose the same cell: in all 4 entries of lists an element, and
// chains of O(log n).
#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/train/kernels.h"
#include "ops/lane.h"
#include "ops/philox.h"

namespace fastbp {
namespace cuda {
namespace {

constexpr int kNobody = -1;
constexpr int kWords = 4;  // of a block of Philox, for so many steps

struct Draw {
  std::uint64_t seed;
  std::uint32_t epoch, purpose;

  // The cells that steps kWords * block and on choose.
  FBP_FN void cells(index_t block, index_t (&cell)[kWords]) const {
    using Word = LaneBits<float>;
    Word words[kWords] = {Word(std::int64_t(std::uint32_t(block))),
                          Word(std::int64_t(std::uint32_t(std::uint64_t(block) >> 32))),
                          Word(std::int64_t{epoch}), Word(std::int64_t{purpose})};
    philox_rounds(words, seed);
    for (int w = 0; w < kWords; ++w) {
      const std::uint64_t steps = std::uint64_t(kWords * block + w + 1);
      cell[w] = index_t((std::uint64_t(std::uint32_t(words[w].b)) * steps) >> 32);
    }
  }
};

// Of the steps that chose a cell: one of them by cell, and after each another one.
struct Choices {
  std::int32_t *last, *other;

  // The least of those that chose `cell` and are above `step`.
  FBP_FN std::int32_t before(std::int32_t cell, std::int32_t step) const {
    std::int32_t least = kNobody;
    for (std::int32_t i = last[cell]; i != kNobody; i = other[i])
      if (i > step && (least == kNobody || i < least)) least = i;
    return least;
  }
};

__global__ void __launch_bounds__(kElementThreads) no_choices_kernel(Choices choices, index_t n) {
  for_each_element(1, n, [&](index_t, index_t i) { choices.last[i] = kNobody; });
}

__global__ void __launch_bounds__(kElementThreads)
    choices_kernel(Draw draw, Choices choices, index_t n) {
  for_each_element(1, ceil_div(n, kWords), [&](index_t, index_t block) {
    index_t cell[kWords];
    draw.cells(block, cell);
    for (int w = 0; w < kWords; ++w) {
      const index_t i = kWords * block + w;
      if (i > 0 && i < n) choices.other[i] = atomicExch(choices.last + cell[w], std::int32_t(i));
    }
  });
}

__global__ void __launch_bounds__(kElementThreads)
    follow_kernel(Draw draw, Choices choices, std::int64_t* order, index_t n) {
  for_each_element(1, ceil_div(n, kWords), [&](index_t, index_t block) {
    index_t cells[kWords];
    draw.cells(block, cells);
    for (int w = 0; w < kWords; ++w) {
      const index_t i = kWords * block + w;
      if (i >= n) continue;
      std::int32_t cell = std::int32_t(cells[w]), step = std::int32_t(i);
      while ((step = choices.before(cell, step)) != kNobody) cell = step;
      order[i] = cell;
    }
  });
}

}  // namespace

cudaError_t permutation(std::int64_t* order, index_t n, std::uint64_t seed, std::uint32_t epoch,
                        std::uint32_t purpose, std::int32_t* scratch, cudaStream_t stream) {
  if (n <= 0) return cudaSuccess;
  const Draw draw{seed, epoch, purpose};
  const Choices choices{scratch, scratch + n};
  const ElementGrid by_cell(1, n), by_block(1, ceil_div(n, kWords));
  FBP_LAUNCH(no_choices_kernel, by_cell.grid, by_cell.block, 0, stream)(choices, n);
  FBP_LAUNCH(choices_kernel, by_block.grid, by_block.block, 0, stream)(draw, choices, n);
  FBP_LAUNCH(follow_kernel, by_block.grid, by_block.block, 0, stream)(draw, choices, order, n);
  return cudaGetLastError();
}

}  // namespace cuda
}  // namespace fastbp
