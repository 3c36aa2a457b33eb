// Narrow networks trained whole (narrow.h).
//
// A launch has as many blocks as fit on the device, and takes its steps one after another:
//
//   each block, for its units of the batch's rows:
//     by tiles of up to 64 rows: gather into shared memory; forward; loss and metrics; backward;
//       then all gradients of the tile at once, added to what registers or shared memory hold
//     the unit's gradient to its place in global memory
//   with penalties on parameters, each block sums those of some blocks of them
//   all blocks meet; each thread adds up the units of some parameters, in order, and updates these
//   all blocks meet
//
// So activations and deltas never leave the multiprocessor, and a step reads its rows once. The
// arithmetic is in docs/cuda.md.
#include "kernels/cuda/train/narrow.h"

#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/epilogues.cuh"
#include "kernels/cuda/train/finish_math.cuh"
#include "kernels/cuda/train/narrow_loss.cuh"
#include "kernels/cuda/train/narrow_tensor_math.cuh"

namespace fastbp {
namespace cuda {
namespace {

// Two neighbours in a matrix of bfloat16, j even.
FBP_FN std::uint32_t* pair_at(unsigned char* shared, const NarrowMatrix& m, int r, int j) {
  return at<std::uint32_t>(shared, m.at) + (r * m.row + j) / 2;
}

// body(row, column) for a matrix, a warp for each row.
template <class Body> FBP_DEVICE void for_rows(int rows, int cols, Body body) {
  FBP_UNROLL(1)
  for (int r = threadIdx.x / 32; r < rows; r += kNarrowWarps) {
    FBP_UNROLL(1)
    for (int j = threadIdx.x % 32; j < cols; j += 32) body(r, j);
  }
}
// The same for bodies that load from global memory, with the loads of some rows under way at once.
template <int at_once, class Body> FBP_DEVICE void load_rows(int rows, int cols, Body body) {
  FBP_UNROLL(1)
  for (int j = threadIdx.x % 32; j < cols; j += 32) {
    FBP_UNROLL(at_once)
    for (int r = threadIdx.x / 32; r < rows; r += kNarrowWarps) body(r, j);
  }
}

// The weights of all stages, zeros up to whole fragments.
template <class Math> FBP_DEVICE void load_weights(const NarrowArgs& g, unsigned char* shared) {
  FBP_UNROLL(1)
  for (int i = 0; i < g.stages; ++i) {
    const NarrowStage& s = g.stage[i];
    const float* const from = g.parameters.w + s.parameters;
    auto* const to = at<typename Math::Element>(shared, s.weights.at);
    load_rows<4>(Math::columns(s.inputs), Math::columns(s.outputs), [&](int r, int j) {
      const bool inside = r < s.inputs && j < s.outputs;
      to[r * s.weights.row + j] = Math::make(inside ? from[r * s.outputs + j] : 0.0f);
    });
  }
}

// Rows [first, first + rows) of the epoch's order; zeros up to whole fragments, and a 1 behind each
// row where there is room for it.
template <class Math, bool ruled>
FBP_DEVICE void gather_tile(const NarrowArgs& g, unsigned char* shared, index_t first, int rows) {
  const NarrowStage& s = g.stage[0];
  const int outputs = g.stage[g.stages - 1].outputs;
  auto* const x = at<typename Math::Element>(shared, s.in.at);
  const std::int64_t* const places = at<std::int64_t>(shared, g.places);
  if (const int r = threadIdx.x; r < rows) {
    const index_t place = g.order ? index_t(g.order[first + r]) : first + r;
    at<std::int64_t>(shared, g.places)[r] = place;
    if (g.classes) at<std::int64_t>(shared, g.labels)[r] = g.classes[place];
  }
  __syncthreads();
  load_rows<1>(g.tile, Math::columns(s.inputs), [&](int r, int j) {
    const bool inside = r < rows && j < s.inputs;
    x[r * s.in.row + j] = Math::make(inside ? g.x[places[r] * s.inputs + j] : 0.0f);
  });
  if (g.wanted)
    load_rows<1>(rows, outputs, [&](int r, int j) {
      at<float>(shared, g.target)[r * outputs + j] = g.wanted[places[r] * outputs + j];
    });
  if (ruled && g.weight)
    load_rows<1>(rows, g.weight_copies, [&](int r, int j) {
      at<float>(shared, g.weights)[r * g.weight_copies + j] = g.weight[places[r]];
    });
}

// Whether the stage's activation is short enough to stand in the code for every register: none, or
// ReLU.
FBP_FN bool is_short(const NarrowStage& s) {
  return s.activation == activation_number<Identity>() || s.activation == activation_number<Relu>();
}

// The ones behind the rows of what a layer with bias reads: the exact product's row of biases.
FBP_DEVICE void write_tile_ones(const NarrowArgs& g, unsigned char* shared) {
  FBP_UNROLL(1)
  for (int i = 0; i < g.stages; ++i) {
    const NarrowStage& s = g.stage[i];
    if (int(threadIdx.x) < g.tile)
      at<float>(shared, s.in.at)[threadIdx.x * s.in.row + s.inputs] = 1;
  }
}

template <class Math>
FBP_DEVICE void forward_tile(const NarrowArgs& g, unsigned char* shared, int rows) {
  using Element = typename Math::Element;
  FBP_UNROLL(1)
  for (int i = 0; i < g.stages; ++i) {
    const NarrowStage& s = g.stage[i];
    const bool last = i + 1 == g.stages;
    const Forward<float> f{nullptr, 0, s.activation, {nullptr, 0, nullptr, 0, s.param}};
    const auto quick = [&](int r, int j, float z0, float z1) {
      const bool relu = s.activation != 0, first = r < rows && j < s.outputs,
                 second = r < rows && j + 1 < s.outputs;
      const Lf y0 = relu ? Relu::forward(Lf(z0), Lf(s.param)) : Lf(z0);
      const Lf y1 = relu ? Relu::forward(Lf(z1), Lf(s.param)) : Lf(z1);
      *pair_at(shared, s.out, r, j) = pack_bf16(first ? y0.v : 0.0f, second ? y1.v : 0.0f);
    };
    Math::forward(
        g, s, shared, !last && is_short(s),
        [&](int r, int j, float z) {
          const float y = f.apply(Lf(z)).v;
          if (last) {
            if (j >= s.outputs) return;
            at<float>(shared, s.out.at)[r * s.out.row + j] = y;
            if (s.keeps_z) at<float>(shared, s.kept.at)[r * s.kept.row + j] = z;
            return;
          }
          // What is not there must not be NaN: the next product multiplies it by 0.
          const bool inside = r < rows && j < s.outputs;
          at<Element>(shared, s.out.at)[r * s.out.row + j] = Math::make(inside ? y : 0.0f);
          if (s.keeps_z)
            at<Element>(shared, s.kept.at)[r * s.kept.row + j] = Math::make(inside ? z : 0.0f);
        },
        quick);
    __syncthreads();
  }
}

// dz of all stages from dy.
template <class Math>
FBP_DEVICE void backward_tile(const NarrowArgs& g, unsigned char* shared, int rows) {
  using Element = typename Math::Element;
  const auto derivative = [](const NarrowStage& s) {
    return Backward<float>{s.activation, {nullptr, 0, nullptr, 0, s.param}};
  };
  const auto keeps = [](const NarrowStage& s) { return s.keeps_y || s.keeps_z; };
  const NarrowStage& top = g.stage[g.stages - 1];
  const Backward<float> from_dy = derivative(top);
  for_rows(g.tile, Math::columns(top.outputs), [&](int r, int j) {
    float dz = 0;
    if (r < rows && j < top.outputs) {
      const Lf dy(at<float>(shared, g.dy)[r * top.outputs + j]);
      const Lf kept(keeps(top) ? at<float>(shared, top.kept.at)[r * top.kept.row + j] : dy.v);
      dz = from_dy.of(kept, dy).v;
    }
    at<Element>(shared, top.delta.at)[r * top.delta.row + j] = Math::make(dz);
  });
  __syncthreads();
  FBP_UNROLL(1)
  for (int i = g.stages - 1; i > 0; --i) {
    const NarrowStage& below = g.stage[i - 1];
    const Backward<float> f = derivative(below);
    const auto quick = [&](int r, int j, float d0, float d1) {
      const bool relu = below.activation != 0;
      const std::uint32_t kept = *pair_at(shared, below.out, r, j);
      const auto derivative = [&](float dy, std::uint32_t half, bool inside) {
        const Lf y(tensor_math::value(std::uint16_t(half)));
        return !inside ? 0.0f : relu ? Relu::backward(y, Lf(dy), Lf(below.param)).v : dy;
      };
      *pair_at(shared, below.delta, r, j) =
          pack_bf16(derivative(d0, kept & 0xffff, r < rows && j < below.outputs),
                    derivative(d1, kept >> 16, r < rows && j + 1 < below.outputs));
    };
    Math::backward(
        g, g.stage[i], shared, is_short(below),
        [&](int r, int j, float dy) {
          float dz = 0;
          if (r < rows && j < below.outputs) {
            const Lf kept(keeps(below) ? Math::value(at<Element>(
                                             shared, below.kept.at)[r * below.kept.row + j])
                                       : dy);
            dz = f.of(kept, Lf(dy)).v;
          }
          at<Element>(shared, below.delta.at)[r * below.delta.row + j] = Math::make(dz);
        },
        quick);
    __syncthreads();
  }
}

// One parameter, as the kernels of finish.cu do it.
FBP_FN void update_by_rule(const FinishArgs<float>& f, index_t e, Lf g, int ahead) {
  const Progress<float> now(f, ahead);
  const RulePiece<float> piece = piece_of(f, e);
  if (piece.trained) g = limited(f, piece, now, e, added_up(f, now, e, g));
  if (now.complete) take(f, piece, now, e, g);
}

// The penalties on some blocks of the parameters, as this step begins with them; then, when all blocks
// have met, their sum.
FBP_DEVICE void penalize(const NarrowArgs& g, unsigned char* shared) {
  static_assert(kNarrowThreads == kElementThreads, "a thread for each of penalty_sum's");
  FBP_UNROLL(1)
  for (index_t block = blockIdx.x; block < gradient_blocks(g.count); block += gridDim.x) {
    const double penalty = penalty_sum(g.finish, block, at<float>(shared, g.values));
    if (threadIdx.x == 0) g.finish.tables.penalties[block] = penalty;
  }
}
FBP_DEVICE void total_penalties(const NarrowArgs& g, unsigned char* shared, index_t batch) {
  if (blockIdx.x != 0) return;
  const double total = ordered_sum(g.finish.tables.penalties, gradient_blocks(g.count),
                                   at<double>(shared, g.values), kNarrowThreads);
  if (threadIdx.x == 0) g.finish.state.penalties[batch] = total;
}

// Adds up the units' gradients, in order, and updates: thread by thread over all blocks. The step is
// `ahead` of the counter.
template <bool ruled>
FBP_DEVICE void update_parameters(const NarrowArgs& g, int units, index_t batch, int ahead) {
  const Update<float> update{g.parameters, 0, g.optimizer, {}};
  FBP_UNROLL(1)
  for (index_t e = index_t(blockIdx.x) * kNarrowThreads + threadIdx.x; e < g.count;
       e += index_t(gridDim.x) * kNarrowThreads) {
    Lf sum(g.partials[e]);
    FBP_UNROLL(16)  // as many loads under way
    for (int u = 1; u < units; ++u) sum = sum + Lf(g.partials[u * g.count + e]);
    if (ruled && g.finish.tables.pieces)
      update_by_rule(g.finish, e, sum, ahead);
    else
      update.apply(e, sum, g.hyper[batch].value);
  }
}

template <class Math, bool ruled>
FBP_DEVICE void train_steps(const NarrowArgs& g, unsigned char* shared) {
  Math math;
  if constexpr (Math::kHasOnes) write_tile_ones(g, shared);
  FBP_UNROLL(1)
  for (int step = 0; step < g.steps; ++step) {
    // The counter stands still until the end. Numbers are asked for anew where they are used: they
    // would stand in registers that the gradients need.
    const auto batch = [&] { return g.counter->batch + step; };
    const auto begin = [&] { return g.counter->first_row + batch() * g.rows_per_batch; };
    const NarrowBatch& kind = g.n - begin() >= g.rows_per_batch ? g.whole : g.rest;
    load_weights<Math>(g, shared);
    FBP_UNROLL(1)
    for (int unit = blockIdx.x; unit < kind.units; unit += gridDim.x) {
      math.clear(g, shared);
      const int end = kind.rows - unit * kind.unit < kind.unit ? kind.rows : (unit + 1) * kind.unit;
      FBP_UNROLL(1)
      for (int row = unit * kind.unit; row < end; row += g.tile) {
        const int rows = end - row < g.tile ? end - row : g.tile;
        gather_tile<Math, ruled>(g, shared, begin() + row, rows);
        __syncthreads();
        forward_tile<Math>(g, shared, rows);
        measure_tile<ruled>(g, shared, kind, g.sums + batch() * g.blocks, row, rows);
        backward_tile<Math>(g, shared, rows);
        math.add_gradients(g, shared, rows);
        __syncthreads();
      }
      math.store(g, shared, g.partials + unit * g.count);
      __syncthreads();
    }
    const bool penalizes = ruled && g.finish.penalize && g.finish.tables.pieces;
    if (penalizes) penalize(g, shared);
    meet();
    if (penalizes) total_penalties(g, shared, batch());
    update_parameters<ruled>(g, kind.units, batch(), step);
    meet();
  }
  if (blockIdx.x == 0 && threadIdx.x == 0) g.counter->batch += g.steps;
}

__global__ void __launch_bounds__(kNarrowThreads, 1) narrow_tensor_kernel(NarrowArgs g) {
  FBP_SHARED(unsigned char, shared);
  train_steps<tensor_math, false>(g, shared);
}

}  // namespace

cudaError_t train_narrow_tensor(const NarrowArgs& args, int grid, cudaStream_t stream) {
  FBP_LAUNCH_COOPERATIVE(narrow_tensor_kernel, dim3(unsigned(grid)), dim3(kNarrowThreads),
                         std::size_t(args.shared_bytes), stream)(args);
  return cudaGetLastError();
}

cudaError_t narrow_tensor_blocks(int room, int shared_bytes, int* blocks) {
  cudaError_t error =
      cudaFuncSetAttribute(narrow_tensor_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, room);
  if (error != cudaSuccess) return error;
  return cudaOccupancyMaxActiveBlocksPerMultiprocessor(blocks, narrow_tensor_kernel, kNarrowThreads,
                                                       std::size_t(shared_bytes));
}

}  // namespace cuda
}  // namespace fastbp
