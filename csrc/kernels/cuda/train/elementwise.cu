// What a training step does element by element: the batch's rows, activations on their own, sums of
// gradients and the update.
#include "kernels/cuda/activations.cuh"
#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/epilogues.cuh"
#include "kernels/cuda/train/kernels.h"
#include "kernels/cuda/train/loss_scale.h"
#include "kernels/cuda/train/with_shadow.cuh"
#include "ops/philox.h"

namespace fastbp {
namespace cuda {
namespace {

// Values that a thread copies at once: 16 bytes, or one where rows do not begin at multiples of that.
template <class T> constexpr int kGathered = 16 / sizeof(T);
template <class T, int count> struct alignas(count * sizeof(T)) Several { T value[count]; };

// A row's inputs, label and weights stand side by side.
template <class T> FBP_FN index_t gathered_columns(const GatherArgs<T>& g, int at_once) {
  return g.inputs / at_once + (g.labels ? 1 : 0) + (g.weight ? g.weight_copies : 0);
}
template <class T> bool gathers_several(const GatherArgs<T>& g) {
  const auto fits = [](const void* at, index_t row) {
    return reinterpret_cast<std::uintptr_t>(at) % 16 == 0 && row % kGathered<T> == 0;
  };
  return fits(g.x, g.inputs) && fits(g.x_out, g.x_out ? g.x_row : 0);
}

// Values j .. j + count of row i of the batch, and of their shadow.
template <class T, int count>
FBP_DEVICE void store_inputs(const GatherArgs<T>& g, index_t i, index_t j,
                             const Several<T, count>& x) {
  if (g.x_out) *reinterpret_cast<Several<T, count>*>(g.x_out + i * g.x_row + j) = x;
  if constexpr (sizeof(T) == sizeof(float)) {
    if (!g.x_shadow.at) return;
    if constexpr (count == 4)
      store_shadow_4(g.x_shadow, i, j, x.value);
    else
      store_shadow(g.x_shadow, i, j, x.value[0]);
  }
}

template <class T, int count>
__global__ void __launch_bounds__(kElementThreads) gather_kernel(GatherArgs<T> g) {
  using Values = Several<T, count>;
  const index_t labels_at = g.inputs / count;
  const index_t weights_at = labels_at + (g.labels ? 1 : 0);
  for_each_element(g.rows, gathered_columns(g, count), [&](index_t i, index_t j) {
    const index_t row = g.from(i);
    if (j < labels_at)
      store_inputs<T, count>(g, i, j * count,
                             reinterpret_cast<const Values*>(g.x + row * g.inputs)[j]);
    else if (j < weights_at)
      g.labels_out[i] = g.labels[row];
    else
      g.weight_out[i * g.weight_copies + j - weights_at] = g.weight[row];
  });
}

template <class T>
__global__ void __launch_bounds__(kElementThreads)
    repeat_kernel(const T* x, index_t rows, index_t copies, T* out) {
  for_each_element(rows, copies, [&](index_t i, index_t j) { out[i * copies + j] = x[i]; });
}

template <class T>
__global__ void __launch_bounds__(kElementThreads)
    clear_kernel(T* x, index_t row, index_t rows, index_t cols) {
  for_each_element(rows, cols, [&](index_t i, index_t j) { x[i * row + j] = T(0); });
}

template <class T>
__global__ void __launch_bounds__(kElementThreads) ones_kernel(T* x, index_t row, index_t rows) {
  for_each_element(rows, 1, [&](index_t i, index_t) { x[i * row] = T(1); });
}

template <class T>
__global__ void __launch_bounds__(kElementThreads)
    scale_kernel(const LossScale* scaling, bool divided, T* x, index_t row, index_t rows,
                 index_t cols) {
  const Lane<T> factor(T(divided ? 1 / scaling->scale : scaling->scale));
  for_each_element(rows, cols, [&](index_t i, index_t j) {
    T* const at = x + i * row + j;
    (Lane<T>(*at) * factor).store(at);
  });
}

__global__ void advance_kernel(RunCounter* counter) { ++counter->batch; }

// A thread draws one block of random words, which are those of four columns (ops/philox.h).
template <class T>
__global__ void __launch_bounds__(kElementThreads)
    dropout_kernel(DropoutArgs<T> args, SequenceRows at, bool per_sequence,
                   const RunCounter* counter) {
  constexpr int side = kDropoutGroup / 4;  // from one of the four columns to the next
  const DropoutStream stream =
      dropout_stream(std::uint64_t(counter->steps_done + counter->batch + 1), args.stream.layer,
                     args.stream.purpose);
  const Lf threshold(dropout_threshold(args.rate));
  const Lane<T> kept(T(1 / (1 - args.rate))), zero(T(0));
  const index_t groups = parts_of(args.cols, kDropoutGroup);
  for_each_element(args.rows, groups * side, [&](index_t i, index_t b) {
    using Word = LaneBits<float>;
    index_t row = i;
    if (at.steps > 1) {
      index_t sequence, step;
      at.find(i, &sequence, &step);
      row = per_sequence ? sequence : sequence * at.steps + step;
    }
    const std::uint32_t block = std::uint32_t(row * groups * side + b);
    Word words[4] = {Word(std::int64_t{block}), Word(std::int64_t{stream.step}),
                     Word(std::int64_t{stream.layer}), Word(std::int64_t{stream.purpose})};
    philox_rounds(words, args.seed);
    const index_t column = b / side * kDropoutGroup + b % side;
    FBP_UNROLL(4)
    for (int w = 0; w < 4; ++w) {
      const index_t j = column + w * side;
      if (j >= args.cols) continue;
      const Lane<T> factor = (dropout_fraction(words[w]) >= threshold).m ? kept : zero;
      (Lane<T>(args.x[i * args.x_row + j]) * factor).store(args.y + i * args.y_row + j);
    }
  });
}

// Loads first, of a thread as many as there are registers for: parameters and slots, then parts by the
// eight.
template <class T>
__global__ void __launch_bounds__(kElementThreads)
    add_parts_kernel(const T* part, index_t parts, index_t apart, index_t n, T* gradient,
                     Update<T> of_any_step) {
  constexpr int together = 8;
  const bool updates = of_any_step.optimizer != kNoOptimizer;
  const Update<T> update = updates ? of_any_step.at_step() : of_any_step;
  for_each_element(1, n, [&](index_t, index_t e) {
    typename Update<T>::Held held{};
    if (updates) held = update.read(0, e);
    Lane<T> sum(part[e]);
    FBP_UNROLL(1)
    for (index_t p = 1; p < parts; p += together) {
      T more[together] = {};
      FBP_UNROLL(together)
      for (int t = 0; t < together; ++t)
        if (p + t < parts) more[t] = part[(p + t) * apart + e];
      FBP_UNROLL(together)
      for (int t = 0; t < together; ++t)
        if (p + t < parts) sum = sum + Lane<T>(more[t]);
    }
    if (gradient) sum.store(gradient + e);
    if (updates) update.make(held, sum), update.store(0, e, held);
  });
}

}  // namespace

template <class T>
cudaError_t map_forward(int activation, const ElementwiseArgs<T>& args, cudaStream_t stream) {
  return launch_forward(activation, args, stream);
}

template <class T>
cudaError_t map_backward(int activation, const ElementwiseArgs<T>& args, cudaStream_t stream) {
  return launch_backward(activation, args, stream);
}

template <class T> cudaError_t gather(const GatherArgs<T>& args, cudaStream_t stream) {
  const bool several = gathers_several(args);
  const ElementGrid shape(args.rows, gathered_columns(args, several ? kGathered<T> : 1));
  if (several)
    FBP_LAUNCH((gather_kernel<T, kGathered<T>>), shape.grid, shape.block, 0, stream)(args);
  else
    FBP_LAUNCH((gather_kernel<T, 1>), shape.grid, shape.block, 0, stream)(args);
  return cudaGetLastError();
}

template <class T>
cudaError_t repeat_columns(const T* x, index_t rows, index_t copies, T* out, cudaStream_t stream) {
  const ElementGrid shape(rows, copies);
  FBP_LAUNCH(repeat_kernel<T>, shape.grid, shape.block, 0, stream)(x, rows, copies, out);
  return cudaGetLastError();
}

template <class T>
cudaError_t clear(T* x, index_t row, index_t rows, index_t cols, cudaStream_t stream) {
  const ElementGrid shape(rows, cols);
  FBP_LAUNCH(clear_kernel<T>, shape.grid, shape.block, 0, stream)(x, row, rows, cols);
  return cudaGetLastError();
}

template <class T> cudaError_t write_ones(T* x, index_t row, index_t rows, cudaStream_t stream) {
  const ElementGrid shape(rows, 1);
  FBP_LAUNCH(ones_kernel<T>, shape.grid, shape.block, 0, stream)(x, row, rows);
  return cudaGetLastError();
}

template <class T>
cudaError_t scale_by(const LossScale* scaling, bool divided, T* x, index_t row, index_t rows,
                     index_t cols, cudaStream_t stream) {
  const ElementGrid shape(rows, cols);
  FBP_LAUNCH(scale_kernel<T>, shape.grid, shape.block, 0, stream)
  (scaling, divided, x, row, rows, cols);
  return cudaGetLastError();
}

cudaError_t advance(RunCounter* counter, cudaStream_t stream) {
  FBP_LAUNCH(advance_kernel, dim3(1), dim3(1), 0, stream)(counter);
  return cudaGetLastError();
}

template <class T>
cudaError_t dropout(const DropoutArgs<T>& args, const SequenceRows& at, bool per_sequence,
                    const RunCounter* counter, cudaStream_t stream) {
  const ElementGrid shape(args.rows, parts_of(args.cols, kDropoutGroup) * (kDropoutGroup / 4));
  FBP_LAUNCH(dropout_kernel<T>, shape.grid, shape.block, 0, stream)
  (args, at, per_sequence, counter);
  return cudaGetLastError();
}

template <class T>
cudaError_t add_parts(const T* part, index_t parts, index_t apart, index_t n, T* gradient,
                      int optimizer, const Parameters<T>& to, const StepTable<T>& steps,
                      cudaStream_t stream) {
  if (n <= 0) return cudaSuccess;
  const ElementGrid shape(1, n);
  FBP_LAUNCH(add_parts_kernel<T>, shape.grid, shape.block, 0, stream)
  (part, parts, apart, n, gradient, Update<T>{to, 0, optimizer, steps});
  return cudaGetLastError();
}

#define FBP_INSTANTIATE(T)                                                                         \
  template cudaError_t map_forward(int, const ElementwiseArgs<T>&, cudaStream_t);                  \
  template cudaError_t map_backward(int, const ElementwiseArgs<T>&, cudaStream_t);                 \
  template cudaError_t gather(const GatherArgs<T>&, cudaStream_t);                                 \
  template cudaError_t repeat_columns(const T*, index_t, index_t, T*, cudaStream_t);               \
  template cudaError_t clear(T*, index_t, index_t, index_t, cudaStream_t);                         \
  template cudaError_t write_ones(T*, index_t, index_t, cudaStream_t);                             \
  template cudaError_t scale_by(const LossScale*, bool, T*, index_t, index_t, index_t,             \
                                cudaStream_t);                                                     \
  template cudaError_t dropout(const DropoutArgs<T>&, const SequenceRows&, bool,                   \
                               const RunCounter*, cudaStream_t);                                   \
  template cudaError_t add_parts(const T*, index_t, index_t, index_t, T*, int,                     \
                                 const Parameters<T>&, const StepTable<T>&, cudaStream_t);
FBP_INSTANTIATE(float)
FBP_INSTANTIATE(double)
#undef FBP_INSTANTIATE

}  // namespace cuda
}  // namespace fastbp
