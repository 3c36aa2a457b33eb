// What blas_products.cu does to choose a way: runs of it timed, values compared, an update tried on
// copies. Included by that file; no symbol leaves it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <utility>
#include <vector>

#include "engine/cuda/blas_products.h"
#include "engine/cuda/resources.h"

namespace fastbp {
namespace cuda {
namespace {

constexpr int kRounds = 3;  // of which the fastest counts
// A round is as many runs, recorded and replayed at once, as take so many microseconds: between
// events a single short one would be as long as its launches, which a recorded step does not wait for.
constexpr double kRoundTime = 200;
constexpr int kMostRuns = 16;
// Both sum the same products, rounded before: what differs is the order, and of TF32 the rounding
// (2^-11 of an operand, or 2^-10 where bits are cut off). A wrong layout is off by whole values.
constexpr double kAgreement = 1.0 / 128;

// Host copies of `rows` rows of a matrix, one behind the other.
template <class V>
std::vector<V> copied_rows(const V* at, index_t row, index_t rows, index_t cols,
                           cudaStream_t stream) {
  std::vector<V> all(std::size_t((rows - 1) * row + cols)), values;
  check(cudaMemcpyAsync(all.data(), at, all.size() * sizeof(V), cudaMemcpyDeviceToHost, stream),
        "comparing products");
  check(cudaStreamSynchronize(stream), "comparing products");
  for (index_t i = 0; i < rows; ++i)
    values.insert(values.end(), all.begin() + i * row, all.begin() + i * row + cols);
  return values;
}

float widened(std::uint16_t bits, Half kind) {
  if (kind == Half::bfloat16) {
    const std::uint32_t wide = std::uint32_t(bits) << 16;
    float value = 0;
    std::memcpy(&value, &wide, sizeof value);
    return value;
  }
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  float value =
      std::ldexp(float(exponent ? 1024 + fraction : fraction), (exponent ? exponent : 1) - 25);
  if (exponent == 31)
    value =
        fraction ? std::numeric_limits<float>::quiet_NaN() : std::numeric_limits<float>::infinity();
  return bits >> 15 ? -value : value;
}

template <class V>
void fill_ones(V* at, index_t row, index_t rows, index_t cols, cudaStream_t stream) {
  for (index_t i = 0; i < rows; ++i)
    check(cudaMemsetAsync(at + i * row, 0xff, std::size_t(cols) * sizeof(V), stream),
          "comparing products");
}

// Whether they are the same but for the order of sums; values that are not finite, in the same places.
bool agree(const std::vector<float>& found, const std::vector<float>& wanted) {
  double most = 0;
  for (float w : wanted)
    if (std::isfinite(w)) most = std::max(most, std::fabs(double(w)));
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    if (std::isfinite(wanted[i]) != std::isfinite(found[i])) return false;
    if (std::isfinite(wanted[i]) && !(std::fabs(double(found[i]) - wanted[i]) <= kAgreement * most))
      return false;
  }
  return true;
}

// Microseconds of a run; infinite where it fails.
double timed(const std::function<cudaError_t()>& run, cudaStream_t stream) {
  Event events[2];
  for (Event& event : events) {
    cudaEvent_t made = nullptr;
    check(cudaEventCreate(&made), "timing products");
    event = Event(made);
  }
  check(cudaEventRecord(events[0].get(), stream), "timing products");
  if (run() != cudaSuccess) return std::numeric_limits<double>::infinity();
  check(cudaEventRecord(events[1].get(), stream), "timing products");
  check(cudaEventSynchronize(events[1].get()), "timing products");
  float milliseconds = 0;
  check(cudaEventElapsedTime(&milliseconds, events[0].get(), events[1].get()), "timing products");
  return 1000 * double(milliseconds);
}

using Recorded = Owned<cudaGraphExec_t, cudaGraphExecDestroy>;

// So many runs; none where the stream cannot be recorded or a run fails.
Recorded recorded(const std::function<cudaError_t()>& run, int runs, cudaStream_t stream) {
  if (cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) != cudaSuccess) {
    cudaGetLastError();
    return {};
  }
  bool enqueued = true;
  for (int i = 0; i < runs && enqueued; ++i) enqueued = run() == cudaSuccess;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t made = nullptr;
  check(cudaStreamEndCapture(stream, &graph), "timing products");
  const cudaError_t error = enqueued ? cudaGraphInstantiate(&made, graph, 0) : cudaSuccess;
  cudaGraphDestroy(graph);
  check(error, "timing products");
  return Recorded(made);
}

// Microseconds of one run among several; `once`: of a single one, by far the longest it can be.
double timed_together(const std::function<cudaError_t()>& run, double once, cudaStream_t stream,
                      const std::function<bool(double)>& again) {
  const int runs = std::max(1, std::min(kMostRuns, int(kRoundTime / std::max(once, 1.0))));
  const Recorded graph = recorded(run, runs, stream);
  const auto round = [&] {
    return graph.get() ? timed([&] { return cudaGraphLaunch(graph.get(), stream); }, stream) / runs
                       : timed(run, stream);
  };
  double best = std::numeric_limits<double>::infinity();
  for (int done = 0; done < kRounds && (done == 0 || again(best)); ++done)
    best = std::min(best, round());
  return best;
}

// Device memory for a moment; null where there is none left.
Owned<void*, cudaFree> scratch(std::size_t bytes) {
  void* data = nullptr;
  if (cudaMalloc(&data, bytes) != cudaSuccess) {
    cudaGetLastError();
    return {};
  }
  return Owned<void*, cudaFree>(data);
}

// A vector on the device whose first value is NaN, the others 0.
Owned<void*, cudaFree> broken_bias(index_t n, cudaStream_t stream) {
  Owned<void*, cudaFree> made = scratch(std::size_t(n) * sizeof(float));
  if (!made.get()) return made;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  check(cudaMemsetAsync(made.get(), 0, std::size_t(n) * sizeof(float), stream), "timing products");
  check(cudaMemcpyAsync(made.get(), &nan, sizeof nan, cudaMemcpyHostToDevice, stream),
        "timing products");
  check(cudaStreamSynchronize(stream), "timing products");
  return made;
}

// Copies of what an update changes, so that it can be tried.
struct TrialParameters {
  Owned<void*, cudaFree> memory;
  Parameters<float> to;
  Shadow w;

  TrialParameters(const BlasUpdate& u, cudaStream_t stream) {
    const std::size_t count = std::size_t(u.gradient.m * u.gradient.n);
    const std::size_t shadow = u.w.at ? std::size_t(u.gradient.m * u.w.row) * 2 : 0;
    memory = scratch(3 * count * sizeof(float) + shadow);
    if (!memory.get()) return;
    float* at = static_cast<float*>(memory.get());
    const auto copied = [&](const float* from) -> float* {
      if (!from) return nullptr;
      check(cudaMemcpyAsync(at, from, count * sizeof(float), cudaMemcpyDeviceToDevice, stream),
            "timing products");
      return std::exchange(at, at + count);
    };
    to = {copied(u.to.w), {copied(u.to.slot[0]), copied(u.to.slot[1])}};
    w = u.w;
    if (u.w.at)
      w.at = reinterpret_cast<std::uint16_t*>(static_cast<float*>(memory.get()) + 3 * count);
  }
};

}  // namespace
}  // namespace cuda
}  // namespace fastbp
