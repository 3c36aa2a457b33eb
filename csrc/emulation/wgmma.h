// The C++ bodies of kernels/cuda/wgmma.cuh, which says what each function does.
//
// What is asynchronous happens as late as it may, or, for copies and depending on the order of threads
// (Schedule::hurries), at once: a missing wait shows, and so does a slab that is overwritten too early.
#pragma once

#include <cstdint>

#include "emulation/driver_api.h"
#include "emulation/ptx.h"

namespace fastbp {
namespace emulation {

// A shared-memory address. The block's memory begins behind what the system keeps for itself, at a
// multiple of 16 and of nothing more: kernels that need more see to it.
constexpr std::uint32_t kSharedWindow = 1024 + 16;
std::uint32_t shared_address(const void* p);

void barrier_init(std::uint64_t* barrier, int arrivals);
void barriers_are_made();
void barrier_arrive(std::uint64_t* barrier);
void barrier_arrive_expecting(std::uint64_t* barrier, int bytes);
void barrier_wait(std::uint64_t* barrier, int parity, const char* file = __builtin_FILE(),
                  int line = __builtin_LINE());

void load_box(void* slab, const CUtensorMap& map, int row, int col, std::uint64_t* barrier);
inline void prefetch_map(const CUtensorMap&) {}
void store_pair(float* to, float low, float high);

void change_registers(int count, bool more);
template <int count, bool more> void set_registers() { change_registers(count, more); }

void multiply_fence();
void multiply_commit();
void multiply_wait_for_all_but(int left);
template <int left> void multiply_wait() { multiply_wait_for_all_but(left); }
void begin_multiply(float* d, std::uint64_t a, std::uint64_t b, bool add, bool a_transposed,
                    bool b_transposed, float (*widen)(std::uint32_t));
template <bool a_transposed, bool b_transposed>
void multiply_async_bf16(float (&d)[64], std::uint64_t a, std::uint64_t b, bool add) {
  begin_multiply(d, a, b, add, a_transposed, b_transposed, from_bf16);
}
template <bool a_transposed, bool b_transposed>
void multiply_async_f16(float (&d)[64], std::uint64_t a, std::uint64_t b, bool add) {
  begin_multiply(d, a, b, add, a_transposed, b_transposed, from_f16);
}

}  // namespace emulation
}  // namespace fastbp
