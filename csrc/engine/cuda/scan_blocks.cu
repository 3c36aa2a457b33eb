#include "engine/cuda/scan_blocks.h"

#include <algorithm>
#include <cmath>

#include "engine/cuda/resources.h"

namespace fastbp {
namespace cuda {
namespace {

// Sequences of a block.
constexpr int kWalkRows[] = {2, 4, 8, kMostWalkRows};
// Beyond so many turns of a block in a step the device is busy with a kernel for each step too. Not so on
// tensor cores, which those kernels do without, and with which sums are others: any batch is walked over.
constexpr index_t kMostTurns = 8;

// The widest sums that leave every scheduler of a multiprocessor a warp.
int columns_for(const WalkProduct& product) {
  for (const int columns : {4, 2})
    if (product.chunks() * (product.rows / 2) * (product.wide() / columns) >= 128) return columns;
  return 1;
}

// The product of a step in a block, by the counts in docs/cuda.md.
double exact_clocks(const WalkProduct& product, const ScanBlocks& b) {
  const int tasks = product.chunks() * (b.rows / 2) * (product.wide() / b.columns);
  const double warps = std::ceil(tasks / 32.0), of_scheduler = std::ceil(warps / 4);
  const double issued = of_scheduler * (2 * b.columns + 2.5),
               read = warps * (b.columns == 4 ? 3 : 2);
  return product.chunk * std::max({issued, read, 8.0});
}
// On tensor cores: of each chunk and 16 columns a warp reads two operands and multiplies, some 40 clocks
// for 16 along k, of TF32 twice that. By arithmetic alone.
double rounded_clocks(const WalkProduct& product) {
  const index_t tasks = product.chunks() * ceil_div(product.wide(), kWalkFragment);
  const double turns = std::ceil(double(tasks) / (kWalkThreads / 32));
  return turns * product.chunk * (product.operands == WalkOperands::half ? 2.5 : 5);
}

// About how many clocks a step takes in a block, to choose by.
double clocks(const WalkProduct& product, const ScanBlocks& b, index_t turns) {
  const double products = product.rounded() ? rounded_clocks(product) : exact_clocks(product, b);
  const double cells = 500 * std::ceil(double(b.rows) * b.units / kWalkThreads);
  const double fetched = b.slices > 1 ? 800 + double(b.rows) * product.k / 12 : 0;
  return turns * (products + cells + fetched) + (b.slices > 1 ? 2500 : 0);
}

}  // namespace

ScanRoom scan_room(int device) {
  const auto attribute = [&](cudaDeviceAttr name) {
    int value = 0;
    check(cudaDeviceGetAttribute(&value, name, device), "asking for the device's properties");
    return value;
  };
  return {attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin),
          attribute(cudaDevAttrMultiProcessorCount), attribute(cudaDevAttrCooperativeLaunch) != 0};
}

ScanBlocks scan_blocks(const ScanRoom& room, const CellInfo& cell, index_t units, index_t rows,
                       std::size_t element_size, Rounding rounding, bool back) {
  const WalkOperands operands = operands_of(rounding);
  ScanBlocks best;
  double least = 0;
  const auto consider = [&](index_t slices, int many) {
    ScanBlocks b;
    b.units = int(ceil_div(units, slices)), b.rows = many;
    b.slices = int(ceil_div(units, b.units));
    // One slice alone waits for no other block: any number of groups.
    const index_t groups = ceil_div(rows, many), at_once = room.processors / b.slices;
    b.groups = int(b.slices == 1 ? std::min(groups, kMaxGridY) : std::min(groups, at_once));
    const index_t turns = ceil_div(groups, std::min(groups, at_once));
    const WalkProduct product = back ? WalkProduct::backward(cell.gates, int(units), b, operands)
                                     : WalkProduct::forward(cell.gates, int(units), b, operands);
    if (product.bytes(index_t(element_size)) > room.shared_bytes) return;
    b.shared_bytes = int(product.bytes(index_t(element_size)));
    b.columns = columns_for(product);
    const double taken = clocks(product, b, turns);
    if (best.slices && taken >= least) return;
    best = b, least = taken;
  };
  for (const int many : kWalkRows) {
    consider(1, many);
    if (!room.meets || units < 2) continue;
    const index_t groups = ceil_div(rows, many);
    const index_t most = std::min(units, index_t(room.processors));
    const index_t last = operands == WalkOperands::exact ? std::min(groups, kMostTurns) : groups;
    // As many slices as there are processors for at any number of turns; of many, at each doubling.
    index_t turns = 0;
    do {
      turns = std::min(last, turns < kMostTurns ? turns + 1 : 2 * turns);
      if (const index_t slices = std::min(most, room.processors / ceil_div(groups, turns));
          slices > 1)
        consider(slices, many);
    } while (turns < last);
  }
  return best;
}

}  // namespace cuda
}  // namespace fastbp
