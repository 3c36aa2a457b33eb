// A CUDA library that says it is what the environment tells it: FAKE_ABI, FAKE_BUILD. It has no
// kernels.
#include <stdlib.h>

#include "kernels/cuda/fastbp_cuda.h"

int32_t fbp_abi_version(void) {
  const char* text = getenv("FAKE_ABI");
  return text ? atoi(text) : FBP_ABI_VERSION;
}
const char* fbp_build_info(void) { return getenv("FAKE_BUILD"); }

static const char* last_error(void) { return "there is none here"; }
static int32_t load_blas(const char* path, int64_t* version) {
  *version = 0;
  return path[0] ? FBP_INVALID_ARGUMENT : FBP_OK;
}

int32_t fbp_get_api(fbp_api* api) {
  api->last_error = last_error;
  api->load_blas = load_blas;
  return api->size == sizeof *api ? FBP_OK : FBP_INVALID_ARGUMENT;
}
