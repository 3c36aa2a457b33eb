// A thread for each element, whatever its source's strides: these are read once a run.
#include "kernels/cuda/intake.h"

#include <cmath>

#include "kernels/cuda/elements.cuh"
#include "ops/lane.h"

namespace fastbp {
namespace cuda {
namespace {

template <class N> FBP_FN N number_at(const void* x, index_t at) {
  return static_cast<const N*>(x)[at];
}

FBP_FN double half_value(std::uint16_t bits) {
  const int exponent = bits >> 10 & 31;
  const double fraction = bits & 1023, sign = bits & 0x8000 ? -1.0 : 1.0;
  if (exponent == 31) return fraction != 0 ? __builtin_nan("") : sign * __builtin_inf();
  if (exponent == 0) return sign * fraction * 0x1p-24;
  // 2^(exponent - 25): all the numbers are whole multiples of 2^-24 below 2^16.
  const double power = double(std::uint64_t(1) << exponent) * 0x1p-25;
  return sign * (1024 + fraction) * power;
}

// A number of any of the kinds: integers exactly, all others in `real`.
struct Number {
  double real = 0;
  std::int64_t whole = 0;
  bool is_whole = false, is_unsigned = false;

  FBP_FN static Number of_real(double value) {
    Number n;
    n.real = value;
    return n;
  }
  FBP_FN static Number of_whole(std::int64_t value) {
    Number n;
    n.whole = value;
    n.is_whole = true;
    return n;
  }
  // As C++ converts them, rounded once.
  template <class To> FBP_FN To as() const {
    if (is_unsigned) return To(std::uint64_t(whole));
    return is_whole ? To(whole) : To(real);
  }
};

FBP_FN Number read(const void* x, int kind, index_t at) {
  switch (kind) {
  case FBP_NUMBER_BOOL:
  case FBP_NUMBER_UINT8:
    return Number::of_whole(number_at<std::uint8_t>(x, at));
  case FBP_NUMBER_UINT16:
    return Number::of_whole(number_at<std::uint16_t>(x, at));
  case FBP_NUMBER_UINT32:
    return Number::of_whole(number_at<std::uint32_t>(x, at));
  case FBP_NUMBER_UINT64: {
    Number n = Number::of_whole(number_at<std::int64_t>(x, at));
    n.is_unsigned = true;
    return n;
  }
  case FBP_NUMBER_INT8:
    return Number::of_whole(number_at<std::int8_t>(x, at));
  case FBP_NUMBER_INT16:
    return Number::of_whole(number_at<std::int16_t>(x, at));
  case FBP_NUMBER_INT32:
    return Number::of_whole(number_at<std::int32_t>(x, at));
  case FBP_NUMBER_INT64:
    return Number::of_whole(number_at<std::int64_t>(x, at));
  case FBP_NUMBER_FLOAT16:
    return Number::of_real(half_value(number_at<std::uint16_t>(x, at)));
  case FBP_NUMBER_FLOAT32:
    return Number::of_real(number_at<float>(x, at));
  default:
    return Number::of_real(number_at<double>(x, at));
  }
}

// NaN is not accepted.
FBP_FN bool accepts(const fbp_intake_args& a, double value) {
  return value >= a.low && value <= a.high && (!a.whole || value == floor(value));
}

template <class To>
__global__ void __launch_bounds__(kElementThreads)
    intake_kernel(fbp_intake_args a, index_t count, int* wrong) {
  const index_t threads = index_t(gridDim.x) * kElementThreads;
  FBP_UNROLL(1)
  for (index_t e = index_t(blockIdx.x) * kElementThreads + threadIdx.x; e < count; e += threads) {
    index_t rest = e, at = 0, step = 0;
    FBP_UNROLL(1)
    for (int axis = a.axes - 1; axis > 0; --axis) {
      const index_t i = rest % a.shape[axis];
      at += i * a.strides[axis];
      rest /= a.shape[axis];
      if (axis == 1) step = i;
    }
    const index_t row = a.rows ? index_t(a.rows[rest]) : rest;
    if (a.lengths && step >= index_t(a.lengths[row])) {
      if (a.out) static_cast<To*>(a.out)[e] = To(0);
      continue;
    }
    const Number number = read(a.x, a.from, at + row * a.strides[0]);
    const To value = a.divisor == 1 ? number.as<To>() : To(number.as<double>() / a.divisor);
    if (a.out) static_cast<To*>(a.out)[e] = value;
    // What becomes an integer is looked at before: its fraction would be gone.
    constexpr bool to_whole = To(0.5) == To(0);
    if (a.checks && !accepts(a, to_whole ? number.as<double>() : double(value)))
      atomicExch(wrong, 1);
  }
}

template <class To>
cudaError_t launch(const fbp_intake_args& args, index_t count, int* wrong, cudaStream_t stream) {
  const index_t blocks = ceil_div(count, kElementThreads);
  const dim3 grid(unsigned(blocks < kMaxGridX ? blocks : kMaxGridX));
  FBP_LAUNCH(intake_kernel<To>, grid, dim3(kElementThreads), 0, stream)(args, count, wrong);
  return cudaGetLastError();
}

// A sum in twice the digits of a double: high + low, high rounded to nearest.
struct Wide {
  double high = 0, low = 0;

  FBP_FN void add(double value, double rest) {
    const double sum = high + value, of_value = sum - high;
    low += (high - (sum - of_value)) + (value - of_value) + rest;
    high = sum + low;
    low -= high - sum;
  }
};

__global__ void __launch_bounds__(kElementThreads)
    sum_kernel(const double* x, index_t n, double* total) {
  FBP_SHARED(double, values);
  Wide sum;
  FBP_UNROLL(1)
  for (index_t i = threadIdx.x; i < n; i += kElementThreads) sum.add(x[i], 0);
  values[2 * threadIdx.x] = sum.high;
  values[2 * threadIdx.x + 1] = sum.low;
  __syncthreads();
  if (threadIdx.x != 0) return;
  FBP_UNROLL(1)
  for (int i = 1; i < kElementThreads; ++i) sum.add(values[2 * i], values[2 * i + 1]);
  *total = sum.high;
}

}  // namespace

cudaError_t intake(const fbp_intake_args& args, index_t count, int* wrong, cudaStream_t stream) {
  switch (args.to) {
  case FBP_NUMBER_FLOAT32:
    return launch<float>(args, count, wrong, stream);
  case FBP_NUMBER_FLOAT64:
    return launch<double>(args, count, wrong, stream);
  default:
    return launch<std::int64_t>(args, count, wrong, stream);
  }
}

cudaError_t sum(const double* x, index_t n, double* total, cudaStream_t stream) {
  FBP_LAUNCH(sum_kernel, dim3(1), dim3(kElementThreads), 2 * kElementThreads * sizeof(double),
             stream)(x, n, total);
  return cudaGetLastError();
}

}  // namespace cuda
}  // namespace fastbp
