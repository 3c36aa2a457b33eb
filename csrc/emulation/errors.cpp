// Errors of the emulated device: of the call, of the launch, of the kernel.
#include <mutex>

#include "emulation/runtime.h"

namespace fastbp {
namespace emulation {
namespace {

thread_local cudaError_t last_error = cudaSuccess;
thread_local cudaError_t failed_with = cudaSuccess;
thread_local std::string failure;

std::mutex pending_mutex;
cudaError_t pending = cudaSuccess;
std::string pending_reason;

struct Name {
  cudaError_t error;
  const char *name, *meaning;
};
constexpr Name kNames[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration",
     "invalid configuration argument"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorIllegalState, "cudaErrorIllegalState",
     "the operation cannot be performed in the present state"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
    {cudaErrorNotSupported, "cudaErrorNotSupported", "operation not supported"},
    {cudaErrorIllegalAddress, "cudaErrorIllegalAddress",
     "an illegal memory access was encountered"},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure"},
    {cudaErrorCooperativeLaunchTooLarge, "cudaErrorCooperativeLaunchTooLarge",
     "too many blocks in cooperative launch"},
    {cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported",
     "operation not permitted when stream is capturing"},
    {cudaErrorStreamCaptureInvalidated, "cudaErrorStreamCaptureInvalidated",
     "operation failed due to a previous error during capture"},
};

const Name* find(cudaError_t error) {
  for (const Name& entry : kNames)
    if (entry.error == error) return &entry;
  return nullptr;
}

}  // namespace

cudaError_t failed(cudaError_t error, const std::string& reason) {
  failed_with = error;
  failure = reason;
  return error;
}

void set_last_error(cudaError_t error) { last_error = error; }

void set_pending_error(cudaError_t error, const std::string& reason) {
  const std::lock_guard<std::mutex> lock(pending_mutex);
  if (pending != cudaSuccess) return;  // the first one counts
  pending = error;
  pending_reason = reason;
}

cudaError_t take_pending_error() {
  const std::lock_guard<std::mutex> lock(pending_mutex);
  if (pending == cudaSuccess) return cudaSuccess;
  const cudaError_t error = failed(pending, pending_reason);
  pending = cudaSuccess;
  return error;
}

}  // namespace emulation
}  // namespace fastbp

using namespace fastbp::emulation;

cudaError_t cudaGetLastError() {
  const cudaError_t error = last_error;
  last_error = cudaSuccess;
  return error;
}

cudaError_t cudaPeekAtLastError() { return last_error; }

const char* cudaGetErrorString(cudaError_t error) {
  if (error == failed_with && error != cudaSuccess) return failure.c_str();
  const Name* const entry = find(error);
  return entry ? entry->meaning : "unrecognized error code";
}

const char* cudaGetErrorName(cudaError_t error) {
  const Name* const entry = find(error);
  return entry ? entry->name : "unrecognized error code";
}
