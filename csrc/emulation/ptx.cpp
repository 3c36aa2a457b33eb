// After the PTX ISA manual, version 9.0: "Matrix fragments for mma.m16n8k16 with floating point
// type", "... for mma.m16n8k8", "ldmatrix", "cp.async", "cvt".
#include "emulation/ptx.h"

#include <cmath>
#include <cstring>

#include "core/check.h"
#include "emulation/hazards.h"
#include "emulation/machine.h"

namespace fastbp {
namespace emulation {
namespace {

constexpr unsigned kAllLanes = 0xffffffffu;

float from_bits(std::uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

std::uint32_t to_bits(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

float from_tf32(std::uint32_t bits) { return from_bits(bits & 0xffffe000u); }

// What a lane brings to an instruction of the whole warp, and takes away.
struct Fragments {
  float* d;
  const std::uint32_t *a, *b;
};

// Element number i of 8 in A's registers, of 4 in B's, as 16-bit halves.
template <float (*widen)(std::uint32_t)> float half_of(const std::uint32_t* registers, int i) {
  return widen(registers[i / 2] >> (i % 2 * 16) & 0xffff);
}

// Collects A (16 x 16) and B (16 x 8) of 16-bit elements from the lanes.
template <float (*widen)(std::uint32_t)>
void collect_halves(void* const* lanes, float (&a)[16][16], float (&b)[16][8]) {
  for (int lane = 0; lane < warpSize; ++lane) {
    const auto& held = *static_cast<const Fragments*>(lanes[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 8; ++i) {
      const bool lower_rows = i < 2 || (i >= 4 && i < 6);
      a[lower_rows ? g : g + 8][2 * t + i % 2 + (i < 4 ? 0 : 8)] = half_of<widen>(held.a, i);
    }
    for (int i = 0; i < 4; ++i) b[2 * t + i % 2 + (i < 2 ? 0 : 8)][g] = half_of<widen>(held.b, i);
  }
}

void collect_tf32(void* const* lanes, float (&a)[16][16], float (&b)[16][8]) {
  for (int lane = 0; lane < warpSize; ++lane) {
    const auto& held = *static_cast<const Fragments*>(lanes[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; ++i) a[i % 2 ? g + 8 : g][i < 2 ? t : t + 4] = from_tf32(held.a[i]);
    for (int i = 0; i < 2; ++i) b[i ? t + 4 : t][g] = from_tf32(held.b[i]);
  }
}

// D += A B. Exact products are summed in double and rounded once; hardware may round more often.
void multiply(void* const* lanes, const float (&a)[16][16], const float (&b)[16][8], int depth) {
  for (int lane = 0; lane < warpSize; ++lane) {
    const auto& held = *static_cast<const Fragments*>(lanes[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; ++i) {
      const int row = i < 2 ? g : g + 8, col = 2 * t + i % 2;
      double sum = held.d[i];
      for (int k = 0; k < depth; ++k) sum += double(a[row][k]) * double(b[k][col]);
      held.d[i] = float(sum);
    }
  }
}

template <float (*widen)(std::uint32_t)> void multiply_halves(void* const* lanes) {
  float a[16][16], b[16][8];
  collect_halves<widen>(lanes, a, b);
  multiply(lanes, a, b, 16);
}

// A (16 x 8) and B (8 x 8) of float16 values.
void multiply_short_of(void* const* lanes) {
  float a[16][16], b[16][8];
  for (int lane = 0; lane < warpSize; ++lane) {
    const auto& held = *static_cast<const Fragments*>(lanes[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; ++i) a[i < 2 ? g : g + 8][2 * t + i % 2] = half_of<from_f16>(held.a, i);
    for (int i = 0; i < 2; ++i) b[2 * t + i][g] = half_of<from_f16>(held.b, i);
  }
  multiply(lanes, a, b, 8);
}

void multiply_tf32_of(void* const* lanes) {
  float a[16][16], b[16][8];
  collect_tf32(lanes, a, b);
  multiply(lanes, a, b, 8);
}

void meet(void (*compute)(void* const* lanes), void* held, const char* what) {
  meet_warp({WarpOperation::matrix, kAllLanes, reinterpret_cast<std::uintptr_t>(held), -1, false,
             what, 0, compute});
}

struct Rows {
  std::uint16_t row[8];
  std::uint32_t* r;
};

template <bool transposed> void distribute(void* const* lanes) {
  for (int lane = 0; lane < warpSize; ++lane) {
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; ++i) {
      const auto at = [&](int row, int col) {
        return std::uint32_t(static_cast<const Rows*>(lanes[8 * i + row])->row[col]);
      };
      const std::uint32_t low = transposed ? at(2 * t, g) : at(g, 2 * t);
      const std::uint32_t high = transposed ? at(2 * t + 1, g) : at(g, 2 * t + 1);
      static_cast<const Rows*>(lanes[lane])->r[i] = low | high << 16;
    }
  }
}

void require_aligned(const void* p, int bytes, const char* what) {
  if (reinterpret_cast<std::uintptr_t>(p) % std::uintptr_t(bytes) == 0) return;
  abort_kernel(cudaErrorLaunchFailure, text(name_of(*machine.running), ": ", what,
                                            " of an address that is no multiple of ", bytes));
}

void require_capability(int least, const char* what) {
  if (machine.capability < least)
    abort_kernel(cudaErrorLaunchFailure,
                 text(what, ": a device of capability ", machine.capability, " has it not"));
}

void copy_now(const AsyncCopy& copy) {
  note_read(copy.global, std::size_t(copy.bytes), copy.caller);
  note_write(copy.shared, std::size_t(copy.size), copy.caller);
  std::memset(copy.shared, 0, std::size_t(copy.size));
  std::memcpy(copy.shared, copy.global, std::size_t(copy.bytes));
}

template <bool transposed> void load(std::uint32_t (&r)[4], const void* row) {
  require_aligned(row, 16, "ldmatrix");
  note_read(row, 16, __builtin_return_address(0));
  Rows held;
  std::memcpy(held.row, row, sizeof held.row);
  held.r = r;
  meet(distribute<transposed>, &held, "ldmatrix");
}

// To nearest, ties to even; below 2^-14 to multiples of 2^-24.
std::uint32_t to_f16(float x) {
  const std::uint32_t sign = to_bits(x) >> 31 << 15;
  const double magnitude = std::fabs(double(x));
  if (std::isnan(x)) return 0x7fff;  // as the manual says
  if (magnitude >= 65520) return sign | 0x7c00;
  const int exponent = magnitude < 0x1p-14 ? -14 : std::ilogb(magnitude);
  const auto steps = std::uint32_t(std::nearbyint(std::ldexp(magnitude, 10 - exponent)));
  return sign | (std::uint32_t(exponent + 14) * 1024 + steps);
}

}  // namespace

int capability() { return machine.capability; }

float from_bf16(std::uint32_t half) { return from_bits(half << 16); }

float from_f16(std::uint32_t half) {
  const std::uint32_t exponent = half >> 10 & 31, mantissa = half & 1023;
  float magnitude = 0;
  if (exponent == 31)
    magnitude = mantissa ? NAN : INFINITY;
  else if (exponent == 0)
    magnitude = std::ldexp(float(mantissa), -24);
  else
    magnitude = std::ldexp(float(1024 + mantissa), int(exponent) - 25);
  return half >> 15 & 1 ? -magnitude : magnitude;
}

void multiply_bf16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  require_capability(80, "mma.m16n8k16.bf16");
  Fragments held{d, a, b};
  meet(multiply_halves<from_bf16>, &held, "mma.m16n8k16.bf16");
}

void multiply_f16_long(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  require_capability(80, "mma.m16n8k16.f16");
  Fragments held{d, a, b};
  meet(multiply_halves<from_f16>, &held, "mma.m16n8k16.f16");
}

void multiply_f16_short(float (&d)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t b) {
  const std::uint32_t a[2] = {a0, a1};
  Fragments held{d, a, &b};
  meet(multiply_short_of, &held, "mma.m16n8k8.f16");
}

void multiply_tf32(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  require_capability(80, "mma.m16n8k8.tf32");
  Fragments held{d, a, b};
  meet(multiply_tf32_of, &held, "mma.m16n8k8.tf32");
}

void load_matrices(std::uint32_t (&r)[4], const void* row) { load<false>(r, row); }
void load_matrices_transposed(std::uint32_t (&r)[4], const void* row) { load<true>(r, row); }

void copy_async_16(void* shared, const void* global, int bytes) {
  require_aligned(shared, 16, "cp.async");
  require_aligned(global, 16, "cp.async");
  if (capability() < 80) return copy_now({shared, global, 16, bytes, __builtin_return_address(0)});
  machine.running->copies.push_back({shared, global, 16, bytes, __builtin_return_address(0)});
}

void copy_async_4(void* shared, const void* global, int bytes) {
  require_capability(80, "cp.async of 4 bytes");
  require_aligned(shared, 4, "cp.async");
  require_aligned(global, 4, "cp.async");
  machine.running->copies.push_back({shared, global, 4, bytes, __builtin_return_address(0)});
}

void copy_async_commit() {
  Thread& self = *machine.running;
  self.copy_groups.push_back(self.copies.size());
}

void copy_async_wait_for_all_but(int left) {
  Thread& self = *machine.running;
  const std::size_t groups = self.copy_groups.size();
  if (groups <= std::size_t(left)) return;
  const std::size_t done = groups - std::size_t(left), count = self.copy_groups[done - 1];
  for (std::size_t i = 0; i < count; ++i) copy_now(self.copies[i]);
  self.copies.erase(self.copies.begin(), self.copies.begin() + std::ptrdiff_t(count));
  self.copy_groups.erase(self.copy_groups.begin(), self.copy_groups.begin() + std::ptrdiff_t(done));
  for (std::size_t& end : self.copy_groups) end -= count;
}

std::uint32_t to_tf32(float x) {
  const std::uint32_t bits = to_bits(x);
  return std::isfinite(x) ? (bits + 0x1000u) & 0xffffe000u : bits;
}

std::uint32_t pack_bf16(float low, float high) {
  const auto rounded = [](float x) {
    const std::uint32_t bits = to_bits(x);
    if (std::isnan(x)) return std::uint32_t(0x7fff);  // as the manual says
    return (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
  };
  return rounded(low) | rounded(high) << 16;
}

std::uint32_t pack_bf16_relu(float low, float high) {
  const auto positive = [](float x) { return x <= 0 ? 0.0f : x; };
  return pack_bf16(positive(low), positive(high));
}

std::uint32_t pack_f16(float low, float high) { return to_f16(low) | to_f16(high) << 16; }

}  // namespace emulation
}  // namespace fastbp
