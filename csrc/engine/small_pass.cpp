// Batches of small networks, which one worker takes up and down by two calls (kernels/small_network.h).
#include "engine/step.h"

namespace fastbp {
namespace {

// Up to so many parameters the gradient of all of them stays in L1 until they are updated, with what
// the update reads besides; beyond, each tile is updated as it is made.
constexpr index_t kSmallParameters = 4096;

bool is_small(const NetworkLayout& layout, bool in_parts) {
  if (layout.any_frozen || layout.sequences ||
      layout.stages.size() > std::size_t(SmallNetwork<float>::capacity))
    return false;
  if (!in_parts && layout.parameter_count > kSmallParameters) return false;
  for (const Stage& s : layout.stages)
    if (!s.dense() || s.inputs > kMaxChunk || s.outputs > kMaxChunk) return false;
  return true;
}

// Null where it would change nothing.
template <class T> TileOp<T> unless_identity(const TileOp<T>* of_activations, int activation) {
  return activation == 0 ? nullptr : of_activations[activation];
}

}  // namespace

template <class T> void Step<T>::describe_small_network() {
  const NetworkLayout& layout = *c_.layout;
  if (c_.gemm.run != c_.kernels->gemm || !is_small(layout, c_.in_parts)) return;
  const Window from{c_.in_parts ? share_.id * plan().part_rows : 0, 0, 0, {}};
  small_.w = c_.parameters.w;
  small_.scratch = c_.gemm_scratch + share_.id * c_.gemm.scratch;
  for (std::size_t i = 0; i < layout.stages.size(); ++i) {
    const Stage& stage = layout.stages[i];
    SmallStage<T>& s = small_.stage[i];
    const BatchMatrix& x = i == 0 ? plan().x : plan().y[i - 1];
    s.inputs = stage.inputs, s.input_chunk = stage.input_chunk, s.outputs = stage.outputs,
    s.bias = stage.bias;
    s.parameter_offset = stage.parameter_offset;
    s.param = T(stage.param);
    s.x = at(x, from), s.x_row = x.row;
    s.z = at(plan().z[i], from), s.z_row = plan().z[i].row;
    s.y = at(plan().y[i], from), s.y_row = plan().y[i].row;
    s.dz = at(plan().delta[i], from), s.dz_row = plan().delta[i].row;
    s.forward = unless_identity(c_.kernels->activation_forward, stage.activation);
    s.backward = unless_identity(c_.kernels->activation_backward, stage.activation);
    const Rows<const T> kept = saved(i).from(from.at);
    s.saved = kept.data, s.saved_row = kept.row;
  }
  small_.count = int(layout.stages.size());
}

// Whether the rows in work go through the kernels of small networks: this worker has them to itself,
// where they were described, and cannot be stopped among them.
template <class T> bool Step<T>::small() const {
  return small_.count > 0 && all_.share.count == 1 && all_.rows <= kMaxChunk && !c_.abort;
}

// A part of a network adds up its stage 1 with the others'.
template <class T> void Step<T>::small_forward() {
  const index_t stages = small_.count;
  if (!c_.link) return c_.kernels->small_forward(small_, all_.rows, {0, stages});
  c_.kernels->small_forward(small_, all_.rows, {0, 1});
  const BatchMatrix &x = plan().y[0], &y = plan().y[1];
  forward_dense(1, {at(x), x.row}, {at(y), y.row});
  c_.kernels->small_forward(small_, all_.rows, {2, stages});
}

template class Step<float>;
template class Step<double>;

}  // namespace fastbp
