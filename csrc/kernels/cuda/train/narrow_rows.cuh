// The rows of a narrow network's tiles (narrow.cu): which ones a block takes, one tile after another,
// and how they come to shared memory. What fits some registers a thread is asked for while the tile
// before is in work: loads from global memory take as long as a product.
#pragma once

#include "kernels/cuda/train/narrow_math.cuh"

namespace fastbp {
namespace cuda {
namespace {

// The run of a launch's steps through the epoch.
struct NarrowRun {
  std::int64_t batch, first_row;  // of the launch's first step

  FBP_FN explicit NarrowRun(const NarrowArgs& g)
      : batch(g.counter->batch), first_row(g.counter->first_row + batch * g.rows_per_batch) {}
  FBP_FN index_t begin(const NarrowArgs& g, int step) const {
    return first_row + step * g.rows_per_batch;
  }
  FBP_FN const NarrowBatch& kind(const NarrowArgs& g, int step) const {
    return g.n - begin(g, step) >= g.rows_per_batch ? g.whole : g.rest;
  }
};

// Rows that one block takes one after the other: the batch, or a unit of it.
FBP_FN int span_of(const NarrowArgs& g, const NarrowBatch& kind) {
  return g.alone ? kind.rows : kind.unit;
}
FBP_FN int end_of_span(const NarrowArgs& g, const NarrowBatch& kind, int span) {
  const int end = (span + 1) * span_of(g, kind);
  return end < kind.rows ? end : kind.rows;
}

// A block's tile: of which step and span, and its first row of the batch.
struct NarrowTile {
  int step = 0, span = 0, row = 0;

  FBP_FN NarrowTile(const NarrowArgs& g, const NarrowRun& run) : span(blockIdx.x) { find(g, run); }
  FBP_FN bool there(const NarrowArgs& g) const { return step < g.steps; }
  FBP_FN int rows(const NarrowArgs& g, const NarrowRun& run) const {
    const int left = end_of_span(g, run.kind(g, step), span) - row;
    return left < g.tile ? left : g.tile;
  }
  FBP_FN void advance(const NarrowArgs& g, const NarrowRun& run) {
    row += g.tile;
    if (row < end_of_span(g, run.kind(g, step), span)) return;
    span += gridDim.x;
    find(g, run);
  }

 private:
  // The first tile from the span on, in this step or in one that has enough of them.
  FBP_FN void find(const NarrowArgs& g, const NarrowRun& run) {
    FBP_UNROLL(1)
    for (; step < g.steps; ++step, span = blockIdx.x) {
      const NarrowBatch& kind = run.kind(g, step);
      row = span * span_of(g, kind);
      if (row < kind.rows) return;
    }
  }
};

// Rows of so many columns on their way from places in global memory, some of each thread's elements
// at once.
template <int at_once> struct RowsComing {
  float value[at_once];

  FBP_FN void load(const float* from, const std::int64_t* places, int cols, float reciprocal,
                   int begin, int end) {
    FBP_UNROLL(at_once)
    for (int u = 0; u < at_once; ++u) {
      const int e = begin + int(threadIdx.x) + u * kNarrowThreads, r = quotient(e, reciprocal);
      if (e < end) value[u] = from[places[r] * cols + (e - r * cols)];
    }
  }
  // to(row, column, value)
  template <class To>
  FBP_FN void store(int cols, float reciprocal, int begin, int end, To to) const {
    FBP_UNROLL(at_once)
    for (int u = 0; u < at_once; ++u) {
      const int e = begin + int(threadIdx.x) + u * kNarrowThreads, r = quotient(e, reciprocal);
      if (e < end) to(r, e - r * cols, value[u]);
    }
  }
};

// A tile's rows on their way. find() says where they are, for all threads to see at their next barrier;
// load() asks for the first of them; put() brings all to shared memory.
struct TileComing {
  static constexpr int kValues = 8, kTargets = 2;
  RowsComing<kValues> x;
  RowsComing<kTargets> target;
  std::int64_t label;

  FBP_DEVICE static void find(const NarrowArgs& g, unsigned char* shared, index_t first, int rows) {
    const int r = threadIdx.x;
    if (r < rows) at<std::int64_t>(shared, g.places)[r] = g.order ? g.order[first + r] : first + r;
  }
  FBP_DEVICE void load(const NarrowArgs& g, unsigned char* shared, int rows) {
    const NarrowStage &bottom = g.stage[0], &top = g.stage[g.stages - 1];
    const std::int64_t* const places = at<std::int64_t>(shared, g.places);
    x.load(g.x, places, bottom.inputs, bottom.of_inputs, 0, rows * bottom.inputs);
    if (g.wanted) target.load(g.wanted, places, top.outputs, top.of_outputs, 0, rows * top.outputs);
    if (g.classes && int(threadIdx.x) < rows) label = g.classes[places[threadIdx.x]];
  }
  template <bool ruled> FBP_DEVICE void put(const NarrowArgs& g, unsigned char* shared, int rows) {
    const NarrowStage &bottom = g.stage[0], &top = g.stage[g.stages - 1];
    const std::int64_t* const places = at<std::int64_t>(shared, g.places);
    float *const to = at<float>(shared, bottom.in.at), *const to_t =
                                                           at<float>(shared, bottom.in_t.at);
    const int values = rows * bottom.inputs;
    FBP_UNROLL(1)
    for (int begin = 0; begin < values; begin += kValues * kNarrowThreads) {
      if (begin > 0) x.load(g.x, places, bottom.inputs, bottom.of_inputs, begin, values);
      x.store(bottom.inputs, bottom.of_inputs, begin, values, [&](int r, int j, float v) {
        to[r * bottom.in.row + j] = to_t[j * bottom.in_t.row + r] = v;
      });
    }
    const int targets = g.wanted ? rows * top.outputs : 0;
    float* const wanted = at<float>(shared, g.target);
    FBP_UNROLL(1)
    for (int begin = 0; begin < targets; begin += kTargets * kNarrowThreads) {
      if (begin > 0) target.load(g.wanted, places, top.outputs, top.of_outputs, begin, targets);
      target.store(top.outputs, top.of_outputs, begin, targets,
                   [&](int r, int j, float v) { wanted[r * top.outputs + j] = v; });
    }
    const int r = threadIdx.x;
    if (g.classes && r < rows) at<std::int64_t>(shared, g.labels)[r] = label;
    if (ruled && g.weight && r < rows) {
      const float weight = g.weight[places[r]];
      FBP_UNROLL(1)
      for (int j = 0; j < g.weight_copies; ++j)
        at<float>(shared, g.weights)[r * g.weight_copies + j] = weight;
    }
  }
};

}  // namespace
}  // namespace cuda
}  // namespace fastbp
