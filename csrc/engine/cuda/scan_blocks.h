// Whether the recurrent weights of a layer fit the shared memory of a device's blocks, so that one
// kernel can walk over all steps (kernels/cuda/train/scan_walk.h), and how that is shared out.
#pragma once

#include "kernels/cuda/train/scan_walk.h"

namespace fastbp {
namespace cuda {

// What a device has for such kernels. 0 bytes: no walk.
struct ScanRoom {
  int shared_bytes = 0;  // of a block
  int processors = 0;    // blocks that are on the device at once, whatever they take
  bool meets = false;    // a grid may meet
};
ScanRoom scan_room(int device);

// For so many sequences; 0 slices where the weights do not fit. back: on the way back.
ScanBlocks scan_blocks(const ScanRoom& room, const CellInfo& cell, index_t units, index_t rows,
                       std::size_t element_size, Rounding rounding, bool back);

}  // namespace cuda
}  // namespace fastbp
