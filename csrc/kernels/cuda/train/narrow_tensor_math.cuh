// Matrices and products of narrow_tensor.cu: bfloat16 in shared memory, by mma.sync (fragments as
// ptx.cuh has them).
//
// Columns go by slabs of 64, four fragments of 16 each; a matrix has one fragment, or whole slabs
// (narrow_columns), zeros where the network has nothing. So loops over fragments are unrolled, and no
// element is asked whether it is there. A row of slabs has the eight groups of 16 bytes of each exchanged
// by the row's number, g at g ^ (row % 8), a row of one fragment its two, g at g ^ (row / 4 % 2): the
// eight rows that ldmatrix reads at a time are in different banks.
//
// Places are bytes from the beginning of shared memory. Matrices begin at multiples of 128, so from one
// group to another is an exclusive or.
#pragma once

#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/train/narrow.h"
#include "ops/lane.h"

namespace fastbp {
namespace cuda {
namespace {

template <class V> FBP_FN V* at(unsigned char* shared, int offset) {
  return reinterpret_cast<V*>(shared + offset);
}

constexpr int kSlab = 64, kFragments = 4;

// Fragments of the slab that begins with column `first` of `columns`: one, or all.
FBP_FN int fragments_of(int columns, int first) { return columns - first < kSlab ? 1 : kFragments; }

FBP_FN float from_half(std::uint32_t half) {
  return from_bits(LaneBits<float>(std::int64_t(half) << 16)).v;
}

// Group g of row r in the slab that begins with column `first`.
FBP_FN int group_at(const NarrowMatrix& m, int r, int first, int g) {
  return m.at + (r * m.row + first) * 2 + (g ^ (m.row == 16 ? r >> 2 & 1 : r & 7)) * 16;
}
FBP_FN std::uint16_t* element(unsigned char* shared, const NarrowMatrix& m, int r, int j) {
  return at<std::uint16_t>(shared, group_at(m, r, j & -kSlab, j / 8 & 7) + (j & 7) * 2);
}

FBP_DEVICE int lane_number() { return thread_number() & 31; }

// The part of a lane in ldmatrix: row in its 8 x 8 matrix, and which of four that is.
struct MatrixLane {
  int row, inner, outer;
  FBP_DEVICE MatrixLane() {
    const int lane = lane_number();
    row = lane & 7;
    inner = lane >> 3 & 1;
    outer = lane >> 4;
  }
};

// What a warp holds of 16 rows of a slab: an A operand for each 16 columns.
using Held = std::uint32_t[kFragments][4];
// And of the sums of a product: two fragments of 8 columns in each 16.
using Sums = float[kFragments][2][4];

// 16 rows from `row` on of the slab that begins with column `first`.
FBP_DEVICE void load_held(Held& a, unsigned char* shared, const NarrowMatrix& m, int row, int first,
                          int fragments) {
  const MatrixLane lane;
  const int from = group_at(m, row + 8 * lane.inner + lane.row, first, lane.outer);
  FBP_UNROLL(4)
  for (int q = 0; q < kFragments; ++q)
    if (q < fragments) load_matrices(a[q], shared + (from ^ 32 * q));
}

// sum += A W, or A W^T, for a slab of each; `w` is the lane's place in the first fragment of W.
template <bool transposed, int fragments, int steps>
FBP_DEVICE void multiply_slab(Sums& sum, const Held& a, unsigned char* shared, int w,
                              int row_bytes) {
  FBP_UNROLL(4)
  for (int k = 0; k < steps; ++k) {
    FBP_UNROLL(4)
    for (int q = 0; q < fragments; ++q) {
      std::uint32_t b[4];
      if (transposed)
        load_matrices(b, shared + ((w + 16 * q * row_bytes) ^ 32 * k));
      else
        load_matrices_transposed(b, shared + ((w + 16 * k * row_bytes) ^ 32 * q));
      const std::uint32_t low[2] = {b[0], b[1]}, high[2] = {b[2], b[3]};
      multiply_bf16(sum[q][0], a[k], low);
      multiply_bf16(sum[q][1], a[k], high);
    }
  }
}

// The same for the slabs of W that begin at row k (of W^T: column) and column n.
template <bool transposed>
FBP_DEVICE void multiply_by_weights(Sums& sum, const Held& a, unsigned char* shared,
                                    const NarrowMatrix& weights, int n, int k, int fragments,
                                    int steps) {
  const MatrixLane lane;
  const int row_bytes = weights.row * 2;
  const int w = transposed ? group_at(weights, n + 8 * lane.outer + lane.row, k, lane.inner)
                           : group_at(weights, k + 8 * lane.inner + lane.row, n, lane.outer);
  if (fragments == 1) {
    if (steps == 1)
      multiply_slab<transposed, 1, 1>(sum, a, shared, w, row_bytes);
    else
      multiply_slab<transposed, 1, kFragments>(sum, a, shared, w, row_bytes);
  } else if (steps == 1) {
    multiply_slab<transposed, kFragments, 1>(sum, a, shared, w, row_bytes);
  } else {
    multiply_slab<transposed, kFragments, kFragments>(sum, a, shared, w, row_bytes);
  }
}

// The gradients of the unit: each warp has one square of 64 x 64 of some layer's, and the biases' of
// its columns, in registers.
class SquareOfGradient {
 public:
  FBP_DEVICE void clear(const NarrowArgs& g, unsigned char* shared) {
    *biases(g, shared) = {0, 0};
    FBP_UNROLL(4)
    for (int i = 0; i < kFragments; ++i) {
      FBP_UNROLL(8)
      for (int j = 0; j < 2 * kFragments; ++j) {
        FBP_UNROLL(4)
        for (int e = 0; e < 4; ++e) sum_[i][j][e] = 0;
      }
    }
  }

