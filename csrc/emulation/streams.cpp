// Streams, events and graphs of the emulated device.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

#include "emulation/runtime.h"

struct CUgraph_st { std::vector<fastbp::emulation::Work> nodes; };
struct CUgraphExec_st { std::vector<fastbp::emulation::Work> nodes; };

// A recording, shared by the streams that take part in it.
struct Capture {
  CUgraph_st graph;
  std::vector<cudaStream_t> streams;  // the first is where it began
  bool spoiled = false;
};

struct CUstream_st { std::shared_ptr<Capture> capture; };
struct CUevent_st {
  std::shared_ptr<Capture> capture;  // of the stream where it was recorded
  bool recorded = false, timed = true;
  std::chrono::steady_clock::time_point time;
  double told = -1;
};

namespace fastbp {
namespace emulation {
namespace {

std::mutex handles_mutex;
std::set<const void*> handles;  // streams and events that exist

bool exists(const void* handle) {
  const std::lock_guard<std::mutex> lock(handles_mutex);
  return handles.count(handle) != 0;
}

template <class Handle> cudaError_t create(Handle** handle) {
  auto made = std::make_unique<Handle>();
  const std::lock_guard<std::mutex> lock(handles_mutex);
  handles.insert(made.get());
  *handle = made.release();
  return cudaSuccess;
}

template <class Handle> cudaError_t destroy(Handle* handle, const char* what) {
  const std::lock_guard<std::mutex> lock(handles_mutex);
  if (!handles.erase(handle))
    return failed(cudaErrorInvalidResourceHandle, std::string("this is no ") + what);
  delete handle;
  return cudaSuccess;
}

// Null, or CUDA's handles 1 and 2 for the default stream and that of the thread.
bool is_default(cudaStream_t stream) { return reinterpret_cast<std::uintptr_t>(stream) <= 2; }

cudaError_t require_stream(cudaStream_t stream) {
  if (is_default(stream) || exists(stream)) return cudaSuccess;
  return failed(cudaErrorInvalidResourceHandle, "this is no stream, or one that was destroyed");
}

cudaError_t require_event(cudaEvent_t event) {
  if (exists(event)) return cudaSuccess;
  return failed(cudaErrorInvalidResourceHandle, "this is no event, or one that was destroyed");
}

// Microseconds, by set_clock and since.
std::atomic<double> told{-1}, product_time{0}, kernel_time{0};

void spend(double microseconds) {
  if (told >= 0) told = told + microseconds;
}

// The recordings that the calling thread has begun and not ended, but for relaxed ones.
thread_local std::vector<std::shared_ptr<Capture>> strict_captures;

void note_time(cudaEvent_t event) {
  event->time = std::chrono::steady_clock::now();
  event->told = told_time();
}

bool captures(cudaStream_t stream) { return !is_default(stream) && stream->capture; }

}  // namespace

double told_time() { return told; }
void spend_kernel(const char* name) {
  spend(std::strstr(name, "gemm") ? product_time : kernel_time);
}

cudaError_t enqueue(cudaStream_t stream, Work work) {
  const cudaError_t error = require_stream(stream);
  if (error != cudaSuccess) return error;
  if (captures(stream)) {
    stream->capture->graph.nodes.push_back(std::move(work));
    return cudaSuccess;
  }
  if (is_default(stream) && !strict_captures.empty())
    return require_no_capture("work on the default stream");
  work();
  return cudaSuccess;
}

cudaError_t require_no_capture(const char* what) {
  if (strict_captures.empty()) return cudaSuccess;
  strict_captures.back()->spoiled = true;
  return failed(cudaErrorStreamCaptureUnsupported,
                std::string(what) + " is not permitted while a graph is captured");
}

}  // namespace emulation
}  // namespace fastbp

using namespace fastbp::emulation;

cudaError_t cudaStreamCreate(cudaStream_t* stream) { return create(stream); }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) { return create(stream); }
cudaError_t cudaStreamDestroy(cudaStream_t stream) { return destroy(stream, "stream"); }

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  cudaError_t error = require_stream(stream);
  if (error == cudaSuccess && captures(stream)) {
    stream->capture->spoiled = true;
    error = failed(cudaErrorStreamCaptureUnsupported, "the stream is capturing a graph");
  }
  if (error == cudaSuccess) error = require_no_capture("waiting");
  return error == cudaSuccess ? take_pending_error() : error;
}

