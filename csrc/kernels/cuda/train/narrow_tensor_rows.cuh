// What a warp of narrow_tensor.cu does with its 16 rows of a tile: forward, loss and deltas, without
// waiting for other warps. What a layer makes of the rows is the next one's operand as it lies in
// registers, while that is one slab; it goes to shared memory too, for the gradients.
#pragma once

#include "kernels/cuda/epilogues.cuh"
#include "kernels/cuda/losses.cuh"
#include "kernels/cuda/train/narrow_tensor_math.cuh"

namespace fastbp {
namespace cuda {
namespace {

// Whether the activation is short enough to stand in the code for every register: none, or ReLU.
FBP_FN bool is_short(int activation) {
  return activation == activation_number<Identity>() || activation == activation_number<Relu>();
}

class WarpRows {
 public:
  // rows: of the tile, those that are there.
  FBP_DEVICE WarpRows(const NarrowArgs& g, unsigned char* shared, int rows)
      : g_(g), shared_(shared), rows_(rows) {}

  // From X to y.
  FBP_DEVICE void forward() {
    Held a;
    bool carried = false;
    FBP_UNROLL(1)
    for (int i = 0; i < g_.stages; ++i) {
      const NarrowStage& s = g_.stage[i];
      const bool last = i + 1 == g_.stages;
      const NarrowMatrix in = s.in;
      const int n = narrow_columns(s.outputs), k = narrow_columns(s.inputs);
      carried &= k <= kSlab;
      const bool quick = !last && is_short(s.activation);
      FBP_UNROLL(1)
      for (int first = 0; first < n; first += kSlab) {
        const int fragments = fragments_of(n, first);
        Sums sum;
        begin_with(sum, at<float>(shared_, s.biases) + first, fragments);
        product<false>(sum, a, carried, in, s.weights, first, k, fragments);
        if (last) {
          store_outputs(s, sum, first, fragments);
        } else if (!quick) {
          activate(s, sum, first, fragments);
        } else if (s.activation == activation_number<Relu>()) {
          store<true>(a, n <= kSlab, s.out, sum, first, fragments);
        } else {
          store<false>(a, n <= kSlab, s.out, sum, first, fragments);
        }
      }
      carried = quick && n <= kSlab;
      __syncwarp();
    }
    finish_outputs();
  }

  // Loss of y, its gradient, and metrics; the sums of the warp's rows, of which there are some, to
  // sums[0] and, of each metric, `g.place` further on.
  FBP_DEVICE void measure(const NarrowBatch& batch, double* sums) {
    if (own_rows() == 0) return;
    // Of logits the errors are those of their softmax, without label smoothing (engine/cuda/chain_measure.cu).
    FBP_UNROLL(1)
    for (int pass = g_.plain_errors ? 0 : 1; pass < 2; ++pass) {
      take_loss(batch, pass == 0 ? 0.0f : g_.loss_param, sums);
      if (pass == 1 && g_.plain_errors) return;
      FBP_UNROLL(1)
      for (int m = 0; m < g_.metrics; ++m)
        take_metric(g_.metric[m], batch, sums + (m + 1) * g_.place);
    }
  }

  // dz of all stages from dy.
  FBP_DEVICE void backward() {
    Held a;
    bool carried = take_top(a);
    FBP_UNROLL(1)
    for (int i = g_.stages - 1; i > 0; --i) {
      const NarrowStage &s = g_.stage[i], &below = g_.stage[i - 1];
      const int n = narrow_columns(s.inputs), k = narrow_columns(s.outputs);
      carried &= k <= kSlab;
      const bool quick = is_short(below.activation);
      FBP_UNROLL(1)
      for (int first = 0; first < n; first += kSlab) {
        const int fragments = fragments_of(n, first);
        Sums sum;
        FBP_UNROLL(4)
        for (int q = 0; q < kFragments; ++q) {
          FBP_UNROLL(8)
          for (int e = 0; e < 8; ++e) sum[q][e / 4][e % 4] = 0;
        }
        product<true>(sum, a, carried, s.delta, s.weights, first, k, fragments);
        if (!quick) {
          differentiate(below, sum, first, fragments);
        } else if (below.activation == activation_number<Relu>()) {
          Held y;
          load_held(y, shared_, below.out, row(), first, fragments);
          store_deltas<true>(a, n <= kSlab, below.delta, y, sum, first, fragments);
        } else {
          store_deltas<false>(a, n <= kSlab, below.delta, a, sum, first, fragments);
        }
      }
      carried = quick && n <= kSlab;
      __syncwarp();
    }
  }

