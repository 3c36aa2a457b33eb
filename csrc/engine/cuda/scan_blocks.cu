#include "engine/cuda/scan_blocks.h"

#include <algorithm>

#include "engine/cuda/resources.h"

namespace fastbp {
namespace cuda {
namespace {

// Of a product: four warps, one for each scheduler of a multiprocessor. More columns only add to the
// time of a step where there are multiprocessors for them.
constexpr index_t kWalkColumns = 128;
// Sequences of a block: a thread has four. More where the multiprocessors are too few.
constexpr int kWalkRows[] = {4, 8, 16};
// Beyond so many turns of a block in a step the device is busy with a kernel for each step too.
constexpr index_t kMostTurns = 8;

index_t shared_bytes(const ScanBlocks& b, const CellInfo& cell, index_t units, std::size_t size,
                     bool back) {
  const WalkProduct product = back ? WalkProduct::backward(cell.gates, int(units), b)
                                   : WalkProduct::forward(cell.gates, int(units), b);
  return (product.values() * index_t(size) + 15) / 16 * 16;
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
  const auto with = [&](index_t slices) {
    ScanBlocks fitting;
    for (const int many : kWalkRows) {
      ScanBlocks b;
      b.units = int(ceil_div(units, slices)), b.rows = many;
      b.slices = int(slices);
      // One slice alone waits for no other block: any number of groups.
      const index_t groups = ceil_div(rows, many), at_once = room.processors / slices;
      b.groups = int(slices == 1 ? std::min(groups, kMaxGridY) : std::min(groups, at_once));
      const index_t bytes = shared_bytes(b, cell, units, element_size, back);
      if (bytes > room.shared_bytes) break;
      if (slices > 1 && groups > kMostTurns * b.groups) continue;
      b.shared_bytes = int(bytes);
      fitting = b;
      if (groups <= at_once) break;
    }
    return fitting;
  };
  const ScanBlocks whole = with(1);
  if (whole.slices || !room.meets) return whole;
  const index_t most = std::min(units, index_t(room.processors));
  const index_t wanted = std::min(most, ceil_div(cell.gates * units, kWalkColumns));
  for (index_t slices = std::max(wanted, index_t(2)); slices <= most; ++slices)
    if (const ScanBlocks b = with(slices); b.slices) return b;
  return {};
}

}  // namespace cuda
}  // namespace fastbp
