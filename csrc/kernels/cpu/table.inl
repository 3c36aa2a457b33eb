// Everything that one ISA offers, gathered into its kernel tables. Included once by each
// isa_<name>.cpp, which has defined FBP_ISA (the namespace), kTileRows, kHalfTileRows and kUpdatesGoAlong (blocking.h) and
// Item (elementwise.inl), and included the vector wrapper.

#include "kernels/cpu/blocking.h"
#include "kernels/cpu/two_products.h"
#include "kernels/kernel_table.h"

namespace fastbp {
namespace FBP_ISA {

#include "kernels/cpu/elementwise.inl"
#include "kernels/cpu/gemm.inl"
#include "kernels/cpu/loss.inl"
#include "kernels/cpu/metrics.inl"
#include "kernels/cpu/recurrent.inl"
#include "kernels/cpu/reduce.inl"
#include "kernels/cpu/dropout.inl"
#include "kernels/cpu/small_network.inl"
#include "kernels/cpu/integer_rows.inl"
#include "kernels/cpu/norm.inl"
#include "kernels/cpu/gradient.inl"

template <class T, class Loss> static constexpr auto loss_kernel() {
  if constexpr (Loss::elementwise)
    return elementwise_loss<T, Loss>;
  else
    return softmax_cross_entropy<T>;
}

template <class T> static constexpr KernelTable<T> make_table() {
  return {
#define FBP_STRING(name) #name
#define FBP_NAME(name) FBP_STRING(name)
      FBP_NAME(FBP_ISA),
      kGemmScratch<T>,
      kNr<T>,
      gemm<T>,
#define FBP_FORWARD(A) activation_forward<T, A>,
      {FBP_ACTIVATIONS(FBP_FORWARD)},
#define FBP_BACKWARD(A) activation_backward<T, A>,
      {FBP_ACTIVATIONS(FBP_BACKWARD)},
      add_saved<T>,
#define FBP_UPDATE(O) update<T, O>,
      {FBP_OPTIMIZERS(FBP_UPDATE)},
#define FBP_LOSS(L) loss_kernel<T, L>(),
      {FBP_LOSSES(FBP_LOSS)},
      metric<T>,
      softmax<T>,
      column_sum<T>,
      add_rows<T>,
      gather_rows<T>,
      gather_integers<T>,
      small_forward<T>,
      small_backward<T>,
      dropout<T>,
      random_batch,
      softmax_forward<T>,
      softmax_backward<T>,
      normalize<T>,
      layer_norm_forward<T>,
      layer_norm_backward<T>,
      layer_norm_gradient<T>,
      batch_norm_block<T>,
      batch_norm_combine<T>,
      batch_norm_forward<T>,
      batch_norm_sums<T>,
      batch_norm_backward<T>,
      batch_norm_gradient<T>,
      batch_norm_moving<T>,
      square_sum<T>,
      limit<T>,
      penalty<T>,
      blend<T>,
      limit_columns<T>,
#define FBP_FUNCTION(name) vector_function<T, VectorFunctions<Item<T>>::name>,
      {FBP_VECTOR_FUNCTIONS(FBP_FUNCTION)},
#define FBP_CELL_FORWARD(C) cell_forward<T, C>,
      {FBP_CELLS(FBP_CELL_FORWARD)},
#define FBP_CELL_BACKWARD(C) cell_backward<T, C>,
      {FBP_CELLS(FBP_CELL_BACKWARD)},
      first_non_finite<T>,
      fma_probe<T>,
  };
}

static constexpr KernelTable<float> kTable32 = make_table<float>();
static constexpr KernelTable<double> kTable64 = make_table<double>();

const KernelTable<float>& table_f32();
const KernelTable<double>& table_f64();
const KernelTable<float>& table_f32() { return kTable32; }
const KernelTable<double>& table_f64() { return kTable64; }

}  // namespace FBP_ISA
}  // namespace fastbp
