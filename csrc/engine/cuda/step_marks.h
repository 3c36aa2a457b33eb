// Where the time of steps goes on a device: events between the parts of a step, in the order of the stream.
//
// In a step that is recorded as a graph they are nodes of it, so what is timed are the launches that a
// training step has otherwise; the host waits for each such step before the next one's times take the
// place of its own.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "engine/cuda/resources.h"
#include "engine/cuda/step_graph.h"
#include "engine/step_clock.h"

namespace fastbp {
namespace cuda {

class StepMarks {
 public:
  // In front of a step.
  void begin(cudaStream_t stream) {
    parts_.clear();
    record(0, stream);
  }
  // Behind a part of it, of that stage or of what `place` stands for in StepTimes.
  void spent(StepPart part, std::size_t place, cudaStream_t stream) {
    parts_.push_back({part, place});
    record(parts_.size(), stream);
  }
  // Waits for the step, enqueued or replayed, and adds its times.
  void add_to(StepTimes& times) const {
    check(cudaEventSynchronize(events_[parts_.size()].get()), kWhat);
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      float milliseconds = 0;
      check(cudaEventElapsedTime(&milliseconds, events_[i].get(), events_[i + 1].get()), kWhat);
      times.add(parts_[i].first, parts_[i].second, double(milliseconds) / 1e3);
    }
  }

 private:
  static constexpr const char* kWhat = "timing steps";

  void record(std::size_t number, cudaStream_t stream) {
    if (number == events_.size()) {
      cudaEvent_t event = nullptr;
      check(cudaEventCreateWithFlags(&event, cudaEventDefault), kWhat);
      events_.emplace_back(event);
    }
    cudaStreamCaptureStatus recording = cudaStreamCaptureStatusNone;
    check(cudaStreamIsCapturing(stream, &recording), kWhat);
    const bool node = recording == cudaStreamCaptureStatusActive;
    check(cudaEventRecordWithFlags(events_[number].get(), stream,
                                   node ? cudaEventRecordExternal : cudaEventRecordDefault),
          kWhat);
  }

  std::vector<std::pair<StepPart, std::size_t>> parts_;
  std::vector<Owned<cudaEvent_t, cudaEventDestroy>> events_;  // in front of the step, behind each
};

// The clock of a network's steps, while it runs.
class DeviceClock {
 public:
  StepTimes times;

  explicit DeviceClock(std::size_t stages) : times(stages) {}

  // The marks of steps of this kind, which its recording names.
  StepMarks& marks_of(const StepGraphs::Key& key) {
    for (const auto& known : kinds_)
      if (known.first == key) return *known.second;
    kinds_.emplace_back(key, std::make_unique<StepMarks>());
    return *kinds_.back().second;
  }

 private:
  std::vector<std::pair<StepGraphs::Key, std::unique_ptr<StepMarks>>> kinds_;
};

// Steps of one kind; where a clock runs, `marks` are theirs meanwhile.
class TimedSteps {
 public:
  TimedSteps(DeviceClock* clock, const StepGraphs::Key& key, StepMarks*& marks)
      : clock_(clock), marks_(marks) {
    if (clock) marks = &clock->marks_of(key);
  }
  ~TimedSteps() { marks_ = nullptr; }
  // They have been enqueued.
  void finish() const {
    if (clock_) marks_->add_to(clock_->times);
  }

 private:
  DeviceClock* clock_;
  StepMarks*& marks_;
};

}  // namespace cuda
}  // namespace fastbp
