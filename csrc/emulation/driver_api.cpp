// After the CUDA driver API's "Tensor Map Object Management", version 13.0.
#include "emulation/driver_api.h"

#include <cstring>

namespace {

constexpr cuuint64_t kMostBytes = cuuint64_t(1) << 40, kMostElements = cuuint64_t(1) << 32;

CUresult encode_tiled(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank, void* at,
                      const cuuint64_t* size, const cuuint64_t* row_bytes, const cuuint32_t* box,
                      const cuuint32_t* step, CUtensorMapInterleave, CUtensorMapSwizzle swizzle,
                      CUtensorMapL2promotion, CUtensorMapFloatOOBfill) {
  const bool known =
      type == CU_TENSOR_MAP_DATA_TYPE_UINT16 && rank == 2 && swizzle == CU_TENSOR_MAP_SWIZZLE_128B;
  const bool aligned = reinterpret_cast<std::uintptr_t>(at) % 16 == 0 && *row_bytes % 16 == 0;
  bool good = known && aligned && *row_bytes < kMostBytes && box[0] * 2 <= 128 && box[0] % 8 == 0;
  for (int i = 0; i < 2; ++i)
    good = good && size[i] >= 1 && size[i] <= kMostElements && box[i] >= 1 && box[i] <= 256 &&
           step[i] == 1;
  if (!good) return CUDA_ERROR_INVALID_VALUE;
  *map = {static_cast<const unsigned char*>(at), {size[0], size[1]}, *row_bytes, {box[0], box[1]}};
  return CUDA_SUCCESS;
}

}  // namespace

cudaError_t cudaGetDriverEntryPointByVersion(const char* symbol, void** function, unsigned version,
                                             unsigned long long,
                                             cudaDriverEntryPointQueryResult* result) {
  const bool found = std::strcmp(symbol, "cuTensorMapEncodeTiled") == 0 && version >= 12000;
  *function = found ? reinterpret_cast<void*>(encode_tiled) : nullptr;
  *result = found ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  return cudaSuccess;
}
