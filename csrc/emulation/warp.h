// CUDA's warp functions and atomics for the emulated device. A warp function is a meeting point of
// the lanes that its mask names, of which those that have ended are excused; a lane that meets
// with another mask, or at another function, is an error.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

namespace fastbp {
namespace emulation {

enum class WarpOperation {
  sync,
  shuffle,
  ballot,
  all,
  any,
  add,
  least,
  greatest,
  and_,
  or_,
  xor_,
  matrix
};

struct WarpCall {
  WarpOperation operation;
  unsigned mask;
  std::uint64_t value;  // shuffle: its bits; ballot, all, any: 0 or 1; matrix: what it points to
  int source;           // shuffle: the lane to read from, -1 for the own one
  bool is_signed;       // add, least, greatest
  const char* file;
  int line;
  // matrix: what becomes of the 32 lanes' values.
  void (*compute)(void* const* lanes) = nullptr;
};
std::uint64_t meet_warp(const WarpCall& call);
int lane_of_thread();

template <class T> T shuffle(unsigned mask, T value, int source, const char* file, int line) {
  static_assert(std::is_trivially_copyable<T>::value && sizeof(T) <= 8, "at most 64 bits");
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = meet_warp({WarpOperation::shuffle, mask, bits, source, false, file, line});
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
template <class T>
T reduce(WarpOperation operation, unsigned mask, T value, const char* file, int line) {
  static_assert(std::is_integral<T>::value && sizeof(T) == 4, "__reduce functions take 32 bits");
  return T(meet_warp({operation, mask, std::uint64_t(std::uint32_t(value)), -1,
                      std::is_signed<T>::value, file, line}));
}

// One step that no other thread of the device can come between. Its accesses are told as one, from
// where it was called.
void note_atomic(void* address, std::size_t bytes, void* caller);
template <class T, class Change>
__attribute__((noinline, no_sanitize("thread"))) T atomically(T* address, Change change) {
  note_atomic(address, sizeof(T), __builtin_return_address(0));
  T old;
  std::memcpy(&old, address, sizeof(T));
  const T changed = change(old);
  std::memcpy(address, &changed, sizeof(T));
  return old;
}
void fence();  // what was written before is there for those who read an atomic written after

}  // namespace emulation
}  // namespace fastbp

// Where a call stands, for messages; the caller gives neither.
#define FBP_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

constexpr int warpSize = 32;

inline void __syncwarp(unsigned mask = 0xffffffffu, FBP_HERE) {
  using namespace fastbp::emulation;
  meet_warp({WarpOperation::sync, mask, 0, -1, false, file, line});
}
// The lane within the group of `width` lanes, as CUDA's: modulo width, or the own lane where the
// source would be outside the group.
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = warpSize, FBP_HERE) {
  const int lane = fastbp::emulation::lane_of_thread();
  return fastbp::emulation::shuffle(mask, value, (lane & -width) + (source & (width - 1)), file,
                                    line);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = warpSize, FBP_HERE) {
  const int lane = fastbp::emulation::lane_of_thread(), place = lane & (width - 1);
  return fastbp::emulation::shuffle(mask, value, place < int(delta) ? lane : lane - int(delta),
                                    file, line);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = warpSize, FBP_HERE) {
  const int lane = fastbp::emulation::lane_of_thread(), place = lane & (width - 1);
  return fastbp::emulation::shuffle(
      mask, value, place + int(delta) >= width ? lane : lane + int(delta), file, line);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = warpSize, FBP_HERE) {
  const int lane = fastbp::emulation::lane_of_thread(), source = lane ^ bits;
  // A group may read from the ones before it, not from those behind.
  const bool behind = (source & -width) > (lane & -width);
  return fastbp::emulation::shuffle(mask, value, behind ? lane : source, file, line);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, FBP_HERE) {
  using namespace fastbp::emulation;
  return unsigned(meet_warp({WarpOperation::ballot, mask, predicate != 0, -1, false, file, line}));
}
inline int __all_sync(unsigned mask, int predicate, FBP_HERE) {
  using namespace fastbp::emulation;
  return int(meet_warp({WarpOperation::all, mask, predicate != 0, -1, false, file, line}));
}
inline int __any_sync(unsigned mask, int predicate, FBP_HERE) {
  using namespace fastbp::emulation;
  return int(meet_warp({WarpOperation::any, mask, predicate != 0, -1, false, file, line}));
}

// int and unsigned; the last three unsigned alone.
#define FBP_REDUCE(name, operation)                                                                \
  template <class T> T __reduce_##name##_sync(unsigned mask, T value, FBP_HERE) {                  \
    return fastbp::emulation::reduce(fastbp::emulation::WarpOperation::operation, mask, value,     \
                                     file, line);                                                  \
  }
FBP_REDUCE(add, add)
FBP_REDUCE(min, least)
FBP_REDUCE(max, greatest)
FBP_REDUCE(and, and_)
FBP_REDUCE(or, or_)
FBP_REDUCE(xor, xor_)
#undef FBP_REDUCE
#undef FBP_HERE

// Atomics: the old value.
template <class T> T atomicAdd(T* address, T value) {
  return fastbp::emulation::atomically(address, [=](T old) { return T(old + value); });
}
template <class T> T atomicExch(T* address, T value) {
  return fastbp::emulation::atomically(address, [=](T) { return value; });
}
template <class T> T atomicCAS(T* address, T compare, T value) {
  return fastbp::emulation::atomically(address,
                                       [=](T old) { return old == compare ? value : old; });
}
template <class T> T atomicMax(T* address, T value) {
  return fastbp::emulation::atomically(address, [=](T old) { return old < value ? value : old; });
}
template <class T> T atomicMin(T* address, T value) {
  return fastbp::emulation::atomically(address, [=](T old) { return value < old ? value : old; });
}
inline unsigned atomicInc(unsigned* address, unsigned limit) {
  return fastbp::emulation::atomically(address,
                                       [=](unsigned old) { return old >= limit ? 0u : old + 1; });
}
inline void __threadfence() { fastbp::emulation::fence(); }
inline void __threadfence_block() {}
