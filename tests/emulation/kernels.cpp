// Kernels for the emulated device, right ones and broken ones beside each other, with what the
// device must say of each. Compiled with -fsanitize=thread, as hazards.h says, and run by
// tests/test_emulation.py.
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/ptx.cuh"

namespace {

constexpr int kThreads = 64;

#define FBP_KERNEL __global__ void

// y[i] = x[63 - i], through shared memory.
template <bool WithBarrier> FBP_KERNEL turn_around(const float* x, float* y) {
  FBP_SHARED(float, shared);
  shared[threadIdx.x] = x[threadIdx.x];
  if (WithBarrier) __syncthreads();
  y[threadIdx.x] = shared[kThreads - 1 - threadIdx.x];
}

// As before, twice with the same shared memory: it may not be written to while others still read.
template <bool WithBarrier> FBP_KERNEL turn_around_twice(const float* x, float* y) {
  FBP_SHARED(float, shared);
  const int i = threadIdx.x, j = kThreads - 1 - i;
  shared[i] = x[i];
  __syncthreads();
  const float once = shared[j];
  if (WithBarrier) __syncthreads();
  shared[i] = once;
  __syncthreads();
  y[i] = shared[j];
}

FBP_KERNEL same_place(float* y) { y[0] = 1; }
FBP_KERNEL count_plainly(int* n) { n[0] = n[0] + 1; }
FBP_KERNEL count_atomically(int* n) { atomicAdd(n, 1); }
FBP_KERNEL count_and_look(int* n, int* seen) {
  atomicAdd(n, 1);
  seen[threadIdx.x] = n[0];
}

// Every thread reads what thread 0 has written; then it writes again.
template <bool WithBarrier> FBP_KERNEL broadcast(float* y) {
  FBP_SHARED(float, shared);
  if (threadIdx.x == 0) shared[0] = 1;
  __syncthreads();
  y[threadIdx.x] = shared[0];
  if (WithBarrier) __syncthreads();
  if (threadIdx.x == 0) shared[0] = 2;
}

// Neighbours of a warp exchange values through shared memory.
template <bool WithMeeting> FBP_KERNEL exchange_in_warp(float* y) {
  FBP_SHARED(float, shared);
  for (int round = 0; round < 3; ++round) {
    shared[threadIdx.x] = float(threadIdx.x + round);
    if (WithMeeting) __syncwarp();
    y[threadIdx.x] = shared[threadIdx.x ^ 1];
    if (WithMeeting) __syncwarp();
  }
}

// A warp's meeting says nothing of the other warp.
FBP_KERNEL exchange_between_warps(float* y) {
  FBP_SHARED(float, shared);
  shared[threadIdx.x] = 1;
  __syncwarp();
  y[threadIdx.x] = shared[threadIdx.x ^ 32];
}

// The bytes of a word are its own.
FBP_KERNEL bytes_of_a_word(unsigned char* y) { y[threadIdx.x] = 1; }

FBP_KERNEL read_unwritten_shared(float* y) {
  FBP_SHARED(float, shared);
  if (threadIdx.x < 63) shared[threadIdx.x] = 1;
  __syncthreads();
  y[threadIdx.x] = shared[threadIdx.x];
}
FBP_KERNEL copy(const float* x, float* y) { y[threadIdx.x] = x[threadIdx.x]; }

// Blocks leave sums; the last one adds them up.
template <bool WithFence> FBP_KERNEL last_block_adds(float* part, unsigned* arrived, float* total) {
  FBP_SHARED(unsigned, place);
  if (threadIdx.x == 0) {
    part[blockIdx.x] = float(blockIdx.x);
    if (WithFence) __threadfence();
    place[0] = atomicInc(arrived, gridDim.x - 1);
  }
  __syncthreads();
  if (place[0] != gridDim.x - 1 || threadIdx.x != 0) return;
  float sum = 0;
  for (unsigned b = 0; b < gridDim.x; ++b) sum += part[b];
  total[0] = sum;
}

FBP_KERNEL neighbours_of_the_grid(float* x, float* y, bool meet) {
  x[blockIdx.x] = float(blockIdx.x);
  if (meet) fastbp::emulation::sync_grid(__FILE__, __LINE__);
  y[blockIdx.x] = x[gridDim.x - 1 - blockIdx.x];
}

// Warp functions.
FBP_KERNEL warp_sums(int* y) {
  const int i = threadIdx.x, lane = i % 32;
  int by_xor = i, by_down = i;
  for (int step = 16; step > 0; step /= 2) {
    by_xor += __shfl_xor_sync(0xffffffffu, by_xor, step);
    by_down += __shfl_down_sync(0xffffffffu, by_down, step);
  }
  int by_up = 1;
  for (int step = 1; step < 32; step *= 2) {
    const int below = __shfl_up_sync(0xffffffffu, by_up, step);
    if (lane >= step) by_up += below;
  }
  const int all = __reduce_add_sync(0xffffffffu, i);
  const bool good = by_xor == all && __shfl_sync(0xffffffffu, by_down, 0) == all &&
                    by_up == lane + 1 && all == (i < 32 ? 496 : 496 + 32 * 32);
  const bool votes = __ballot_sync(0xffffffffu, lane % 3 == 0) == 0x49249249u &&
                     __all_sync(0xffffffffu, lane >= 0) && !__all_sync(0xffffffffu, lane > 0) &&
                     __any_sync(0xffffffffu, lane == 31) && !__any_sync(0xffffffffu, lane > 31);
  const bool extremes = __reduce_min_sync(0xffffffffu, lane - 5) == -5 &&
                        __reduce_max_sync(0xffffffffu, lane - 40) == -9 &&
                        __reduce_max_sync(0xffffffffu, unsigned(lane - 1)) == 0xffffffffu &&
                        __reduce_or_sync(0xffffffffu, 1u << lane) == 0xffffffffu &&
                        __reduce_xor_sync(0xffffffffu, 1u << lane / 2) == 0 &&
                        __reduce_and_sync(0xffffffffu, 32u | unsigned(lane)) == 32;
  const double wide = __shfl_sync(0xffffffffu, i + 0.5, 3, 8);  // lane 3 of each group of 8
  y[i] = good && votes && extremes && wide == (i & ~7) + 3.5;
}
FBP_KERNEL half_warps(int* y) {
  const unsigned mask = threadIdx.x % 32 < 16 ? 0x0000ffffu : 0xffff0000u;
  y[threadIdx.x] = __reduce_add_sync(mask, 1) == 16;
}
FBP_KERNEL those_that_ended_are_excused(int* y) {
  y[threadIdx.x] = 1;
  if (threadIdx.x % 32 >= 7) return;
  y[threadIdx.x] = __reduce_add_sync(0xffffffffu, 1) == 7;
}
FBP_KERNEL left_out() {
  if (threadIdx.x == 5) __syncwarp(0xffu & ~(1u << 5));
}
FBP_KERNEL one_does_not_come() {
  if (threadIdx.x != 5) __syncwarp();
  __syncthreads();
}
FBP_KERNEL other_masks() {
  if (threadIdx.x % 2)
    __syncwarp(0xffffffffu);
  else
    __syncwarp(0x55555555u);
  __syncthreads();
}
FBP_KERNEL reads_from_nobody(int* y) {
  if (threadIdx.x % 32 < 8) y[threadIdx.x] = __shfl_sync(0xffu, 1, 8);
}

// Tensor cores: small whole numbers, so that every sum is exact. One warp.
std::uint16_t bf16_of(int x) { return std::uint16_t(fastbp::cuda::pack_bf16(float(x), 0)); }
std::uint16_t f16_of(int x) {  // 0 to 7
  const int exponent = x < 2 ? 0 : x < 4 ? 1 : 2;
  return std::uint16_t(x == 0 ? 0 : ((15 + exponent) << 10 | (x << (10 - exponent)) % 1024));
}
int a_of(int row, int k) { return (3 * row + 5 * k) % 8; }
int b_of(int k, int col) { return (7 * k + 2 * col) % 8; }

// A (16 x 16) and B (16 x 8) by rows, through shared memory as a product would bring them.
template <std::uint16_t (*number)(int),
          void (*multiply)(float (&)[4], const std::uint32_t (&)[4], const std::uint32_t (&)[2]),
          bool WithWait>
FBP_KERNEL tensor_product(std::uint16_t* a, std::uint16_t* b, int* good) {
  using namespace fastbp::cuda;
  FBP_SHARED(std::uint16_t, shared);
  const int lane = threadIdx.x, g = lane / 4, t = lane % 4;
  for (int i = 8 * lane; i < 8 * lane + 8; ++i) a[i] = number(a_of(i / 16, i % 16));
  for (int i = 4 * lane; i < 4 * lane + 4; ++i) b[i] = number(b_of(i / 8, i % 8));
  __syncwarp();
  copy_async_16(shared + 8 * lane, a + 8 * lane, 16);
  if (lane < 16) copy_async_16(shared + 256 + 8 * lane, b + 8 * lane, 16);
  copy_async_commit();
  if (WithWait) copy_async_wait<0>();
  __syncwarp();
  std::uint32_t a_parts[4], b_parts[4];
  const int matrix = lane / 8, row = lane % 8;
  load_matrices(a_parts, shared + (row + matrix % 2 * 8) * 16 + matrix / 2 * 8);
  load_matrices_transposed(b_parts, shared + 256 + (row + matrix % 2 * 8) * 8);
  float d[4] = {1, 2, 3, 4};
  multiply(d, a_parts, {b_parts[0], b_parts[1]});
  bool right = true;
  for (int i = 0; i < 4; ++i) {
    int sum = i + 1;
    for (int k = 0; k < 16; ++k) sum += a_of(i < 2 ? g : g + 8, k) * b_of(k, 2 * t + i % 2);
    right = right && d[i] == float(sum);
  }
  good[lane] = good[lane + 32] = right;
}

// Fragments as ptx.cuh says them; the lower bits do not count.
FBP_KERNEL tf32_product(int* good) {
  using namespace fastbp::cuda;
  const int lane = threadIdx.x, g = lane / 4, t = lane % 4;
  std::uint32_t a[4], b[2];
  for (int i = 0; i < 4; ++i)
    a[i] = to_tf32(float(a_of(i % 2 ? g + 8 : g, i < 2 ? t : t + 4))) | unsigned(lane);
  for (int i = 0; i < 2; ++i) b[i] = to_tf32(float(b_of(i ? t + 4 : t, g))) | unsigned(lane);
  float d[4] = {};
  multiply_tf32(d, a, b);
  bool right = to_tf32(1 + 0x1p-11f) == to_tf32(1 + 0x1p-10f) && pack_bf16(1, -2) == 0xc0003f80u;
  for (int i = 0; i < 4; ++i) {
    int sum = 0;
    for (int k = 0; k < 8; ++k) sum += a_of(i < 2 ? g : g + 8, k) * b_of(k, 2 * t + i % 2);
    right = right && d[i] == float(sum);
  }
  good[lane] = good[lane + 32] = right;
}

FBP_KERNEL tensor_product_of_some() {
  float d[4] = {};
  if (threadIdx.x != 9) fastbp::cuda::multiply_bf16(d, {0, 0, 0, 0}, {0, 0});
}

template <class T> T* device(std::size_t count, bool written) {
  void* pointer = nullptr;
  cudaMalloc(&pointer, count * sizeof(T));
  if (written) cudaMemset(pointer, 0, count * sizeof(T));
  return static_cast<T*>(pointer);
}

// Memory for one case: what the kernels read is written, what they only write is not.
struct Memory {
  float *x = device<float>(kThreads, true), *y = device<float>(kThreads, false);
  int *n = device<int>(1, true), *flags = device<int>(kThreads, true);
  unsigned* arrived = device<unsigned>(1, true);
  std::uint16_t *a = device<std::uint16_t>(256, false), *b = device<std::uint16_t>(128, false);
  ~Memory() {
    for (void* pointer :
         {(void*)x, (void*)y, (void*)n, (void*)flags, (void*)arrived, (void*)a, (void*)b})
      cudaFree(pointer);
  }
};

#define FBP_RUN(kernel, blocks, ...)                                                               \
  FBP_LAUNCH(kernel, dim3(blocks), dim3(kThreads), 4 * kThreads, nullptr)(__VA_ARGS__)

#define FBP_RUN_WARP(kernel, ...) FBP_LAUNCH(kernel, dim3(1), dim3(32), 1024, nullptr)(__VA_ARGS__)

using fastbp::cuda::multiply_bf16;
using fastbp::cuda::multiply_f16;
template <std::uint16_t (*number)(int),
          void (*multiply)(float (&)[4], const std::uint32_t (&)[4], const std::uint32_t (&)[2]),
          bool WithWait>
void run_tensor(Memory& m) {
  const auto kernel = tensor_product<number, multiply, WithWait>;
  FBP_RUN_WARP(kernel, m.a, m.b, m.flags);
}

void run_together(Memory& m, int blocks, bool meet) {
  FBP_LAUNCH_COOPERATIVE(neighbours_of_the_grid, dim3(blocks), dim3(1), 0, nullptr)(m.x, m.y, meet);
}

}  // namespace

