#include "engine/plan.h"

#include <algorithm>

#include "kernels/args.h"

namespace fastbp {
namespace {

constexpr index_t kBlockAlignment = 16;  // elements; 64 or 128 bytes

// Sizes are sums and products of what a user asked for: std::bad_alloc where they overflow.
index_t sum(index_t a, index_t b) { return index_t(checked_sum(std::size_t(a), std::size_t(b))); }
index_t product(index_t a, index_t b) {
  return index_t(checked_product(std::size_t(a), std::size_t(b)));
}
index_t round_up(index_t n, index_t multiple) { return sum(n, multiple - 1) / multiple * multiple; }

#define FBP_SAVES(A) A::saves,
constexpr Saves kSaves[] = {FBP_ACTIVATIONS(FBP_SAVES)};
#undef FBP_SAVES

// Adds a matrix of `capacity` rows: rows begin at cache lines, unless `contiguous`.
BatchMatrix add_matrix(ArenaLayout& arena, index_t capacity, index_t width, bool ones,
                       bool contiguous, std::size_t element_size) {
  const index_t line = index_t(kCacheLine / element_size);
  BatchMatrix m;
  m.width = width;
  m.ones = ones;
  m.row = contiguous ? width : round_up(sum(width, ones ? 1 : 0), line);
  m.offset = arena.add(checked_product(std::size_t(product(capacity, m.row)), element_size));
  return m;
}

bool reads_ones(const NetworkLayout& layout, std::size_t stage) {
  return stage < layout.stages.size() && layout.stages[stage].dense && layout.stages[stage].bias;
}

}  // namespace

NetworkLayout make_layout(const NetworkSpec& spec) {
  NetworkLayout layout;
  layout.inputs = spec.inputs;
  index_t width = spec.inputs, offset = 0;
  for (const LayerSpec& layer : spec.layers) {
    auto& stages = layout.stages;
    if (layer.kind == LayerSpec::Kind::dense) {
      Stage stage;
      stage.dense = true;
      stage.inputs = width;
      stage.outputs = width = layer.units;
      stage.bias = layer.use_bias;
      stage.parameter_offset = offset;
      const index_t rows = sum(stage.inputs, stage.bias ? 1 : 0);
      offset = round_up(sum(offset, product(rows, stage.outputs)), kBlockAlignment);
      layout.multiply_adds_per_row += double(stage.inputs) * double(stage.outputs);
      stages.push_back(stage);
      continue;
    }
    const bool fuse = !stages.empty() && stages.back().dense && stages.back().activation == 0;
    if (!fuse) {
      Stage stage;
      stage.inputs = stage.outputs = width;
      stages.push_back(stage);
    }
    stages.back().activation = layer.activation;
    stages.back().param = layer.param;
    stages.back().saves = kSaves[layer.activation];
  }
  layout.outputs = width;
  layout.parameter_count = offset;
  return layout;
}

Plan make_plan(const NetworkLayout& layout, index_t capacity, std::size_t element_size,
               bool training) {
  Plan plan;
  plan.capacity = capacity;
  plan.blocks = capacity / kLossBlockRows + (capacity % kLossBlockRows != 0);
  ArenaLayout& arena = plan.arena;
  const auto add = [&](index_t width, bool ones, bool contiguous) {
    return add_matrix(arena, capacity, width, ones, contiguous, element_size);
  };
  const std::size_t last = layout.stages.size() - 1;
  index_t widest = 0;  // of the inner outputs
  for (std::size_t s = 0; s < last; ++s) widest = std::max(widest, layout.stages[s].outputs);

  BatchMatrix ring[2];  // inference keeps two inner outputs: the one read and the one written
  if (training) {
    plan.x = add(layout.inputs, reads_ones(layout, 0), false);
    plan.target = add(layout.outputs, false, true);
    plan.labels_offset = arena.add(checked_product(std::size_t(capacity), sizeof(std::int64_t)));
    for (BatchMatrix& delta : plan.delta) delta = add(widest, false, false);
  } else {
    for (BatchMatrix& buffer : ring) buffer = add(widest, false, false);
  }
  for (std::size_t s = 0; s <= last; ++s) {
    const Stage& stage = layout.stages[s];
    const bool own = training || s == last;
    plan.y.push_back(own ? add(stage.outputs, s < last && reads_ones(layout, s + 1), s == last)
                         : ring[s % 2]);
    const bool keeps_z = training && stage.dense && stage.saves == Saves::Input;
    plan.z.push_back(keeps_z ? add(stage.outputs, false, false) : plan.y.back());
  }
  plan.last_delta = add(layout.outputs, false, true);
  plan.block_sums_offset = arena.add(checked_product(
      checked_product(std::size_t(plan.blocks), std::size_t(1 + kMaxMetrics)), sizeof(double)));
  return plan;
}

}  // namespace fastbp
