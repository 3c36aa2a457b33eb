// The products of narrow.cu, thread by thread in the CPU's order. All threads of the block call, and
// barriers are the caller's.
//
// forward(g, s, shared, each): z = x W + b of stage s; backward(...): dx = dz W^T. Then each(r, j,
// sum) for this thread's elements of the tile. Sums wait in shared memory for that (each thread's own,
// 256 floats apart): `each` stands in a loop that is not unrolled, or the code of all activations
// would be there for every register.
#pragma once

#include "kernels/cuda/train/narrow_loss.cuh"
#include "ops/lane.h"

namespace fastbp {
namespace cuda {
namespace {

// 16 x 16 threads; a thread has every 16th row and column.
struct exact_math {
  using Element = float;
  static constexpr bool kHasOnes = true;  // behind the rows of x
  static constexpr int kSide = 16;
  static constexpr int kRows = 4;  // of a thread: tiles have up to 64
  FBP_FN static Element make(float x) { return x; }
  FBP_FN static float value(Element x) { return x; }
  FBP_FN static int columns(int n) { return n; }

  template <class Each>
  FBP_DEVICE static void forward(const NarrowArgs& g, const NarrowStage& s, unsigned char* shared,
                                 Each each) {
    const float* const w = at<float>(shared, s.weights.at);
    const float* const bias =
        s.bias ? g.parameters.w + s.parameters + s.inputs * s.outputs : nullptr;
    product({at<float>(shared, s.in.at), s.in.row, w, s.weights.row, 1, bias, s.outputs, s.inputs,
             s.input_chunk},
            g.tile, at<float>(shared, g.scratch), each);
  }
  template <class Each>
  FBP_DEVICE static void backward(const NarrowArgs& g, const NarrowStage& s, unsigned char* shared,
                                  Each each) {
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

}  // namespace
}  // namespace cuda
}  // namespace fastbp