 private:
  // The warp's first row of the tile.
  FBP_DEVICE static int row() { return (thread_number() >> 5) * 16; }
  FBP_DEVICE static int lane() { return lane_number(); }
  // Of its rows, those that are there.
  FBP_DEVICE int own_rows() const {
    const int left = rows_ - row();
    return left < 0 ? 0 : left < 16 ? left : 16;
  }
  // Where the lane has its sum number v of a slab's: row in the tile, column in the slab.
  FBP_DEVICE static int row_of(int v) { return row() + (lane() >> 2) + v % 4 / 2 * 8; }
  FBP_DEVICE static int column_of(int v) {
    return v / 8 * 16 + v % 8 / 4 * 8 + (lane() & 3) * 2 + v % 2;
  }

  FBP_DEVICE static void begin_with(Sums& sum, const float* bias, int fragments) {
    FBP_UNROLL(4)
    for (int q = 0; q < kFragments; ++q) {
      FBP_UNROLL(2)
      for (int half = 0; half < 2; ++half) {
        NarrowPair start{0, 0};
        if (q < fragments)
          start = *reinterpret_cast<const NarrowPair*>(bias + 16 * q + 8 * half + (lane() & 3) * 2);
        sum[q][half][0] = sum[q][half][2] = start.first;
        sum[q][half][1] = sum[q][half][3] = start.second;
      }
    }
  }

  // sum += rows of `from`, which `a` holds where they are carried, times the weights.
  template <bool transposed>
  FBP_DEVICE void product(Sums& sum, Held& a, bool carried, const NarrowMatrix& from,
                          const NarrowMatrix& weights, int n, int k, int fragments) {
    FBP_UNROLL(1)
    for (int p = 0; p < k; p += kSlab) {
      const int steps = fragments_of(k, p);
      if (!carried) load_held(a, shared_, from, row(), p, steps);
      multiply_by_weights<transposed>(sum, a, shared_, weights, n, p, fragments, steps);
    }
  }

  // The two rows of a lane in the slab of m that begins with column `first`.
  struct Places {
    unsigned char* shared;
    int upper, lower;
    FBP_DEVICE Places(unsigned char* memory, const NarrowMatrix& m, int first) : shared(memory) {
      upper = group_at(m, row() + (lane() >> 2), first, 0) + (lane() & 3) * 4;
      lower = upper + 16 * m.row;
    }
    FBP_DEVICE void store(int q, const std::uint32_t (&packed)[4]) const {
      FBP_UNROLL(2)
      for (int half = 0; half < 2; ++half) {
        const int other = 32 * q + 16 * half;
        *at<std::uint32_t>(shared, upper ^ other) = packed[2 * half];
        *at<std::uint32_t>(shared, lower ^ other) = packed[2 * half + 1];
      }
    }
  };

  // The sums, or those above 0, to m, and to `a` where they will be the next operand.
  template <bool relu>
  FBP_DEVICE void store(Held& a, bool carry, const NarrowMatrix& m, const Sums& sum, int first,
                        int fragments) {
    const Places places(shared_, m, first);
    FBP_UNROLL(4)
    for (int q = 0; q < kFragments; ++q) {
      if (q >= fragments) continue;
      std::uint32_t packed[4];
      FBP_UNROLL(4)
      for (int e = 0; e < 4; ++e) {
        const float x = sum[q][e / 2][e % 2 * 2], y = sum[q][e / 2][e % 2 * 2 + 1];
        packed[e] = relu ? pack_bf16_relu(x, y) : pack_bf16(x, y);
      }
      places.store(q, packed);
      if (carry) copy(a[q], packed);
    }
  }
  // The sums where y is not 0, or everywhere.
  template <bool relu>
  FBP_DEVICE void store_deltas(Held& a, bool carry, const NarrowMatrix& m, const Held& y,
                               const Sums& sum, int first, int fragments) {
    const Places places(shared_, m, first);
    FBP_UNROLL(4)
    for (int q = 0; q < kFragments; ++q) {
      if (q >= fragments) continue;
      std::uint32_t packed[4];
      FBP_UNROLL(4)
      for (int e = 0; e < 4; ++e) {
        packed[e] = pack_bf16(sum[q][e / 2][e % 2 * 2], sum[q][e / 2][e % 2 * 2 + 1]);
        if (relu) packed[e] &= nonzero_halves(y[q][e]);
      }
      places.store(q, packed);
      if (carry) copy(a[q], packed);
    }
  }
  FBP_DEVICE static void copy(std::uint32_t (&to)[4], const std::uint32_t (&from)[4]) {
    FBP_UNROLL(4)
    for (int e = 0; e < 4; ++e) to[e] = from[e];
  }

