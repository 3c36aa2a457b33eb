#include "engine/cuda/shadows.h"

namespace fastbp {
namespace cuda {

void Shadows::lay_out_weights(const NetworkLayout& layout) {
  // The update's product has the row of biases too.
  weights.lay_out(layout, [](const Stage& s) -> ShadowSize {
    if (!s.dense()) return {};
    return {s.inputs + 1, s.outputs};
  });
}

void Shadows::lay_out_input(const NetworkLayout& layout, const ShadowRoom& room) {
  input.lay_out(layout, [&](const Stage& s) -> ShadowSize {
    if (s.scan()) return {s.way_count() * room.states(), s.units + 1};
    if (!s.dense()) return {};
    return {room.of(s), s.inputs + 1};
  });
  input_room = room;
}

void Shadows::lay_out_delta(const NetworkLayout& layout, const ShadowRoom& room) {
  delta.lay_out(layout, [&](const Stage& s) -> ShadowSize {
    if (s.scan() && has_own_gates(s)) return {s.way_count() * room.places, s.parameter_cols};
    if (!s.dense()) return {};
    return {room.of(s), s.outputs};
  });
  delta_room = room;
}

cudaError_t Shadows::refresh(const NetworkLayout& layout, const float* parameters,
                             cudaStream_t stream) const {
  for (std::size_t s = 0; s < layout.stages.size(); ++s) {
    const Stage& stage = layout.stages[s];
    if (!stage.dense()) continue;
    const cudaError_t error = write_shadow(parameters + stage.parameter_offset, stage.outputs,
                                           stage.inputs, stage.outputs, weights.of(s), stream);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

cudaError_t Shadows::write_ones(const NetworkLayout& layout, cudaStream_t stream) const {
  for (std::size_t s = 0; s < layout.stages.size(); ++s) {
    const Stage& stage = layout.stages[s];
    if (!(stage.dense() || stage.scan()) || !stage.bias) continue;
    const cudaError_t error =
        stage.scan() ? write_shadow_ones(input.of(s), stage.units,
                                         stage.way_count() * input_room.states(), stream)
                     : write_shadow_ones(input.of(s), stage.inputs, input_room.of(stage), stream);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace cuda
}  // namespace fastbp
