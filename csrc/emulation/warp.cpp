// Warp functions: lanes meet, and each gets what CUDA says that it gets.
#include "emulation/warp.h"

#include <algorithm>

#include "core/check.h"
#include "emulation/hazards.h"
#include "emulation/machine.h"

namespace fastbp {
namespace emulation {
namespace {

constexpr const char* kNames[] = {"__syncwarp",   "a shuffle",    "__ballot_sync",
                                  "__all_sync",   "__any_sync",   "__reduce_add",
                                  "__reduce_min", "__reduce_max", "__reduce_and",
                                  "__reduce_or",  "__reduce_xor", "a matrix instruction"};

const char* name_of(WarpOperation operation) { return kNames[int(operation)]; }

std::string hexadecimal(unsigned mask) {
  char digits[16];
  std::snprintf(digits, sizeof digits, "0x%08x", mask);
  return digits;
}

// The lanes of a warp: null where the block has no such thread.
struct Lanes {
  Thread* lane[warpSize] = {};

  Lanes(const Block& block, int warp) {
    for (int i = 0; i < warpSize; ++i) {
      const std::size_t number = std::size_t(warp) * warpSize + i;
      if (number < block.threads.size()) lane[i] = block.threads[number];
    }
  }
  bool is_there(int i) const { return lane[i] && lane[i]->state != State::ended; }
};

bool meets(const Thread& thread, const WarpCall& call) {
  return thread.state == State::at_warp_call && thread.call.operation == call.operation &&
         thread.call.mask == call.mask;
}

// The lanes of `mask` that take part, or 0 where one has not come.
unsigned present(const Lanes& lanes, const WarpCall& call) {
  unsigned here = 0;
  for (int i = 0; i < warpSize; ++i) {
    if (!(call.mask >> i & 1) || !lanes.is_there(i)) continue;
    if (!meets(*lanes.lane[i], call)) return 0;
    here |= 1u << i;
  }
  return here;
}

std::int64_t widened(const WarpCall& call, std::uint64_t value) {
  return call.is_signed ? std::int64_t(std::int32_t(value)) : std::int64_t(std::uint32_t(value));
}

std::uint64_t combined(const WarpCall& call, std::uint64_t a, std::uint64_t b) {
  switch (call.operation) {
  case WarpOperation::add:
    return std::uint32_t(a + b);
  case WarpOperation::least:
    return widened(call, a) < widened(call, b) ? a : b;
  case WarpOperation::greatest:
    return widened(call, a) < widened(call, b) ? b : a;
  case WarpOperation::and_:
  case WarpOperation::all:
    return a & b;
  case WarpOperation::or_:
  case WarpOperation::any:
  case WarpOperation::ballot:
    return a | b;
  case WarpOperation::xor_:
    return a ^ b;
  default:
    return 0;
  }
}

int lowest(unsigned mask) {
  int lane = 0;
  while (!(mask >> lane & 1)) ++lane;
  return lane;
}

// What all lanes get, but for shuffles.
std::uint64_t common_answer(const Lanes& lanes, unsigned here, const WarpCall& call) {
  std::uint64_t total = 0;
  bool first = true;
  for (int i = 0; i < warpSize; ++i) {
    if (!(here >> i & 1)) continue;
    std::uint64_t value = lanes.lane[i]->call.value;
    if (call.operation == WarpOperation::ballot) value <<= i;
    total = first ? value : combined(call, total, value);
    first = false;
  }
  return total;
}

void answer_shuffle(Lanes& lanes, unsigned here, int i) {
  Thread& thread = *lanes.lane[i];
  const int source = thread.call.source;
  if (source >= 0 && source < warpSize && here >> source & 1) {
    thread.answer = lanes.lane[source]->call.value;
    return;
  }
  machine.fail(cudaErrorLaunchFailure,
               text(name_of(thread), " reads from lane ", source, " in a shuffle at ", thread.file,
                    ":", thread.line, ", where lanes ", hexadecimal(here), " take part"));
}

// An instruction of the whole warp. False where a lane is not there, or calls for another.
bool compute_matrix(const Lanes& lanes, unsigned here, const WarpCall& call) {
  void* values[warpSize] = {};
  for (int i = 0; i < warpSize; ++i) {
    if (!(here >> i & 1) || lanes.lane[i]->call.compute != call.compute)
      return machine.fail(cudaErrorLaunchFailure,
                          text(name_of(*lanes.lane[lowest(here)]), " calls for ", call.file,
                               ", which all 32 lanes must; lane ", i, " does not"));
    values[i] = reinterpret_cast<void*>(std::uintptr_t(lanes.lane[i]->call.value));
  }
  call.compute(values);
  return true;
}

bool resolve(Block& block, const WarpCall& call, int warp) {
  Lanes lanes(block, warp);
  const unsigned here = present(lanes, call);
  if (!here) return false;
  const std::uint64_t common = common_answer(lanes, here, call);
  if (call.operation == WarpOperation::matrix && !compute_matrix(lanes, here, call)) return true;
  std::vector<const Thread*> met;
  for (int i = 0; i < warpSize; ++i) {
    if (!(here >> i & 1)) continue;
    if (call.operation == WarpOperation::shuffle)
      answer_shuffle(lanes, here, i);
    else
      lanes.lane[i]->answer = common;
    met.push_back(lanes.lane[i]);
  }
  for (int i = 0; i < warpSize; ++i)
    if (here >> i & 1) lanes.lane[i]->state = State::ready;
  note_meeting(block, met);
  return true;
}

}  // namespace

int lane_of_thread() { return machine.running->lane(); }

std::uint64_t meet_warp(const WarpCall& call) {
  Thread& self = *machine.running;
  if (!(call.mask >> self.lane() & 1))
    abort_kernel(cudaErrorLaunchFailure,
                 text(name_of(self), ", lane ", self.lane(), ", calls ", name_of(call.operation),
                      " at ", call.file, ":", call.line, " with mask ", hexadecimal(call.mask),
                      ", which leaves it out"));
  self.call = call;
  wait(State::at_warp_call, call.file, call.line);
  return self.answer;
}

bool resolve_warps(Block& block) {
  bool some = false;
  for (Thread* thread : block.threads)
    if (thread->state == State::at_warp_call)
      some = resolve(block, WarpCall(thread->call), thread->warp()) || some;
  return some;
}

std::string stuck_warp(const Block& block) {
  for (const Thread* thread : block.threads) {
    if (thread->state != State::at_warp_call) continue;
    const Lanes lanes(block, thread->warp());
    for (int i = 0; i < warpSize; ++i)
      if (thread->call.mask >> i & 1 && lanes.is_there(i) && !meets(*lanes.lane[i], thread->call))
        return text(name_of(*thread), " waits at ", thread->file, ":", thread->line, " in ",
                    name_of(thread->call.operation), " with mask ", hexadecimal(thread->call.mask),
                    " for lane ", i, ": ", state_of(*lanes.lane[i]));
  }
  return "";
}

}  // namespace emulation
}  // namespace fastbp