cudaError_t cudaStreamQuery(cudaStream_t stream) { return cudaStreamSynchronize(stream); }
cudaError_t cudaDeviceSynchronize() { return cudaStreamSynchronize(nullptr); }

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  cudaError_t error = require_stream(stream);
  if (error == cudaSuccess) error = require_event(event);
  if (error != cudaSuccess || !event->capture || is_default(stream) ||
      stream->capture == event->capture)
    return error;
  if (stream->capture)
    return failed(cudaErrorStreamCaptureUnsupported, "the event belongs to another capture");
  event->capture->streams.push_back(stream);
  stream->capture = event->capture;
  return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t* event) { return create(event); }

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  const cudaError_t error = create(event);
  if (error == cudaSuccess) (*event)->timed = !(flags & cudaEventDisableTiming);
  return error;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) { return destroy(event, "event"); }

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  cudaError_t error = require_event(event);
  if (error == cudaSuccess) error = require_stream(stream);
  if (error != cudaSuccess) return error;
  event->capture = is_default(stream) ? nullptr : stream->capture;
  event->recorded = !event->capture;
  note_time(event);
  return cudaSuccess;
}

cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned flags) {
  if (!(flags & cudaEventRecordExternal)) return cudaEventRecord(event, stream);
  const cudaError_t error = require_event(event);
  if (error != cudaSuccess) return error;
  if (!captures(stream))
    return failed(cudaErrorInvalidValue, "an event is external to a graph alone: none is captured");
  return enqueue(stream, [event] {
    if (require_event(event) != cudaSuccess) return;
    event->capture.reset();
    event->recorded = true;
    note_time(event);
  });
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  cudaError_t error = require_event(event);
  if (error == cudaSuccess && event->capture)
    error = failed(cudaErrorStreamCaptureUnsupported, "the event was recorded in a capture");
  if (error == cudaSuccess) error = require_no_capture("waiting");
  return error == cudaSuccess ? take_pending_error() : error;
}

cudaError_t cudaEventQuery(cudaEvent_t event) { return cudaEventSynchronize(event); }

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  for (const cudaEvent_t event : {start, end}) {
    const cudaError_t error = require_event(event);
    if (error != cudaSuccess) return error;
    if (!event->recorded || !event->timed)
      return failed(cudaErrorInvalidResourceHandle, "the event has no time");
  }
  *milliseconds = end->told >= 0
                      ? float((end->told - start->told) / 1000)
                      : std::chrono::duration<float, std::milli>(end->time - start->time).count();
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  const cudaError_t error = require_stream(stream);
  if (error != cudaSuccess) return error;
  if (is_default(stream))
    return failed(cudaErrorStreamCaptureUnsupported, "the default stream cannot be captured");
  if (captures(stream)) return failed(cudaErrorIllegalState, "the stream is capturing already");
  stream->capture = std::make_shared<Capture>();
  stream->capture->streams.push_back(stream);
  if (mode != cudaStreamCaptureModeRelaxed) strict_captures.push_back(stream->capture);
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = nullptr;
  const cudaError_t error = require_stream(stream);
  if (error != cudaSuccess) return error;
  const std::shared_ptr<Capture> capture = is_default(stream) ? nullptr : stream->capture;
  if (!capture || capture->streams.front() != stream)
    return failed(cudaErrorIllegalState, "no capture was begun on this stream");
  for (const cudaStream_t member : capture->streams)
    if (exists(member)) member->capture.reset();
  const auto own = std::find(strict_captures.begin(), strict_captures.end(), capture);
  if (own != strict_captures.end()) strict_captures.erase(own);
  if (capture->spoiled)
    return failed(cudaErrorStreamCaptureInvalidated, "a call during the capture was not permitted");
  *graph = new CUgraph_st(std::move(capture->graph));
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  const cudaError_t error = require_stream(stream);
  if (error != cudaSuccess) return error;
  *status = !captures(stream)          ? cudaStreamCaptureStatusNone
            : stream->capture->spoiled ? cudaStreamCaptureStatusInvalidated
                                       : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  *exec = new CUgraphExec_st{graph->nodes};
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  note_launch("cudaGraphLaunch");
  for (const Work& node : exec->nodes) {
    const cudaError_t error = enqueue(stream, node);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;
  return cudaSuccess;
}

// For libraries that stand in for NVIDIA's: work(argument) is done as a kernel on that stream is.
FBP_EXPORT int fbp_emulation_enqueue(cudaStream_t stream, void (*work)(void*), void* argument) {
  return enqueue(stream, [=] { work(argument); });
}
// From now on a product takes so many microseconds to events, each other kernel so many, and such a
// library's what it says; negative: all take what they do.
FBP_EXPORT void fbp_emulation_set_clock(double product, double other) {
  product_time = product;
  kernel_time = other;
  told = product < 0 ? -1 : 0;
}
FBP_EXPORT void fbp_emulation_spend(double microseconds) { spend(microseconds); }
