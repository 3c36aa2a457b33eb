// build: emulated -DFASTBP_EMULATION -O0
// The emulated device: what it runs, and what it catches. Then a matrix product with its activation on
// it: by the small tiles alone, since each kind takes g++ ten seconds under the sanitizers (of
// .ci/sanitize), and test_exact_products.cpp has them all.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "check.h"
#include "device_memory.h"
#include "kernels/cuda/epilogues.cuh"
#include "kernels/cuda/gemm.cuh"
#include "kernels/cuda/launch.cuh"

using namespace fastbp;

namespace {

constexpr const char* kSchedules[] = {"forward", "reverse", "random:0", "random:1",
                                      "random:18446744073709551615"};

void expect_success() {
  FBP_EXPECT(cudaGetLastError() == cudaSuccess);
  FBP_EXPECT(cudaStreamSynchronize(nullptr) == cudaSuccess);
}

// The last launch must have failed with this error, or its kernel, and the reason must contain
// `part`.
void expect_failure(cudaError_t error, const std::string& part) {
  cudaError_t got = cudaGetLastError();
  if (got == cudaSuccess) got = cudaStreamSynchronize(nullptr);
  const std::string reason = cudaGetErrorString(got);
  FBP_EXPECT(got == error);
  FBP_EXPECT(reason.find(part) != std::string::npos);
  if (got != error || reason.find(part) == std::string::npos)
    std::printf("  got %d: %s\n", int(got), reason.c_str());
  expect_success();  // forgotten
}

__global__ void count_visits(int* visits) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  ++visits[block * blockDim.x * blockDim.y * blockDim.z + thread];
}

void every_thread_runs_once() {
  for (const char* schedule : kSchedules) {
    FBP_EXPECT(emulation::set_schedule(schedule));
    const Device<int> visits(std::vector<int>(2 * 3 * 2 * 4 * 3 * 2, 0));
    FBP_LAUNCH(count_visits, dim3(2, 3, 2), dim3(4, 3, 2), 0, nullptr)(visits.data());
    expect_success();
    FBP_EXPECT(visits.values() == std::vector<int>(2 * 3 * 2 * 4 * 3 * 2, 1));
  }
}

// y = x turned around within each block, through shared memory.
template <bool WithBarrier> __global__ void turn_around(const float* x, float* y) {
  FBP_SHARED(float, shared);
  const unsigned i = threadIdx.x, base = blockIdx.x * blockDim.x;
  shared[i] = x[base + i];
  if (WithBarrier) __syncthreads();
  y[base + i] = shared[blockDim.x - 1 - i];
}

template <bool WithBarrier> std::vector<float> turned(const char* schedule) {
  FBP_EXPECT(emulation::set_schedule(schedule));
  std::vector<float> values(3 * 64);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = float(i);
  const Device<float> x(values), y(values.size());
  FBP_LAUNCH(turn_around<WithBarrier>, dim3(3), dim3(64), 64 * sizeof(float), nullptr)(x.data(),
                                                                                       y.data());
  expect_success();
  return y.values();
}

void barriers_order_and_races_show() {
  const std::vector<float> right = turned<true>("forward");
  FBP_EXPECT(right[0] == 63 && right[64] == 127 && right[191] == 128);
  for (const char* schedule : kSchedules) FBP_EXPECT(turned<true>(schedule) == right);
  // Without the barrier half of the threads read what is not there yet; the order says which half.
  const std::vector<float> forward = turned<false>("forward"), reverse = turned<false>("reverse");
  FBP_EXPECT(std::isnan(forward[0]) && !std::isnan(forward[63]));
  FBP_EXPECT(!std::isnan(reverse[0]) && std::isnan(reverse[63]));
}

__global__ void wait_at_two_places() {
  if (threadIdx.x < 3)
    __syncthreads();
  else
    __syncthreads();
}

__global__ void leave_early() {
  if (threadIdx.x == 5) return;
  __syncthreads();
}

__global__ void wait_more_often(int rounds) {
  for (int i = 0; i < rounds + (threadIdx.x == 1); ++i) __syncthreads();
}

