#include "kernels/cuda/tensor_map.h"

namespace fastbp {
namespace cuda {
namespace {

using Encode = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*,
                            const cuuint64_t*, const cuuint32_t*, const cuuint32_t*,
                            CUtensorMapInterleave, CUtensorMapSwizzle, CUtensorMapL2promotion,
                            CUtensorMapFloatOOBfill);

// The driver's cuTensorMapEncodeTiled, by way of the runtime: nothing is linked to libcuda.
Encode find_encode() {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result{};
  const cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found,
                                                             12000, cudaEnableDefault, &result);
  if (error != cudaSuccess || result != cudaDriverEntryPointSuccess) return nullptr;
  return reinterpret_cast<Encode>(found);
}

}  // namespace

cudaError_t make_tensor_map(TensorMap* map, const std::uint16_t* at, index_t rows, index_t cols,
                            index_t pitch, int box_rows) {
  static const Encode encode = find_encode();
  if (!encode) return cudaErrorNotSupported;
  // Along a row first.
  const cuuint64_t size[2] = {cuuint64_t(cols), cuuint64_t(rows)};
  const cuuint64_t row_bytes[1] = {cuuint64_t(pitch) * sizeof *at};
  const cuuint32_t box[2] = {kBoxCols, cuuint32_t(box_rows)}, step[2] = {1, 1};
  const CUresult result =
      encode(map, CU_TENSOR_MAP_DATA_TYPE_UINT16, 2, const_cast<std::uint16_t*>(at), size,
             row_bytes, box, step, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

}  // namespace cuda
}  // namespace fastbp
