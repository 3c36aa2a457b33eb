// The floating-point control word of the calling thread (MXCSR, FPCR): rounding, traps, treatment of denormals.
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace fastbp {

#if defined(__x86_64__)

using FpControl = std::uint32_t;
// Round to nearest, every exception masked (0x1f80), flush to zero (0x8000), denormals are zero (0x0040).
inline constexpr FpControl kFlushDenormals = 0x9fc0;
inline FpControl read_fp_control() { return _mm_getcsr(); }
inline void write_fp_control(FpControl control) { _mm_setcsr(control); }

#elif defined(__aarch64__)

using FpControl = std::uint64_t;
// Round to nearest, no traps, flush-to-zero (FPCR.FZ, bit 24), which covers inputs and results.
inline constexpr FpControl kFlushDenormals = FpControl{1} << 24;
inline FpControl read_fp_control() {
  FpControl control;
  __asm__ __volatile__("mrs %0, fpcr" : "=r"(control));
  return control;
}
inline void write_fp_control(FpControl control) {
  __asm__ __volatile__("msr fpcr, %0" : : "r"(control));
}

#else

using FpControl = std::uint32_t;
inline constexpr FpControl kFlushDenormals = 0;
inline FpControl read_fp_control() { return 0; }
inline void write_fp_control(FpControl) {}

#endif

// Sets the control word and puts back exactly what was there, status flags included.
class FpControlScope {
 public:
  explicit FpControlScope(FpControl control) : saved_(read_fp_control()) {
    write_fp_control(control);
  }
  ~FpControlScope() { write_fp_control(saved_); }
  FpControlScope(const FpControlScope&) = delete;
  FpControlScope& operator=(const FpControlScope&) = delete;

 private:
  FpControl saved_;
};

}  // namespace fastbp
