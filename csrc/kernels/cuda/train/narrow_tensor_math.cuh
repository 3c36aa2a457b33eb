// The products of narrow_tensor.cu, by mma.sync with the gradients in registers; functions as in
// narrow_math.cuh.
#pragma once

#include "kernels/cuda/ptx.cuh"
#include "kernels/cuda/train/narrow_loss.cuh"
#include "ops/lane.h"

namespace fastbp {
namespace cuda {
namespace {

// Fragments as ptx.cuh and tensor_gemm.cuh have them. A warp makes 16 rows of some pairs of
// fragments, 16 columns; of the gradients it has one square of 64 x 64.
struct tensor_math {
  using Element = std::uint16_t;
  static constexpr bool kHasOnes = false;
  static constexpr int kPairs = 2;  // of a warp at once: 64 columns for two of them
  FBP_DEVICE static Element make(float x) { return Element(pack_bf16(x, 0)); }
  FBP_FN static float value(Element x) {
    return from_bits(LaneBits<float>(std::int64_t(x) << 16)).v;
  }
  FBP_FN static int columns(int n) { return (n + 15) / 16 * 16; }

  template <class Each, class Pair>
  FBP_DEVICE static void forward(const NarrowArgs& g, const NarrowStage& s, unsigned char* shared,
                                 bool quick, Each each, Pair pair) {
    const float* const bias =
        s.bias ? g.parameters.w + s.parameters + s.inputs * s.outputs : nullptr;
    product<false>(g, shared, s.in, s, bias, s.outputs, s.inputs, quick, each, pair);
  }
  template <class Each, class Pair>
  FBP_DEVICE static void backward(const NarrowArgs& g, const NarrowStage& s, unsigned char* shared,
                                  bool quick, Each each, Pair pair) {
    product<true>(g, shared, s.delta, s, nullptr, s.inputs, s.outputs, quick, each, pair);
  }

  FBP_DEVICE void clear(const NarrowArgs& g, unsigned char* shared) {
    FBP_UNROLL(8)
    for (int j = 0; j < 8; ++j) {
      bias_sum(g, shared, j) = 0;
      FBP_UNROLL(4)
      for (int i = 0; i < 4; ++i) {
        FBP_UNROLL(4)
        for (int e = 0; e < 4; ++e) sum_[i][j][e] = 0;
      }
    }
  }
  // Rows of the tile that are not there have dz = 0.
  FBP_DEVICE void add_gradients(const NarrowArgs& g, unsigned char* shared, int) {
    const int thread = thread_number();
    const NarrowSquare square = g.square[thread / 32];
    if (square.stage < 0) return;
    const NarrowStage& s = g.stage[square.stage];
    const Element* const x = at<Element>(shared, s.in.at) + square.row;
    const Element* const dz = at<Element>(shared, s.delta.at) + square.col;
    const int height = columns(s.inputs) - square.row, width = columns(s.outputs) - square.col;
    const int lane = thread % 32, row = lane % 8, inner = lane / 8 % 2 * 8, outer = lane / 16 * 8;
    FBP_UNROLL(1)
    for (int p = 0; p < g.tile; p += 16) {
      std::uint32_t a[4][4];
      FBP_UNROLL(4)
      for (int i = 0; i < 4; ++i)
        if (16 * i < height)
          load_matrices_transposed(a[i], x + (p + outer + row) * s.in.row + 16 * i + inner);
      FBP_UNROLL(4)
      for (int j = 0; j < 4; ++j) {
        if (16 * j >= width) continue;
        std::uint32_t b[4];
        load_matrices_transposed(b, dz + (p + inner + row) * s.delta.row + 16 * j + outer);
        const std::uint32_t low[2] = {b[0], b[1]}, high[2] = {b[2], b[3]};
        FBP_UNROLL(4)
        for (int i = 0; i < 4; ++i) {
          if (16 * i >= height) continue;
          multiply_bf16(sum_[i][2 * j], a[i], low);
          multiply_bf16(sum_[i][2 * j + 1], a[i], high);
        }
        bias_sum(g, shared, 2 * j) += halves(b[0]) + halves(b[1]);
        bias_sum(g, shared, 2 * j + 1) += halves(b[2]) + halves(b[3]);
      }
    }
  }
  FBP_DEVICE void store(const NarrowArgs& g, unsigned char* shared, float* partial) {
    const int thread = thread_number();
    const NarrowSquare square = g.square[thread / 32];
    if (square.stage < 0) return;
    const NarrowStage& s = g.stage[square.stage];
    float* const to = partial + s.parameters;
    const int row = square.row + thread % 32 / 4, lane = thread % 4;
    FBP_UNROLL(8)
    for (int j = 0; j < 8; ++j) {
      const int col = square.col + 8 * j + 2 * lane;
      FBP_UNROLL(4)
      for (int i = 0; i < 4; ++i) {
        FBP_UNROLL(4)
        for (int e = 0; e < 4; ++e) {
          const int r = row + 16 * i + e / 2 * 8, c = col + e % 2;
          if (r < s.inputs && c < s.outputs) to[r * s.outputs + c] = sum_[i][j][e];
        }
      }
      // A lane has the sums of its rows of column thread % 32 / 4; four lanes have all of them.
      float all = bias_sum(g, shared, j);
      all += __shfl_xor_sync(0xffffffffu, all, 1);
      all += __shfl_xor_sync(0xffffffffu, all, 2);
      const int c = square.col + 8 * j + thread % 32 / 4;
      if (s.bias && square.row == 0 && lane == 0 && c < s.outputs)
        to[s.inputs * s.outputs + c] = all;
    }
  }

