#include "kernels/cuda/train/wide.h"

#include <algorithm>

#include "kernels/cuda/train/with_shadow.cuh"
#include "kernels/cuda/wide_gemm.cuh"

namespace fastbp {
namespace cuda {
namespace {

// A tile that is half empty costs what a whole one does, but no more than the tile of the smaller
// kernel, which takes a third of the clocks longer for it; below a slab of k there is nothing to
// overlap.
constexpr index_t kLeastSide = kWideTile / 2, kLeastDepth = kWideDepth;
constexpr index_t kMostSide = index_t(1) << 30;  // coordinates of boxes are 32 bits, with a sign

int attribute(cudaDeviceAttr which, int device) {
  int value = 0;
  return cudaDeviceGetAttribute(&value, which, device) == cudaSuccess ? value : 0;
}

// Whether the library has them for 9.0: built for sm_90 and not sm_90a, its kernels are empty. The
// host's compiler cannot tell, but a kernel that holds its sums in registers has as many as those.
bool has_code() {
  static const bool found = [] {
    const auto kernel = wide_gemm_kernel<Half::bfloat16, false, false, StorePart<float>>;
    cudaFuncAttributes attributes{};
    return cudaFuncGetAttributes(&attributes, kernel) == cudaSuccess &&
           attributes.numRegs >= int(sizeof(GroupSums) / sizeof(float));
  }();
  return found;
}

// 0 where the device does not have the instructions: machine code for them runs on 9.0 and nowhere
// else.
int processors_with_wgmma() {
  int device = 0;
  if (cudaGetDevice(&device) != cudaSuccess ||
      attribute(cudaDevAttrComputeCapabilityMajor, device) != 9 ||
      attribute(cudaDevAttrComputeCapabilityMinor, device) != 0 || !has_code())
    return 0;
  return attribute(cudaDevAttrMultiProcessorCount, device);
}

}  // namespace

int wide_processors(const TensorArgs& g, index_t parts) {
  const index_t most = std::max({g.m, g.n, g.k});
  if (std::min(g.m, g.n) < kLeastSide || g.k < kLeastDepth || most > kMostSide ||
      tensor_blocks(g.m, g.n) > kMostSide / parts)
    return 0;
  return processors_with_wgmma();
}

cudaError_t wide_forward(const TensorArgs& args, int activation, const ActivationTile<float>& tile,
                         Shadow y, int processors, cudaStream_t stream) {
  const Forward<float> inner{args.c, args.c_row, activation, tile};
  return launch_wide<true, false>(args, WithShadow<Forward<float>>{inner, y, !tile.out}, 1,
                                  processors, stream);
}

cudaError_t wide_delta(const TensorArgs& args, int activation, const ActivationTile<float>& tile,
                       Shadow dz, int processors, cudaStream_t stream) {
  const Backward<float> inner{activation, tile};
  return launch_wide<true, true>(args, WithShadow<Backward<float>>{inner, dz, !tile.out}, 1,
                                 processors, stream);
}

cudaError_t wide_update(const TensorArgs& args, int optimizer, const Parameters<float>& to,
                        const StepTable<float>& steps, Shadow w, int processors,
                        cudaStream_t stream) {
  const Update<float> inner{to, args.c_row, optimizer, steps};
  return launch_wide<false, false>(args, WithShadow<Update<float>>{inner, w}, 1, processors,
                                   stream);
}

cudaError_t wide_store(const TensorArgs& args, index_t parts, index_t part, int processors,
                       cudaStream_t stream) {
  return launch_wide<false, false>(args, StorePart<float>{args.c, args.c_row, part}, parts,
                                   processors, stream);
}

}  // namespace cuda
}  // namespace fastbp