void divergence_is_an_error() {
  for (const char* schedule : kSchedules) {
    FBP_EXPECT(emulation::set_schedule(schedule));
    FBP_LAUNCH(wait_at_two_places, dim3(1), dim3(8), 0, nullptr)();
    expect_failure(cudaErrorLaunchFailure, "do not meet at one barrier: thread (0, 0, 0) is at ");
    FBP_LAUNCH(leave_early, dim3(2), dim3(8), 0, nullptr)();
    expect_failure(cudaErrorLaunchFailure, "thread (5, 0, 0) has ended");
    FBP_LAUNCH(wait_more_often, dim3(1), dim3(2), 0, nullptr)(3);
    expect_failure(cudaErrorLaunchFailure, "thread (0, 0, 0) has ended, thread (1, 0, 0) is at ");
    FBP_LAUNCH(wait_more_often, dim3(1), dim3(1), 0,
               nullptr)(3);  // a thread alone, and after the failures
    expect_success();
  }
}

__global__ void write_at(float* p, long offset) {
  if (threadIdx.x == 1) p[offset] = 1;
}

__global__ void read_at(const float* p, long offset, float* out) {
  if (threadIdx.x == 1) *out = p[offset];
}

__global__ void write_shared_at(long offset) {
  FBP_SHARED(float, shared);
  if (threadIdx.x == 1) shared[offset] = 1;
}

void overruns_are_errors() {
  const Device<float> memory(7), out(1);
  FBP_LAUNCH(write_at, dim3(1), dim3(2), 0, nullptr)(memory.data(), 6);
  expect_success();
  FBP_LAUNCH(write_at, dim3(1), dim3(2), 0, nullptr)(memory.data(), 7);
  expect_failure(
      cudaErrorIllegalAddress,
      "thread (1, 0, 0) of block (0, 0, 0) touched memory 0 bytes past the end of 28 bytes");
  FBP_LAUNCH(read_at, dim3(1), dim3(2), 0, nullptr)(memory.data(), 9, out.data());
  expect_failure(cudaErrorIllegalAddress, "8 bytes past the end of 28 bytes");
  FBP_LAUNCH(read_at, dim3(1), dim3(2), 0, nullptr)(nullptr, 1 << 20, out.data());
  expect_failure(cudaErrorIllegalAddress, "that is not the device's");
  FBP_LAUNCH(write_shared_at, dim3(1), dim3(2), 16, nullptr)(4);
  expect_failure(cudaErrorIllegalAddress, "0 bytes past the end of 16 bytes of shared memory");
  FBP_LAUNCH(write_shared_at, dim3(1), dim3(2), 16, nullptr)(-1);
  expect_failure(cudaErrorIllegalAddress, "in front of shared memory");
  FBP_EXPECT(memory.values()[6] == 1);

  void* pointer = nullptr;
  FBP_EXPECT(cudaMalloc(&pointer, 12) == cudaSuccess);
  FBP_LAUNCH(write_at, dim3(1), dim3(2), 0, nullptr)(static_cast<float*>(pointer), -1);
  expect_success();
  FBP_EXPECT(cudaFree(pointer) == cudaErrorIllegalAddress);
  FBP_EXPECT(cudaFree(pointer) == cudaErrorInvalidValue);
}

void unwritten_memory_is_nan() {
  for (const std::size_t size : {1, 2, 3, 1000}) {
    for (const float x : Device<float>(size).values()) FBP_EXPECT(std::isnan(x));
    for (const double x : Device<double>(size).values()) FBP_EXPECT(std::isnan(x));
  }
}

void copies_stay_within_an_allocation() {
  const Device<float> memory(8);
  float host[16] = {};
  const std::size_t bytes = sizeof host;
  FBP_EXPECT(cudaMemcpyAsync(memory.data(), host, bytes, cudaMemcpyHostToDevice, nullptr) ==
             cudaErrorInvalidValue);
  FBP_EXPECT(cudaMemcpyAsync(host, memory.data() + 1, 32, cudaMemcpyDeviceToHost, nullptr) ==
             cudaErrorInvalidValue);
  FBP_EXPECT(cudaMemcpyAsync(host, host, 4, cudaMemcpyDeviceToHost, nullptr) ==
             cudaErrorInvalidValue);
  FBP_EXPECT(cudaMemcpyAsync(memory.data() + 8, host, 0, cudaMemcpyHostToDevice, nullptr) ==
             cudaSuccess);
  void* pointer = host;
  FBP_EXPECT(cudaMalloc(&pointer, SIZE_MAX) == cudaErrorMemoryAllocation && !pointer);
  FBP_EXPECT(cudaMalloc(&pointer, std::size_t{1} << 60) == cudaErrorMemoryAllocation);
  FBP_EXPECT(cudaMalloc(&pointer, 0) == cudaSuccess && !pointer &&
             cudaFree(nullptr) == cudaSuccess);
}