#include "group_kernels.h"

namespace {

struct Case {
  const char* name;
  const char* part;  // of the message; "" where the kernel is right
  void (*run)(Memory& m);
};
const Case kCases[] = {
    {"barrier", "", [](Memory& m) { FBP_RUN(turn_around<true>, 1, m.x, m.y); }},
    {"no barrier", "of shared memory at kernels.cpp:",
     [](Memory& m) { FBP_RUN(turn_around<false>, 1, m.x, m.y); }},
    {"reused", "", [](Memory& m) { FBP_RUN(turn_around_twice<true>, 1, m.x, m.y); }},
    {"reused too early",
     "data race: ", [](Memory& m) { FBP_RUN(turn_around_twice<false>, 1, m.x, m.y); }},
    {"same place", "writes 4 bytes at offset 0 of 256 bytes of global memory",
     [](Memory& m) { FBP_RUN(same_place, 1, m.y); }},
    {"same place of blocks", "of block number ",
     [](Memory& m) { FBP_LAUNCH(same_place, dim3(2), dim3(1), 0, nullptr)(m.y); }},
    {"plain count", "data race: ", [](Memory& m) { FBP_RUN(count_plainly, 1, m.n); }},
    {"atomic count", "", [](Memory& m) { FBP_RUN(count_atomically, 3, m.n); }},
    {"look at a count", "data race: ", [](Memory& m) { FBP_RUN(count_and_look, 1, m.n, m.flags); }},
    {"broadcast", "", [](Memory& m) { FBP_RUN(broadcast<true>, 1, m.y); }},
    {"broadcast overwritten", "data race: ", [](Memory& m) { FBP_RUN(broadcast<false>, 1, m.y); }},
    {"warp exchange", "", [](Memory& m) { FBP_RUN(exchange_in_warp<true>, 1, m.y); }},
    {"warp exchange without meeting", "of shared memory at kernels.cpp:",
     [](Memory& m) { FBP_RUN(exchange_in_warp<false>, 1, m.y); }},
    {"exchange between warps", "of shared memory at kernels.cpp:",
     [](Memory& m) { FBP_RUN(exchange_between_warps, 1, m.y); }},
    {"bytes", "",
     [](Memory& m) { FBP_RUN(bytes_of_a_word, 1, reinterpret_cast<unsigned char*>(m.flags)); }},
    {"unwritten shared", "which nothing has written",
     [](Memory& m) { FBP_RUN(read_unwritten_shared, 1, m.y); }},
    {"unwritten global",
     "256 bytes of global memory at kernels.cpp:", [](Memory& m) { FBP_RUN(copy, 1, m.y, m.x); }},
    {"written", "", [](Memory& m) { FBP_RUN(copy, 1, m.x, m.y); }},
    {"last block", "", [](Memory& m) { FBP_RUN(last_block_adds<true>, 5, m.x, m.arrived, m.y); }},
    {"last block without fence", "of block number ",
     [](Memory& m) { FBP_RUN(last_block_adds<false>, 5, m.x, m.arrived, m.y); }},
    {"grid", "", [](Memory& m) { run_together(m, 8, true); }},
    {"grid without barrier", "data race: ", [](Memory& m) { run_together(m, 8, false); }},
    {"grid of blocks in turn", "that is not cooperative",
     [](Memory& m) { FBP_RUN(neighbours_of_the_grid, 2, m.x, m.y, true); }},
    {"grid too large", "a cooperative launch of 65 blocks, of which the device has room for 64",
     [](Memory& m) { run_together(m, 65, true); }},
    {"warp functions", "", [](Memory& m) { FBP_RUN(warp_sums, 1, m.flags); }},
    {"half warps", "", [](Memory& m) { FBP_RUN(half_warps, 1, m.flags); }},
    {"ended lanes", "", [](Memory& m) { FBP_RUN(those_that_ended_are_excused, 1, m.flags); }},
    {"bf16 product", "", [](Memory& m) { run_tensor<bf16_of, multiply_bf16, true>(m); }},
    {"f16 product", "", [](Memory& m) { run_tensor<f16_of, multiply_f16, true>(m); }},
    {"tf32 product", "", [](Memory& m) { FBP_RUN_WARP(tf32_product, m.flags); }},
    {"group product", "", [](Memory& m) { run_group<false>(m.flags); }},
    {"group product, transposed", "", [](Memory& m) { run_group<true>(m.flags); }},
    {"swizzled box", "", [](Memory& m) { run_box(m.flags); }},
    {"group product of what is on its way", "of shared memory at wgmma.h:",
     [](Memory& m) { run_group<false, Without::copy_wait>(m.flags); }},
    {"group product without a fence", "calls for a product with no wgmma.fence before it",
     [](Memory& m) { run_group<false, Without::fence>(m.flags); }},
    {"group product without a barrier", "uses a barrier in shared memory that nobody has made",
     [](Memory& m) { run_group<false, Without::barrier>(m.flags); }},
    {"group product without a thread", "waits for the other threads of its group of four warps",
     [](Memory& m) { run_group<false, Without::one_thread>(m.flags); }},
    {"copy not waited for", "of shared memory at kernels.cpp:",
     [](Memory& m) { run_tensor<bf16_of, multiply_bf16, false>(m); }},
    {"tensor cores without a lane", "calls for mma.m16n8k16.bf16, which all 32 lanes must; lane 9",
     [](Memory&) { FBP_RUN_WARP(tensor_product_of_some); }},
    {"left out of the mask", "with mask 0x000000df, which leaves it out",
     [](Memory&) { FBP_RUN(left_out, 1); }},
    {"missing lane", "in __syncwarp with mask 0xffffffff for lane 5: thread (5, 0, 0) is at ",
     [](Memory&) { FBP_RUN(one_does_not_come, 1); }},
    {"other masks", "in __syncwarp with mask 0xffffffff for lane ",
     [](Memory&) { FBP_RUN(other_masks, 1); }},
    {"lane that is not there", "reads from lane 8 in a shuffle at ",
     [](Memory& m) { FBP_RUN(reads_from_nobody, 1, m.flags); }},
};

thread_local std::string message;

}  // namespace

#define FBP_EXPORT extern "C" __attribute__((visibility("default")))

FBP_EXPORT int case_count() { return int(sizeof kCases / sizeof *kCases); }
FBP_EXPORT const char* case_name(int i) { return kCases[i].name; }
FBP_EXPORT const char* expected_part(int i) { return kCases[i].part; }

// What the device says of the case: "" where nothing is wrong. `flags` gets what the warp functions
// found, 64 of them.
FBP_EXPORT const char* run_case(int i, int* flags) {
  Memory m;
  kCases[i].run(m);
  cudaError_t error = cudaGetLastError();
  if (error == cudaSuccess) error = cudaStreamSynchronize(nullptr);
  message = error == cudaSuccess ? "" : cudaGetErrorString(error);
  cudaMemcpy(flags, m.flags, kThreads * sizeof(int), cudaMemcpyDeviceToHost);
  return message.c_str();
}
