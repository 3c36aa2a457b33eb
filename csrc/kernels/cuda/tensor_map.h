// How TMA (wgmma.cuh) knows a matrix in device memory: made on the host, given to a kernel by value.
#pragma once

#include "core/types.h"
#include "kernels/cuda/launch.cuh"

#if defined(FASTBP_EMULATION)
#include "emulation/driver_api.h"
#else
#include <cuda.h>
#endif

namespace fastbp {
namespace cuda {

using TensorMap = CUtensorMap;

// 16-bit values (rows, cols) at a multiple of 16 bytes, rows `pitch` values apart, a multiple of 8.
// Copies are boxes of box_rows x 64, up to 256 rows, with the swizzle of 128 bytes.
// cudaErrorNotSupported where the driver does not offer it, cudaErrorInvalidValue where it refuses.
cudaError_t make_tensor_map(TensorMap* map, const std::uint16_t* at, index_t rows, index_t cols,
                            index_t pitch, int box_rows);

inline constexpr int kBoxCols = 64;  // 128 bytes, the span of the swizzle

}  // namespace cuda
}  // namespace fastbp
