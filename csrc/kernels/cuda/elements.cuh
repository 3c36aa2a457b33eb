// One thread for each element of a matrix.
#pragma once

#include "kernels/cuda/launch.cuh"

namespace fastbp {
namespace cuda {
namespace {

// Four to eight blocks fill the 1024 to 2048 thread slots of an SM; up to 64 registers a thread,
// all of them fit.
constexpr int kElementThreads = 256;

// Calls body(i, j) for every element, threadIdx.x and blockIdx.x along a row. The grid may be
// smaller than the matrix.
template <class Body> FBP_FN void for_each_element(index_t rows, index_t cols, Body body) {
  for (index_t i = index_t(blockIdx.y) * blockDim.y + threadIdx.y; i < rows;
       i += index_t(gridDim.y) * blockDim.y) {
    // A thread has few elements, usually one; an unrolled loop would begin with a 64-bit division.
    FBP_UNROLL(1)
    for (index_t j = index_t(blockIdx.x) * blockDim.x + threadIdx.x; j < cols;
         j += index_t(gridDim.x) * blockDim.x)
      body(i, j);
  }
}

// Blocks as wide as a row, up to kElementThreads, and as high as that leaves threads for. Neither side
// of the matrix is 0.
struct ElementGrid {
  dim3 grid, block;

  ElementGrid(index_t rows, index_t cols) {
    unsigned width = 1;
    while (width < kElementThreads && width < cols) width *= 2;
    block = dim3(width, kElementThreads / width);
    const index_t across = ceil_div(cols, block.x), down = ceil_div(rows, block.y);
    grid = dim3(unsigned(across < kMaxGridX ? across : kMaxGridX),
                unsigned(down < kMaxGridY ? down : kMaxGridY));
  }
};

}  // namespace
}  // namespace cuda
}  // namespace fastbp
