// What a kernel is told: plain structs of pointers, shapes and strides. Strides count elements.
//
// Every kernel is called by each worker of the team with the same arguments and its own Share; it
// finds its part itself, so the split never shows in the engine, and no result depends on it.
#pragma once

#include "core/types.h"
#include "ops/fbp_fn.h"
#include "ops/philox.h"

namespace fastbp {

// Worker `id` of `count`.
struct Share {
  index_t id = 0;
  index_t count = 1;
};

// How many parts of `size` n items make, the last one perhaps shorter.
FBP_FN index_t parts_of(index_t n, index_t size) { return n / size + (n % size != 0); }

// A half-open range of rows, columns or elements.
struct Range {
  index_t begin;
  index_t end;
};

// The part of `total` items that falls to `share`, in whole multiples of `grain` (the last part
// takes the rest).
FBP_FN Range split(index_t total, index_t grain, Share share) {
  if (share.count == 1) return {0, total};
  const index_t grains = (total + grain - 1) / grain;
  const index_t begin = grains * share.id / share.count * grain;
  const index_t end = grains * (share.id + 1) / share.count * grain;
  return {begin < total ? begin : total, end < total ? end : total};
}

// The hyper-parameters of an optimizer for one step, in the kernel's precision (ops/optimizers.h
// gives each its place).
template <class T> struct StepHyper {
  static constexpr int capacity = 8;
  T value[capacity];
};

// Where an elementwise tile operation reads and writes besides the tile itself. Offsets are those
// of the whole matrix: element (i, j) of the tile at (i0, j0) is saved[(i0 + i) * saved_row + j0 +
// j].
template <class T> struct ActivationTile {
  const T* saved = nullptr;  // backward: what the forward pass kept (z or y, see Saves)
  index_t saved_row = 0;
  T* out = nullptr;  // forward: y; backward: dz. May be the tile's own memory.
  index_t out_row = 0;
  T param = 0;
};

// A tile of parameters to be updated by the tile of gradients. Parameters and optimizer slots share
// one layout.
template <class T> struct UpdateTile {
  T* w = nullptr;
  T* slot[2] = {nullptr, nullptr};
  index_t row = 0;
  StepHyper<T> hyper{};
};

// An operation on the finished tile c of rows x cols at (i0, j0) of its matrix; `context` is an
// ActivationTile or UpdateTile.
template <class T>
using TileOp = void (*)(const void* context, const T* c, index_t c_row, index_t i0, index_t rows,
                        index_t j0, index_t cols);

// C (m, n) = A (m, k) B (k, n) + bias (n), then `op` on each finished tile of C while it is in
// cache.
//
// A has a_row == 1 or a_col == 1, B has b_row == 1 or b_col == 1; C is row-major and overlaps
// neither. k == 0 gives the bias or zeros. Numerics: k is cut into chunks (of `chunk`, at most
// kMaxChunk, or where that is 0 of k_chunk); a chunk is summed in order by FMA, chunks are added in
// order.
template <class T> struct GemmArgs {
  index_t m = 0, n = 0, k = 0;
  index_t chunk = 0;
  const T* a = nullptr;
  index_t a_row = 0, a_col = 0;
  const T* b = nullptr;
  index_t b_row = 0, b_col = 0;
  // B lies by panels of KernelTable::gemm_panel columns, one behind the other: [panel][k][columns of the
  // panel]. b_row and b_col count for nothing.
  bool b_panels = false;
  T* c = nullptr;
  index_t c_row = 0;
  const T* bias = nullptr;
  TileOp<T> op = nullptr;
  const void* context = nullptr;
  // `op` works element by element on matrices whose rows follow each other as C's do: it may get
  // many rows as one.
  bool contiguous_op = false;
  // `op` alone needs C: it may stay in a scratch tile and C's memory be left untouched (it must
  // exist for large k).
  bool discard_c = false;
  // `op` is KernelTable::update[optimizer]; below 0, none of them.
  int optimizer = -1;
  // Matrices that `op` reads at its tile besides C, of one row stride: a kernel may ask the memory for them ahead.
  const T* ahead[3] = {nullptr, nullptr, nullptr};
  index_t ahead_row = 0;
  // Asked every few milliseconds where given; true: give up, whatever C then holds.
  bool (*stop)(void* context) = nullptr;
  void* stop_context = nullptr;
  T* scratch = nullptr;  // KernelTable::gemm_scratch elements for each worker, 64-byte aligned
};

// Of rows of up to so many classes the kernel of a loss over rows counts on its way which are right: the
// lanes of a vector, on every ISA.
template <class T> inline constexpr index_t kCountedColumns = 64 / index_t(sizeof(T));

// Loss of rows x cols outputs, and its gradient. y, target and dy are contiguous.
template <class T> struct LossArgs {
  index_t rows = 0, cols = 0;
  const T* y = nullptr;
  const T* target = nullptr;             // (rows, cols), or null where labels are given
  const std::int64_t* labels = nullptr;  // (rows,) class numbers, checked before
  // Factor of each element's loss and gradient, contiguous as y; of a loss over rows (rows,). Null:
  // none.
  const T* weight = nullptr;
  T* dy = nullptr;  // may be y's memory; also the working memory of softmax_cross_entropy
  // Where not null, what the metrics accuracy_argmax, counts_argmax and top_k leave (MetricArgs::block_sum
  // and counts). Only of a loss over rows of at most kCountedColumns classes.
  double* block_right = nullptr;
  std::int64_t* counts = nullptr;
  double* block_top = nullptr;
  index_t k = 0;                 // of block_top
  T dy_scale = 1;                // 1 / (rows * cols), 1 / rows or 1: the mean's factor
  T param = 0;                   // the loss's one number (LossDefaults::parameter)
  double* block_loss = nullptr;  // one sum for each block of kLossBlockRows rows
};

// y = x m, where m is 0 with probability `rate` and else 1 / (1 - rate). Element (i, j) is
// kept or not as ops/philox.h says of element (first_row + i row_step, j) of the batch. In place allowed.
template <class T> struct DropoutArgs {
  index_t rows = 0, cols = 0;
  index_t first_row = 0;  // of x, in the batch
  index_t row_step = 1;   // from one row's number in the batch to the next's
  const T* x = nullptr;
  index_t x_row = 0;
  T* y = nullptr;
  index_t y_row = 0;
  double rate = 0;
  std::uint64_t seed = 0;
  DropoutStream stream{};
};

// Normalisation of rows x cols values; each kernel of norm.inl says what it reads and writes.
template <class T> struct NormArgs {
  index_t rows = 0, cols = 0;
  const T* x = nullptr;  // what the layer reads
  index_t x_row = 0;
  const T* d = nullptr;  // backward: the gradient of what it makes
  index_t d_row = 0;
  T* y = nullptr;  // what it makes; backward: the gradient of x. May be d's memory
  index_t y_row = 0;
  const T* gamma = nullptr;  // (cols), or null: 1
  const T* beta = nullptr;   // (cols), or null: 0
  T epsilon = 0;
  T* row_stats = nullptr;       // layer: (rows, 2), mean and 1 / sqrt(variance + epsilon)
  index_t batch_rows = 1;       // batch: rows over which the statistics go
  const T* mean = nullptr;      // batch: (cols)
  const T* variance = nullptr;  // batch: (cols), divided by batch_rows
  const T* sums = nullptr;      // batch: (2, cols), of batch_norm_sums over the batch
  const T* factor = nullptr;    // by constants: (cols)
};

// One step of a recurrent cell (ops/recurrent.h) for `rows` sequences; of `units` columns, but a, r
// and dr of gates x units. Contiguous where no row stride is given.
template <class T> struct CellArgs {
  index_t rows = 0, units = 0;
  T* a = nullptr;  // x W + b; then what backward reads; backward: da
  index_t a_row = 0;
  const T* r = nullptr;  // forward: h U
  index_t r_row = 0;     // 0: all rows have the same
  T* kept = nullptr;     // of cells that keep more; backward: the last block of dr
  const T* h = nullptr;  // before the step; null: 0
  index_t h_row = 0;
  T* h_next = nullptr;  // after it, in the place of h too; forward only
  index_t h_next_row = 0;
  const T* c = nullptr;  // before the step; null: 0
  index_t c_row = 0;
  T* c_next = nullptr;  // contiguous
  // Sequence i is behind its end where step >= lengths[i]: its states stay. Null: none is.
  const std::int64_t* lengths = nullptr;
  index_t step = 0;
  // Backward. The gradient of h after the step is dh_behind + through + dy; dh is left, of the step
  // before. So dc of dc_behind, which is contiguous.
  const T* dh_behind = nullptr;  // null: 0
  T* dh = nullptr;               // in the place of dh_behind too
  index_t dh_row = 0;
  const T* through = nullptr;  // what came through the products of the step behind; may be null
  const T* dy = nullptr;       // of the step's output; may be null
  index_t dy_row = 0;
  const T* dc_behind = nullptr;  // null: 0
  T* dc = nullptr;               // in the place of dc_behind or c_next too
  T* dr = nullptr;               // of cells that keep more; of others it is da
};

// Sums of losses and metrics are made in blocks of this many rows, whatever the thread count; so are
// the threads' shares of a batch. A multiple of it is every chunk of a GEMM's sum over rows, but the
// last.
inline constexpr index_t kLossBlockRows = 16;
FBP_FN index_t loss_blocks(index_t rows) { return parts_of(rows, kLossBlockRows); }

// Work on the flat parameters and gradients goes by blocks of this many elements, so do its sums:
// 4 KiB of float32, which stay in L1 through everything that is done to them.
inline constexpr index_t kGradientBlock = 1024;
FBP_FN index_t gradient_blocks(index_t parameters) { return parts_of(parameters, kGradientBlock); }

enum class MetricKind {
  accuracy_argmax,
  accuracy_threshold,
  mse,
  mae,
  top_k,
  counts_argmax,
  counts_threshold,
};

// Sum over rows of a metric (mean over the row's columns where it is elementwise). Contiguous as
// LossArgs. The kinds that count add to `counts` instead: for each class the rows that are right, then
// those taken for it, then its own.
template <class T> struct MetricArgs {
  MetricKind kind = MetricKind::mse;
  index_t rows = 0, cols = 0;
  const T* y = nullptr;
  const T* target = nullptr;
  const std::int64_t* labels = nullptr;
  const T* error =
      nullptr;  // mse, mae: where given, (y - target) / error_scale, in the place of y and target
  T error_scale = 1;
  T threshold = 0;  // of the kinds that cut: y above it means class 1
  index_t k = 0;    // top_k
  std::int64_t* counts = nullptr;
  double* block_sum = nullptr;  // one sum for each block of kLossBlockRows rows
};

}  // namespace fastbp
