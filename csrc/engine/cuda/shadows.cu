#include "engine/cuda/shadows.h"

namespace fastbp {
namespace cuda {

void Shadows::lay_out_weights(const NetworkLayout& layout) {
  // The update's product has the row of biases too.
  weights.lay_out(
      layout, [](const Stage& s) { return s.inputs + 1; },
      [](const Stage& s) { return s.outputs; });
}

void Shadows::lay_out_input(const NetworkLayout& layout, index_t rows) {
  input.lay_out(
      layout, [&](const Stage&) { return rows; }, [](const Stage& s) { return s.inputs + 1; });
  input_rows = rows;
}

void Shadows::lay_out_delta(const NetworkLayout& layout, index_t rows) {
  delta.lay_out(
      layout, [&](const Stage&) { return rows; }, [](const Stage& s) { return s.outputs; });
  delta_rows = rows;
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
    if (!stage.dense() || !stage.bias) continue;
    const cudaError_t error = write_shadow_ones(input.of(s), stage.inputs, input_rows, stream);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace cuda
}  // namespace fastbp
