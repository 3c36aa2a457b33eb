// Work that may go on side by side on a device: a fork of a stream into several, and their end.
#pragma once

#include <vector>

#include "engine/cuda/resources.h"

namespace fastbp {
namespace cuda {

// Streams beside one, for small kernels that do not wait for each other. In a graph that the stream
// records they are branches.
class Branches {
 public:
  static constexpr int kBranches = 8;

  // What is enqueued from now on by `next` comes behind what is on `stream`.
  void begin(cudaStream_t stream) {
    if (streams_.empty()) make();
    stream_ = stream;
    taken_ = 0;
    check(cudaEventRecord(begun_.get(), stream), kWhat);
  }
  // Where the next piece of work goes.
  cudaStream_t next() {
    const cudaStream_t to = streams_[std::size_t(taken_ % kBranches)].get();
    if (taken_++ < kBranches) check(cudaStreamWaitEvent(to, begun_.get(), 0), kWhat);
    return to;
  }
  // What is on the stream from now on comes behind all of them.
  void end() {
    for (int b = 0; b < kBranches && b < taken_; ++b) {
      check(cudaEventRecord(ended_[std::size_t(b)].get(), streams_[std::size_t(b)].get()), kWhat);
      check(cudaStreamWaitEvent(stream_, ended_[std::size_t(b)].get(), 0), kWhat);
    }
  }

 private:
  static constexpr const char* kWhat = "work side by side";

  void make() {
    begun_ = make_event();
    for (int b = 0; b < kBranches; ++b) {
      streams_.push_back(make_stream());
      ended_.push_back(make_event());
    }
  }

  std::vector<Stream> streams_;
  std::vector<Event> ended_;
  Event begun_;
  cudaStream_t stream_ = nullptr;
  int taken_ = 0;
};

}  // namespace cuda
}  // namespace fastbp
