// The C++ bodies of kernels/cuda/ptx.cuh, which says what each function does.
#pragma once

#include <cstdint>

namespace fastbp {
namespace emulation {

void multiply_bf16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]);
void multiply_f16_long(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]);
// m16n8k8: A (16 x 8), B (8 x 8); fragments are the first half of m16n8k16's.
void multiply_f16_short(float (&d)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t b);
void multiply_tf32(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]);
void load_matrices(std::uint32_t (&r)[4], const void* row);
void load_matrices_transposed(std::uint32_t (&r)[4], const void* row);
// The bytes arrive when they are waited for, not before: a missing wait shows. On 7.5 at once.
void copy_async_16(void* shared, const void* global, int bytes);
void copy_async_4(void* shared, const void* global, int bytes);
void copy_async_commit();
void copy_async_wait_for_all_but(int left);
template <int left> void copy_async_wait() { copy_async_wait_for_all_but(left); }
std::uint32_t to_tf32(float x);
std::uint32_t pack_bf16(float low, float high);
std::uint32_t pack_bf16_relu(float low, float high);
std::uint32_t pack_f16(float low, float high);
// Of the device, 90 for 9.0. A kernel that uses what came later with it is aborted.
int capability();
// What the lower 16 bits stand for.
float from_bf16(std::uint32_t half);
float from_f16(std::uint32_t half);

}  // namespace emulation
}  // namespace fastbp
