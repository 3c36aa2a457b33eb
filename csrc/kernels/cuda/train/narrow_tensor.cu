// Narrow networks trained whole (narrow.h) on tensor cores, of operands rounded to bfloat16.
//
// A launch has as many blocks as fit on the device, and takes its steps one after another. A block's
// rows of the batch go by tiles of up to 128:
//
//   all warps bring the tile's rows to shared memory
//   a warp takes 16 of them forward, to the loss, and back (narrow_tensor_rows.cuh)
//   each warp adds the tile to its square of the gradients, in registers (narrow_tensor_math.cuh)
//
// with one barrier behind each. Then the block's gradient goes to global memory, all blocks meet, all
// threads add up the blocks' and update the parameters, and all blocks meet again.
#include <type_traits>

#include "kernels/cuda/train/narrow_tensor_rows.cuh"

namespace fastbp {
namespace cuda {
namespace {

template <int n> struct alignas(4 * n) Floats { float v[n]; };
static_assert(sizeof(Floats<4>) == 16, "one load");

// store(r, c, values) for `vector` values from column c on of rows r of a matrix in global memory, row(r)
// of which is a row's first or null, for zeros. A thread has `at_once` loads under way.
template <int vector, int at_once, class Row, class Store>
FBP_DEVICE void fetch(int rows, int cols, Row row, Store store) {
  int shift = 0;
  while (shift < 5 && (vector << shift) < cols) ++shift;
  const int across = 1 << shift, down = kNarrowThreads >> shift;
  FBP_UNROLL(1)
  for (int c = (thread_number() & (across - 1)) * vector; c < cols; c += across * vector) {
    FBP_UNROLL(1)
    for (int first = thread_number() >> shift; first < rows; first += at_once * down) {
      Floats<vector> held[at_once];
      FBP_UNROLL(8)
      for (int i = 0; i < at_once; ++i) {
        const int r = first + i * down;
        const float* const from = r < rows ? row(r) : nullptr;
        held[i] = {};
        if (from) held[i] = *reinterpret_cast<const Floats<vector>*>(from + c);
      }
      FBP_UNROLL(8)
      for (int i = 0; i < at_once; ++i)
        if (const int r = first + i * down; r < rows) store(r, c, held[i]);
    }
  }
}
template <int at_once, class Row, class Store>
FBP_DEVICE void fetch_rows(bool by_four, int rows, int cols, Row row, Store store) {
  if (by_four)
    fetch<4, at_once>(rows, cols, row, store);
  else
    fetch<1, at_once>(rows, cols, row, store);
}
// Values to a matrix of bfloat16.
template <int n>
FBP_DEVICE void put(unsigned char* shared, const NarrowMatrix& m, int r, int c,
                    const Floats<n>& x) {
  std::uint16_t* const to = element(shared, m, r, c);
  if constexpr (n == 4) {
    auto* const pairs = reinterpret_cast<std::uint32_t*>(to);
    pairs[0] = pack_bf16(x.v[0], x.v[1]);
    pairs[1] = pack_bf16(x.v[2], x.v[3]);
  } else {
    *to = std::uint16_t(pack_bf16(x.v[0], 0));
  }
}

// Weights and biases of all stages.
FBP_DEVICE void load_weights(const NarrowArgs& g, unsigned char* shared) {
  FBP_UNROLL(1)
  for (int i = 0; i < g.stages; ++i) {
    const NarrowStage& s = g.stage[i];
    const float* const from = g.parameters.w + s.parameters;
    fetch_rows<8>(
        g.weights_by_four && s.outputs % 4 == 0, s.inputs, s.outputs,
        [&](int r) { return from + r * s.outputs; },
        [&](int r, int c, const auto& x) { put(shared, s.weights, r, c, x); });
    if (const int j = thread_number(); s.bias && j < s.outputs)
      at<float>(shared, s.biases)[j] = from[s.inputs * s.outputs + j];
  }
}

// A block's rows of a batch, and its tiles. It lies in shared memory and is read where it is used: the
// gradients need the registers.
struct Unit {
  index_t batch, start;  // number of the batch; its first row in the epoch's order
  int first, end, tile, tiles;
  FBP_FN int row(int t) const { return first + t * tile; }
  FBP_FN int rows(int t) const { return end - row(t) < tile ? end - row(t) : tile; }
};
static_assert(sizeof(Unit) <= kNarrowUnitBytes, "room for it");

// The tiles of the block's unit.
class Tiles {
 public:
  FBP_DEVICE Tiles(const NarrowArgs& g, unsigned char* shared)
      : g_(g), shared_(shared), unit_(*at<const Unit>(shared, g.unit)) {}

