// The three products of a dense stage, made exactly, or on tensor cores: in TF32, or from shadows
// (shadows.h).
//
// An object serves one pass over the stages. It follows what has a shadow: a product writes that of
// what it makes where the next dense stage reads it; what other kernels make gets one when it is read.
#pragma once

#include "engine/cuda/resources.h"
#include "engine/cuda/shadows.h"
#include "kernels/cuda/train/kernels.h"
#include "kernels/cuda/train/tf32.h"

namespace fastbp {
namespace cuda {

// How a network's products are made; exactly, unless either is set, which is for float alone.
struct ProductMode {
  const Shadows* shadows = nullptr;
  bool tf32 = false;

  index_t blocks(index_t m, index_t n) const {
    return shadows || tf32 ? tensor_blocks(m, n) : product_blocks(m, n);
  }
};

template <class T> class Products {
 public:
  Products(const NetworkLayout& layout, const ProductMode& mode, cudaStream_t stream)
      : layout_(layout), shadows_(mode.shadows), tf32_(mode.tf32), stream_(stream) {}

  // Another kernel has made what the next product reads.
  void other_made() { shadowed_ = false; }

  // y of stage s. next: the stage that reads it, or one past the last.
  void forward(std::size_t s, const GemmArgs<T>& g, const ActivationTile<T>& tile,
               std::size_t next) {
    constexpr const char* what = "forward pass";
    const int activation = layout_.stages[s].activation;
    if constexpr (is_float)
      if (shadows_) {
        const Shadow x = shadows_->input.of(s);
        if (!shadowed_) check(write_shadow(g.a, g.a_row, g.m, g.k, x, stream_), what);
        const Shadow y = is_dense(next) ? shadows_->input.of(next) : Shadow{};
        shadowed_ = y.at != nullptr;
        const TensorArgs args{g.m, g.n, g.k, x, shadows_->weights.of(s), g.bias, g.c, g.c_row};
        return check(tensor_forward(args, activation, tile, y, stream_), what);
      }
    if constexpr (is_float)
      if (tf32_) return check(tf32_forward(g, activation, tile, stream_), what);
    check(forward_product(g, activation, tile, stream_), what);
  }

  // Stage s reads dz (rows, outputs) from now on, in its two products of the backward pass.
  void take_delta(std::size_t s, const T* dz, index_t dz_row, index_t rows) {
    if constexpr (is_float)
      if (shadows_ && !shadowed_)
        check(write_shadow(dz, dz_row, rows, layout_.stages[s].outputs, shadows_->delta.of(s),
                           stream_),
              kBackward);
    shadowed_ = false;
  }
  // The delta of what stage s reads. below: the stage whose dz that is; one past the last where it is
  // nobody's.
  void delta(std::size_t s, const GemmArgs<T>& g, int activation, const ActivationTile<T>& tile,
             std::size_t below) {
    if constexpr (is_float)
      if (shadows_) {
        const Shadow dz = is_dense(below) ? shadows_->delta.of(below) : Shadow{};
        shadowed_ = dz.at != nullptr;
        const TensorArgs args{g.m,     g.n,     g.k, shadows_->delta.of(s), shadows_->weights.of(s),
                              nullptr, nullptr, 0};
        return check(tensor_delta(args, activation, tile, dz, stream_), kBackward);
      }
    if constexpr (is_float)
      if (tf32_) return check(tf32_delta(g, activation, tile, stream_), kBackward);
    check(delta_product(g, activation, tile, stream_), kBackward);
  }

  // The gradient of the parameters, into the optimizer.
  void update(std::size_t s, const GemmArgs<T>& g, int optimizer, const Parameters<T>& to,
              const StepTable<T>& steps) const {
    if constexpr (is_float)
      if (shadows_)
        return check(tensor_update(gradient_args(s, g), optimizer, to, steps,
                                   shadows_->weights.of(s), stream_),
                     kBackward);
    if constexpr (is_float)
      if (tf32_) return check(tf32_update(g, optimizer, to, steps, stream_), kBackward);
    check(update_product(g, optimizer, to, steps, stream_), kBackward);
  }
  // The same, stored as store_product does.
  void store(std::size_t s, const GemmArgs<T>& g, index_t parts, index_t part) const {
    if constexpr (is_float)
      if (shadows_)
        return check(tensor_store(gradient_args(s, g), g.chunk, parts, part, stream_), kBackward);
    if constexpr (is_float)
      if (tf32_) return check(tf32_store(g, parts, part, stream_), kBackward);
    check(store_product(g, parts, part, stream_), kBackward);
  }
  // The parameters have been updated in one piece.
  void refresh(const T* parameters) const {
    if constexpr (is_float)
      if (shadows_) check(shadows_->refresh(layout_, parameters, stream_), kBackward);
  }

 private:
  static constexpr bool is_float = sizeof(T) == sizeof(float);
  static constexpr const char* kBackward = "backward pass";

  bool is_dense(std::size_t stage) const {
    return stage < layout_.stages.size() && layout_.stages[stage].dense();
  }
  TensorArgs gradient_args(std::size_t s, const GemmArgs<T>& g) const {
    TensorArgs args{g.m, g.n, g.k, shadows_->input.of(s), shadows_->delta.of(s)};
    if constexpr (is_float) args.c = g.c;
    args.c_row = g.c_row;
    return args;
  }

  const NetworkLayout& layout_;
  const Shadows* shadows_;
  bool tf32_;
  cudaStream_t stream_;
  bool shadowed_ = false;
};

}  // namespace cuda
}  // namespace fastbp
