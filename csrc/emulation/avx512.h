// The AVX-512 intrinsics that the kernels use, made of AVX2 and plain loops, so that those kernels run, and can be
// tested and watched by sanitizers, on a processor that has none. Slow; for tests and debugging, never installed.
//
// They have the compiler's names in a namespace around the kernels', and so hide them: what is not here does not compile.
// Each does what Intel's Software Developer's Manual says. Where AVX2 has the operation, a register is two of AVX2's. A
// masked load or store touches the elements of its mask and no other byte, one by one, where AddressSanitizer sees it;
// an aligned one of an address that is not traps, as it would; what is undefined is a NaN.
#pragma once

#include <cstdint>
#include <cstring>

#include <immintrin.h>

#include "ops/fbp_fn.h"

// Compilers write those that take a constant as macros, always or where nothing is inlined.
#undef _mm512_cmp_pd_mask
#undef _mm512_cmp_ps_mask
#undef _mm512_extractf32x8_ps
#undef _mm512_extractf64x4_pd
#undef _mm512_insertf32x4
#undef _mm512_mask_shuffle_epi32
#undef _mm512_roundscale_pd
#undef _mm512_roundscale_ps
#undef _mm512_shuffle_epi32
#undef _mm512_shuffle_f32x4
#undef _mm512_shuffle_f64x2
#undef _mm512_slli_epi32
#undef _mm512_slli_epi64
#undef _mm512_srli_epi32
#undef _mm512_srli_epi64
#undef _mm512_ternarylogic_epi32
#undef _mm512_ternarylogic_epi64

