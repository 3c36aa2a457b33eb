// What api.cu and network_api.cu share.
#pragma once

#include "kernels/cuda/fastbp_cuda.h"

namespace fastbp {
namespace cuda {

extern const fbp_network_api kNetworkApi;

// Keeps the text for last_error, and returns the code.
int32_t tell(int32_t code, const char* text);

}  // namespace cuda
}  // namespace fastbp
