// The functional layer on raw memory: what the checked calls (bind_ops.cpp) and the quick ones
// (quick_ops.cpp) run. Denormals are kept, as NumPy does. C-contiguous memory where nothing else is
// said.
#pragma once

#include <vector>

#include "backend/team.h"
#include "bindings/python_lock.h"
#include "core/arena.h"
#include "engine/network.h"
#include "kernels/cpu/dispatch.h"

namespace fastbp {

template <class T> const KernelTable<T>& kernels();
template <> inline const KernelTable<float>& kernels<float>() { return active_isa().table_f32(); }
template <> inline const KernelTable<double>& kernels<double>() { return active_isa().table_f64(); }

// Work of less than this keeps the Python lock: handing it over costs about as much as 10^4
// operations, and 2e5 take a few microseconds, far below the 5 ms for which Python lets a thread run.
inline constexpr double kShortFlop = 2e5;

// Runs work(Share) on as many threads as `flop` operations are worth, without the Python lock where
// it takes long.
template <class Work> void run_shared(double flop, const Work& work) {
  const int threads = worthwhile_threads(flop);
  if (threads == 1 && flop < kShortFlop) {
    work(Share{});
    return;
  }
  struct Shared {
    const Work* work;
    int count;
  } shared{&work, threads};
  const Piece piece = [](void* context, int i) {
    const auto& all = *static_cast<Shared*>(context);
    (*all.work)(Share{i, all.count});
  };
  const PythonUnlocked unlocked;
  Team::instance().run_pieces(threads, piece, &shared, false);
}

inline constexpr double kFlopPerElement = 30;  // of an activation, roughly

// `op` on n values, as a matrix of one row; `tile` is what the operation is about (TileOp's context).
template <class T> void run_flat_tile(TileOp<T> op, const void* tile, const T* c, index_t n) {
  run_shared(kFlopPerElement * double(n), [&](Share share) {
    const Range part = split(n, 1024, share);
    if (part.begin < part.end) op(tile, c + part.begin, 0, 0, 1, part.begin, part.end - part.begin);
  });
}

template <class T>
void run_activation_forward(int activation, double param, const T* x, T* out, index_t n) {
  ActivationTile<T> tile;
  tile.out = out;
  tile.param = T(param);
  run_flat_tile(kernels<T>().activation_forward[activation], &tile, x, n);
}

template <class T>
void run_activation_backward(int activation, double param, const T* saved, const T* dy, T* out,
                             index_t n) {
  ActivationTile<T> tile;
  tile.saved = saved;
  tile.out = out;
  tile.param = T(param);
  run_flat_tile(kernels<T>().activation_backward[activation], &tile, dy, n);
}

template <class T> void run_vector_function(int function, const T* x, T* out, index_t n) {
  const auto kernel = kernels<T>().vector_function[function];
  run_shared(kFlopPerElement * double(n), [&](Share share) { kernel(x, out, n, share); });
}

template <class T> void run_softmax(const T* x, T* out, index_t rows, index_t cols) {
  run_shared(kFlopPerElement * double(rows) * double(cols),
             [&](Share share) { kernels<T>().softmax(x, out, rows, cols, share); });
}

template <class T> void run_column_sum(const T* x, T* out, index_t rows, index_t cols) {
  run_shared(double(rows) * double(cols),
             [&](Share share) { kernels<T>().column_sum(x, cols, rows, cols, out, share); });
}

// Matrices one after another, strides in elements; rows or columns are contiguous (stride 1).
template <class T> struct StackView {
  const T* data;
  index_t step, row, col;  // from one matrix, row, column to the next

  // The stride of an axis of one element is never used for a step: it may stand for contiguous. False
  // where neither rows nor columns are.
  bool settle(index_t rows, index_t cols) {
    if (cols <= 1) col = 1;
    if (rows <= 1 && col != 1) row = 1;
    return col == 1 || row == 1;
  }
};

template <class T> GemmKernel<T> own_gemm() {
  return {kernels<T>().gemm, kernels<T>().gemm_scratch};
}

// Packing buffers of the calling thread, kept between calls.
template <class T> T* gemm_scratch(const GemmKernel<T>& gemm, int threads) {
  thread_local Arena arena;
  const std::size_t bytes = array_bytes<T>(gemm.scratch, threads);
  if (arena.size() < bytes) arena = Arena(bytes);
  return arena.at<T>(0);
}

struct StackShape { index_t stack, m, n, k; };

// c = activation(a b + bias) for each matrix of a stack; bias is (n) or null.
template <class T>
void run_matmul(const StackShape& shape, const StackView<T>& a, const StackView<T>& b,
                const T* bias, int activation, double param, T* c,
                const GemmKernel<T>& gemm = own_gemm<T>()) {
  const index_t stack = shape.stack, m = shape.m, n = shape.n, k = shape.k;
  ActivationTile<T> tile;
  tile.out_row = n;
  tile.param = T(param);
  GemmArgs<T> g;
  g.m = m, g.n = n, g.k = k;
  g.a_row = a.row, g.a_col = a.col;
  g.b_row = b.row, g.b_col = b.col;
  g.c_row = n;
  g.bias = bias;
  g.op = activation == 0 ? nullptr : kernels<T>().activation_forward[activation];
  const double flop = 2.0 * double(stack) * double(m) * double(n) * double(k);
  T* scratch = gemm_scratch(gemm, worthwhile_threads(flop));
  run_shared(flop, [&](Share share) {
    for (index_t s = 0; s < stack; ++s) {
      ActivationTile<T> here = tile;
      GemmArgs<T> args = g;
      args.a = a.data + s * a.step;
      args.b = b.data + s * b.step;
      args.c = here.out = c + s * m * n;
      args.context = &here;
      args.scratch = scratch + share.id * gemm.scratch;
      gemm.run(args, share);
    }
  });
}

// The loss of rows x cols outputs; dy gets its gradient. Labels or target, the other null.
template <class T>
double run_loss(const LossSpec& spec, index_t rows, index_t cols, const T* y, const T* target,
                const std::int64_t* labels, T* dy) {
  LossArgs<T> args;
  args.rows = rows;
  args.cols = cols;
  args.y = y;
  args.dy = dy;
  args.target = target;
  args.labels = labels;
  const double divisor = loss_divisor(spec, rows, cols);
  args.dy_scale = T(1 / divisor);
  args.param = T(spec.param);
  std::vector<double> sums(std::size_t(loss_blocks(rows)));
  args.block_loss = sums.data();
  run_shared(kFlopPerElement * double(rows) * double(cols),
             [&](Share share) { kernels<T>().loss[spec.loss](args, share); });
  double total = 0;
  for (const double sum : sums) total += sum;
  return total / divisor;
}

// Step number `step`, from 1, of an optimizer on n parameters in place.
template <class T>
void run_update(const OptimizerSpec& spec, std::int64_t step, UpdateTile<T> tile, const T* gradient,
                index_t n) {
  BetaPowers powers;
  powers.advance(spec.hyper, step);
  tile.hyper = step_hyper<T>(spec, powers);
  run_flat_tile(kernels<T>().update[spec.optimizer], &tile, gradient, n);
}

}  // namespace fastbp