  // The sums to where a loop that is not unrolled finds them.
  FBP_DEVICE float* leave(const Sums& sum) {
    float* const to = at<float>(shared_, g_.scratch) + row() * kSlab + lane();
    FBP_UNROLL(4)
    for (int q = 0; q < kFragments; ++q) {
      FBP_UNROLL(8)
      for (int e = 0; e < 8; ++e) to[(8 * q + e) * 32] = sum[q][e / 4][e % 4];
    }
    return to;
  }
  FBP_DEVICE void activate(const NarrowStage& s, const Sums& sum, int first, int fragments) {
    const Forward<float> f{nullptr, 0, s.activation, {nullptr, 0, nullptr, 0, s.param}};
    const float* const left = leave(sum);
    FBP_UNROLL(1)
    for (int v = 0; v < 8 * fragments; ++v) {
      const int r = row_of(v), j = first + column_of(v);
      const float z = left[32 * v], y = f.apply(Lf(z)).v;
      // What is not there must not be NaN: products multiply it by 0.
      const bool inside = r < rows_ && j < s.outputs;
      *element(shared_, s.out, r, j) = std::uint16_t(pack_bf16(inside ? y : 0.0f, 0));
      if (s.keeps_z)
        *element(shared_, s.kept, r, j) = std::uint16_t(pack_bf16(inside ? z : 0.0f, 0));
    }
  }
  FBP_DEVICE void differentiate(const NarrowStage& s, const Sums& sum, int first, int fragments) {
    const Backward<float> f{s.activation, {nullptr, 0, nullptr, 0, s.param}};
    const NarrowMatrix from = s.keeps_z ? s.kept : s.out;
    const float* const left = leave(sum);
    FBP_UNROLL(1)
    for (int v = 0; v < 8 * fragments; ++v) {
      const int r = row_of(v), j = first + column_of(v);
      float dz = 0;
      if (r < rows_ && j < s.outputs)
        dz = f.of(Lf(from_half(*element(shared_, from, r, j))), Lf(left[32 * v])).v;
      *element(shared_, s.delta, r, j) = std::uint16_t(pack_bf16(dz, 0));
    }
  }

  FBP_DEVICE const NarrowStage& top() const { return g_.stage[g_.stages - 1]; }

  FBP_DEVICE void store_outputs(const NarrowStage& s, const Sums& sum, int first, int fragments) {
    float* const y = at<float>(shared_, s.out.at);
    FBP_UNROLL(4)
    for (int q = 0; q < kFragments; ++q) {
      if (q >= fragments) continue;
      FBP_UNROLL(8)
      for (int e = 0; e < 8; ++e) {
        const int j = first + column_of(8 * q + e);
        if (j < s.outputs) y[row_of(e) * s.outputs + j] = sum[q][e / 4][e % 4];
      }
    }
  }
  // y from z, where they differ.
  FBP_DEVICE void finish_outputs() {
    const NarrowStage& s = top();
    if (s.activation == activation_number<Identity>()) return;
    const Forward<float> f{nullptr, 0, s.activation, {nullptr, 0, nullptr, 0, s.param}};
    for_outputs([&](int e) {
      float& y = at<float>(shared_, s.out.at)[e];
      if (s.keeps_z) at<float>(shared_, s.kept.at)[e] = y;
      y = f.apply(Lf(y)).v;
    });
    __syncwarp();
  }
  // body(place in a matrix of outputs) for the warp's rows.
  template <class Body> FBP_DEVICE void for_outputs(Body body) {
    const int begin = row() * top().outputs, end = begin + own_rows() * top().outputs;
    FBP_UNROLL(1)
    for (int e = begin + lane(); e < end; e += 32) body(e);
  }