  // += X^T dz over the tile's rows, a multiple of 16; those that are not there have dz = 0.
  FBP_DEVICE void add(const NarrowArgs& g, unsigned char* shared, const NarrowSquare& square,
                      int tile) {
    const NarrowStage& s = g.stage[square.stage];
    const bool high = narrow_columns(s.inputs) > 16, wide = narrow_columns(s.outputs) > 16;
    if (high && wide)
      add_fragments<kFragments, kFragments>(tile, shared, s.in, s.delta, square);
    else if (high)
      add_fragments<kFragments, 1>(tile, shared, s.in, s.delta, square);
    else if (wide)
      add_fragments<1, kFragments>(tile, shared, s.in, s.delta, square);
    else
      add_fragments<1, 1>(tile, shared, s.in, s.delta, square);
    if (square.row == 0 && s.bias) add_biases(g, shared, s.delta, square.col, wide, tile);
  }

  FBP_DEVICE void store(const NarrowArgs& g, unsigned char* shared, const NarrowSquare& square,
                        float* partial) const {
    const NarrowStage& s = g.stage[square.stage];
    float* const to = partial + s.parameters;
    const int lane = lane_number(), row = square.row + (lane >> 2);
    FBP_UNROLL(4)
    for (int i = 0; i < kFragments; ++i) {
      FBP_UNROLL(8)
      for (int j = 0; j < 2 * kFragments; ++j) {
        const int c = square.col + 8 * j + 2 * ((lane & 3));
        FBP_UNROLL(2)
        for (int e = 0; e < 4; e += 2) {
          const int r = row + 16 * i + e / 2 * 8;
          if (r < s.inputs && c < s.outputs)
            store_pair(to + r * s.outputs, c, s.outputs, sum_[i][j][e], sum_[i][j][e + 1]);
        }
      }
    }
    const int c = square.col + 2 * lane;
    const NarrowPair sums = *biases(g, shared);
    if (s.bias && square.row == 0 && c < s.outputs)
      store_pair(to + s.inputs * s.outputs, c, s.outputs, sums.first, sums.second);
  }

 private:
  // A pair to columns c, even, and c + 1 of a row of n; at once where no pair is cut by the row's end.
  FBP_DEVICE static void store_pair(float* row, int c, int n, float first, float second) {
    if (n % 2 == 0) {
      *reinterpret_cast<NarrowPair*>(row + c) = {first, second};
    } else {
      row[c] = first;
      if (c + 1 < n) row[c + 1] = second;
    }
  }

  template <int down, int across>
  FBP_DEVICE void add_fragments(int tile, unsigned char* shared, const NarrowMatrix& x,
                                const NarrowMatrix& dz, const NarrowSquare& square) {
    const MatrixLane lane;
    int from_x = group_at(x, 8 * lane.outer + lane.row, square.row, lane.inner);
    int from_dz = group_at(dz, 8 * lane.inner + lane.row, square.col, lane.outer);
    FBP_UNROLL(1)
    for (int left = tile; left > 0; left -= 16) {
      std::uint32_t a[down][4];
      FBP_UNROLL(4)
      for (int i = 0; i < down; ++i) load_matrices_transposed(a[i], shared + (from_x ^ 32 * i));
      FBP_UNROLL(4)
      for (int j = 0; j < across; ++j) {
        std::uint32_t b[4];
        load_matrices_transposed(b, shared + (from_dz ^ 32 * j));
        const std::uint32_t low[2] = {b[0], b[1]}, high[2] = {b[2], b[3]};
        FBP_UNROLL(4)
        for (int i = 0; i < down; ++i) {
          multiply_bf16(sum_[i][2 * j], a[i], low);
          multiply_bf16(sum_[i][2 * j + 1], a[i], high);
        }
      }
      from_x += 16 * x.row * 2;
      from_dz += 16 * dz.row * 2;
    }
  }

  // A lane has two neighbours of the square's columns; their sums lie in shared memory.
  FBP_DEVICE static NarrowPair* biases(const NarrowArgs& g, unsigned char* shared) {
    return at<NarrowPair>(shared, g.gradient) + thread_number();
  }
  FBP_DEVICE static void add_biases(const NarrowArgs& g, unsigned char* shared,
                                    const NarrowMatrix& dz, int col, bool wide, int tile) {
    const int lane = lane_number();
    if (!wide && lane >= 8) return;
    const unsigned char* const from = shared + (lane & 3) * 4;
    NarrowPair sum = *biases(g, shared);
    FBP_UNROLL(1)
    for (int r = 0; r < tile; r += 8) {
      std::uint32_t pair[8];
      FBP_UNROLL(8)
      for (int i = 0; i < 8; ++i)
        pair[i] =
            *reinterpret_cast<const std::uint32_t*>(from + group_at(dz, r + i, col, (lane >> 2)));
      FBP_UNROLL(8)
      for (int i = 0; i < 8; ++i) {
        sum.first += from_half(pair[i] & 0xffff);
        sum.second += from_half(pair[i] >> 16);
      }
    }
    *biases(g, shared) = sum;
  }

  float sum_[kFragments][2 * kFragments][4];
};

}  // namespace
}  // namespace cuda
}  // namespace fastbp
