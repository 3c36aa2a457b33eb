// How a block of gemm.cuh gets an operand's slabs: from global memory to registers, and later from
// there to shared memory, so that all loads of a slab are under way at once, and while the slab
// before is multiplied.
#pragma once

#include "kernels/cuda/launch.cuh"

namespace fastbp {
namespace cuda {
namespace {

// Values that one instruction moves, if they are no more than 16 bytes.
template <class T, int count> struct alignas(count * sizeof(T) < 16 ? count * sizeof(T) : 16) Pack {
  T v[count];
};
template <class T> using Quad = Pack<T, 4>;

template <class T> constexpr int kPack = 16 / int(sizeof(T));

// Which way an operand is dense in memory, where that is known when the kernel is compiled: along k, or
// along the rows of A and columns of B. One that is neither is read value by value.
enum class Dense { along_k, across, either };

// The `count` rows of A, or columns of B, of a tile, i; slabs of `depth` along k, p. In shared memory
// a slab is [p][i], rows `pitch` apart: a pack more than there are, so that packs that come along p
// are spread over the banks. `threads` threads fetch it, each `packs` packs.
template <class T, int count, int depth, int threads, Dense dense> struct Operand {
  static constexpr int width = kPack<T>;
  static constexpr int pitch = count + width;
  static constexpr int values = pitch * depth;
  static constexpr int packs = count * depth / width / threads;
  // Packs along i for p each, in the order of threads; and those along p that neighbours take, which
  // are whole sectors of memory and few enough for the banks.
  static constexpr int across = count / width;
  static constexpr int along = depth / width < 4 ? depth / width : 4;
  static_assert(packs * threads * width == count * depth && threads % across == 0, "packs");
  static_assert(threads % along == 0 && threads / along <= count, "rows of packs");
  using Held = Pack<T, width>[packs];

  const T* at;  // this thread's first value of the next slab
  index_t i_step, p_step;
  int i, p;  // of that value, in the slab
  int left;  // rows or columns that there are from the tile's first on, if fewer than `count`
  T beyond;
  bool runs_along_k;
  bool aligned;  // every pack is where 16 bytes may be read at once

  FBP_DEVICE bool along_p() const {
    return dense == Dense::either ? runs_along_k : dense == Dense::along_k;
  }
  // x: element (i, p) at x[i * i_step + p * p_step]. Where p is beyond the sum's end it is taken for
  // `beyond`.
  FBP_DEVICE Operand(const T* x, index_t i_stride, index_t p_stride, index_t count_left, int thread,
                     T beyond_end)
      : i_step(i_stride), p_step(p_stride), left(count_left < count ? int(count_left) : count),
        beyond(beyond_end), runs_along_k(p_stride == 1) {
    i = along_p() ? thread / along : thread % across * width;
    p = along_p() ? thread % along * width : thread / across;
    at = x + i * i_step + p * p_step;
    const index_t apart = along_p() ? i_step : p_step;
    aligned = (along_p() ? p_step : i_step) == 1 && apart % width == 0 &&
              reinterpret_cast<std::uintptr_t>(x) % 16 == 0;
  }

  // Where pack e is, counted from the first.
  FBP_DEVICE int pack_i(int e) const { return along_p() ? e * (threads / along) % count : 0; }
  FBP_DEVICE int pack_p(int e) const {
    return along_p() ? e * (threads / along) / count * (along * width) : e * (threads / across);
  }

  // The next slab, of which `depth_left` count.
  FBP_DEVICE void load(Held& held, index_t depth_left) {
    if (aligned && left == count && depth_left >= depth) {
      FBP_UNROLL(packs)
      for (int e = 0; e < packs; ++e)
        held[e] =
            *reinterpret_cast<const Pack<T, width>*>(at + pack_i(e) * i_step + pack_p(e) * p_step);
    } else {
      FBP_UNROLL(packs)
      for (int e = 0; e < packs; ++e) {
        const int last_i = i + pack_i(e) + (along_p() ? 0 : width - 1);
        const int last_p = p + pack_p(e) + (along_p() ? width - 1 : 0);
        if (aligned && last_i < left && last_p < depth_left)
          held[e] = *reinterpret_cast<const Pack<T, width>*>(at + pack_i(e) * i_step +
                                                             pack_p(e) * p_step);
        else
          load_values(held[e], e, depth_left);
      }
    }
    at += depth * p_step;
  }

  // Pack e, value by value.
  FBP_DEVICE void load_values(Pack<T, width>& held, int e, index_t depth_left) const {
    FBP_UNROLL(width)
    for (int c = 0; c < width; ++c) {
      const int di = pack_i(e) + (along_p() ? 0 : c), dp = pack_p(e) + (along_p() ? c : 0);
      T value = T(0);
      if (p + dp >= depth_left)
        value = beyond;
      else if (i + di < left)
        value = at[di * i_step + dp * p_step];
      held.v[c] = value;
    }
  }

  FBP_DEVICE void store(T* slab, const Held& held) const {
    FBP_UNROLL(packs)
    for (int e = 0; e < packs; ++e) {
      T* const to = slab + (p + pack_p(e)) * pitch + i + pack_i(e);
      if (along_p()) {
        FBP_UNROLL(width)
        for (int c = 0; c < width; ++c) to[c * pitch] = held[e].v[c];
      } else {
        *reinterpret_cast<Pack<T, width>*>(to) = held[e];
      }
    }
  }
};

}  // namespace
}  // namespace cuda
}  // namespace fastbp