  FBP_DEVICE void take_loss(const NarrowBatch& batch, float param, double* sum) {
    float mine = 0;
    int index = 0;
#define FBP_APPLY(L)                                                                               \
  if (g_.loss == index++) mine = loss_of_lane<L>(batch, param);
    FBP_LOSSES(FBP_APPLY)
#undef FBP_APPLY
    FBP_UNROLL(5)
    for (int other = 16; other > 0; other /= 2)
      mine = (Lf(mine) + Lf(__shfl_xor_sync(0xffffffffu, mine, other))).v;
    if (lane() == 0) *sum = double(mine);
  }
  // Elements of the warp's rows, or one of the rows.
  template <class Loss> FBP_DEVICE float loss_of_lane(const NarrowBatch& batch, float smoothing) {
    const float* const outputs = at<float>(shared_, top().out.at);
    const float* const targets = g_.wanted ? at<float>(shared_, g_.target) : nullptr;
    float* const dy = at<float>(shared_, g_.dy);
    const Lf param(smoothing), scale(batch.dy_scale);
    Lf total(0.0f);
    if constexpr (Loss::elementwise) {
      for_outputs([&](int e) {
        const Lf y(outputs[e]), t(targets[e]);
        dy[e] = (Loss::gradient(y, t, param) * scale).v;
        total = total + Loss::value(y, t, param);
      });
    } else if (lane() < own_rows()) {
      const int r = row() + lane(), first = r * top().outputs;
      total = narrow_row(outputs + first, targets ? targets + first : nullptr,
                         targets ? 0 : index_t(at<std::int64_t>(shared_, g_.labels)[r]),
                         top().outputs, dy + first, scale, smoothing);
    }
    __syncwarp();
    return total.v;
  }

  FBP_DEVICE void take_metric(const NarrowMetric& metric, const NarrowBatch& batch, double* sum) {
    MetricArgs<float> args;
    args.kind = metric.kind;
    args.cols = top().outputs;
    args.y = at<float>(shared_, top().out.at);
    args.target = g_.wanted ? at<float>(shared_, g_.target) : nullptr;
    args.labels = g_.classes ? at<std::int64_t>(shared_, g_.labels) : nullptr;
    args.error = metric.of_softmax ? at<float>(shared_, g_.dy) : nullptr;
    args.error_scale = batch.error_scale;
    args.threshold = metric.threshold;
    double* const values = at<double>(shared_, g_.values) + row();
    if (lane() < own_rows()) values[lane()] = metric_of_row(args, row() + lane());
    __syncwarp();
    if (lane() == 0) *sum = sum_of_rows(values, own_rows(), kLossBlockRows);
    __syncwarp();
  }

  // The top's dz. Whether `a` holds it all.
  FBP_DEVICE bool take_top(Held& a) {
    const NarrowStage& s = top();
    float* const dy = at<float>(shared_, g_.dy);
    if (s.activation != activation_number<Identity>()) {
      const Backward<float> f{s.activation, {nullptr, 0, nullptr, 0, s.param}};
      const float* const kept = at<float>(shared_, s.kept.at);
      for_outputs([&](int e) { dy[e] = f.of(Lf(kept[e]), Lf(dy[e])).v; });
    }
    __syncwarp();
    const int n = narrow_columns(s.outputs);
    FBP_UNROLL(1)
    for (int first = 0; first < n; first += kSlab) {
      const int fragments = fragments_of(n, first);
      Sums dz;
      FBP_UNROLL(4)
      for (int q = 0; q < kFragments; ++q) {
        FBP_UNROLL(8)
        for (int e = 0; e < 8; ++e) {
          const int r = row_of(e), j = first + column_of(8 * q + e);
          const bool inside = q < fragments && r < rows_ && j < s.outputs;
          dz[q][e / 4][e % 4] = inside ? dy[r * s.outputs + j] : 0.0f;
        }
      }
      store<false>(a, n <= kSlab, s.delta, dz, first, fragments);
    }
    __syncwarp();
    return n <= kSlab;
  }

  const NarrowArgs& g_;
  unsigned char* shared_;
  int rows_;
};

}  // namespace
}  // namespace cuda
}  // namespace fastbp
