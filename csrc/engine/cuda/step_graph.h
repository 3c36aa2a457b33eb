// A step's launches, recorded once as a CUDA graph and replayed: one call of the driver a step in the
// place of one for each kernel.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "engine/cuda/resources.h"

namespace fastbp {
namespace cuda {

// Recordings of the two kinds of step that an epoch has, of a whole batch and of its rest; and of several
// steps of one kind that follow each other.
class StepGraphs {
 public:
  // All that a step's launches depend on: another step of the same key is the same.
  class Key {
   public:
    template <class... V> void add(V... values) { (words_.push_back(word(values)), ...); }
    bool operator==(const Key& other) const { return words_ == other.words_; }

   private:
    template <class V> static std::uint64_t word(V value) {
      static_assert(sizeof(V) <= sizeof(std::uint64_t), "a word of the key");
      std::uint64_t bits = 0;
      std::memcpy(&bits, &value, sizeof value);
      return bits;
    }
    std::vector<std::uint64_t> words_;
  };
  // A replay takes the host some 10 us, and the device a moment to begin: for steps of a small network, as
  // long as the step.
  static constexpr int kTogether = 8;

  // Enqueues what `enqueue` does once, or where up to `most` steps are alike, several times; how often.
  // A step is recorded when it has come so often `before`: once, since for a single one that would cost more
  // than its launches. Several are, when that has been so often possible that it pays.
  template <class F>
  int run(const Key& key, cudaStream_t stream, index_t most, int before, F&& enqueue) {
    if (most >= kTogether && replay(key, kTogether, kWorthIt, stream, enqueue)) return kTogether;
    if (!replay(key, 1, before, stream, enqueue)) enqueue();
    return 1;
  }

  // Steps that were replayed.
  std::int64_t replays() const { return replays_; }

 private:
  using Graph = Owned<cudaGraphExec_t, cudaGraphExecDestroy>;
  static constexpr int kKept = 4;
  static constexpr int kWorthIt = 4;
  struct Recording {
    Key key;
    int steps = 0;
    Graph graph;
    int seen = 0;
    std::int64_t used = 0;
  };

  // So many steps at once, if they have been asked for more than `before` times. False: nothing is enqueued.
  template <class F>
  bool replay(const Key& key, int steps, int before, cudaStream_t stream, F&& enqueue) {
    Recording& known = find(key, steps);
    const auto all = [&] {
      for (int i = 0; i < steps; ++i) enqueue();
    };
    if (!known.graph.get() && (++known.seen <= before || !record(known, stream, all))) return false;
    check(cudaGraphLaunch(known.graph.get(), stream), "replaying a step");
    replays_ += steps;
    return true;
  }

  // The key's recording, or an empty one in the place of the one that was used longest ago.
  Recording& find(const Key& key, int steps) {
    Recording* oldest = &recordings_[0];
    for (Recording& one : recordings_) {
      if (one.steps == steps && one.key == key) {
        one.used = ++uses_;
        return one;
      }
      if (one.used < oldest->used) oldest = &one;
    }
    *oldest = {key, steps, Graph(), 0, ++uses_};
    return *oldest;
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

  Recording recordings_[kKept];
  std::int64_t uses_ = 0, replays_ = 0;
};

}  // namespace cuda
}  // namespace fastbp
