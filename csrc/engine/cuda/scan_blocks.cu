#include "engine/cuda/scan_blocks.h"

#include <algorithm>
#include <cmath>

#include "engine/cuda/resources.h"

namespace fastbp {
namespace cuda {
namespace {

// Sequences of a block.
constexpr int kWalkRows[] = {2, 4, 8, kMostWalkRows};
// Beyond so many turns of a block in a step the device is busy with a kernel for each step too.
constexpr index_t kMostTurns = 8;

// The widest sums that leave every scheduler of a multiprocessor a warp.
int columns_for(const WalkProduct& product) {
  for (const int columns : {4, 2})
    if (product.chunks() * (product.rows / 2) * (product.wide() / columns) >= 128) return columns;
  return 1;
}

// About how many clocks a step takes in a block, by the counts in docs/cuda.md: to choose by.
double clocks(const WalkProduct& product, const ScanBlocks& b, index_t turns) {
  const int tasks = product.chunks() * (b.rows / 2) * (product.wide() / b.columns);
  const double warps = std::ceil(tasks / 32.0), of_scheduler = std::ceil(warps / 4);
  const double issued = of_scheduler * (2 * b.columns + 2.5),
               read = warps * (b.columns == 4 ? 3 : 2);
  const double products = product.chunk * std::max({issued, read, 8.0});
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
                       std::size_t element_size, bool back) {
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
    if (b.slices > 1 && turns > kMostTurns) return;
    const WalkProduct product = back ? WalkProduct::backward(cell.gates, int(units), b)
                                     : WalkProduct::forward(cell.gates, int(units), b);
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
    // As many slices as there are processors for at any number of turns.
    for (index_t turns = 1; turns <= kMostTurns && turns <= groups; ++turns)
      if (const index_t slices = std::min(most, room.processors / ceil_div(groups, turns));
          slices > 1)
        consider(slices, many);
  }
  return best;
}

}  // namespace cuda
}  // namespace fastbp
