// Narrow networks trained whole, in float32 (narrow.h).
//
// A batch of one tile, up to 64 rows, is one block's alone: parameters, activations, deltas and
// gradients stay in its shared memory over all steps of a launch, parameters and optimizer state are
// written to global memory as they change, and nothing is waited for but the block's own barriers.
// Of larger batches each block takes units of rows, tile by tile, and leaves their gradients in global
// memory; all blocks meet, each thread adds up the units of some parameters, in order, and updates
// these; all blocks meet again and load the parameters anew.
//
// Either way activations and deltas never leave the multiprocessor, and a step reads its rows once,
// while the one before is in work (narrow_rows.cuh). Measured times are in docs/cuda.md.
#include "kernels/cuda/train/narrow.h"

#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/epilogues.cuh"
#include "kernels/cuda/train/finish_math.cuh"
#include "kernels/cuda/train/narrow_loss.cuh"
#include "kernels/cuda/train/narrow_math.cuh"
#include "kernels/cuda/train/narrow_rows.cuh"

namespace fastbp {
namespace cuda {
namespace {

// Once in a launch: what nobody else writes. Zeros up to whole words, and the ones behind the rows that
// a bias's gradient reads.
FBP_DEVICE void prepare_shared(const NarrowArgs& g, unsigned char* shared) {
  FBP_UNROLL(1)
  for (int i = 16 * threadIdx.x; i < g.shared_bytes; i += 16 * kNarrowThreads)
    store_word<4>(at<float>(shared, i), {});
  __syncthreads();
  FBP_UNROLL(1)
  for (int i = 0; i < g.stages; ++i) {
    const NarrowStage& s = g.stage[i];
    if (int(threadIdx.x) < g.tile)
      at<float>(shared, s.in.at)[threadIdx.x * s.in.row + 4 * whole_words(s.inputs)] = 1;
  }
}

// Parameter (i, j) of stage s as the products read it.
FBP_FN void put_weight(const NarrowStage& s, unsigned char* shared, bool lowest, int i, int j,
                       float w) {
  at<float>(shared, s.weights.at)[i * s.weights.row + j] = w;
  if (!lowest && i < s.inputs) at<float>(shared, s.weights_t.at)[j * s.weights_t.row + i] = w;
}

FBP_DEVICE void load_weights(const NarrowArgs& g, unsigned char* shared) {
  constexpr int at_once = 8;
  FBP_UNROLL(1)
  for (int i = 0; i < g.stages; ++i) {
    const NarrowStage& s = g.stage[i];
    const float* const from = g.parameters.w + s.parameters;
    const int count = (s.inputs + (s.bias ? 1 : 0)) * s.outputs;
    FBP_UNROLL(1)
    for (int begin = threadIdx.x; begin < count; begin += at_once * kNarrowThreads) {
      float w[at_once];
      FBP_UNROLL(at_once)
      for (int u = 0; u < at_once; ++u) {
        const int e = begin + u * kNarrowThreads;
        if (e < count) w[u] = from[e];
      }
      FBP_UNROLL(at_once)
      for (int u = 0; u < at_once; ++u) {
        const int e = begin + u * kNarrowThreads, r = quotient(e, s.of_outputs);
        if (e < count) put_weight(s, shared, i == 0, r, e - r * s.outputs, w[u]);
      }
    }
  }
}

// From the tile's inputs to all deltas; loss and metrics on the way.
template <bool ruled>
FBP_DEVICE void pass_tile(const NarrowArgs& g, unsigned char* shared, const NarrowBatch& kind,
                          double* sums, int row, int rows) {
  FBP_UNROLL(1)
  for (int turn = 0; turn < 2 * g.stages; ++turn) {
    const bool forward = turn < g.stages, top = turn == g.stages, last = turn + 1 == g.stages;
    const int i = forward ? turn : 2 * g.stages - 1 - turn;
    const NarrowStage& s = g.stage[i];
    const bool more =
        last ? s.activation != activation_number<Identity>() : top || !is_short(s.activation);
    if (top)
      measure_tile<ruled>(g, shared, kind, sums, row, rows);
    else
      take_pass(forward ? forward_pass(s, shared, rows, last)
                        : backward_pass(g.stage[i + 1], s, shared, rows),
                shared);
    if (more) {
      if (!top) __syncthreads();
      if (forward)
        activate(s, shared, rows, last);
      else
        differentiate(s, shared, rows, at<float>(shared, top ? g.dy : s.delta.at),
                      top ? s.outputs : s.delta.row);
    }
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

// All parameters of a stage by their gradient, some of each thread's at once.
template <class Optimizer>
FBP_DEVICE void update_stage(const NarrowArgs& g, const NarrowStage& s, unsigned char* shared,
                             bool lowest, const float* gradient) {
  constexpr int at_once = 4, slots = Optimizer::slots;
  const float* const hyper = at<float>(shared, g.step_hyper);
  const Parameters<float>& to = g.parameters;
  const index_t first = s.parameters;
  const float* const weights = at<float>(shared, s.weights.at);
  gradient += s.parameters;
  const int count = (s.inputs + (s.bias ? 1 : 0)) * s.outputs;
  FBP_UNROLL(1)
  for (int begin = threadIdx.x; begin < count; begin += at_once * kNarrowThreads) {
    Lf state[at_once][slots + 1];
    FBP_UNROLL(at_once)
    for (int u = 0; u < at_once; ++u) {
      const int e = begin + u * kNarrowThreads;
      FBP_UNROLL(2)
      for (int k = 0; k < slots; ++k) state[u][k] = Lf(e < count ? to.slot[k][first + e] : 0.0f);
    }
    FBP_UNROLL(at_once)
    for (int u = 0; u < at_once; ++u) {
      const int e = begin + u * kNarrowThreads, i = quotient(e, s.of_outputs);
      if (e >= count) break;
      const int j = e - i * s.outputs;
      const Lf w =
          Optimizer::update(Lf(weights[i * s.weights.row + j]), Lf(gradient[e]), state[u], hyper);
      w.store(to.w + first + e);
      FBP_UNROLL(2)
      for (int k = 0; k < slots; ++k) state[u][k].store(to.slot[k] + first + e);
      put_weight(s, shared, lowest, i, j, w.v);
    }
  }
}
FBP_DEVICE void update_stage_by_rule(const NarrowArgs& g, const NarrowStage& s,
                                     unsigned char* shared, bool lowest, const float* gradient,
                                     int ahead) {
  for_elements((s.inputs + (s.bias ? 1 : 0)) * s.outputs, s.outputs, s.of_outputs,
               [&](int i, int j, int element) {
                 const index_t e = s.parameters + element;
                 update_by_rule(g.finish, e, Lf(gradient[e]), ahead);
                 put_weight(s, shared, lowest, i, j, g.parameters.w[e]);
               });
}

// Of a block that has the gradient of the whole batch.
template <bool ruled>
FBP_DEVICE void update_alone(const NarrowArgs& g, unsigned char* shared, const float* gradient,
                             int ahead) {
  FBP_UNROLL(1)
  for (int i = 0; i < g.stages; ++i) {
    const NarrowStage& s = g.stage[i];
    if (ruled && g.finish.tables.pieces) {
      update_stage_by_rule(g, s, shared, i == 0, gradient, ahead);
      continue;
    }
    int index = 0;
#define FBP_APPLY(O)                                                                               \
  if (g.optimizer == index++) update_stage<O>(g, s, shared, i == 0, gradient);
    FBP_OPTIMIZERS(FBP_APPLY)
#undef FBP_APPLY
  }
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

FBP_DEVICE void store_partial(const NarrowArgs& g, const float* gradient, int unit) {
  float* const to = g.partials + unit * g.count;
  FBP_UNROLL(4)
  for (int e = threadIdx.x; e < g.count; e += kNarrowThreads) to[e] = gradient[e];
}

template <bool ruled> FBP_DEVICE void train_steps(const NarrowArgs& g, unsigned char* shared) {
  const NarrowRun run(g);
  prepare_shared(g, shared);
  NarrowTile next(g, run);
  TileComing coming;
  if (next.there(g)) {
    const int rows = next.rows(g, run);
    TileComing::find(g, shared, run.begin(g, next.step) + next.row, rows);
    __syncthreads();
    coming.load(g, shared, rows);
    coming.put<ruled>(g, shared, rows);
  }
  FBP_UNROLL(1)
  for (int step = 0; step < g.steps; ++step) {
    const NarrowBatch& kind = run.kind(g, step);
    if (next.there(g) && next.step == step && (step == 0 || !g.alone)) load_weights(g, shared);
    const bool inside = g.gradient >= 0;
    float* const own = inside ? at<float>(shared, g.gradient) : g.partials;
    FBP_UNROLL(1)
    while (next.there(g) && next.step == step) {
      const NarrowTile tile = next;
      const int rows = tile.rows(g, run);
      const bool fresh = tile.row == tile.span * span_of(g, kind);
      __syncthreads();
      next.advance(g, run);
      const bool more = next.there(g);
      const int rows_coming = more ? next.rows(g, run) : 0;
      if (more) TileComing::find(g, shared, run.begin(g, next.step) + next.row, rows_coming);
      if (threadIdx.x < StepHyper<float>::capacity)
        at<float>(shared, g.step_hyper)[threadIdx.x] = g.hyper[run.batch + step].value[threadIdx.x];
      pass_tile<ruled>(g, shared, kind, g.sums + (run.batch + step) * g.blocks, tile.row, rows);
      if (more) coming.load(g, shared, rows_coming);
      float* const gradient = inside ? own : g.partials + tile.span * g.count;
      add_gradients(g, shared, gradient, rows, g.alone ? kind.unit : rows, fresh);
      __syncthreads();
      if (more) coming.put<ruled>(g, shared, rows_coming);
      const bool whole = next.step != step || next.span != tile.span;
      if (inside && !g.alone && whole) store_partial(g, own, tile.span);
    }
    const bool penalizes = ruled && g.finish.penalize && g.finish.tables.pieces;
    if (penalizes) penalize(g, shared);
    if (penalizes || !g.alone) meet();
    if (penalizes) total_penalties(g, shared, run.batch + step);
    if (g.alone) {
      update_alone<ruled>(g, shared, own, step);
      continue;
    }
    update_parameters<ruled>(g, kind.units, run.batch + step, step);
    meet();
  }
  __syncthreads();  // rules of updates look at the counter
  if (blockIdx.x == 0 && threadIdx.x == 0) g.counter->batch += g.steps;
}

__global__ void __launch_bounds__(kNarrowThreads, 1) narrow_kernel(NarrowArgs g) {
  FBP_SHARED(unsigned char, shared);
  train_steps<false>(g, shared);
}
__global__ void __launch_bounds__(kNarrowThreads, 1) narrow_ruled_kernel(NarrowArgs g) {
  FBP_SHARED(unsigned char, shared);
  train_steps<true>(g, shared);
}

using Kernel = void (*)(NarrowArgs);

Kernel kernel_of(bool ruled) { return ruled ? narrow_ruled_kernel : narrow_kernel; }

}  // namespace

cudaError_t train_narrow(const NarrowArgs& args, int grid, cudaStream_t stream) {
  const dim3 blocks{unsigned(grid)}, threads{unsigned(kNarrowThreads)};
  const auto bytes = std::size_t(args.shared_bytes);
  if (grid == 1)  // there is nobody to meet, and the launch is quicker
    FBP_LAUNCH(kernel_of(args.ruled()), blocks, threads, bytes, stream)(args);
  else
    FBP_LAUNCH_COOPERATIVE(kernel_of(args.ruled()), blocks, threads, bytes, stream)(args);
  return cudaGetLastError();
}

cudaError_t narrow_blocks(int room, int shared_bytes, int* blocks) {
  *blocks = 0;
  for (const bool ruled : {false, true}) {
    const auto kernel = kernel_of(ruled);
    int fit = 0;
    cudaError_t error =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, room);
    if (error == cudaSuccess)
      error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&fit, kernel, kNarrowThreads,
                                                            std::size_t(shared_bytes));
    if (error != cudaSuccess) return error;
    *blocks = ruled && *blocks < fit ? *blocks : fit;
  }
  return cudaSuccess;
}

}  // namespace cuda
}  // namespace fastbp
