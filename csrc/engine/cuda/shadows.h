// The shadows of a network's matrices (kernels/cuda/train/tensor.h): what training with 16-bit
// operands has on the device besides, and the products that read it.
#pragma once

#include <vector>

#include "core/arena.h"
#include "engine/plan.h"
#include "kernels/cuda/train/tensor.h"

namespace fastbp {
namespace cuda {

// A shadow for each dense stage, in one piece of memory.
class ShadowSet {
 public:
  unsigned char* memory = nullptr;
  Half kind = Half::bfloat16;

  // rows(stage) x cols(stage) values of each dense stage.
  template <class Rows, class Cols>
  void lay_out(const NetworkLayout& layout, const Rows& rows, const Cols& cols) {
    arena_ = {};
    places_.assign(layout.stages.size(), {});
    for (std::size_t s = 0; s < layout.stages.size(); ++s) {
      const Stage& stage = layout.stages[s];
      if (!stage.dense()) continue;
      const index_t row = shadow_row(cols(stage));
      places_[s] = {arena_.add(array_bytes<std::uint16_t>(rows(stage), row)), row};
    }
  }
  std::size_t bytes() const { return arena_.total(); }
  Shadow of(std::size_t stage) const {
    return {reinterpret_cast<std::uint16_t*>(memory + places_[stage].offset), places_[stage].row,
            kind};
  }

 private:
  struct Place {
    std::size_t offset = 0;
    index_t row = 0;
  };
  ArenaLayout arena_;
  std::vector<Place> places_;
};

// What the products of such a network read: the weights of each dense stage, its input, its dz.
struct Shadows {
  ShadowSet weights, input, delta;
  index_t input_rows = 0, delta_rows = 0;  // that there is room for

  void set_kind(Half kind) { weights.kind = input.kind = delta.kind = kind; }

  void lay_out_weights(const NetworkLayout& layout);
  void lay_out_input(const NetworkLayout& layout, index_t rows);
  void lay_out_delta(const NetworkLayout& layout, index_t rows);
  // The weights' from the flat parameters.
  cudaError_t refresh(const NetworkLayout& layout, const float* parameters,
                      cudaStream_t stream) const;
  // The ones behind the rows that a layer with bias reads.
  cudaError_t write_ones(const NetworkLayout& layout, cudaStream_t stream) const;
};

}  // namespace cuda
}  // namespace fastbp