  FBP_DEVICE int count() const { return unit_.tiles; }
  FBP_DEVICE int height() const { return unit_.tile; }
  FBP_DEVICE int rows(int t) const { return unit_.rows(t); }
  // Losses and metrics of 16 rows of tile t.
  FBP_DEVICE double* sums(int t, int sixteen) const {
    return g_.sums + unit_.batch * g_.blocks + (unit_.row(t) / kLossBlockRows + sixteen);
  }

  // Where the thread's row of tile t is among the samples; noted for `gather`.
  FBP_DEVICE index_t find(int t) const {
    if (!has(t, thread_number())) return 0;
    const index_t at = unit_.start + unit_.row(t) + thread_number();
    return g_.order ? index_t(g_.order[at]) : at;
  }
  FBP_DEVICE void note(int t, index_t place) const {
    if (has(t, thread_number())) places()[thread_number()] = place;
  }
  // Brings what `gather` will read near.
  FBP_DEVICE void announce(int t) const {
    const int r = thread_number() / 2, inputs = g_.stage[0].inputs;
    if (!has(t, r)) return;
    const index_t place = places()[r];
    FBP_UNROLL(1)
    for (int c = thread_number() % 2 * 32; c < inputs; c += 64) prefetch(g_.x + place * inputs + c);
    if (g_.wanted && thread_number() % 2 == 0) prefetch(g_.wanted + place * outputs());
  }
  // Inputs, targets and labels of tile t; zeros for inputs that are not there.
  FBP_DEVICE void gather(int t) const {
    const NarrowStage& s = g_.stage[0];
    const int rows = unit_.rows(t);
    const std::int64_t* const place = places();
    fetch_rows<6>(
        g_.x_by_four, unit_.tile, s.inputs,
        [&](int r) { return r < rows ? g_.x + place[r] * s.inputs : nullptr; },
        [&](int r, int c, const auto& x) { put(shared_, s.in, r, c, x); });
    if (g_.wanted)
      fetch_rows<2>(
          g_.wanted_by_four, rows, outputs(),
          [&](int r) { return g_.wanted + place[r] * outputs(); },
          [&](int r, int c, const auto& x) {
            using Values = std::decay_t<decltype(x)>;
            float* const target = at<float>(shared_, g_.target) + r * outputs() + c;
            *reinterpret_cast<Values*>(target) = x;
          });
    if (const int r = thread_number(); g_.classes && r < rows)
      at<std::int64_t>(shared_, g_.labels)[r] = g_.classes[place[r]];
  }

 private:
  FBP_DEVICE bool has(int t, int r) const { return t < unit_.tiles && r < unit_.rows(t); }
  FBP_DEVICE int outputs() const { return g_.stage[g_.stages - 1].outputs; }
  FBP_DEVICE std::int64_t* places() const { return at<std::int64_t>(shared_, g_.places); }

