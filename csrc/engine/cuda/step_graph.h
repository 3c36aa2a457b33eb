// A step's launches, recorded once as a CUDA graph and replayed: one call of the driver a step in the
// place of one for each kernel.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/cuda/resources.h"

namespace fastbp {
namespace cuda {

// Recordings of the two kinds of step that an epoch has, of a whole batch and of its rest.
class StepGraphs {
 public:
  // All that a step's launches depend on: another step of the same key is the same.
  using Key = std::vector<std::uint64_t>;

  // Enqueues what `enqueue` does. A step is recorded when it comes a second time: for a single one
  // that would cost more than its launches.
  template <class F> void run(const Key& key, cudaStream_t stream, F&& enqueue) {
    Recording& known = find(key);
    if (!known.graph.get() && (++known.seen == 1 || !record(known, stream, enqueue))) {
      enqueue();
      return;
    }
    check(cudaGraphLaunch(known.graph.get(), stream), "replaying a step");
    ++replays_;
  }

  std::int64_t replays() const { return replays_; }

 private:
  using Graph = Owned<cudaGraphExec_t, cudaGraphExecDestroy>;
  struct Recording {
    Key key;
    Graph graph;
    int seen = 0;
  };

  // The key's recording, or an empty one in the place of the one that was used longer ago.
  Recording& find(const Key& key) {
    if (recordings_[recent_].key != key) {
      recent_ = 1 - recent_;
      if (recordings_[recent_].key != key) recordings_[recent_] = {key, Graph(), 0};
    }
    return recordings_[recent_];
  }

  // False, and nothing enqueued, where the stream cannot be recorded (the default stream).
  template <class F> bool record(Recording& known, cudaStream_t stream, F&& enqueue) {
    if (cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) != cudaSuccess) {
      cudaGetLastError();
      return false;
    }
    cudaGraph_t graph = nullptr;
    try {
      enqueue();
    } catch (...) {
      cudaStreamEndCapture(stream, &graph);
      if (graph) cudaGraphDestroy(graph);
      throw;
    }
    check(cudaStreamEndCapture(stream, &graph), "recording a step");
    cudaGraphExec_t made = nullptr;
    const cudaError_t error = cudaGraphInstantiate(&made, graph, 0);
    cudaGraphDestroy(graph);
    check(error, "recording a step");
    known.graph = Graph(made);
    return true;
  }

  Recording recordings_[2];
  int recent_ = 0;
  std::int64_t replays_ = 0;
};

}  // namespace cuda
}  // namespace fastbp
