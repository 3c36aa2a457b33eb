// A CUDA library that says it is what the environment tells it: FAKE_ABI, FAKE_BUILD. It has no
// kernels.
#include <stdlib.h>

#include "kernels/cuda/fastbp_cuda.h"

int32_t fbp_abi_version(void) {
  const char* text = getenv("FAKE_ABI");
  return text ? atoi(text) : FBP_ABI_VERSION;
}
const char* fbp_build_info(void) { return getenv("FAKE_BUILD"); }
int32_t fbp_get_api(fbp_api* api) {
  return api->size == sizeof *api ? FBP_OK : FBP_INVALID_ARGUMENT;
}
