// What a block of a walk has in shared memory where its operands are rounded, and their product on tensor
// cores (ptx.cuh).
//
// The product is made transposed, U^T h^T: columns are a fragment's 16 rows, sequences the 8 columns of
// one or two fragments. A warp has 16 columns of one chunk along k at a time, of the last perhaps 8. Rows
// of both operands are as far apart as leaves the eight rows of an 8 x 8 matrix of 16 bits in different
// banks, and of TF32 the 32 values of a register: 4 g + t, 8 t + g.
#pragma once

#include "kernels/cuda/train/scan_held.cuh"
#include "kernels/cuda/train/scan_rounding.cuh"

namespace fastbp {
namespace cuda {
namespace {

struct RoundedHeld : HeldParts<float> {
  using Value = float;
  Rounding kind;

  FBP_DEVICE RoundedHeld(const WalkProduct& product, Rounding rounding, unsigned char* shared)
      : HeldParts<float>(product, shared), kind(rounding) {}
  FBP_FN static WalkOperands operands(Rounding rounding) { return operands_of(rounding); }

  // [rows_held][pitch], [k_held][weights_row].
  template <class V> FBP_DEVICE V* in() const { return reinterpret_cast<V*>(in_at); }
  template <class V> FBP_DEVICE V* weights() const { return reinterpret_cast<V*>(weights_at); }

  FBP_DEVICE void put(int r, int p, float x) const { store(in_at, r * pitch + p, x); }
  FBP_DEVICE void put_weight(int p, int col, float x) const {
    store(weights_at, p * is.weights_row() + col, x);
  }
  // Row r of the left side = k values from from[r] on, r < count.
  FBP_DEVICE void fetch(int count, bool packed) const {
    fetch_rows(
        count, packed, [&](int r, int p, const Pack<float, 4>& x) { put_four(r * pitch + p, x); },
        [&](int r, int p, float x) { put(r, p, x); });
  }

  // As ExactHeld::multiply, whatever the columns.
  FBP_DEVICE void multiply(int, bool biased) const {
    const int warp = int(threadIdx.x) / 32, tiles = int(ceil_div(wide, kWalkFragment));
    FBP_UNROLL(1)
    for (int task = warp; task < is.chunks() * tiles; task += kWalkThreads / 32) {
      const int col = task % tiles * kWalkFragment, chunk = task / tiles;
      const int begin = chunk * is.chunk;
      const int end = is.k - begin < is.chunk ? is.k : begin + is.chunk;
      const int lane = int(threadIdx.x) % 32, g = lane / 4, t = lane % 4;
      // From the first eight columns to the second: where those are missing, their sums are of the first,
      // and are not kept.
      const int second = col + 8 < wide ? 8 : 0;
      float sums[2][4];
      FBP_UNROLL(4)
      for (int e = 0; e < 4; ++e)
        sums[0][e] = sums[1][e] = biased && chunk == 0 ? biases[col + g + e / 2 * second] : 0.0f;
      if (kind == Rounding::tf32)
        add_tf32(sums, col, second, begin, end);
      else if (kind == Rounding::float16)
        add_halves<Rounding::float16>(sums, col, second, begin, end);
      else
        add_halves<Rounding::bfloat16>(sums, col, second, begin, end);
      FBP_UNROLL(2)
      for (int n = 0; n < 2; ++n) {
        FBP_UNROLL(4)
        for (int e = 0; e < 4; ++e) {
          const int row = 8 * n + 2 * t + e % 2;
          if (row < is.rows && (e < 2 || second))
            out[(chunk * is.rows + row) * wide + col + g + e / 2 * 8] = sums[n][e];
        }
      }
    }
  }

 private:
  template <Rounding of>
  FBP_DEVICE static void multiply(float (&d)[4], const std::uint32_t (&a)[4],
                                  const std::uint32_t (&b)[2]) {
    if constexpr (of == Rounding::float16)
      multiply_f16(d, a, b);
    else
      multiply_bf16(d, a, b);
  }
  FBP_DEVICE void store(unsigned char* to, int at, float x) const {
    if (kind == Rounding::tf32)
      reinterpret_cast<std::uint32_t*>(to)[at] = to_tf32(x);
    else
      reinterpret_cast<std::uint16_t*>(to)[at] = half_bits(kind, x);
  }
  FBP_DEVICE void put_four(int at, const Pack<float, 4>& x) const {
    using Words = Pack<std::uint32_t, 4>;
    using Halves = Pack<std::uint32_t, 2>;
    if (kind == Rounding::tf32)
      *reinterpret_cast<Words*>(in<std::uint32_t>() + at) = {
          {to_tf32(x.v[0]), to_tf32(x.v[1]), to_tf32(x.v[2]), to_tf32(x.v[3])}};
    else if (kind == Rounding::float16)
      *reinterpret_cast<Halves*>(in<std::uint16_t>() +
                                 at) = {{pack_f16(x.v[0], x.v[1]), pack_f16(x.v[2], x.v[3])}};
    else
      *reinterpret_cast<Halves*>(in<std::uint16_t>() +
                                 at) = {{pack_bf16(x.v[0], x.v[1]), pack_bf16(x.v[2], x.v[3])}};
  }

  // Of the columns from `col` and `col + second` on and all sequences: begin <= p < end. Chunks are whole
  // fragments along k (k_chunk), but for the last, behind which zeros follow.
  template <Rounding kind>
  FBP_DEVICE void add_halves(float (&sums)[2][4], int col, int second, int begin, int end) const {
    const int lane = int(threadIdx.x) % 32, odd = lane / 8 % 2, outer = lane / 16;
    const int row = is.weights_row();
    const bool two = is.rows_held() > 8;
    const std::uint16_t* const left =
        in<std::uint16_t>() + ((two ? 8 * outer : 0) + lane % 8) * pitch + 8 * odd;
    const std::uint16_t* const right =
        weights<std::uint16_t>() + (8 * outer + lane % 8) * row + col + odd * second;
    FBP_UNROLL(4)
    for (int p = begin; p < end; p += 16) {
      std::uint32_t a[4], b[4];
      load_matrices_transposed(a, right + p * row);
      load_matrices(b, left + p);
      const std::uint32_t low[2] = {b[0], b[1]}, high[2] = {b[2], b[3]};
      multiply<kind>(sums[0], a, low);
      if (two) multiply<kind>(sums[1], a, high);
    }
  }
  FBP_DEVICE void add_tf32(float (&sums)[2][4], int col, int second, int begin, int end) const {
    const int lane = int(threadIdx.x) % 32, g = lane / 4, t = lane % 4, row = is.weights_row();
    const bool two = is.rows_held() > 8;
    const std::uint32_t* const left = in<std::uint32_t>() + g * pitch + t;
    const std::uint32_t* const right = weights<std::uint32_t>() + t * row + col + g;
    FBP_UNROLL(4)
    for (int p = begin; p < end; p += 8) {
      std::uint32_t a[4];
      FBP_UNROLL(4)
      for (int e = 0; e < 4; ++e) a[e] = right[(p + e / 2 * 4) * row + e % 2 * second];
      const std::uint32_t low[2] = {left[p], left[p + 4]};
      multiply_tf32(sums[0], a, low);
      if (!two) continue;
      const std::uint32_t high[2] = {left[8 * pitch + p], left[8 * pitch + p + 4]};
      multiply_tf32(sums[1], a, high);
    }
  }
};

}  // namespace
}  // namespace cuda
}  // namespace fastbp
