// Narrow networks on tensor cores (kernels/cuda/train/narrow_tensor.cu): where their matrices lie in
// shared memory, and which warp has which gradients.
#include <algorithm>
#include <cstdint>

#include "engine/cuda/narrow.h"
#include "ops/activations.h"

namespace fastbp {
namespace cuda {
namespace {

constexpr int kSquare = 64;  // of the gradients in a warp's registers

index_t round_up(index_t n, index_t to) { return ceil_div(n, to) * to; }

bool by_four(const void* begin, index_t row) {
  return reinterpret_cast<std::uintptr_t>(begin) % 16 == 0 && row % 4 == 0;
}

bool is_short(const NarrowStage& s) {
  return s.activation == activation_number<Identity>() || s.activation == activation_number<Relu>();
}

}  // namespace

// As narrow_tensor_math.cuh has them.
NarrowMatrix NarrowPlan::tensor_matrix(index_t rows, index_t cols) {
  const int row = narrow_columns(cols);
  args_.shared_bytes = int(round_up(args_.shared_bytes, 2 * kSquare));
  return {take(rows * row * 2), row};
}

void NarrowPlan::place_tensor_matrices(const NetworkLayout& layout, int tile) {
  args_ = {};
  args_.tile = tile;
  args_.stages = int(layout.stages.size());
  args_.count = layout.parameter_count;
  for (int i = 0; i < args_.stages; ++i) {
    NarrowStage& s = args_.stage[i] = narrow_stage(layout.stages[std::size_t(i)]);
    s.in = tensor_matrix(tile, s.inputs);
    if (i > 0) args_.stage[i - 1].out = s.in;
  }
  bool waits = false;  // sums for activations that are not short
  for (int i = 0; i < args_.stages; ++i) {
    NarrowStage& s = args_.stage[i];
    const bool last = i + 1 == args_.stages;
    if (last) s.out = floats(tile, s.outputs);
    if (s.keeps_y) s.kept = s.out;
    if (s.keeps_z) s.kept = last ? floats(tile, s.outputs) : tensor_matrix(tile, s.outputs);
    s.delta = tensor_matrix(tile, s.outputs);
    s.weights = tensor_matrix(narrow_columns(s.inputs), s.outputs);
    s.biases = take(narrow_columns(s.outputs) * 4);
    waits |= !last && !is_short(s);
  }
  args_.dy = take(tile * layout.outputs * 4);
  args_.target = take(tile * layout.outputs * 4);
  args_.labels = take(tile * 8);
  args_.places = take(tile * 8);
  args_.values = take(tile * 8);              // of metrics
  args_.gradient = take(kNarrowThreads * 8);  // of biases
  args_.unit = take(kNarrowUnitBytes);
  if (waits) args_.scratch = take(tile * kSquare * 4);
}

// Squares of 64 x 64 of the stages' gradients, one for each warp. False where they are too many.
bool NarrowPlan::place_squares() {
  int count = 0;
  for (int i = 0; i < args_.stages; ++i)
    for (int row = 0; row < args_.stage[i].inputs; row += kSquare)
      for (int col = 0; col < args_.stage[i].outputs; col += kSquare) {
        if (count == kNarrowWarps) return false;
        args_.square[count++] = {i, row, col};
      }
  return true;
}

// As many units as the device has blocks for; of each as few tiles as there can be, of about the same
// height.
NarrowBatch NarrowPlan::tensor_batch(index_t rows) const {
  NarrowBatch b;
  b.rows = int(rows);
  b.unit = int(round_up(ceil_div(rows, grid_), 16));
  b.tile = int(round_up(ceil_div(b.unit, ceil_div(b.unit, args_.tile)), 16));
  b.units = int(ceil_div(rows, b.unit));
  return b;
}

void NarrowPlan::take_tensor_paths(NarrowArgs& args) {
  const NarrowStage &first = args.stage[0], &last = args.stage[args.stages - 1];
  args.x_by_four = by_four(args.x, first.inputs);
  args.wanted_by_four = by_four(args.wanted, last.outputs);
  args.weights_by_four = by_four(args.parameters.w, 0);
}

}  // namespace cuda
}  // namespace fastbp
