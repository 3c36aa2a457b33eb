// The products of narrow.cu: exact_math, thread by thread in the CPU's order, and tensor_math, by
// mma.sync with the gradients in registers. Both have the same functions; all threads of the block
// call them, and barriers are the caller's.
//
// forward(g, s, shared, quick, each, pair): z = x W + b of stage s; backward(...): dx = dz W^T. Then
// each(r, j, sum) for this thread's elements of the tile, columns rounded up to whole fragments. Sums
// wait in shared memory for that (each thread's own, 256 floats apart): `each` stands in a loop that
// is not unrolled, or the code of all activations would be there for every register. Where `quick`, a
// fragment's neighbours go from registers to pair(r, j, sum, sum of j + 1) instead.
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

// 16 x 16 threads; a thread has every 16th row and column.
struct exact_math {
  using Element = float;
  static constexpr bool kHasOnes = true;  // behind the rows of x
  static constexpr int kSide = 16;
  static constexpr int kRows = 4;  // of a thread: tiles have up to 64
  FBP_FN static Element make(float x) { return x; }
  FBP_FN static float value(Element x) { return x; }
  FBP_FN static int columns(int n) { return n; }

  template <class Each, class Pair>
  FBP_DEVICE static void forward(const NarrowArgs& g, const NarrowStage& s, unsigned char* shared,
                                 bool, Each each, Pair) {
    const float* const w = at<float>(shared, s.weights.at);
    const float* const bias =
        s.bias ? g.parameters.w + s.parameters + s.inputs * s.outputs : nullptr;
    product({at<float>(shared, s.in.at), s.in.row, w, s.weights.row, 1, bias, s.outputs, s.inputs,
             s.input_chunk},
            g.tile, at<float>(shared, g.scratch), each);
  }
  template <class Each, class Pair>
  FBP_DEVICE static void backward(const NarrowArgs& g, const NarrowStage& s, unsigned char* shared,
                                  bool, Each each, Pair) {
    const float* const w = at<float>(shared, s.weights.at);
    product({at<float>(shared, s.delta.at), s.delta.row, w, 1, s.weights.row, nullptr, s.inputs,
             s.outputs, s.outputs},
            g.tile, at<float>(shared, g.scratch), each);
  }

  FBP_DEVICE void clear(const NarrowArgs& g, unsigned char* shared) {
    for (int e = threadIdx.x; e < g.count; e += kNarrowThreads)
      at<float>(shared, g.gradient)[e] = 0;
  }
  // gradient += (x, 1)^T dz, along the rows in order.
  FBP_DEVICE void add_gradients(const NarrowArgs& g, unsigned char* shared, int rows) {
    FBP_UNROLL(1)
    for (int i = 0; i < g.stages; ++i) {
      const NarrowStage& s = g.stage[i];
      const int height = s.inputs + (s.bias ? 1 : 0);
      FBP_UNROLL(1)
      for (int i0 = 0; i0 < height; i0 += 4 * kSide) {
        FBP_UNROLL(1)
        for (int j0 = 0; j0 < s.outputs; j0 += 4 * kSide)
          add_square(s, shared, at<float>(shared, g.gradient) + s.parameters, i0, j0, height, rows);
      }
    }
  }
  FBP_DEVICE void store(const NarrowArgs& g, unsigned char* shared, float* partial) const {
    for (int e = threadIdx.x; e < g.count; e += kNarrowThreads)
      partial[e] = at<float>(shared, g.gradient)[e];
  }

