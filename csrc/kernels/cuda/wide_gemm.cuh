// Matrix product on the tensor cores of compute capability 9.0 with an epilogue, as a template
// (train/wide.h).
//
// As many blocks as there are multiprocessors take the tiles of 128 x 128 outputs in turn. A warp of a
// block copies slabs of 64 along k (TMA), six under way at once, tile after tile without a pause. Two
// groups of four warps take the tiles alternately: while one multiplies (wgmma), the other one takes
// its sums through the epilogue, so that tensor cores and memory are busy at the same time.
#pragma once

#include <utility>

#include "kernels/cuda/wgmma.cuh"
#include "kernels/cuda/train/tensor.h"
#include "ops/lane.h"

namespace fastbp {
namespace cuda {
namespace {

constexpr int kWideTile = 128;
constexpr int kWideDepth = 64;  // of a slab, along k
constexpr int kWideStages = 6;
constexpr int kWideGroups = 2;  // of four warps each that multiply; a thread of one more copies
constexpr int kGroupThreads = 128;
constexpr int kWideThreads = (kWideGroups + 1) * kGroupThreads;
// A launch gives each thread 168 registers, a third of the 64 Ki by 128. The group that copies gives most
// of its back.
constexpr int kRegistersToMultiply = 232, kRegistersToCopy = 40;
static_assert(2 * kRegistersToMultiply + kRegistersToCopy <= 3 * 168, "what the block has");
// Tiles of a column that are taken one after the other: the blocks of a wave read about as many tiles
// of A as of B.
constexpr int kBand = 16;
constexpr int kHalf = 64;  // rows of A that one wgmma takes
constexpr int kWideSlab = kWideTile * kWideDepth * int(sizeof(std::uint16_t));
constexpr int kBoxBytes = kWideDepth * kBoxCols * int(sizeof(std::uint16_t));
static_assert(kWideTile == 2 * kHalf && kBoxBytes * 2 == kWideSlab,
              "two boxes or halves to a slab");
// A warp's sums go through shared memory in pieces of 16 x 32; a row is 40 floats so that the four rows
// that half a warp writes, two floats a lane, are in different banks.
constexpr int kPieceCols = 32, kPiecePitch = 40, kPieceRows = 16;
constexpr int kPieceBytes = kPieceRows * kPiecePitch * int(sizeof(float));
constexpr int kAtOnce = 4;  // rows whose loads are under way together
constexpr int kSlabAlignment = 1024;

// From a multiple of kSlabAlignment on.
struct WideShared {
  unsigned char slab[kWideStages][2][kWideSlab];  // of A, of B
  unsigned char piece[kWideGroups * 4][kPieceBytes];
  SharedBarrier full[kWideStages], empty[kWideStages];
  // Of each group: the other one has all slabs of the tile before. Otherwise a group that is ahead by
  // more slabs than there are would take the end of an older phase for that of its own.
  SharedBarrier turn[kWideGroups];
};
constexpr std::size_t kWideSharedBytes = sizeof(WideShared) + kSlabAlignment;

struct WideArgs {
  int m, n, k;
  int down, across;  // tiles
  int parts, chunk;  // of k, for sums that are taken apart; a multiple of kWideDepth
  const float* bias;
};

FBP_FN int tile_count(const WideArgs& g) { return g.parts * g.down * g.across; }

struct TilePlace { int i, j, part; };
// Tile number t: part by part, in bands of kBand rows of tiles, each column by column.
FBP_FN TilePlace tile_place(const WideArgs& g, int t) {
  const int of_part = g.down * g.across, part = t / of_part;
  const int of_band = kBand * g.across, band = t % of_part / of_band, rest = t % of_part % of_band;
  const int left = g.down - band * kBand, height = left < kBand ? left : kBand;
  return {(band * kBand + rest % height) * kWideTile, rest / height * kWideTile, part};
}
// Slabs of a part: none where k has fewer chunks.
FBP_FN int slab_count(const WideArgs& g, int part) {
  const int left = g.k - part * g.chunk, depth = left < g.chunk ? left : g.chunk;
  return depth <= 0 ? 0 : (depth + kWideDepth - 1) / kWideDepth;
}

FBP_FN int slabs_of(const WideArgs& g, int tile) {
  return slab_count(g, tile / (g.down * g.across));
}

// Where a block is in the ring of slabs, and how often it has come round.
struct Ring {
  int at = 0, parity = 0;
  FBP_FN void skip(int slabs) {
    const int to = at + slabs;
    parity ^= to / kWideStages & 1;
    at = to % kWideStages;
  }
};

// One operand: k runs along the rows of its matrix in memory, or across them.
template <bool along_k> struct WideOperand {
  // The tile's slab p..p + 64 of k.
  FBP_DEVICE static void load(unsigned char* slab, const TensorMap& map, int first, int p,
                              SharedBarrier* full) {
    if constexpr (along_k) {
      load_box(slab, map, first, p, full);
    } else {
      load_box(slab, map, p, first, full);
      load_box(slab + kBoxBytes, map, p, first + kBoxCols, full);
    }
  }
  FBP_DEVICE static std::uint64_t describe(const unsigned char* slab) {
    return matrix_descriptor(shared_address(slab), along_k ? 16 : kBoxBytes, 8 * 128);
  }
  // From a descriptor to that of 16 further values of k, and of the other half of 64 rows.
  static constexpr int next_k = (along_k ? 16 * int(sizeof(std::uint16_t)) : 16 * 128) / 16;
  static constexpr int next_half = kBoxBytes / 16;  // 64 rows of 128 bytes, or a box
};

template <bool a_along_k, bool b_along_k>
FBP_DEVICE void load_tiles(const TensorMap& a, const TensorMap& b, const WideArgs& g,
                           WideShared& shared) {
  prefetch_map(a);
  prefetch_map(b);
  Ring ring;
  FBP_UNROLL(1)
  for (int t = blockIdx.x; t < tile_count(g); t += gridDim.x) {
    const TilePlace place = tile_place(g, t);
    const int slabs = slab_count(g, place.part);
    FBP_UNROLL(1)
    for (int s = 0; s < slabs; ++s) {
      const int p = place.part * g.chunk + s * kWideDepth;
      barrier_wait(&shared.empty[ring.at], ring.parity ^ 1);
      SharedBarrier* const full = &shared.full[ring.at];
      barrier_arrive_expecting(full, 2 * kWideSlab);
      WideOperand<a_along_k>::load(shared.slab[ring.at][0], a, place.i, p, full);
      WideOperand<b_along_k>::load(shared.slab[ring.at][1], b, place.j, p, full);
      ring.skip(1);
    }
  }
}

// A group's sums: two halves of 64 x 128.
using GroupSums = float[2][kHalf];

template <Half kind, bool a_transposed, bool b_transposed>
FBP_DEVICE void multiply_async(float (&d)[kHalf], std::uint64_t a, std::uint64_t b, bool add) {
  if constexpr (kind == Half::float16)
    multiply_async_f16<a_transposed, b_transposed>(d, a, b, add);
  else
    multiply_async_bf16<a_transposed, b_transposed>(d, a, b, add);
}

template <Half kind, bool a_along_k, bool b_along_k>
FBP_DEVICE void multiply_slab(GroupSums& sums, unsigned char (&slab)[2][kWideSlab], bool add) {
  using A = WideOperand<a_along_k>;
  using B = WideOperand<b_along_k>;
  const std::uint64_t a = A::describe(slab[0]), b = B::describe(slab[1]);
  multiply_fence();
  FBP_UNROLL(4)
  for (int k = 0; k < kWideDepth / 16; ++k) {
    FBP_UNROLL(2)
    for (int half = 0; half < 2; ++half)
      multiply_async<kind, !a_along_k, !b_along_k>(
          sums[half], a + half * A::next_half + k * A::next_k, b + k * B::next_k, add || k > 0);
  }
  multiply_commit();
}

// The sums of a tile over all of k. Each of the group's warps lets go of a slab for itself, and gives
// the turn to the other group once it has the last one.
template <Half kind, bool a_along_k, bool b_along_k>
FBP_DEVICE void multiply_tile(GroupSums& sums, int slabs, Ring ring, WideShared& shared,
                              SharedBarrier* next_turn) {
  const bool speaks = threadIdx.x % 32 == 0;
  SharedBarrier* before = nullptr;
  FBP_UNROLL(1)
  for (int s = 0; s < slabs; ++s) {
    barrier_wait(&shared.full[ring.at], ring.parity);
    multiply_slab<kind, a_along_k, b_along_k>(sums, shared.slab[ring.at], s > 0);
    multiply_wait<1>();  // what reads the slab before is done
    if (before && speaks) barrier_arrive(before);
    before = &shared.empty[ring.at];
    ring.skip(1);
  }
  if (speaks) barrier_arrive(next_turn);
  multiply_wait<0>();
  if (before && speaks) barrier_arrive(before);
}

FBP_DEVICE void clear(GroupSums& sums) {
  FBP_UNROLL(2)
  for (int half = 0; half < 2; ++half) {
    FBP_UNROLL(64)
    for (int e = 0; e < kHalf; ++e) sums[half][e] = 0;
  }
}

// Piece number `piece` of the warp's 8: a half, and 32 columns.
template <int piece> FBP_DEVICE void store_piece(const GroupSums& sums, float* to) {
  const int lane = threadIdx.x % 32;
  float* const at = to + lane / 4 * kPiecePitch + lane % 4 * 2;
  const float* const from = &sums[piece / 4][piece % 4 * 16];
  FBP_UNROLL(4)
  for (int j = 0; j < 4; ++j) {
    store_pair(at + 8 * j, from[4 * j], from[4 * j + 1]);
    store_pair(at + 8 * j + 8 * kPiecePitch, from[4 * j + 2], from[4 * j + 3]);
  }
}
// The same for a number known at run time; registers have no index, so each has its own code.
template <int... pieces>
FBP_DEVICE void store_piece(const GroupSums& sums, float* to, int piece,
                            std::integer_sequence<int, pieces...>) {
  ((piece == pieces ? store_piece<pieces>(sums, to) : void()), ...);
}

// A warp takes its rows of the tile through the epilogue, a lane to each column of a piece.
template <class Epilogue>
FBP_DEVICE void finish_tile(const GroupSums& sums, const WideArgs& g, TilePlace place, float* piece,
                            const Epilogue& epilogue) {
  const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
  FBP_UNROLL(1)
  for (int number = 0; number < 8; ++number) {
    store_piece(sums, piece, number, std::make_integer_sequence<int, 8>());
    __syncwarp();
    const int j = place.j + number % 4 * kPieceCols + lane;
    const int first = place.i + number / 4 * kHalf + warp * kPieceRows;
    const Lf bias(g.bias && j < g.n ? g.bias[j] : 0.0f);
    FBP_UNROLL(1)
    for (int r = 0; r < kPieceRows; r += kAtOnce) {
      typename Epilogue::Held held[kAtOnce];
      const int rows = j < g.n ? g.m - first - r : 0;
      FBP_UNROLL(kAtOnce)
      for (int e = 0; e < kAtOnce; ++e)
        if (e < rows) held[e] = epilogue.read(first + r + e, j);
      FBP_UNROLL(kAtOnce)
      for (int e = 0; e < kAtOnce; ++e)
        if (e < rows) epilogue.make(held[e], Lf(piece[(r + e) * kPiecePitch + lane]) + bias);
      FBP_UNROLL(kAtOnce)
      for (int e = 0; e < kAtOnce; ++e)
        if (e < rows) epilogue.store(first + r + e, j, held[e], place.part);
    }
    __syncwarp();
  }
}

template <Half kind, bool a_along_k, bool b_along_k, class Epilogue>
FBP_DEVICE void take_tiles(const WideArgs& g, const Epilogue& epilogue, WideShared& shared) {
  const int warp = threadIdx.x / 32, group = warp / 4;
  float* const piece = reinterpret_cast<float*>(shared.piece[warp]);
  Ring ring;
  if (group == 1) ring.skip(slabs_of(g, blockIdx.x));
  int turn = group ^ 1;  // its parity; nobody has to give the first one
  FBP_UNROLL(1)
  for (int t = blockIdx.x + group * gridDim.x; t < tile_count(g); t += kWideGroups * gridDim.x) {
    GroupSums sums;
    const int slabs = slabs_of(g, t);
    if (slabs == 0) clear(sums);
    barrier_wait(&shared.turn[group], turn);
    turn ^= 1;
    multiply_tile<kind, a_along_k, b_along_k>(sums, slabs, ring, shared, &shared.turn[group ^ 1]);
    ring.skip(slabs + slabs_of(g, t + int(gridDim.x)));
    finish_tile(sums, g, tile_place(g, t), piece, epilogue);
  }
}

// epilogue's read, make and store for every element z of C = A B + bias, or of each part of the sums.
template <Half kind, bool a_along_k, bool b_along_k, class Epilogue>
__global__ void __launch_bounds__(kWideThreads, 1)
    wide_gemm_kernel(const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b,
                     WideArgs g, Epilogue epilogue) {
  if constexpr (kHasWgmma) {
    FBP_SHARED(unsigned char, memory);
    const std::uint32_t past = shared_address(memory) % kSlabAlignment;
    WideShared& shared =
        *reinterpret_cast<WideShared*>(memory + (past ? kSlabAlignment - past : 0));
    if (threadIdx.x == 0) {
      FBP_UNROLL(1)
      for (int s = 0; s < kWideStages; ++s) {
        barrier_init(&shared.full[s], 1);
        barrier_init(&shared.empty[s], 4);
      }
      FBP_UNROLL(1)
      for (int group = 0; group < kWideGroups; ++group) barrier_init(&shared.turn[group], 4);
      barriers_are_made();
    }
    __syncthreads();
    if (threadIdx.x < kWideGroups * kGroupThreads) {
      set_registers<kRegistersToMultiply, true>();
      take_tiles<kind, a_along_k, b_along_k>(g, epilogue, shared);
    } else {
      set_registers<kRegistersToCopy, false>();
      if (threadIdx.x == kWideGroups * kGroupThreads)
        load_tiles<a_along_k, b_along_k>(a, b, g, shared);
    }
  }
}

template <bool along_k>
cudaError_t map_operand(TensorMap* map, const Shadow& x, index_t count, index_t k) {
  // (count, k) where k runs along the rows, else (k, count).
  return along_k ? make_tensor_map(map, x.at, count, k, x.row, kWideTile)
                 : make_tensor_map(map, x.at, k, count, x.row, kWideDepth);
}

template <Half kind, bool a_along_k, bool b_along_k, class Epilogue>
cudaError_t launch_wide_of(const TensorArgs& args, const Epilogue& epilogue, index_t parts,
                           int processors, cudaStream_t stream) {
  TensorMap a{}, b{};
  cudaError_t error = map_operand<a_along_k>(&a, args.a, args.m, args.k);
  if (error == cudaSuccess) error = map_operand<b_along_k>(&b, args.b, args.n, args.k);
  const auto wide_gemm = wide_gemm_kernel<kind, a_along_k, b_along_k, Epilogue>;
  if (error == cudaSuccess)
    error = cudaFuncSetAttribute(wide_gemm, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 int(kWideSharedBytes));
  if (error != cudaSuccess) return error;
  const WideArgs g{int(args.m),
                   int(args.n),
                   int(args.k),
                   int(ceil_div(args.m, kWideTile)),
                   int(ceil_div(args.n, kWideTile)),
                   int(parts),
                   int(ceil_div(ceil_div(args.k, parts), kWideDepth) * kWideDepth),
                   args.bias};
  const int blocks = tile_count(g) < processors ? tile_count(g) : processors;
  FBP_LAUNCH(wide_gemm, dim3(unsigned(blocks)), dim3(kWideThreads), kWideSharedBytes, stream)
  (a, b, g, epilogue);
  return cudaGetLastError();
}

template <bool a_along_k, bool b_along_k, class Epilogue>
cudaError_t launch_wide(const TensorArgs& args, const Epilogue& epilogue, index_t parts,
                        int processors, cudaStream_t stream) {
  const auto launch = args.a.kind == Half::float16
                          ? launch_wide_of<Half::float16, a_along_k, b_along_k, Epilogue>
                          : launch_wide_of<Half::bfloat16, a_along_k, b_along_k, Epilogue>;
  return launch(args, epilogue, parts, processors, stream);
}

}  // namespace
}  // namespace cuda
}  // namespace fastbp
