// What this library was built as; for the loader, before it calls anything else.
#include "kernels/cuda/fastbp_cuda.h"
#include "kernels/cuda/launch.cuh"

#define FBP_TEXT_OF(...) #__VA_ARGS__
#define FBP_TEXT(...) FBP_TEXT_OF(__VA_ARGS__)

#if defined(FASTBP_EMULATION)
#define FBP_MADE_FOR "device=emulated"
#else
// __CUDA_ARCH_LIST__ is nvcc's: 750,800,900 for compute capabilities 7.5, 8.0 and 9.0.
#define FBP_MADE_FOR                                                                               \
  "device=gpu cuda=" FBP_TEXT(CUDART_VERSION) " architectures=" FBP_TEXT(__CUDA_ARCH_LIST__)
#endif

__attribute__((visibility("default"))) const char* fbp_build_info(void) {
  return "version=" FASTBP_VERSION " " FBP_MADE_FOR;
}