 private:
  // n columns of the sums over p < k of a[r * a_row + p] b[p * b_p + j * b_j], with bias[j]: in order
  // within a chunk, chunk after chunk.
  struct Product {
    const float* a;
    int a_row;
    const float* b;
    int b_p, b_j;
    const float* bias;  // or null
    int n, k, chunk;
  };
  template <class Each>
  FBP_DEVICE static void product(const Product& m, int tile, float* scratch, Each each) {
    if (m.n <= kSide) return block<1>(m, tile, scratch, each);
    for (int j = 0; j < m.n; j += 4 * kSide) {
      Product part = m;
      part.b += j * m.b_j;
      part.bias = m.bias ? m.bias + j : nullptr;
      part.n -= j;
      block<4>(part, tile, scratch, [&](int r, int c, float z) { each(r, j + c, z); });
    }
  }
  template <int cols, class Each>
  FBP_DEVICE static void block(const Product& m, int tile, float* scratch, Each each) {
    const int row = threadIdx.x / kSide, col = threadIdx.x % kSide, n = m.n;
    const float *x[kRows], *y[cols];
    Lf sum[kRows][cols], total[kRows][cols];  // of this chunk, of the chunks before it
    // Rows and columns that are not there: those of the edge again, and never stored.
    FBP_UNROLL(4)
    for (int i = 0; i < kRows; ++i)
      x[i] = m.a + (i * kSide < tile ? row + i * kSide : row) * m.a_row;
    FBP_UNROLL(4)
    for (int j = 0; j < cols; ++j) {
      const int c = col + j * kSide < n ? col + j * kSide : n - 1;
      y[j] = m.b + c * m.b_j;
      FBP_UNROLL(4)
      for (int i = 0; i < kRows; ++i) sum[i][j] = Lf(m.bias ? m.bias[c] : 0.0f);
    }
    FBP_UNROLL(1)
    for (int begin = 0; begin < m.k; begin += m.chunk) {
      const int end = m.k - begin < m.chunk ? m.k : begin + m.chunk;
      FBP_UNROLL(2)
      for (int p = begin; p < end; ++p) {
        float u[kRows], v[cols];
        FBP_UNROLL(4)
        for (int i = 0; i < kRows; ++i) u[i] = x[i][p];
        FBP_UNROLL(4)
        for (int j = 0; j < cols; ++j) v[j] = y[j][p * m.b_p];
        FBP_UNROLL(4)
        for (int i = 0; i < kRows; ++i) {
          FBP_UNROLL(4)
          for (int j = 0; j < cols; ++j) sum[i][j] = fma(Lf(u[i]), Lf(v[j]), sum[i][j]);
        }
      }
      FBP_UNROLL(4)
      for (int i = 0; i < kRows; ++i) {
        FBP_UNROLL(4)
        for (int j = 0; j < cols; ++j) {
          total[i][j] = begin == 0 ? sum[i][j] : total[i][j] + sum[i][j];
          sum[i][j] = Lf(0.0f);
        }
      }
    }
    FBP_UNROLL(4)
    for (int i = 0; i < kRows; ++i) {
      FBP_UNROLL(4)
      for (int j = 0; j < cols; ++j)
        scratch[(i * cols + j) * kNarrowThreads + threadIdx.x] = total[i][j].v;
    }
    FBP_UNROLL(1)
    for (int q = 0; q < kRows * cols; ++q) {
      const int r = row + q / cols * kSide, j = col + q % cols * kSide;
      if (r < tile && j < n) each(r, j, scratch[q * kNarrowThreads + threadIdx.x]);
    }
  }

  FBP_DEVICE static void add_square(const NarrowStage& s, unsigned char* shared, float* gradient,
                                    int i0, int j0, int height, int rows) {
    const float* const x = at<float>(shared, s.in.at);
    const float* const dz = at<float>(shared, s.delta.at);
    int row[4], col[4];
    Lf sum[4][4];
    FBP_UNROLL(4)
    for (int e = 0; e < 4; ++e) {
      row[e] = i0 + int(threadIdx.x) / kSide + e * kSide;
      col[e] = j0 + int(threadIdx.x) % kSide + e * kSide;
    }
    FBP_UNROLL(4)
    for (int i = 0; i < 4; ++i) {
      FBP_UNROLL(4)
      for (int j = 0; j < 4; ++j)
        sum[i][j] = Lf(row[i] < height && col[j] < s.outputs ? gradient[row[i] * s.outputs + col[j]]
                                                             : 0.0f);
    }
    FBP_UNROLL(2)
    for (int r = 0; r < rows; ++r) {
      float u[4], v[4];
      FBP_UNROLL(4)
      for (int e = 0; e < 4; ++e) {
        u[e] = x[r * s.in.row + (row[e] < height ? row[e] : 0)];
        v[e] = dz[r * s.delta.row + (col[e] < s.outputs ? col[e] : 0)];
      }
      FBP_UNROLL(4)
      for (int i = 0; i < 4; ++i) {
        FBP_UNROLL(4)
        for (int j = 0; j < 4; ++j) sum[i][j] = fma(Lf(u[i]), Lf(v[j]), sum[i][j]);
      }
    }
    FBP_UNROLL(4)
    for (int i = 0; i < 4; ++i) {
      FBP_UNROLL(4)
      for (int j = 0; j < 4; ++j)
        if (row[i] < height && col[j] < s.outputs)
          gradient[row[i] * s.outputs + col[j]] = sum[i][j].v;
    }
  }
};

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
