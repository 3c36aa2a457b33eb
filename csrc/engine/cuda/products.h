// The three products of a dense stage, made exactly, or on tensor cores: in TF32, or from shadows
// (shadows.h); those on tensor cores by cuBLASLt where that is faster (blas_products.h).
//
// An object serves one pass over the stages. It follows what has a shadow: a product writes that of
// what it makes where the next dense stage reads it; what other kernels make gets one when it is read.
#pragma once

#include "engine/cuda/blas_products.h"
#include "engine/cuda/resources.h"
#include "engine/cuda/shadows.h"
#include "kernels/cuda/train/kernels.h"
#include "kernels/cuda/train/stored.h"
#include "kernels/cuda/train/tf32.h"

namespace fastbp {
namespace cuda {

// How a network's products are made; exactly, unless either is set, which is for float alone.
struct ProductMode {
  const Shadows* shadows = nullptr;
  bool tf32 = false;
  BlasProducts* blas = nullptr;  // of those two

  bool on_tensor_cores() const { return shadows || tf32; }
  // What products that have no shadows make of their operands.
  Rounding rounding() const {
    if (tf32) return Rounding::tf32;
    if (!shadows) return Rounding::none;
    return shadows->weights.kind == Half::float16 ? Rounding::float16 : Rounding::bfloat16;
  }
  index_t blocks(index_t m, index_t n) const {
    return on_tensor_cores() ? tensor_blocks(m, n) : product_blocks(m, n);
  }
  // Of a sum over k, by a block.
  index_t chunks_at_once() const { return on_tensor_cores() ? 1 : product_chunks_at_once(); }
};

// Where the parts of a sum lie that is taken in several, `apart` values apart.
template <class T> struct GradientParts {
  T* at = nullptr;
  index_t count = 1, apart = 0;
};

template <class T> class Products {
 public:
  // shadowed: what the pass begins with has its shadow.
  Products(const NetworkLayout& layout, const ProductMode& mode, cudaStream_t stream,
           bool shadowed = false)
      : layout_(layout), shadows_(mode.shadows), tf32_(mode.tf32), blas_(mode.blas),
        stream_(stream), shadowed_(shadowed) {}

  // Another kernel has made what the next product reads.
  void other_made() { shadowed_ = false; }

  // y of stage s. next: the stage that reads it, or one past the last.
  void forward(std::size_t s, const GemmArgs<T>& g, const ActivationTile<T>& tile, std::size_t next,
               bool training) {
    constexpr const char* what = "forward pass";
    const int activation = layout_.stages[s].activation;
    if constexpr (is_float)
      if (shadows_) {
        const Shadow x = shadows_->input.of(s);
        if (!shadowed_) check(write_shadow(g.a, g.a_row, g.m, g.k, x, stream_), what);
        const Shadow y = is_dense(next) ? shadows_->input.of(next) : Shadow{};
        shadowed_ = y.at != nullptr;
        const TensorArgs args{g.m, g.n, g.k, x, shadows_->weights.of(s), g.bias, g.c, g.c_row};
        ActivationTile<T> read = tile;  // what anybody reads of it
        const bool by_derivative = training && layout_.stages[s].saves == Saves::Output;
        const bool rounded_alone = y.at && !g.c && !is_added(s + 1, next);
        if (rounded_alone && !by_derivative) read.out = nullptr;
        // relu's derivative is that of z, which may be left in y's place.
        const bool left = !rounded_alone || (by_derivative && activation != kRelu);
        const auto own = [&] { return tensor_forward(args, activation, read, y, stream_); };
        const BlasForward asked{s,
                                g.m,
                                g.n,
                                g.k,
                                operands(args),
                                g.bias,
                                g.c,
                                g.c_row,
                                activation,
                                tile,
                                left ? tile.out : nullptr,
                                y,
                                training};
        return check(blas_->forward(asked, own, stream_), what);
      }
    if constexpr (is_float)
      if (tf32_) {
        const auto own = [&] { return tf32_forward(g, activation, tile, stream_); };
        const BlasForward asked{s,       g.m,        g.n,  g.k,      operands(g), g.bias,  g.c,
                                g.c_row, activation, tile, tile.out, {},          training};
        return check(blas_->forward(asked, own, stream_), what);
      }
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
  // The same ahead of time, where a scan above it reads that too.
  void take_delta_early(std::size_t s, const T* dz, index_t dz_row, index_t rows) {
    take_delta(s, dz, dz_row, rows);
    shadowed_ = true;
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
        ActivationTile<T> read = tile;  // of a dense stage's dz nobody reads more than the shadow
        if (dz.at) read.out = nullptr;
        const auto own = [&] { return tensor_delta(args, activation, read, dz, stream_); };
        const Shadow y = dz.at ? shadows_->input.of(s) : Shadow{};
        const BlasDelta asked{below, g.m, g.n, g.k, operands(args), activation, tile, dz, y};
        return check(blas_->delta(asked, own, stream_), kBackward);
      }
    if constexpr (is_float)
      if (tf32_) {
        const auto own = [&] { return tf32_delta(g, activation, tile, stream_); };
        const BlasDelta asked{below, g.m, g.n, g.k, operands(g), activation, tile, {}, {}};
        return check(blas_->delta(asked, own, stream_), kBackward);
      }
    check(delta_product(g, activation, tile, stream_), kBackward);
  }

  // The gradient of the parameters, into the optimizer. It may come to lie at g.c; on tensor cores its
  // sum may be taken in parts.
  void update(std::size_t s, const GemmArgs<T>& g, const GradientParts<T>& parts, int optimizer,
              const Parameters<T>& to, const StepTable<T>& steps) const {
    if constexpr (is_float)
      if (shadows_ || tf32_) {
        const auto own = [&](const Parameters<T>& target, Shadow w) {
          if (parts.count > 1) {
            const cudaError_t error = store_parts(s, g, parts);
            return error != cudaSuccess ? error
                                        : stored_update(parts.at, parts.count, parts.apart, g.m,
                                                        g.n, optimizer, target, steps, w, stream_);
          }
          return shadows_ ? tensor_update(gradient_args(s, g), optimizer, target, steps, w, stream_)
                          : tf32_update(g, optimizer, target, steps, stream_);
        };
        const auto own_store = [&] { return store_whole(s, g); };
        const Shadow w = shadows_ ? shadows_->weights.of(s) : Shadow{};
        const BlasUpdate asked{blas_gradient(s, g, parts.count), optimizer, to, steps, w};
        return check(blas_->update(asked, own, own_store, stream_), kBackward);
      }
    check(update_product(g, optimizer, to, steps, stream_), kBackward);
  }
  // The same on tensor cores, stored at g.c.
  void store_sum(std::size_t s, const GemmArgs<T>& g, const GradientParts<T>& parts) const {
    if constexpr (is_float) {
      const auto own = [&] {
        if (parts.count == 1) return store_whole(s, g);
        const cudaError_t error = store_parts(s, g, parts);
        return error != cudaSuccess ? error
                                    : add_parts<T>(parts.at, parts.count, parts.apart, g.m * g.n,
                                                   g.c, kNoOptimizer, {}, {}, stream_);
      };
      check(blas_->store(blas_gradient(s, g, parts.count), own, stream_), kBackward);
    }
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
  // The same of a part of a batch of sequences, beside others: g's rows lie from `first` on of the stage's.
  void store_beside(std::size_t s, const GemmArgs<T>& g, index_t first, cudaStream_t branch) const {
    if constexpr (is_float)
      if (shadows_) {
        TensorArgs args = gradient_args(s, g);
        args.a = args.a.from(first), args.b = args.b.from(first);
        return check(tensor_store(args, g.k, 1, 0, branch), kBackward);
      }
    store_beside(g, branch);
  }
  // The same of what is no dense stage's, by g alone; and with shadows, which A and B are then.
  void store_beside(const GemmArgs<T>& g, cudaStream_t branch) const {
    if constexpr (is_float)
      if (tf32_) return check(tf32_store(g, 1, 0, branch), kBackward);
    check(store_product(g, 1, 0, branch), kBackward);
  }
  void store_beside(const GemmArgs<T>& g, const Shadow& a, const Shadow& b,
                    cudaStream_t branch) const {
    if constexpr (is_float)
      check(tensor_store({g.m, g.n, g.k, a, b, nullptr, g.c, g.c_row}, g.k, 1, 0, branch),
            kBackward);
  }
  // The parameters have been updated in one piece.
  void refresh(const T* parameters) const {
    if constexpr (is_float)
      if (shadows_) check(shadows_->refresh(layout_, parameters, stream_), kBackward);
  }

 private:
  static constexpr bool is_float = sizeof(T) == sizeof(float);
  static constexpr const char* kBackward = "backward pass";
  inline static const int kRelu = activation_number<Relu>();

  // Whether another stage adds what those from `first` to `last` read.
  bool is_added(std::size_t first, std::size_t last) const {
    for (std::size_t s = first; s <= last; ++s)
      if (!layout_.stages[s].joins.empty()) return true;
    return false;
  }
  bool is_dense(std::size_t stage) const {
    return stage < layout_.stages.size() && layout_.stages[stage].dense();
  }
  TensorArgs gradient_args(std::size_t s, const GemmArgs<T>& g) const {
    TensorArgs args{g.m, g.n, g.k, shadows_->input.of(s), shadows_->delta.of(s)};
    if constexpr (is_float) args.c = g.c;
    args.c_row = g.c_row;
    return args;
  }

  cudaError_t store_whole(std::size_t s, const GemmArgs<T>& g) const {
    return store_parts(s, g, {g.c, 1, 0});
  }
  cudaError_t store_parts(std::size_t s, GemmArgs<T> g, const GradientParts<T>& parts) const {
    g.c = parts.at;
    if constexpr (is_float)
      return shadows_
                 ? tensor_store(gradient_args(s, g), g.chunk, parts.count, parts.apart, stream_)
                 : tf32_store(g, parts.count, parts.apart, stream_);
  }

  // What cuBLASLt reads: rounded before, or float32 as it lies.
  static BlasOperands operands(const TensorArgs& args) {
    const auto type = args.a.kind == Half::float16 ? lt::kFloat16 : lt::kBfloat16;
    return {type, args.a.at, args.b.at, args.a.row, args.b.row};
  }
  static BlasOperands operands(const GemmArgs<T>& g) {
    return {lt::kFloat32, g.a, g.b, g.a_col == 1 ? g.a_row : g.a_col,
            g.b_col == 1 ? g.b_row : g.b_col};
  }
  BlasGradient blas_gradient(std::size_t s, const GemmArgs<T>& g, index_t parts) const {
    BlasGradient asked;
    asked.m = g.m, asked.n = g.n, asked.k = g.k;
    asked.in = shadows_ ? operands(gradient_args(s, g)) : operands(g);
    asked.bias = layout_.stages[s].bias;
    asked.parts = parts;
    if constexpr (is_float) asked.c = g.c;
    return asked;
  }

  const NetworkLayout& layout_;
  const Shadows* shadows_;
  bool tf32_;
  BlasProducts* blas_;
  cudaStream_t stream_;
  bool shadowed_;
};

}  // namespace cuda
}  // namespace fastbp
