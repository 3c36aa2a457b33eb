#include "engine/cuda/host_calls.h"

#include "core/arena.h"
#include "kernels/args.h"

namespace fastbp {
namespace cuda {
namespace {

constexpr const char* kWhat = "a function of the caller's own";

// Rows of a matrix, `row` elements apart, into contiguous ones (host) once the stream has come so far;
// null where there is none.
template <class T>
const T* fetch(std::vector<T>& to, const T* from, index_t row, index_t rows, index_t cols,
               cudaStream_t stream) {
  if (!from) return nullptr;
  to.resize(std::size_t(rows * cols));
  const std::size_t width = array_bytes<T>(cols);
  check(cudaMemcpy2DAsync(to.data(), width, from, array_bytes<T>(row), width, std::size_t(rows),
                          cudaMemcpyDeviceToHost, stream),
        kWhat);
  return to.data();
}

// And back.
template <class T>
void send(const std::vector<T>& from, T* to, index_t row, index_t rows, index_t cols,
          cudaStream_t stream) {
  const std::size_t width = array_bytes<T>(cols);
  check(cudaMemcpy2DAsync(to, array_bytes<T>(row), from.data(), width, width, std::size_t(rows),
                          cudaMemcpyHostToDevice, stream),
        kWhat);
}

template <class Function, class Call> void ask(Function function, void* context, const Call& call) {
  if (!function) throw Failure(FBP_INVALID_ARGUMENT, "the network has not been given functions");
  if (function(context, &call) != 0) throw GivenUp();
}

}  // namespace

template <class T>
void HostCalls<T>::activation(const HostActivation<T>& call, cudaStream_t stream) {
  const index_t rows = call.rows * (call.steps > 0 ? call.steps : 1), cols = call.cols;
  const T* const z = fetch(in_[0], call.z, call.z_row, rows, cols, stream);
  const T* const dy = fetch(in_[1], call.dy, call.dy_row, rows, cols, stream);
  check(cudaStreamSynchronize(stream), kWhat);
  out_.resize(std::size_t(rows * cols));
  ask(functions.activation, functions.context,
      fbp_host_activation{call.function, call.rows, cols, call.steps, z, dy, out_.data()});
  send(out_, call.out, call.out_row, rows, cols, stream);
}

template <class T>
void HostCalls<T>::loss(const HostLoss<T>& call, const BlockSums& to, cudaStream_t stream) {
  const index_t rows = call.rows, cols = call.cols;
  const T* const y = fetch(in_[0], call.y, cols, rows, cols, stream);
  const T* const target = fetch(in_[1], call.target, cols, rows, cols, stream);
  const T* const weight = fetch(in_[2], call.weight, cols, rows, cols, stream);
  check(cudaMemcpyAsync(&counter_, to.counter, sizeof counter_, cudaMemcpyDeviceToHost, stream),
        kWhat);
  check(cudaStreamSynchronize(stream), kWhat);
  out_.resize(std::size_t(rows * cols));
  blocks_.resize(std::size_t(loss_blocks(rows)));
  ask(functions.loss, functions.context,
      fbp_host_loss{rows, cols, call.counted, y, target, weight, out_.data(), blocks_.data()});
  send(out_, call.dy, cols, rows, cols, stream);
  check(cudaMemcpyAsync(to.sums + counter_.batch * to.blocks, blocks_.data(),
                        blocks_.size() * sizeof blocks_[0], cudaMemcpyHostToDevice, stream),
        kWhat);
}

template class HostCalls<float>;
template class HostCalls<double>;

}  // namespace cuda
}  // namespace fastbp
