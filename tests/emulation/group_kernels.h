// A product of a group of four warps from slabs that TMA copies (kernels/cuda/wgmma.cuh), right and with
// one thing left out each; and what TMA's swizzle leaves in shared memory.
#pragma once

#include <vector>

#include "kernels/cuda/wgmma.cuh"

namespace {

enum class Without { nothing, copy_wait, fence, product_wait, barrier, one_thread };

constexpr int kGroupRows = 64, kGroupCols = 128, kGroupDepth = 64, kTwoBoxes = 16384;
constexpr int kGroupShared = 1024 + 3 * 8192 + 16;

int group_a(int i, int k) { return (3 * i + 5 * k) % 9 - 4; }
int group_b(int k, int j) { return (k + 7 * j) % 11 - 5; }

// D = A (64 x 64) B (64 x 128). good[t] = whether thread t holds its part. `transposed`: k lies across
// the rows of both in memory.
template <bool transposed, Without without>
FBP_KERNEL group_product(const fastbp::cuda::TensorMap a, const fastbp::cuda::TensorMap b,
                         int* good) {
  using namespace fastbp::cuda;
  FBP_SHARED(unsigned char, memory);
  unsigned char* const slab_a = memory + (1024 - shared_address(memory) % 1024) % 1024;
  unsigned char* const slab_b = slab_a + 8192;
  auto* const arrived = reinterpret_cast<SharedBarrier*>(slab_b + kTwoBoxes);
  if (threadIdx.x == 1) {  // the device tells of a group's reading as thread 0's
    if (without != Without::barrier) barrier_init(arrived, 1);
    barriers_are_made();
  }
  __syncthreads();
  if (threadIdx.x == 1) {
    barrier_arrive_expecting(arrived, 8192 + kTwoBoxes);
    load_box(slab_a, a, 0, 0, arrived);
    load_box(slab_b, b, 0, 0, arrived);
    if (transposed) load_box(slab_b + 8192, b, 0, 64, arrived);
  }
  if (without != Without::copy_wait) barrier_wait(arrived, 0);
  if (without == Without::one_thread && threadIdx.x == 77) return;
  const std::uint64_t x = matrix_descriptor(shared_address(slab_a), 8192, 1024);
  const std::uint64_t y = matrix_descriptor(shared_address(slab_b), 8192, 1024);
  const int step = transposed ? 16 * 128 / 16 : 16 * 2 / 16;
  float d[64] = {};
  if (without != Without::fence) multiply_fence();
  for (int k = 0; k < kGroupDepth / 16; ++k)
    multiply_async_bf16<transposed, transposed>(d, x + k * step, y + k * step, k > 0);
  multiply_commit();
  if (without != Without::product_wait) multiply_wait<0>();
  const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  bool right = true;
  for (int e = 0; e < 64; ++e) {
    const int i = 16 * warp + g + e / 2 % 2 * 8, j = e / 4 * 8 + 2 * t + e % 2;
    int sum = 0;
    for (int k = 0; k < kGroupDepth; ++k) sum += group_a(i, k) * group_b(k, j);
    right = right && d[e] == float(sum);
  }
  if (threadIdx.x < kThreads) good[threadIdx.x] = right;
}

// Where the values of a box of 8 x 64 come to lie, after the manual's figure: good[0..63] = whether
// column c of all rows is right. Beyond row 5 and column 60 of the matrix are zeros.
FBP_KERNEL swizzled_box(const fastbp::cuda::TensorMap map, int* good) {
  using namespace fastbp::cuda;
  FBP_SHARED(unsigned char, memory);
  unsigned char* const slab = memory + (1024 - shared_address(memory) % 1024) % 1024;
  auto* const arrived = reinterpret_cast<SharedBarrier*>(slab + 1024);
  if (threadIdx.x == 0) {
    barrier_init(arrived, 1);
    barriers_are_made();
    barrier_arrive_expecting(arrived, 1024);
    load_box(slab, map, 0, 0, arrived);
  }
  __syncthreads();
  barrier_wait(arrived, 0);
  bool right = true;
  for (int r = 0; r < 8; ++r) {
    const int c = int(threadIdx.x), wanted = r < 5 && c < 60 ? 1 + 64 * r + c : 0;
    const auto* const row = reinterpret_cast<const std::uint16_t*>(slab + 128 * r);
    right = right && row[8 * (c / 8 ^ r) + c % 8] == wanted;
  }
  good[threadIdx.x] = right;
}

std::uint16_t bf16_bits(int x) {
  const float value = float(x);
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return std::uint16_t(bits >> 16);
}

// A matrix (rows, cols) in device memory with rows `pitch` apart.
struct DeviceMatrix {
  std::uint16_t* at = nullptr;
  template <class Value> DeviceMatrix(int rows, int cols, int pitch, Value value) {
    std::vector<std::uint16_t> host(std::size_t(rows * pitch), std::uint16_t(0x7fc0));
    for (int i = 0; i < rows; ++i)
      for (int j = 0; j < cols; ++j) host[std::size_t(i * pitch + j)] = value(i, j);
    cudaMalloc(reinterpret_cast<void**>(&at), host.size() * 2);
    cudaMemcpy(at, host.data(), host.size() * 2, cudaMemcpyHostToDevice);
  }
  ~DeviceMatrix() { cudaFree(at); }
};

template <bool transposed, Without without = Without::nothing> void run_group(int* good) {
  const auto a = [](int i, int k) { return bf16_bits(group_a(i, k)); };
  const auto b = [](int j, int k) { return bf16_bits(group_b(k, j)); };
  const auto turned = [](auto of) { return [of](int k, int i) { return of(i, k); }; };
  const DeviceMatrix x = transposed ? DeviceMatrix(kGroupDepth, kGroupRows, 72, turned(a))
                                    : DeviceMatrix(kGroupRows, kGroupDepth, 72, a);
  const DeviceMatrix y = transposed ? DeviceMatrix(kGroupDepth, kGroupCols, 136, turned(b))
                                    : DeviceMatrix(kGroupCols, kGroupDepth, 72, b);
  fastbp::cuda::TensorMap map_a{}, map_b{};
  fastbp::cuda::make_tensor_map(&map_a, x.at, 64, 64, 72, 64);
  if (transposed)
    fastbp::cuda::make_tensor_map(&map_b, y.at, kGroupDepth, kGroupCols, 136, 64);
  else
    fastbp::cuda::make_tensor_map(&map_b, y.at, kGroupCols, kGroupDepth, 72, 128);
  const auto kernel = group_product<transposed, without>;
  FBP_LAUNCH(kernel, dim3(1), dim3(128), kGroupShared, nullptr)(map_a, map_b, good);
}

void run_box(int* good) {
  const DeviceMatrix x(5, 60, 64, [](int i, int j) { return std::uint16_t(1 + 64 * i + j); });
  fastbp::cuda::TensorMap map{};
  fastbp::cuda::make_tensor_map(&map, x.at, 5, 60, 64, 8);
  FBP_LAUNCH(swizzled_box, dim3(1), dim3(kThreads), 4096, nullptr)(map, good);
}

}  // namespace
