#include "kernels/cuda/train/stored.h"

#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/train/with_shadow.cuh"

namespace fastbp {
namespace cuda {
namespace {

// Sums as a product leaves them: in parts, `apart` values apart, to be added up in order.
struct StoredSums {
  const float* at;
  index_t row;
  index_t parts = 1, apart = 0;
};

// The epilogue of the kernels that make products themselves, for each element of z.
template <class Epilogue>
__global__ void __launch_bounds__(kElementThreads)
    stored_kernel(StoredSums z, index_t rows, index_t cols, Epilogue epilogue) {
  for_each_element(rows, cols, [&](index_t i, index_t j) {
    const float* const at = z.at + i * z.row + j;
    Lf sum(at[0]);
    FBP_UNROLL(4)
    for (index_t p = 1; p < z.parts; ++p) sum = sum + Lf(at[p * z.apart]);
    epilogue(i, j, sum);
  });
}

// What an epilogue reads and writes of four elements side by side, 16 bytes at a time: with loads of 4
// bytes these kernels reach five sixths of the memory's speed.
struct alignas(16) Four { float value[4]; };
FBP_FN Four load_four(const float* at) { return *reinterpret_cast<const Four*>(at); }
FBP_FN void store_four(float* at, const Four& x) { *reinterpret_cast<Four*>(at) = x; }
FBP_FN bool in_fours(const void* at, index_t row) {
  return reinterpret_cast<std::uintptr_t>(at) % sizeof(Four) == 0 && row % 4 == 0;
}

struct ForwardFour {
  using Held = Forward<float>::Held;
  FBP_FN static bool fits(const Forward<float>& e) {
    return !e.c && (!e.tile.out || in_fours(e.tile.out, e.tile.out_row));
  }
  FBP_FN static void read(const Forward<float>&, index_t, index_t, Held (&)[4]) {}
  FBP_FN static void store(const Forward<float>& e, index_t i, index_t j, const Held (&held)[4]) {
    store_four(e.tile.out + i * e.tile.out_row + j,
               {{held[0].y.v, held[1].y.v, held[2].y.v, held[3].y.v}});
  }
};
struct BackwardFour {
  using Held = Backward<float>::Held;
  FBP_FN static bool fits(const Backward<float>& e) {
    return (!e.tile.saved || in_fours(e.tile.saved, e.tile.saved_row)) &&
           (!e.tile.out || in_fours(e.tile.out, e.tile.out_row));
  }
  FBP_FN static void read(const Backward<float>& e, index_t i, index_t j, Held (&held)[4]) {
    const Four x =
        e.tile.saved ? load_four(e.tile.saved + i * e.tile.saved_row + j) : Four{{0, 0, 0, 0}};
    FBP_UNROLL(4)
    for (int k = 0; k < 4; ++k) held[k].x = Lf(x.value[k]);
  }
  FBP_FN static void store(const Backward<float>& e, index_t i, index_t j, const Held (&held)[4]) {
    store_four(e.tile.out + i * e.tile.out_row + j,
               {{held[0].x.v, held[1].x.v, held[2].x.v, held[3].x.v}});
  }
};
// Slots that the optimizer does not have are null.
struct UpdateFour {
  using Held = Update<float>::Held;
  FBP_FN static bool fits(const Update<float>& e) {
    return in_fours(e.to.w, e.row) && in_fours(e.to.slot[0], 0) && in_fours(e.to.slot[1], 0);
  }
  FBP_FN static void read(const Update<float>& e, index_t i, index_t j, Held (&held)[4]) {
    const index_t at = i * e.row + j;
    const Four w = load_four(e.to.w + at), none{{0, 0, 0, 0}};
    const Four first = e.to.slot[0] ? load_four(e.to.slot[0] + at) : none;
    const Four second = e.to.slot[1] ? load_four(e.to.slot[1] + at) : none;
    FBP_UNROLL(4)
    for (int k = 0; k < 4; ++k)
      held[k] = {Lf(w.value[k]), {Lf(first.value[k]), Lf(second.value[k])}};
  }
  FBP_FN static void store(const Update<float>& e, index_t i, index_t j, const Held (&held)[4]) {
    const index_t at = i * e.row + j;
    store_four(e.to.w + at, {{held[0].w.v, held[1].w.v, held[2].w.v, held[3].w.v}});
    for (int s = 0; s < 2; ++s)
      if (e.to.slot[s])
        store_four(e.to.slot[s] + at,
                   {{held[0].s[s].v, held[1].s[s].v, held[2].s[s].v, held[3].s[s].v}});
  }
};

// As stored_kernel.
template <class Fours, class Inner>
__global__ void __launch_bounds__(kElementThreads)
    stored_4_kernel(StoredSums z, index_t rows, index_t cols, WithShadow<Inner> epilogue) {
  for_each_element(rows, cols / 4, [&](index_t i, index_t four) {
    const index_t j = 4 * four;
    typename Fours::Held held[4];
    Fours::read(epilogue.inner, i, j, held);
    const float* const at = z.at + i * z.row + j;
    Four sum = load_four(at);
    FBP_UNROLL(4)
    for (index_t p = 1; p < z.parts; ++p) {
      const Four part = load_four(at + p * z.apart);
      FBP_UNROLL(4)
      for (int k = 0; k < 4; ++k) sum.value[k] = (Lf(sum.value[k]) + Lf(part.value[k])).v;
    }
    float made[4];
    FBP_UNROLL(4)
    for (int k = 0; k < 4; ++k) made[k] = epilogue.inner.make(held[k], Lf(sum.value[k])).v;
    if (!epilogue.alone) Fours::store(epilogue.inner, i, j, held);
    if (epilogue.shadow.at) store_shadow_4(epilogue.shadow, i, j, made);
  });
}

template <class Fours, class Inner>
cudaError_t launch_stored(const StoredSums& z, index_t rows, index_t cols,
                          const WithShadow<Inner>& epilogue, cudaStream_t stream) {
  if (cols % 4 == 0 && in_fours(z.at, z.row) && in_fours(nullptr, z.apart) &&
      Fours::fits(epilogue.inner)) {
    const ElementGrid shape(rows, cols / 4);
    FBP_LAUNCH((stored_4_kernel<Fours, Inner>), shape.grid, shape.block, 0, stream)
    (z, rows, cols, epilogue);
  } else {
    const ElementGrid shape(rows, cols);
    FBP_LAUNCH(stored_kernel<WithShadow<Inner>>, shape.grid, shape.block, 0, stream)
    (z, rows, cols, epilogue);
  }
  return cudaGetLastError();
}

// Of two 16-bit values those bits that are not of a zero.
FBP_FN std::uint32_t of_positive(std::uint32_t pair) {
  return ((pair & 0x7fff) ? 0xffffu : 0u) | ((pair & 0x7fff0000) ? 0xffff0000u : 0u);
}
struct alignas(16) EightHalves { std::uint32_t pair[4]; };

// Eight columns a thread; the rest of the last ones is as it was.
__global__ void __launch_bounds__(kElementThreads)
    relu_delta_kernel(Shadow dz, Shadow y, index_t rows, index_t cols) {
  for_each_element(rows, ceil_div(cols, 8), [&](index_t i, index_t eight) {
    const index_t j = 8 * eight;
    EightHalves* const at = reinterpret_cast<EightHalves*>(dz.at + i * dz.row + j);
    const EightHalves kept = *reinterpret_cast<const EightHalves*>(y.at + i * y.row + j);
    EightHalves x = *at;
    FBP_UNROLL(4)
    for (int k = 0; k < 4; ++k) x.pair[k] &= of_positive(kept.pair[k]);
    *at = x;
  });
}

}  // namespace

cudaError_t stored_forward(const float* z, index_t z_row, index_t rows, index_t cols,
                           int activation, const ActivationTile<float>& tile, Shadow y,
                           cudaStream_t stream) {
  const Forward<float> inner{nullptr, 0, activation, tile};
  return launch_stored<ForwardFour>({z, z_row}, rows, cols,
                                    WithShadow<Forward<float>>{inner, y, !tile.out}, stream);
}

cudaError_t stored_delta(const float* dy, index_t dy_row, index_t rows, index_t cols,
                         int activation, const ActivationTile<float>& tile, Shadow dz,
                         cudaStream_t stream) {
  const Backward<float> inner{activation, tile};
  return launch_stored<BackwardFour>({dy, dy_row}, rows, cols,
                                     WithShadow<Backward<float>>{inner, dz, !tile.out}, stream);
}

cudaError_t stored_relu_delta(index_t rows, index_t cols, Shadow dz, Shadow y,
                              cudaStream_t stream) {
  const ElementGrid shape(rows, ceil_div(cols, 8));
  FBP_LAUNCH(relu_delta_kernel, shape.grid, shape.block, 0, stream)(dz, y, rows, cols);
  return cudaGetLastError();
}

cudaError_t stored_update(const float* gradient, index_t parts, index_t apart, index_t rows,
                          index_t cols, int optimizer, const Parameters<float>& to,
                          const StepTable<float>& steps, Shadow w, cudaStream_t stream) {
  Update<float> inner{to, cols, optimizer, steps};
  for (int k = optimizer_slots(optimizer); k < 2; ++k) inner.to.slot[k] = nullptr;
  return launch_stored<UpdateFour>({gradient, cols, parts, apart}, rows, cols,
                                   WithShadow<Update<float>>{inner, w}, stream);
}

}  // namespace cuda
}  // namespace fastbp
