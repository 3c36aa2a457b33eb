// Barriers in shared memory and copies of boxes. After the PTX ISA manual, version 9.0: "mbarrier",
// "cp.async.bulk.tensor", "Tensor-copy ... swizzling modes".
#include "emulation/shared_barriers.h"

#include <cstring>

#include "core/check.h"
#include "emulation/hazards.h"
#include "emulation/machine.h"
#include "emulation/wgmma.h"

namespace fastbp {
namespace emulation {
namespace {

constexpr int kRowBytes = 128;

[[noreturn]] void fail(const std::string& what) {
  abort_kernel(cudaErrorLaunchFailure, text(name_of(*machine.running), " ", what));
}

SharedBarrierState& state_at(const void* barrier) {
  SharedBarriers& all = machine.running->block->shared_barriers;
  const auto found = all.find(barrier);
  if (found == all.end()) fail("uses a barrier in shared memory that nobody has made");
  return found->second;
}

void end_phase_if_due(SharedBarrierState& state) {
  if (state.missing != 0 || state.bytes != 0) return;
  ++state.phase;
  state.missing = state.arrivals;
}

// The copy's bytes are there. Told as the issuer's accesses.
void arrive(const BoxCopy& copy, SharedBarrierState& state) {
  Thread* const running = machine.running;
  machine.running = copy.issuer;
  unsigned char* to = copy.slab;
  for (const unsigned char* row : copy.rows) {
    unsigned char values[kRowBytes] = {};
    if (row) {
      note_read(row, copy.row_bytes, copy.caller);
      std::memcpy(values, row, copy.row_bytes);
    }
    note_write(to, kRowBytes, copy.caller);
    const unsigned turn = shared_address(to) / kRowBytes % 8;
    for (unsigned group = 0; group < 8; ++group)
      std::memcpy(to + 16 * (group ^ turn), values + 16 * group, 16);
    to += kRowBytes;
    state.bytes -= kRowBytes;
  }
  note_arrival(state.known);
  machine.running = running;
}

void deliver(SharedBarrierState& state) {
  const std::vector<BoxCopy> copies = std::move(state.copies);
  state.copies.clear();
  for (const BoxCopy& copy : copies) arrive(copy, state);
  end_phase_if_due(state);
}

void arrive(std::uint64_t* barrier, int bytes) {
  SharedBarrierState& state = state_at(barrier);
  if (state.missing == 0) fail("arrives at a barrier in shared memory where all have arrived");
  note_arrival(state.known);
  state.bytes += bytes;
  --state.missing;
  end_phase_if_due(state);
}

}  // namespace

std::uint32_t shared_address(const void* p) {
  const auto* const begin =
      static_cast<const unsigned char*>(machine.running->block->shared->data());
  return kSharedWindow + std::uint32_t(static_cast<const unsigned char*>(p) - begin);
}

void barrier_init(std::uint64_t* barrier, int arrivals) {
  note_write(barrier, sizeof *barrier, __builtin_return_address(0));
  SharedBarrierState state;
  state.arrivals = state.missing = arrivals;
  machine.running->block->shared_barriers[barrier] = state;
}

void barriers_are_made() {}

void barrier_arrive(std::uint64_t* barrier) { arrive(barrier, 0); }

void barrier_arrive_expecting(std::uint64_t* barrier, int bytes) { arrive(barrier, bytes); }

void barrier_wait(std::uint64_t* barrier, int parity, const char* file, int line) {
  Thread& self = *machine.running;
  SharedBarrierState& state = state_at(barrier);
  self.shared_barrier = barrier;
  self.parity = parity;
  while (!state.has_ended(parity)) {
    wait(State::at_shared_barrier, file, line);
    if (!state.has_ended(parity)) deliver(state);
  }
  note_departure(state.known);
}

void load_box(void* slab, const CUtensorMap& map, int row, int col, std::uint64_t* barrier) {
  SharedBarrierState& state = state_at(barrier);
  if (shared_address(slab) % kRowBytes != 0) fail("copies a box to no multiple of 128");
  if (row < 0 || col < 0 || map.box[0] * 2 != kRowBytes) fail("copies a box that is not emulated");
  BoxCopy copy{
      static_cast<unsigned char*>(slab), {}, 0, machine.running, __builtin_return_address(0)};
  const long long cols = std::min<long long>(map.box[0], (long long)(map.size[0]) - col);
  copy.row_bytes = cols > 0 ? std::size_t(cols) * 2 : 0;
  for (unsigned r = 0; r < map.box[1]; ++r) {
    const std::uint64_t i = std::uint64_t(row) + r;
    const bool inside = i < map.size[1] && copy.row_bytes > 0;
    copy.rows.push_back(inside ? map.at + i * map.row_bytes + std::size_t(col) * 2 : nullptr);
  }
  state.copies.push_back(copy);
  if (machine.schedule.hurries()) deliver(state);
}

bool resolve_shared_barriers(Block& block) {
  bool some = false;
  for (Thread* thread : block.threads) {
    if (thread->state != State::at_shared_barrier) continue;
    const SharedBarrierState& state = block.shared_barriers[thread->shared_barrier];
    if (!state.has_ended(thread->parity) && state.copies.empty()) continue;
    thread->state = State::ready;
    some = true;
  }
  return some;
}

std::string stuck_at_shared_barrier(const Block& block) {
  for (const Thread* thread : block.threads)
    if (thread->state == State::at_shared_barrier)
      return text(state_of(*thread), " of ", name_of("block", block.index),
                  " and waits for a phase of a barrier in shared memory that does not end");
  for (const Thread* thread : block.threads)
    if (thread->state == State::at_group_call)
      return text(state_of(*thread), " of ", name_of("block", block.index),
                  " and waits for the other threads of its group of four warps");
  return "";
}

}  // namespace emulation
}  // namespace fastbp