  const NarrowArgs& g_;
  unsigned char* shared_;
  const Unit& unit_;
};

// The gradient of the block's unit, to its place in global memory.
FBP_DEVICE void train_unit(const NarrowArgs& g, unsigned char* shared, const NarrowBatch& kind) {
  const Tiles tiles(g, shared);
  const int warp = thread_number() >> 5;
  const auto square = [&] { return g.square[thread_number() >> 5]; };
  SquareOfGradient gradient;
  gradient.clear(g, shared);
  tiles.note(0, tiles.find(0));
  __syncthreads();
  tiles.announce(0);
  load_weights(g, shared);
  FBP_UNROLL(1)
  for (int t = 0; t < tiles.count(); ++t) {
    tiles.gather(t);
    __syncthreads();
    const index_t next = tiles.find(t + 1);
    if (16 * warp < tiles.height()) {
      WarpRows mine(g, shared, tiles.rows(t));
      mine.forward();
      mine.measure(kind, tiles.sums(t, warp));
      mine.backward();
    }
    tiles.note(t + 1, next);
    __syncthreads();
    tiles.announce(t + 1);
    if (square().stage >= 0) gradient.add(g, shared, square(), tiles.height());
    __syncthreads();
  }
  if (square().stage >= 0) gradient.store(g, shared, square(), g.partials + blockIdx.x * g.count);
}

// Adds up the units' gradients and updates: four threads have four parameters, each thread a part of
// the units for all of them, then one parameter.
FBP_DEVICE void update_parameters(const NarrowArgs& g, int units, index_t batch) {
  constexpr int kParts = 4;
  const Update<float> update{g.parameters, 0, g.optimizer, {}};
  // Neighbouring warps in different blocks: all processors take part.
  const int lane = lane_number(), warps = kNarrowThreads / 32;
  const int warp = (thread_number() >> 5) * int(gridDim.x) + int(blockIdx.x);
  const int part = lane % kParts, each = (units + kParts - 1) / kParts;
  const int begin = part * each, count = begin + each < units ? each : units - begin;
  FBP_UNROLL(1)
  for (int e = warp * 32; e < int(g.count); e += warps * int(gridDim.x) * 32) {
    const int four = e + lane / kParts * 4;
    float a = 0, b = 0, c = 0, d = 0;
    const bool inside = four < int(g.count);  // a multiple of 4
    const float* from = g.partials + index_t(begin) * g.count + four;
    FBP_UNROLL(8)
    for (int u = inside ? count : 0; u > 0; --u, from += g.count) {
      const auto x = *reinterpret_cast<const Floats<4>*>(from);
      a += x.v[0], b += x.v[1], c += x.v[2], d += x.v[3];
    }
    FBP_UNROLL(2)
    for (int other = 1; other < kParts; other *= 2) {
      a += __shfl_xor_sync(0xffffffffu, a, other);
      b += __shfl_xor_sync(0xffffffffu, b, other);
      c += __shfl_xor_sync(0xffffffffu, c, other);
      d += __shfl_xor_sync(0xffffffffu, d, other);
    }
    const float mine = part < 2 ? (part == 0 ? a : b) : (part == 2 ? c : d);
    if (inside) update.apply(four + part, Lf(mine), g.hyper[batch].value);
  }
}

__global__ void __launch_bounds__(kNarrowThreads, 1) narrow_tensor_kernel(NarrowArgs g) {
  FBP_SHARED(unsigned char, shared);
  // What no one writes later is 0.
  for (int e = thread_number(); e < g.shared_bytes / 16; e += kNarrowThreads)
    at<Floats<4>>(shared, 0)[e] = {};
  __syncthreads();
  FBP_UNROLL(1)
  for (int step = 0; step < g.steps; ++step) {
    // The counter stands still until the end.
    const auto batch = [&] { return g.counter->batch + step; };
    const auto start = [&] { return g.counter->first_row + batch() * g.rows_per_batch; };
    const NarrowBatch& kind = g.n - start() >= g.rows_per_batch ? g.whole : g.rest;
    if (const int number = int(blockIdx.x); number < kind.units) {
      if (thread_number() == 0) {
        const int first = number * kind.unit, next = first + kind.unit;
        const int end = next < kind.rows ? next : kind.rows, tile = kind.tile;
        *at<Unit>(shared, g.unit) = {batch(), start(), first,
                                     end,     tile,    (end - first + tile - 1) / tile};
      }
      __syncthreads();
      train_unit(g, shared, kind);
    }
    meet();
    update_parameters(g, kind.units, batch());
    meet();
  }
  if (blockIdx.x == 0 && thread_number() == 0) g.counter->batch += g.steps;
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
