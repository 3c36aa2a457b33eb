// The factor of a loss whose gradients float16 would round to 0 without it, after PyTorch's
// torch.amp.GradScaler: halved with an update that is left out because its gradient is not finite, and
// doubled with every 2000th in a row that is not. It stays a power of two, within bounds.
#pragma once

#include <cstdint>

#include "core/types.h"
#include "kernels/cuda/launch.cuh"

namespace fastbp {
namespace cuda {

// In device memory. The first three are the user's to see, save and restore.
inline constexpr int kScaleValues = 3;
struct LossScale {
  float scale = 65536;
  float good = 0;     // updates since the scale changed last
  float skipped = 0;  // updates that were left out
  // Of the running batch: 1 / the scale that its gradients have, and whether one is not finite.
  float inverse = 0;
  std::int32_t overflow = 0;
};

inline constexpr float kScaleUpdates = 2000, kLeastScale = 0x1p-24f, kMostScale = 0x1p60f;

// Goes on to the next update.
FBP_FN void next_scale(LossScale& s) {
  s.good = s.overflow ? 0 : s.good + 1;
  if (s.overflow) {
    s.skipped += 1;
    if (s.scale > kLeastScale) s.scale *= 0.5f;
  } else if (s.good >= kScaleUpdates) {
    s.good = 0;
    if (s.scale < kMostScale) s.scale *= 2;
  }
}

// x (rows, cols), rows `row` elements apart, times the scale, or divided by it.
template <class T>
cudaError_t scale_by(const LossScale* scaling, bool divided, T* x, index_t row, index_t rows,
                     index_t cols, cudaStream_t stream);

}  // namespace cuda
}  // namespace fastbp
