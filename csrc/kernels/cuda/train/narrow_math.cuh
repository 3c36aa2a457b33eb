// The products of narrow.cu, in the CPU's order. All threads of the block call, and barriers are the
// caller's.
//
// All three forms are one: sums over p of a[p][i] b[p][j], where p runs down the rows of both
// operands, so that a thread reads its 4 x 4 outputs' values of each p as two words of 16 bytes. That
// is why shared memory has activations, deltas and weights twice, by rows and transposed (narrow.h):
//
//   forward   z[r][j]  = sum over inputs   x^T[p][r] w[p][j]
//   backward  dy[r][i] = sum over outputs  dz^T[p][r] w^T[p][i]
//   gradient  dw[i][j] = sum over rows     x[p][i] dz[p][j]
//
// Where 4 x 4 would leave most threads idle, a thread has 2 x 2 or one. Rows and columns up to whole
// words are there, and what they give is never used.
#pragma once

#include "kernels/cuda/epilogues.cuh"
#include "kernels/cuda/train/narrow_loss.cuh"

namespace fastbp {
namespace cuda {
namespace {

// Neighbours in a row, one access.
template <int n> struct alignas(4 * n) Word { float v[n]; };
template <int n> FBP_FN Word<n> load_word(const float* from) {
  return *reinterpret_cast<const Word<n>*>(from);
}
template <int n> FBP_FN void store_word(float* to, const Word<n>& word) {
  *reinterpret_cast<Word<n>*>(to) = word;
}

// e / d by 1 / d as a float, for 0 <= e < 2^16 and d <= 256: e + 0.5 over d is at least 0.5 / d away
// from integers, and the roundings together move it by less than 2^-6 / d.
FBP_FN int quotient(int e, float reciprocal) { return int((float(e) + 0.5f) * reciprocal); }

FBP_FN int whole_words(int n) { return (n + 3) / 4; }

// side x side sums over p < k, from what they are: in order within a chunk, chunk after chunk. The
// operands' first rows and what is between their rows, in bytes of shared memory: of pointers the
// compiler loses sight of where they point to.
struct Factors { int a, b, a_row, b_row, k, chunk; };

template <int side>
FBP_FN void multiply(const unsigned char* shared, Factors f, Lf (&sum)[side][side]) {
  Lf total[side][side];  // of the chunks so far
  FBP_UNROLL(1)
  for (int begin = 0; begin < f.k; begin += f.chunk) {
    const int count = f.k - begin < f.chunk ? f.k - begin : f.chunk;
    FBP_UNROLL(4)
    for (int p = 0; p < count; ++p) {
      const auto a = *reinterpret_cast<const Word<side>*>(shared + f.a);
      const auto b = *reinterpret_cast<const Word<side>*>(shared + f.b);
      f.a += f.a_row;
      f.b += f.b_row;
      FBP_UNROLL(4)
      for (int i = 0; i < side; ++i) {
        FBP_UNROLL(4)
        for (int j = 0; j < side; ++j) sum[i][j] = fma(Lf(a.v[i]), Lf(b.v[j]), sum[i][j]);
      }
    }
    if (count == f.k) return;
    FBP_UNROLL(4)
    for (int i = 0; i < side; ++i) {
      FBP_UNROLL(4)
      for (int j = 0; j < side; ++j) {
        total[i][j] = begin == 0 ? sum[i][j] : total[i][j] + sum[i][j];
        sum[i][j] = begin + count < f.k ? Lf(0.0f) : total[i][j];
      }
    }
  }
}

// Whether the stage's activation is short enough to stand in the code for every register: none, or
// ReLU.
FBP_FN bool is_short(int activation) {
  return activation == activation_number<Identity>() || activation == activation_number<Relu>();
}

// A product through a stage, forward or back, of so many rows; what becomes of its sums.
struct NarrowPass {
  Factors of;  // of the first row and column
  const float* bias = nullptr;
  int rows = 0, n = 0;
  float* to = nullptr;  // (rows, n)
  float* to_t = nullptr;
  int row = 0, row_t = 0;
  bool relu = false;            // forward, or its derivative where `kept` is there
  const float* kept = nullptr;  // rows apart as those of `to`'s stage
  int kept_row = 0;
  float param = 0;
};

template <int side>
FBP_DEVICE void pass_squares(const NarrowPass& pass, const unsigned char* shared) {
  const int across = (pass.n + side - 1) / side, down = (pass.rows + side - 1) / side;
  FBP_UNROLL(1)
  for (int square = threadIdx.x; square < down * across; square += kNarrowThreads) {
    const int r = square / across * side, c = square % across * side;
    Word<side> start{};
    if (pass.bias) start = load_word<side>(pass.bias + c);
    Lf sum[side][side];
    FBP_UNROLL(4)
    for (int i = 0; i < side; ++i) {
      FBP_UNROLL(4)
      for (int j = 0; j < side; ++j) sum[i][j] = Lf(start.v[j]);
    }
    Factors of = pass.of;
    of.a += 4 * r;
    of.b += 4 * c;
    multiply<side>(shared, of, sum);
    Word<side> by_column[side];
    FBP_UNROLL(4)
    for (int i = 0; i < side; ++i) {
      Word<side> kept{}, out;
      if (pass.kept) kept = load_word<side>(pass.kept + (r + i) * pass.kept_row + c);
      FBP_UNROLL(4)
      for (int j = 0; j < side; ++j) {
        Lf y = sum[i][j];
        if (pass.relu)
          y = pass.kept ? Relu::backward(Lf(kept.v[j]), y, Lf(pass.param))
                        : Relu::forward(y, Lf(pass.param));
        out.v[j] = by_column[j].v[i] = y.v;
      }
      if (pass.to_t) {
        store_word<side>(pass.to + (r + i) * pass.row + c, out);
        continue;
      }
      FBP_UNROLL(4)
      for (int j = 0; j < side; ++j)  // the last stage's, without gaps
        if (r + i < pass.rows && c + j < pass.n) pass.to[(r + i) * pass.row + c + j] = out.v[j];
    }
    if (!pass.to_t) continue;
    FBP_UNROLL(4)
    for (int j = 0; j < side; ++j)
      store_word<side>(pass.to_t + (c + j) * pass.row_t + r, by_column[j]);
  }
}

FBP_DEVICE void take_pass(const NarrowPass& pass, const unsigned char* shared) {
  constexpr int kEnough = kNarrowThreads / 2;
  const auto squares = [&](int side) {
    return ((pass.n + side - 1) / side) * ((pass.rows + side - 1) / side);
  };
  if (squares(4) >= kEnough)
    pass_squares<4>(pass, shared);
  else if (squares(2) >= kEnough)
    pass_squares<2>(pass, shared);
  else
    pass_squares<1>(pass, shared);
}

FBP_FN Factors factors(const NarrowMatrix& a, const NarrowMatrix& b, int k, int chunk) {
  return {a.at, b.at, 4 * a.row, 4 * b.row, k, chunk};
}

FBP_DEVICE NarrowPass forward_pass(const NarrowStage& s, unsigned char* shared, int rows,
                                   bool last) {
  NarrowPass pass;
  pass.of = factors(s.in_t, s.weights, s.inputs, s.input_chunk);
  pass.bias = at<float>(shared, s.weights.at) + s.inputs * s.weights.row;
  pass.rows = rows;
  pass.n = s.outputs;
  pass.to = at<float>(shared, s.out.at);
  pass.row = s.out.row;
  pass.to_t = last ? nullptr : at<float>(shared, s.out_t.at);
  pass.row_t = s.out_t.row;
  pass.relu = !last && s.activation == activation_number<Relu>();
  pass.param = s.param;
  return pass;
}

// From stage s to the one below it.
FBP_DEVICE NarrowPass backward_pass(const NarrowStage& s, const NarrowStage& below,
                                    unsigned char* shared, int rows) {
  NarrowPass pass;
  pass.of = factors(s.delta_t, s.weights_t, s.outputs, s.outputs);
  pass.rows = rows;
  pass.n = s.inputs;
  pass.to = at<float>(shared, below.delta.at);
  pass.row = below.delta.row;
  pass.to_t = at<float>(shared, below.delta_t.at);
  pass.row_t = below.delta_t.row;
  pass.relu = below.activation == activation_number<Relu>();
  pass.kept = pass.relu ? at<float>(shared, below.kept.at) : nullptr;
  pass.kept_row = below.kept.row;
  pass.param = below.param;
  return pass;
}

// body(row, column, element) for the elements of rows without gaps.
template <class Body>
FBP_DEVICE void for_elements(int count, int cols, float reciprocal, Body body) {
  FBP_UNROLL(1)
  for (int e = threadIdx.x; e < count; e += kNarrowThreads) {
    const int r = quotient(e, reciprocal);
    body(r, e - r * cols, e);
  }
}

// y = f(z) where the product left z.
FBP_DEVICE void activate(const NarrowStage& s, unsigned char* shared, int rows, bool last) {
  const Forward<float> f{nullptr, 0, s.activation, {nullptr, 0, nullptr, 0, s.param}};
  float *const out = at<float>(shared, s.out.at), *const out_t = at<float>(shared, s.out_t.at);
  float* const kept = at<float>(shared, s.kept.at);
  for_elements(rows * s.outputs, s.outputs, s.of_outputs, [&](int r, int j, int) {
    const Lf z(out[r * s.out.row + j]), y = f.apply(z);
    if (s.keeps_z) kept[r * s.kept.row + j] = z.v;
    out[r * s.out.row + j] = y.v;
    if (!last) out_t[j * s.out_t.row + r] = y.v;
  });
}

// dz = dy f'(kept), from rows `row` apart.
FBP_DEVICE void differentiate(const NarrowStage& s, unsigned char* shared, int rows,
                              const float* from, int row) {
  const Backward<float> f{s.activation, {nullptr, 0, nullptr, 0, s.param}};
  float *const to = at<float>(shared, s.delta.at), *const to_t = at<float>(shared, s.delta_t.at);
  const float* const kept = at<float>(shared, s.kept.at);
  for_elements(rows * s.outputs, s.outputs, s.of_outputs, [&](int r, int j, int) {
    const Lf dy(from[r * row + j]);
    const Lf saved(s.keeps_y || s.keeps_z ? kept[r * s.kept.row + j] : dy.v);
    const Lf dz = f.of(saved, dy);
    to[r * s.delta.row + j] = to_t[j * s.delta_t.row + r] = dz.v;
  });
}

// (x, 1)^T dz of a tile's rows in chunks; onto what the gradient is, unless it is `fresh`. Squares of
// all stages are dealt out to the threads in one go, beginning behind `*dealt`.
template <int side>
FBP_DEVICE void gradient_squares(const NarrowStage& s, unsigned char* shared, float* gradient,
                                 int rows, int chunk, bool fresh, int* dealt) {
  const int across = (s.outputs + side - 1) / side, inner = (s.inputs + side - 1) / side;
  const int squares = (inner + (s.bias ? 1 : 0)) * across;
  float* const to = gradient + s.parameters;
  FBP_UNROLL(1)
  for (int square = (int(threadIdx.x) - *dealt) & (kNarrowThreads - 1); square < squares;
       square += kNarrowThreads) {
    const int down = square / across, c = square % across * side;
    const bool ones = down == inner;
    const int i0 = ones ? s.inputs : down * side, column = ones ? 4 * whole_words(s.inputs) : i0;
    const int height = ones ? 1 : s.inputs - i0 < side ? s.inputs - i0 : side;
    Lf sum[side][side];
    FBP_UNROLL(4)
    for (int i = 0; i < side; ++i) {
      FBP_UNROLL(4)
      for (int j = 0; j < side; ++j)
        sum[i][j] =
            Lf(!fresh && i < height && c + j < s.outputs ? to[(i0 + i) * s.outputs + c + j] : 0.0f);
    }
    Factors of = factors(s.in, s.delta, rows, chunk);
    of.a += 4 * column;
    of.b += 4 * c;
    multiply<side>(shared, of, sum);
    FBP_UNROLL(4)
    for (int i = 0; i < side; ++i) {
      FBP_UNROLL(4)
      for (int j = 0; j < side; ++j)
        if (i < height && c + j < s.outputs) to[(i0 + i) * s.outputs + c + j] = sum[i][j].v;
    }
  }
  *dealt = (*dealt + squares) & (kNarrowThreads - 1);
}

FBP_DEVICE void add_gradients(const NarrowArgs& g, unsigned char* shared, float* gradient, int rows,
                              int chunk, bool fresh) {
  int dealt = 0;
  FBP_UNROLL(1)
  for (int i = 0; i < g.stages; ++i) {
    const NarrowStage& s = g.stage[i];
    if ((whole_words(s.inputs) + 1) * whole_words(s.outputs) >= 32)
      gradient_squares<4>(s, shared, gradient, rows, chunk, fresh, &dealt);
    else
      gradient_squares<1>(s, shared, gradient, rows, chunk, fresh, &dealt);
  }
}

}  // namespace
}  // namespace cuda
}  // namespace fastbp