 private:
  FBP_FN static float halves(std::uint32_t pair) {
    return value(Element(pair & 0xffff)) + value(Element(pair >> 16));
  }

  // n columns; W transposed or not.
  template <bool transposed, class Each, class Pair>
  FBP_DEVICE static void product(const NarrowArgs& g, unsigned char* shared, const NarrowMatrix& a,
                                 const NarrowStage& s, const float* bias, int n, int k, bool quick,
                                 Each each, Pair pair) {
    const int thread = thread_number(), warp = thread / 32, lane = thread % 32;
    const int down = g.tile / 16, across = kNarrowWarps / down, pairs = columns(n) / 16;
    const int row = warp % down * 16;
    const int in_group = lane % 8, inner = lane / 8 % 2 * 8, outer = lane / 16 * 8;
    const Element* const x = at<Element>(shared, a.at) + (row + inner + in_group) * a.row + outer;
    const Element* const w = at<Element>(shared, s.weights.at);
    FBP_UNROLL(1)
    for (int first = warp / down; first < pairs; first += kPairs * across) {
      float sum[kPairs][2][4];
      FBP_UNROLL(4)
      for (int q = 0; q < kPairs; ++q) {
        FBP_UNROLL(4)
        for (int e = 0; e < 4; ++e) {
          const int c = (first + q * across) * 16 + e / 2 * 8 + lane % 4 * 2 + e % 2;
          const float start = bias && c < n ? bias[c] : 0.0f;
          sum[q][e / 2][e % 2] = sum[q][e / 2][e % 2 + 2] = start;
        }
      }
      FBP_UNROLL(1)
      for (int p = 0; p < columns(k); p += 16) {
        std::uint32_t u[4];
        load_matrices(u, x + p);
        FBP_UNROLL(4)
        for (int q = 0; q < kPairs; ++q) {
          const int col = (first + q * across) * 16;
          if (col >= n) continue;
          std::uint32_t v[4];
          if (transposed)
            load_matrices(v, w + (col + outer + in_group) * s.weights.row + p + inner);
          else
            load_matrices_transposed(v, w + (p + inner + in_group) * s.weights.row + col + outer);
          const std::uint32_t low[2] = {v[0], v[1]}, high[2] = {v[2], v[3]};
          multiply_bf16(sum[q][0], u, low);
          multiply_bf16(sum[q][1], u, high);
        }
      }
      if (quick) {
        FBP_UNROLL(4)
        for (int q = 0; q < kPairs; ++q) {
          if (first + q * across >= pairs) continue;
          FBP_UNROLL(4)
          for (int e = 0; e < 8; e += 2)
            pair(row + lane / 4 + e % 4 / 2 * 8,
                 (first + q * across) * 16 + e / 4 * 8 + lane % 4 * 2, sum[q][e / 4][e % 4],
                 sum[q][e / 4][e % 4 + 1]);
        }
        continue;
      }
      float* const scratch = at<float>(shared, g.scratch) + thread;
      FBP_UNROLL(4)
      for (int q = 0; q < kPairs; ++q) {
        if (first + q * across >= pairs) continue;
        FBP_UNROLL(8)
        for (int e = 0; e < 8; ++e) scratch[(q * 8 + e) * kNarrowThreads] = sum[q][e / 4][e % 4];
      }
      FBP_UNROLL(1)
      for (int q = 0; q < 8 * kPairs && first + q / 8 * across < pairs; ++q) {
        const int r = row + lane / 4 + q % 4 / 2 * 8;
        const int j = (first + q / 8 * across) * 16 + q % 8 / 4 * 8 + lane % 4 * 2 + q % 2;
        each(r, j, scratch[q * kNarrowThreads]);
      }
    }
  }

  // Of the eight columns that the thread sees, in shared memory: registers are spent.
  FBP_DEVICE static float& bias_sum(const NarrowArgs& g, unsigned char* shared, int column) {
    return at<float>(shared, g.gradient)[column * kNarrowThreads + thread_number()];
  }

  float sum_[4][8][4];
};

}  // namespace
}  // namespace cuda
}  // namespace fastbp
