// The shadows of a network's matrices (kernels/cuda/train/tensor.h): what training with 16-bit
// operands has on the device besides, and the products that read it.
#pragma once

#include <algorithm>
#include <vector>

#include "core/arena.h"
#include "engine/layout.h"
#include "kernels/cuda/train/tensor.h"

namespace fastbp {
namespace cuda {

// How large a stage's shadow is; no rows: it has none.
struct ShadowSize { index_t rows = 0, cols = 0; };

// Shadows of stages, in one piece of memory.
class ShadowSet {
 public:
  unsigned char* memory = nullptr;
  Half kind = Half::bfloat16;

  // size_of(stage), a ShadowSize.
  template <class SizeOf> void lay_out(const NetworkLayout& layout, const SizeOf& size_of) {
    arena_ = {};
    places_.assign(layout.stages.size(), {});
    for (std::size_t s = 0; s < layout.stages.size(); ++s) {
      const ShadowSize size = size_of(layout.stages[s]);
      if (size.rows == 0) continue;
      const index_t row = shadow_row(size.cols);
      places_[s] = {arena_.add(array_bytes<std::uint16_t>(size.rows, row)), row};
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

// Rows of a batch, and their steps together: not the most steps of one, which of many rows would be more
// than any batch has.
struct ShadowRoom {
  index_t rows = 0, places = 0;

  bool holds(const ShadowRoom& other) const { return rows >= other.rows && places >= other.places; }
  ShadowRoom and_of(const ShadowRoom& other) const {
    return {std::max(rows, other.rows), std::max(places, other.places)};
  }
  // Rows of a stage's outputs; and of the states that a way of a scan has.
  index_t of(const Stage& stage) const { return stage.sequence ? places : rows; }
  index_t states() const { return places + rows; }
};

// What the products of such a network read: the weights of each dense stage, its input, its dz. Of a scan
// stage the states that its steps begin with (of each way a block of states() rows), and the gates'
// gradients (of each way `places`) where those are not the dz of the dense stage below: its recurrent
// weights are rounded as they are read.
struct Shadows {
  ShadowSet weights, input, delta;
  ShadowRoom input_room, delta_room;

  void set_kind(Half kind) { weights.kind = input.kind = delta.kind = kind; }

  void lay_out_weights(const NetworkLayout& layout);
  void lay_out_input(const NetworkLayout& layout, const ShadowRoom& room);
  void lay_out_delta(const NetworkLayout& layout, const ShadowRoom& room);
  // Whether a scan's gates' gradients have a shadow of their own: where a cell keeps some of them apart,
  // and where those of the second way would not begin at 16 bytes.
  static bool has_own_gates(const Stage& stage) {
    return cell_info(stage.cell).keeps > 0 ||
           (stage.way_count() == 2 && stage.parameter_cols % kShadowGroup != 0);
  }
  // The weights' from the flat parameters.
  cudaError_t refresh(const NetworkLayout& layout, const float* parameters,
                      cudaStream_t stream) const;
  // The ones behind the rows that a layer with bias reads.
  cudaError_t write_ones(const NetworkLayout& layout, cudaStream_t stream) const;
};

}  // namespace cuda
}  // namespace fastbp