void shapes_are_checked() {
  const dim3 bad_grids[] = {dim3(0), dim3(1, 65536), dim3(1, 1, 65536), dim3(1u << 31)};
  for (const dim3 grid : bad_grids) {
    FBP_LAUNCH(leave_early, grid, dim3(1), 0, nullptr)();
    expect_failure(cudaErrorInvalidConfiguration, "no device takes a grid of");
  }
  const dim3 bad_blocks[] = {dim3(1025), dim3(32, 33), dim3(1, 1, 65), dim3(4, 0)};
  for (const dim3 block : bad_blocks) {
    FBP_LAUNCH(leave_early, dim3(1), block, 0, nullptr)();
    expect_failure(cudaErrorInvalidConfiguration, "no device takes a block of");
  }
  FBP_LAUNCH(leave_early, dim3(1), dim3(1), 48 * 1024 + 1, nullptr)();
  expect_failure(cudaErrorInvalidConfiguration, "more than 48 KiB");
}

void schedules_are_checked() {
  for (const char* text : {"", "Forward", "random", "random:", "random:-1", "random:1x",
                           "random:18446744073709551616"})
    FBP_EXPECT(!emulation::set_schedule(text));
}

int index_of(const std::string& activation) {
  int index = 0;
#define FBP_FIND(A)                                                                                \
  if (activation == A::name) return index;                                                         \
  ++index;
  FBP_ACTIVATIONS(FBP_FIND)
#undef FBP_FIND
  return cuda::kNoActivation;
}

// A product with bias and silu beside the definition, edges of the tile and chunks of k included.
template <class T> void kernels_are_right(index_t m, index_t n, index_t k) {
  std::vector<T> a(m * k), b(n * k), bias(n), c(m * n), y(m * n);
  const auto fill = [](std::vector<T>& v, std::uint32_t seed) {
    for (T& x : v) x = T(int(seed = seed * 1664525u + 1013904223u) >> 8) / T(1 << 23);
  };
  fill(a, 1);
  fill(b, 2);
  fill(bias, 3);
  const index_t chunk = k_chunk(k);
  for (index_t i = 0; i < m; ++i)
    for (index_t j = 0; j < n; ++j) {
      Lane<T> total(bias[j]);
      for (index_t p = 0; p < k; p += chunk) {
        Lane<T> sum = p == 0 ? total : Lane<T>(T(0));
        for (index_t q = p; q < k && q < p + chunk; ++q)
          sum = fma(Lane<T>(a[q * m + i]), Lane<T>(b[j * k + q]), sum);
        total = p == 0 ? sum : total + sum;
      }
      c[i * n + j] = total.v;
      y[i * n + j] = Silu::forward(total, total).v;
    }
  const Device<T> device_a(a), device_b(b), device_bias(bias), device_c(c.size()),
      device_y(y.size());
  GemmArgs<T> g;
  g.m = m, g.n = n, g.k = k;
  g.a = device_a.data(), g.a_row = 1, g.a_col = m;
  g.b = device_b.data(), g.b_row = 1, g.b_col = k;
  g.c = device_c.data(), g.c_row = n;
  g.bias = device_bias.data();
  ActivationTile<T> tile;
  tile.out = device_y.data(), tile.out_row = n;
  const cuda::Forward<T> epilogue{g.c, g.c_row, index_of("silu"), tile};
  const auto launch = cuda::launch_shape<cuda::kSmallGemm, cuda::Dense::either, cuda::Dense::either,
                                         T, cuda::Forward<T>>;
  FBP_EXPECT(launch(g, epilogue, 1, 1, nullptr) == cudaSuccess);
  FBP_EXPECT(device_c.values() == c && device_y.values() == y);
}

}  // namespace

int main() {
  setenv("FASTBP_EMULATION_SCHEDULE", "sideways", 1);
  FBP_LAUNCH(leave_early, dim3(1), dim3(1), 0, nullptr)();
  expect_failure(
      cudaErrorInvalidValue,
      "FASTBP_EMULATION_SCHEDULE is 'sideways', expected forward, reverse or random:<seed>");
  schedules_are_checked();
  every_thread_runs_once();
  barriers_order_and_races_show();
  divergence_is_an_error();
  overruns_are_errors();
  unwritten_memory_is_nan();
  copies_stay_within_an_allocation();
  shapes_are_checked();
  kernels_are_right<float>(65, 66, 17);
  kernels_are_right<double>(3, 64, 385);
  kernels_are_right<float>(64, 1, 0);
  return fbp_test_result();
}
