// Whether a network is narrow enough to be trained whole by one kernel (kernels/cuda/train/narrow.h),
// and what that kernel is told.
#pragma once

#include "engine/cuda/chain.h"
#include "engine/layout.h"
#include "kernels/cuda/train/narrow.h"

namespace fastbp {
namespace cuda {

// What the kernels are told of a stage, but for its places in shared memory.
NarrowStage narrow_stage(const Stage& stage);

class NarrowPlan {
 public:
  NarrowPlan() = default;
  // tensor: products on tensor cores. device: the running one, which is asked for what it has.
  NarrowPlan(const NetworkLayout& layout, bool tensor, int device);

  // Whether the network fits; otherwise stages are launched one by one.
  bool fits() const { return grid_ > 0; }
  // Whether a batch of so many rows is trained sooner than stage by stage, as measured on an H100; of
  // either way the bits are the same. On tensor cores it always was.
  bool is_quicker(const NetworkLayout& layout, index_t rows) const;
  // Gradients of parts of a batch of so many rows that are summed apart.
  index_t partials_of(const NetworkLayout& layout, index_t rows) const {
    return batch(layout, rows).units;
  }
  // Enqueues the next `steps` batches of an epoch of n rows. chain.partials has room for those of
  // batch.rows_per_batch rows.
  void train(const Chain<float>& chain, const DeviceBatch<float>& batch, index_t n,
             index_t steps) const;

 private:
  // Exactly, the units are the chunks of the numerics promise; on tensor cores, as many as the device
  // has blocks for.
  NarrowBatch batch(const NetworkLayout& layout, index_t rows) const;
  void take_metrics(NarrowArgs& args, const Chain<float>& chain,
                    const std::vector<MetricSpec>& metrics) const;
  void place_matrices(const NetworkLayout& layout, int tile, bool gradient_inside);
  void place_transposed(int stage);
  // For the kernel on tensor cores (narrow_tensor.cu).
  void place_tensor_matrices(const NetworkLayout& layout, int tile);
  bool place_squares();
  NarrowMatrix tensor_matrix(index_t rows, index_t cols);
  NarrowBatch tensor_batch(index_t rows) const;
  static void take_tensor_paths(NarrowArgs& args);
  int take(index_t bytes);
  NarrowMatrix matrix(index_t rows, index_t cols);
  NarrowMatrix transposed(index_t cols);
  NarrowMatrix floats(index_t rows, index_t cols);

  NarrowArgs args_;
  bool tensor_ = false;
  int grid_ = 0;
};

}  // namespace cuda
}  // namespace fastbp