namespace fastbp {

struct __m512 { __m256 lo, hi; };
struct __m512d { __m256d lo, hi; };
struct __m512i { __m256i lo, hi; };
using __m512bh = __m512i;  // casts between them keep the bits, as the compiler's do

namespace avx512_emulation {

// A register's elements.
template <class T, int bytes = 64> struct Lanes {
  static constexpr int count = bytes / int(sizeof(T));
  T at[count];
  Lanes() = default;
  template <class Register> FBP_FN explicit Lanes(const Register& r) {
    static_assert(sizeof r == bytes, "as many bytes");
    std::memcpy(at, &r, bytes);
  }
  template <class Register> FBP_FN Register as() const {
    static_assert(sizeof(Register) == bytes, "as many bytes");
    Register r;
    std::memcpy(&r, at, bytes);
    return r;
  }
};

// The same bits as another kind of register.
template <class To, class From> FBP_FN To cast(const From& from) {
  return Lanes<std::uint8_t>(from).template as<To>();
}

FBP_FN bool has(unsigned mask, int lane) { return (mask >> lane & 1) != 0; }

FBP_FN void require(bool fulfilled) {
  if (!fulfilled) __builtin_trap();
}

FBP_FN void require_alignment(const void* p) {
  require(reinterpret_cast<std::uintptr_t>(p) % 64 == 0);
}

// These are called, not inlined: a compiler would take minutes for their loops everywhere.
template <class Register, class T>
[[gnu::noinline]] static Register masked_load(unsigned mask, const T* p) {
  Lanes<T, sizeof(Register)> lanes;
  for (int i = 0; i < lanes.count; ++i) lanes.at[i] = has(mask, i) ? p[i] : T(0);
  return lanes.template as<Register>();
}

template <class Register, class T>
[[gnu::noinline]] static void masked_store(T* p, unsigned mask, const Register& r) {
  const Lanes<T, sizeof(Register)> lanes(r);
  for (int i = 0; i < lanes.count; ++i)
    if (has(mask, i)) p[i] = lanes.at[i];
}

template <class T, class Register>
[[gnu::noinline]] static Register blended(unsigned mask, const Register& no, const Register& yes) {
  Lanes<T> lanes(no);
  const Lanes<T> other(yes);
  for (int i = 0; i < lanes.count; ++i)
    if (has(mask, i)) lanes.at[i] = other.at[i];
  return lanes.template as<Register>();
}

// 128-bit parts: two of a, then two of b, by two bits of the constant each.
template <class Register>
[[gnu::noinline]] static Register shuffled_parts(const Register& a, const Register& b, int which) {
  struct Part { std::uint64_t word[2]; };
  const Lanes<Part> from_a(a), from_b(b);
  Lanes<Part> lanes;
  for (int i = 0; i < 4; ++i) lanes.at[i] = (i < 2 ? from_a : from_b).at[which >> 2 * i & 3];
  return lanes.template as<Register>();
}

// Of the four elements of each 128-bit part.
[[gnu::noinline]] static inline __m512i shuffled_words(const __m512i& a, int which) {
  const Lanes<std::uint32_t> from(a);
  Lanes<std::uint32_t> lanes;
  for (int i = 0; i < 16; ++i) lanes.at[i] = from.at[i / 4 * 4 + (which >> 2 * (i % 4) & 3)];
  return lanes.as<__m512i>();
}

// By the comparisons of AVX2, whose constants must be.
template <int kind> FBP_FN unsigned compared(const __m512& a, const __m512& b) {
  const auto bits = [](__m256 x) { return static_cast<unsigned>(_mm256_movemask_ps(x)); };
  return bits(_mm256_cmp_ps(a.lo, b.lo, kind)) | bits(_mm256_cmp_ps(a.hi, b.hi, kind)) << 8;
}
template <int kind> FBP_FN unsigned compared(const __m512d& a, const __m512d& b) {
  const auto bits = [](__m256d x) { return static_cast<unsigned>(_mm256_movemask_pd(x)); };
  return bits(_mm256_cmp_pd(a.lo, b.lo, kind)) | bits(_mm256_cmp_pd(a.hi, b.hi, kind)) << 4;
}
template <class Register> FBP_FN unsigned compared(const Register& a, const Register& b, int kind) {
  switch (kind) {
  case _CMP_EQ_OQ:
    return compared<_CMP_EQ_OQ>(a, b);
  case _CMP_LT_OQ:
    return compared<_CMP_LT_OQ>(a, b);
  case _CMP_LE_OQ:
    return compared<_CMP_LE_OQ>(a, b);
  case _CMP_GT_OQ:
    return compared<_CMP_GT_OQ>(a, b);
  case _CMP_GE_OQ:
    return compared<_CMP_GE_OQ>(a, b);
  case _CMP_UNORD_Q:
    return compared<_CMP_UNORD_Q>(a, b);
  default:
    __builtin_trap();
  }
}

// Bit `abc` of the table, for the bits a, b and c of the operands.
FBP_FN __m256i chosen_by_table(__m256i a, __m256i b, __m256i c, int table) {
  const __m256i ones = _mm256_set1_epi32(-1);
  const auto is = [&](__m256i x, int bit) { return bit ? x : _mm256_xor_si256(x, ones); };
  __m256i result = _mm256_setzero_si256();
  for (int abc = 0; abc < 8; ++abc) {
    if (!has(static_cast<unsigned>(table), abc)) continue;
    const __m256i both = _mm256_and_si256(is(a, abc & 4), is(b, abc & 2));
    result = _mm256_or_si256(result, _mm256_and_si256(both, is(c, abc & 1)));
  }
  return result;
}

// Denormals as zeros of their sign.
FBP_FN __m256 without_denormals(__m256 x) {
  const __m256 sign = _mm256_and_ps(x, _mm256_set1_ps(-0.0f));
  const __m256 size = _mm256_xor_ps(x, sign);
  return _mm256_blendv_ps(x, sign,
                          _mm256_cmp_ps(size, _mm256_set1_ps(1.17549435e-38f), _CMP_LT_OQ));
}

// sum + x y, all without denormals; x and y are bfloat16 in the upper halves of their words.
FBP_FN __m256 added_product(__m256 sum, __m256i x, __m256i y) {
  return without_denormals(_mm256_fmadd_ps(without_denormals(_mm256_castsi256_ps(x)),
                                           without_denormals(_mm256_castsi256_ps(y)), sum));
}

// VDPBF16PS: the odd elements' products, then the even ones', by fused multiply-adds.
[[gnu::noinline]] static inline __m256 added_pairs(__m256 sum, __m256i x, __m256i y) {
  const __m256i upper = _mm256_set1_epi32(-65536);
  sum =
      added_product(without_denormals(sum), _mm256_and_si256(x, upper), _mm256_and_si256(y, upper));
  return added_product(sum, _mm256_slli_epi32(x, 16), _mm256_slli_epi32(y, 16));
}

// To nearest, ties to even; denormals to zero; a NaN stays one, and becomes quiet.
FBP_FN std::uint16_t to_bfloat16(std::uint32_t word) {
  const std::uint32_t size = word & 0x7fffffff;
  if (size < 0x00800000) return static_cast<std::uint16_t>(word >> 16 & 0x8000);
  if (size > 0x7f800000) return static_cast<std::uint16_t>(word >> 16 | 0x0040);
  return static_cast<std::uint16_t>((word + 0x7fff + (word >> 16 & 1)) >> 16);
}

[[gnu::noinline]] static inline __m512bh to_bfloat16(const __m512& upper, const __m512& lower) {
  const Lanes<std::uint32_t> high(upper), low(lower);
  Lanes<std::uint16_t> lanes;
  for (int i = 0; i < 16; ++i) {
    lanes.at[i] = to_bfloat16(low.at[i]);
    lanes.at[16 + i] = to_bfloat16(high.at[i]);
  }
  return lanes.as<__m512bh>();
}

[[gnu::noinline]] static inline __m512i permuted_halfwords(const __m512i& index, const __m512i& a) {
  const Lanes<std::uint16_t> which(index), from(a);
  Lanes<std::uint16_t> lanes;
  for (int i = 0; i < 32; ++i) lanes.at[i] = from.at[which.at[i] & 31];
  return lanes.as<__m512i>();
}

// A register of what a processor may have left there.
FBP_FN __m512 undefined() {
  return {_mm256_set1_ps(__builtin_nanf("")), _mm256_set1_ps(__builtin_nanf(""))};
}

}  // namespace avx512_emulation

// Loads and stores.
FBP_FN __m512 _mm512_loadu_ps(const void* p) {
  const float* f = static_cast<const float*>(p);
  return {_mm256_loadu_ps(f), _mm256_loadu_ps(f + 8)};
}
FBP_FN __m512d _mm512_loadu_pd(const void* p) {
  const double* f = static_cast<const double*>(p);
  return {_mm256_loadu_pd(f), _mm256_loadu_pd(f + 4)};
}
FBP_FN __m512i _mm512_loadu_si512(const void* p) {
  const __m256i* v = static_cast<const __m256i*>(p);
  return {_mm256_loadu_si256(v), _mm256_loadu_si256(v + 1)};
}
FBP_FN void _mm512_storeu_ps(void* p, __m512 a) {
  float* f = static_cast<float*>(p);
  _mm256_storeu_ps(f, a.lo), _mm256_storeu_ps(f + 8, a.hi);
}
FBP_FN void _mm512_storeu_pd(void* p, __m512d a) {
  double* f = static_cast<double*>(p);
  _mm256_storeu_pd(f, a.lo), _mm256_storeu_pd(f + 4, a.hi);
}
FBP_FN void _mm512_storeu_si512(void* p, __m512i a) {
  __m256i* v = static_cast<__m256i*>(p);
  _mm256_storeu_si256(v, a.lo), _mm256_storeu_si256(v + 1, a.hi);
}
FBP_FN __m512i _mm512_load_si512(const void* p) {
  avx512_emulation::require_alignment(p);
  return _mm512_loadu_si512(p);
}
FBP_FN void _mm512_store_si512(void* p, __m512i a) {
  avx512_emulation::require_alignment(p);
  _mm512_storeu_si512(p, a);
}
FBP_FN void _mm512_store_ps(void* p, __m512 a) {
  avx512_emulation::require_alignment(p);
  _mm512_storeu_ps(p, a);
}
FBP_FN __m512 _mm512_maskz_loadu_ps(__mmask16 mask, const void* p) {
  return avx512_emulation::masked_load<__m512>(mask, static_cast<const float*>(p));
}
FBP_FN __m512d _mm512_maskz_loadu_pd(__mmask8 mask, const void* p) {
  return avx512_emulation::masked_load<__m512d>(mask, static_cast<const double*>(p));
}
FBP_FN __m256 _mm256_maskz_loadu_ps(__mmask8 mask, const void* p) {
  return avx512_emulation::masked_load<__m256>(mask, static_cast<const float*>(p));
}
FBP_FN __m256d _mm256_maskz_loadu_pd(__mmask8 mask, const void* p) {
  return avx512_emulation::masked_load<__m256d>(mask, static_cast<const double*>(p));
}
FBP_FN __m128 _mm_maskz_loadu_ps(__mmask8 mask, const void* p) {
  return avx512_emulation::masked_load<__m128>(mask, static_cast<const float*>(p));
}
FBP_FN void _mm512_mask_storeu_ps(void* p, __mmask16 mask, __m512 a) {
  avx512_emulation::masked_store(static_cast<float*>(p), mask, a);
}
FBP_FN void _mm512_mask_storeu_pd(void* p, __mmask8 mask, __m512d a) {
  avx512_emulation::masked_store(static_cast<double*>(p), mask, a);
}
FBP_FN void _mm256_mask_storeu_ps(void* p, __mmask8 mask, __m256 a) {
  avx512_emulation::masked_store(static_cast<float*>(p), mask, a);
}
FBP_FN void _mm256_mask_storeu_pd(void* p, __mmask8 mask, __m256d a) {
  avx512_emulation::masked_store(static_cast<double*>(p), mask, a);
}

// Constants, casts and parts.
FBP_FN __m512 _mm512_set1_ps(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
FBP_FN __m512d _mm512_set1_pd(double x) { return {_mm256_set1_pd(x), _mm256_set1_pd(x)}; }
FBP_FN __m512i _mm512_set1_epi16(short x) { return {_mm256_set1_epi16(x), _mm256_set1_epi16(x)}; }
FBP_FN __m512i _mm512_set1_epi32(int x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
FBP_FN __m512i _mm512_set1_epi64(long long x) {
  return {_mm256_set1_epi64x(x), _mm256_set1_epi64x(x)};
}
FBP_FN __m512 _mm512_setzero_ps() { return _mm512_set1_ps(0); }
FBP_FN __m512i _mm512_setzero_si512() { return _mm512_set1_epi32(0); }
FBP_FN __m512i _mm512_castps_si512(__m512 a) { return avx512_emulation::cast<__m512i>(a); }
FBP_FN __m512i _mm512_castpd_si512(__m512d a) { return avx512_emulation::cast<__m512i>(a); }
FBP_FN __m512 _mm512_castsi512_ps(__m512i a) { return avx512_emulation::cast<__m512>(a); }
FBP_FN __m512d _mm512_castsi512_pd(__m512i a) { return avx512_emulation::cast<__m512d>(a); }
FBP_FN __m512d _mm512_castps_pd(__m512 a) { return avx512_emulation::cast<__m512d>(a); }
FBP_FN __m512 _mm512_castpd_ps(__m512d a) { return avx512_emulation::cast<__m512>(a); }
FBP_FN __m256 _mm512_castps512_ps256(__m512 a) { return a.lo; }
FBP_FN __m256d _mm512_castpd512_pd256(__m512d a) { return a.lo; }
FBP_FN __m512 _mm512_castps128_ps512(__m128 a) {
  const __m512 rest = avx512_emulation::undefined();
  return {_mm256_insertf128_ps(rest.lo, a, 0), rest.hi};
}
FBP_FN float _mm512_cvtss_f32(__m512 a) { return _mm256_cvtss_f32(a.lo); }
FBP_FN __m256 _mm512_extractf32x8_ps(__m512 a, int which) { return which & 1 ? a.hi : a.lo; }
FBP_FN __m256d _mm512_extractf64x4_pd(__m512d a, int which) { return which & 1 ? a.hi : a.lo; }
FBP_FN __m512 _mm512_insertf32x4(__m512 a, __m128 part, int which) {
  __m256& half = which & 2 ? a.hi : a.lo;
  half = which & 1 ? _mm256_insertf128_ps(half, part, 1) : _mm256_insertf128_ps(half, part, 0);
  return a;
}

// Arithmetic, element by element as AVX2's.
FBP_FN __m512 _mm512_add_ps(__m512 a, __m512 b) {
  return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
}
FBP_FN __m512d _mm512_add_pd(__m512d a, __m512d b) {
  return {_mm256_add_pd(a.lo, b.lo), _mm256_add_pd(a.hi, b.hi)};
}
FBP_FN __m512 _mm512_sub_ps(__m512 a, __m512 b) {
  return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
}
FBP_FN __m512d _mm512_sub_pd(__m512d a, __m512d b) {
  return {_mm256_sub_pd(a.lo, b.lo), _mm256_sub_pd(a.hi, b.hi)};
}
FBP_FN __m512 _mm512_mul_ps(__m512 a, __m512 b) {
  return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}
FBP_FN __m512d _mm512_mul_pd(__m512d a, __m512d b) {
  return {_mm256_mul_pd(a.lo, b.lo), _mm256_mul_pd(a.hi, b.hi)};
}
FBP_FN __m512 _mm512_div_ps(__m512 a, __m512 b) {
  return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
}
FBP_FN __m512d _mm512_div_pd(__m512d a, __m512d b) {
  return {_mm256_div_pd(a.lo, b.lo), _mm256_div_pd(a.hi, b.hi)};
}
FBP_FN __m512 _mm512_fmadd_ps(__m512 a, __m512 b, __m512 c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
FBP_FN __m512d _mm512_fmadd_pd(__m512d a, __m512d b, __m512d c) {
  return {_mm256_fmadd_pd(a.lo, b.lo, c.lo), _mm256_fmadd_pd(a.hi, b.hi, c.hi)};
}
FBP_FN __m512 _mm512_fnmadd_ps(__m512 a, __m512 b, __m512 c) {
  return {_mm256_fnmadd_ps(a.lo, b.lo, c.lo), _mm256_fnmadd_ps(a.hi, b.hi, c.hi)};
}
FBP_FN __m512d _mm512_fnmadd_pd(__m512d a, __m512d b, __m512d c) {
  return {_mm256_fnmadd_pd(a.lo, b.lo, c.lo), _mm256_fnmadd_pd(a.hi, b.hi, c.hi)};
}
FBP_FN __m512 _mm512_min_ps(__m512 a, __m512 b) {
  return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)};
}
FBP_FN __m512d _mm512_min_pd(__m512d a, __m512d b) {
  return {_mm256_min_pd(a.lo, b.lo), _mm256_min_pd(a.hi, b.hi)};
}
FBP_FN __m512 _mm512_max_ps(__m512 a, __m512 b) {
  return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
}
FBP_FN __m512d _mm512_max_pd(__m512d a, __m512d b) {
  return {_mm256_max_pd(a.lo, b.lo), _mm256_max_pd(a.hi, b.hi)};
}
FBP_FN __m512 _mm512_sqrt_ps(__m512 a) { return {_mm256_sqrt_ps(a.lo), _mm256_sqrt_ps(a.hi)}; }
FBP_FN __m512d _mm512_sqrt_pd(__m512d a) { return {_mm256_sqrt_pd(a.lo), _mm256_sqrt_pd(a.hi)}; }

// To integers only, the nearest, and nothing said of it.
FBP_FN __m512 _mm512_roundscale_ps(__m512 a, int how) {
  constexpr int nearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  avx512_emulation::require(how == nearest);
  return {_mm256_round_ps(a.lo, nearest), _mm256_round_ps(a.hi, nearest)};
}
FBP_FN __m512d _mm512_roundscale_pd(__m512d a, int how) {
  constexpr int nearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  avx512_emulation::require(how == nearest);
  return {_mm256_round_pd(a.lo, nearest), _mm256_round_pd(a.hi, nearest)};
}

// Integers and bits.
FBP_FN __m512i _mm512_add_epi32(__m512i a, __m512i b) {
  return {_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)};
}
FBP_FN __m512i _mm512_add_epi64(__m512i a, __m512i b) {
  return {_mm256_add_epi64(a.lo, b.lo), _mm256_add_epi64(a.hi, b.hi)};
}
FBP_FN __m512i _mm512_sub_epi32(__m512i a, __m512i b) {
  return {_mm256_sub_epi32(a.lo, b.lo), _mm256_sub_epi32(a.hi, b.hi)};
}
FBP_FN __m512i _mm512_sub_epi64(__m512i a, __m512i b) {
  return {_mm256_sub_epi64(a.lo, b.lo), _mm256_sub_epi64(a.hi, b.hi)};
}
FBP_FN __m512i _mm512_mul_epu32(__m512i a, __m512i b) {
  return {_mm256_mul_epu32(a.lo, b.lo), _mm256_mul_epu32(a.hi, b.hi)};
}
FBP_FN __m512i _mm512_and_si512(__m512i a, __m512i b) {
  return {_mm256_and_si256(a.lo, b.lo), _mm256_and_si256(a.hi, b.hi)};
}
FBP_FN __m512i _mm512_or_si512(__m512i a, __m512i b) {
  return {_mm256_or_si256(a.lo, b.lo), _mm256_or_si256(a.hi, b.hi)};
}
FBP_FN __m512i _mm512_xor_si512(__m512i a, __m512i b) {
  return {_mm256_xor_si256(a.lo, b.lo), _mm256_xor_si256(a.hi, b.hi)};
}
FBP_FN __m512 _mm512_xor_ps(__m512 a, __m512 b) {
  return {_mm256_xor_ps(a.lo, b.lo), _mm256_xor_ps(a.hi, b.hi)};
}
FBP_FN __m512d _mm512_xor_pd(__m512d a, __m512d b) {
  return {_mm256_xor_pd(a.lo, b.lo), _mm256_xor_pd(a.hi, b.hi)};
}
FBP_FN __m512i _mm512_slli_epi32(__m512i a, unsigned n) {
  return {_mm256_slli_epi32(a.lo, int(n)), _mm256_slli_epi32(a.hi, int(n))};
}
FBP_FN __m512i _mm512_slli_epi64(__m512i a, unsigned n) {
  return {_mm256_slli_epi64(a.lo, int(n)), _mm256_slli_epi64(a.hi, int(n))};
}
FBP_FN __m512i _mm512_srli_epi32(__m512i a, unsigned n) {
  return {_mm256_srli_epi32(a.lo, int(n)), _mm256_srli_epi32(a.hi, int(n))};
}
FBP_FN __m512i _mm512_srli_epi64(__m512i a, unsigned n) {
  return {_mm256_srli_epi64(a.lo, int(n)), _mm256_srli_epi64(a.hi, int(n))};
}
FBP_FN __m512i _mm512_ternarylogic_epi32(__m512i a, __m512i b, __m512i c, int table) {
  return {avx512_emulation::chosen_by_table(a.lo, b.lo, c.lo, table),
          avx512_emulation::chosen_by_table(a.hi, b.hi, c.hi, table)};
}
FBP_FN __m512i _mm512_ternarylogic_epi64(__m512i a, __m512i b, __m512i c, int table) {
  return _mm512_ternarylogic_epi32(a, b, c, table);
}

// Comparisons and masks.
FBP_FN __mmask16 _mm512_cmp_ps_mask(__m512 a, __m512 b, int kind) {
  return static_cast<__mmask16>(avx512_emulation::compared(a, b, kind));
}
FBP_FN __mmask8 _mm512_cmp_pd_mask(__m512d a, __m512d b, int kind) {
  return static_cast<__mmask8>(avx512_emulation::compared(a, b, kind));
}
FBP_FN __mmask16 _kand_mask16(__mmask16 a, __mmask16 b) { return static_cast<__mmask16>(a & b); }
FBP_FN __mmask8 _kand_mask8(__mmask8 a, __mmask8 b) { return static_cast<__mmask8>(a & b); }
FBP_FN __mmask16 _kor_mask16(__mmask16 a, __mmask16 b) { return static_cast<__mmask16>(a | b); }
FBP_FN __mmask8 _kor_mask8(__mmask8 a, __mmask8 b) { return static_cast<__mmask8>(a | b); }
FBP_FN __mmask16 _knot_mask16(__mmask16 a) { return static_cast<__mmask16>(~a); }
FBP_FN __mmask8 _knot_mask8(__mmask8 a) { return static_cast<__mmask8>(~a); }
FBP_FN __m512 _mm512_mask_blend_ps(__mmask16 mask, __m512 no, __m512 yes) {
  return avx512_emulation::blended<std::uint32_t>(mask, no, yes);
}
FBP_FN __m512d _mm512_mask_blend_pd(__mmask8 mask, __m512d no, __m512d yes) {
  return avx512_emulation::blended<std::uint64_t>(mask, no, yes);
}

// Elements to other places.
FBP_FN __m512 _mm512_unpacklo_ps(__m512 a, __m512 b) {
  return {_mm256_unpacklo_ps(a.lo, b.lo), _mm256_unpacklo_ps(a.hi, b.hi)};
}
FBP_FN __m512d _mm512_unpacklo_pd(__m512d a, __m512d b) {
  return {_mm256_unpacklo_pd(a.lo, b.lo), _mm256_unpacklo_pd(a.hi, b.hi)};
}
FBP_FN __m512 _mm512_unpackhi_ps(__m512 a, __m512 b) {
  return {_mm256_unpackhi_ps(a.lo, b.lo), _mm256_unpackhi_ps(a.hi, b.hi)};
}
FBP_FN __m512d _mm512_unpackhi_pd(__m512d a, __m512d b) {
  return {_mm256_unpackhi_pd(a.lo, b.lo), _mm256_unpackhi_pd(a.hi, b.hi)};
}
FBP_FN __m512 _mm512_shuffle_f32x4(__m512 a, __m512 b, int which) {
  return avx512_emulation::shuffled_parts(a, b, which);
}
FBP_FN __m512d _mm512_shuffle_f64x2(__m512d a, __m512d b, int which) {
  return avx512_emulation::shuffled_parts(a, b, which);
}
FBP_FN __m512i _mm512_shuffle_epi32(__m512i a, int which) {
  return avx512_emulation::shuffled_words(a, which);
}
FBP_FN __m512i _mm512_mask_shuffle_epi32(__m512i no, __mmask16 mask, __m512i a, int which) {
  return avx512_emulation::blended<std::uint32_t>(mask, no, _mm512_shuffle_epi32(a, which));
}
FBP_FN __m512i _mm512_permutexvar_epi16(__m512i index, __m512i a) {
  return avx512_emulation::permuted_halfwords(index, a);
}

// bfloat16: `lower` becomes elements 0 to 15.
FBP_FN __m512bh _mm512_cvtne2ps_pbh(__m512 upper, __m512 lower) {
  return avx512_emulation::to_bfloat16(upper, lower);
}
FBP_FN __m512 _mm512_dpbf16_ps(__m512 sum, __m512bh x, __m512bh y) {
  return {avx512_emulation::added_pairs(sum.lo, x.lo, y.lo),
          avx512_emulation::added_pairs(sum.hi, x.hi, y.hi)};
}

}  // namespace fastbp
