// What a block of a walk (scan_walk.cu) has in shared memory, and its product with operands as they are.
#pragma once

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/train/scan_walk.h"
#include "ops/lane.h"

namespace fastbp {
namespace cuda {
namespace {

// So many values next to each other, read at once.
template <class T, int count> struct alignas(sizeof(T) * count < 16 ? sizeof(T) * count : 16) Pack {
  T v[count];
};

// Where a thread is when all of a block go through a matrix, row by row: without a division at each
// turn.
struct Tour {
  int row, col, cols, rows_on, cols_on;
  FBP_DEVICE explicit Tour(int across)
      : row(int(threadIdx.x) / across), col(int(threadIdx.x) % across), cols(across),
        rows_on(kWalkThreads / across), cols_on(kWalkThreads % across) {}
  FBP_DEVICE void next() {
    row += rows_on;
    col += cols_on;
    if (col < cols) return;
    col -= cols;
    ++row;
  }
};

// to(row, col, from(row, col)) of a matrix. Loads are in flight together: a store that might change
// what a load reads would have each of them waited for.
template <class V, int at_once, class From, class To>
FBP_DEVICE void copy_all(int rows, int cols, const From& from, const To& to) {
  FBP_UNROLL(1)
  for (Tour at(cols); at.row < rows;) {
    V values[at_once] = {};
    Tour stored = at;
    FBP_UNROLL(at_once)
    for (int n = 0; n < at_once; ++n, at.next())
      if (at.row < rows) values[n] = from(at.row, at.col);
    FBP_UNROLL(at_once)
    for (int n = 0; n < at_once; ++n, stored.next())
      if (stored.row < rows) to(stored.row, stored.col, values[n]);
  }
}

// What a block has in its shared memory, whatever its operands are.
template <class T> struct HeldParts {
  using Part = SequenceRows::Part;
  WalkProduct is;
  int pitch, wide;
  Part* parts;     // of the rows' sequences
  const T** from;  // where the rows are fetched from
  unsigned char *in_at, *weights_at;
  T* out;     // [chunk][rows][wide]
  T* biases;  // [wide]

  FBP_DEVICE HeldParts(const WalkProduct& product, unsigned char* shared)
      : is(product), pitch(product.pitch()), wide(product.wide()),
        parts(reinterpret_cast<Part*>(shared)),
        from(reinterpret_cast<const T**>(parts + kMostWalkRows)),
        in_at(shared + WalkProduct::parts_bytes()),
        weights_at(in_at + product.in_bytes(sizeof(T)) + product.out_bytes(sizeof(T))),
        out(reinterpret_cast<T*>(in_at + product.in_bytes(sizeof(T)))),
        biases(reinterpret_cast<T*>(weights_at + product.weights_bytes(sizeof(T)))) {}

  FBP_DEVICE void locate(const SequenceRows& at, index_t row0) const {
    const index_t row = row0 + threadIdx.x;
    if (int(threadIdx.x) < is.rows && row < at.rows) parts[threadIdx.x] = at.part(row);
  }
  // Row r is fetched from row(r), r < count.
  template <class Row> FBP_DEVICE void point(int count, const Row& row) const {
    if (int(threadIdx.x) < count) from[threadIdx.x] = row(threadIdx.x);
  }
  // put(r, p, x) of k values from from[r] on, r < count; packed: by four, put_four(r, p, values).
  template <class PutFour, class Put>
  FBP_DEVICE void fetch_rows(int count, bool packed, const PutFour& put_four,
                             const Put& put) const {
    using Four = Pack<T, 4>;
    if (packed)
      copy_all<Four, 8>(
          count, is.k / 4,
          [&](int r, int p) { return *reinterpret_cast<const Four*>(from[r] + 4 * p); },
          [&](int r, int p, const Four& x) { put_four(r, 4 * p, x); });
    else
      copy_all<T, 8>(count, is.k, [&](int r, int p) { return from[r][p]; }, put);
  }
  FBP_DEVICE Lane<T> sum(int r, int col) const {
    const T* const from = out + r * wide + col;
    Lane<T> total(*from);
    FBP_UNROLL(4)
    for (int c = 1; c < is.chunks(); ++c) total = total + Lane<T>(from[c * is.rows * wide]);
    return total;
  }
};

// Operands as they are.
template <class T> struct ExactHeld : HeldParts<T> {
  using Value = T;
  using HeldParts<T>::is;
  using HeldParts<T>::pitch;
  using HeldParts<T>::wide;
  using HeldParts<T>::out;
  using HeldParts<T>::biases;
  T* in;       // [rows][pitch]
  T* weights;  // [k][wide]

  FBP_DEVICE ExactHeld(const WalkProduct& product, Rounding, unsigned char* shared)
      : HeldParts<T>(product, shared), in(reinterpret_cast<T*>(this->in_at)),
        weights(reinterpret_cast<T*>(this->weights_at)) {}
  FBP_FN static WalkOperands operands(Rounding) { return WalkOperands::exact; }

  FBP_DEVICE void put(int r, int p, T x) const { in[r * pitch + p] = x; }
  FBP_DEVICE void put_weight(int p, int col, T x) const { weights[p * wide + col] = x; }
  // Row r of `in` = k values from from[r] on, r < count.
  FBP_DEVICE void fetch(int count, bool packed) const {
    using Four = Pack<T, 4>;
    this->fetch_rows(
        count, packed,
        [&](int r, int p, const Four& x) { *reinterpret_cast<Four*>(in + r * pitch + p) = x; },
        [&](int r, int p, T x) { put(r, p, x); });
  }

  // out = in times weights, of each chunk; from the biases on where there are any. Neighbouring threads
  // have neighbouring rows: a half-warp then reads the weights of 8 packs at most.
  template <int columns> FBP_DEVICE void multiply_by(bool biased) const {
    using Right = Pack<T, columns>;
    const int pairs = is.rows / 2, across = wide / columns;
    FBP_UNROLL(1)
    for (int task = threadIdx.x; task < is.chunks() * pairs * across; task += kWalkThreads) {
      const int row = task % pairs, col = task / pairs % across * columns;
      const int chunk = task / pairs / across, begin = chunk * is.chunk;
      const int end = is.k - begin < is.chunk ? is.k : begin + is.chunk;
      const T* const left[2] = {in + row * pitch, in + (row + pairs) * pitch};
      const T* const right = weights + col;
      Lane<T> sum[2][columns];
      FBP_UNROLL(columns)
      for (int c = 0; c < columns; ++c)
        sum[0][c] = sum[1][c] = Lane<T>(biased && begin == 0 ? biases[col + c] : T(0));
      const auto add = [&](T x0, T x1, const Right& y) {
        FBP_UNROLL(columns)
        for (int c = 0; c < columns; ++c) {
          sum[0][c] = fma(Lane<T>(x0), Lane<T>(y.v[c]), sum[0][c]);
          sum[1][c] = fma(Lane<T>(x1), Lane<T>(y.v[c]), sum[1][c]);
        }
      };
      const auto at = [&](int p) { return *reinterpret_cast<const Right*>(right + p * wide); };
      // Four terms are added up while the next four are on their way.
      struct Terms {
        Pack<T, 4> x[2];
        Right y[4];
      };
      const auto terms = [&](int p) {
        Terms read;
        FBP_UNROLL(2)
        for (int e = 0; e < 2; ++e) read.x[e] = *reinterpret_cast<const Pack<T, 4>*>(left[e] + p);
        FBP_UNROLL(4)
        for (int e = 0; e < 4; ++e) read.y[e] = at(p + e);
        return read;
      };
      const int whole = begin + (end - begin) / 4 * 4;
      if (whole > begin) {
        Terms now = terms(begin);
        FBP_UNROLL(2)
        for (int p = begin + 4; p < whole; p += 4) {
          const Terms next = terms(p);
          FBP_UNROLL(4)
          for (int e = 0; e < 4; ++e) add(now.x[0].v[e], now.x[1].v[e], now.y[e]);
          now = next;
        }
        FBP_UNROLL(4)
        for (int e = 0; e < 4; ++e) add(now.x[0].v[e], now.x[1].v[e], now.y[e]);
      }
      FBP_UNROLL(1)
      for (int p = whole; p < end; ++p) add(left[0][p], left[1][p], at(p));
      T* const to = out + (chunk * is.rows + row) * wide + col;
      FBP_UNROLL(columns)
      for (int c = 0; c < columns; ++c) {
        to[c] = sum[0][c].v;
        to[pairs * wide + c] = sum[1][c].v;
      }
    }
  }
  FBP_DEVICE void multiply(int columns, bool biased) const {
    if (columns == 4)
      multiply_by<4>(biased);
    else if (columns == 2)
      multiply_by<2>(biased);
    else
      multiply_by<1>(biased);
  }
};

}  // namespace
}  // namespace cuda
}  // namespace fastbp
