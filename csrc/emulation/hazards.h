// Data races and reads of memory that nothing has written, found by watching every access.
//
// The kernels are compiled with -fsanitize=thread, which makes the compiler call __tsan_read4 and
// the like for each access; hazards.cpp defines those functions in the place of ThreadSanitizer's.
// Kernels compiled without it run unwatched, and faster. Two accesses of a byte by different threads,
// of which one writes and not both are atomic, are a race unless a meeting point lies between them:
// a barrier or warp function where both were, or for blocks, a cooperative launch's barrier, or
// __threadfence() before an atomic of the one that the other one's atomic comes after.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace fastbp {
namespace emulation {

struct Block;
struct Thread;
class GuardedMemory;
class Shadow;  // what is known of each byte of a piece of memory

// A launch begins; a block begins, with shared memory of its own; all threads of the grid have met.
void note_launch();
void note_block(Block& block);
void note_grid_meeting();
// These threads, or all of the block, have met.
void note_meeting(Block& block, const std::vector<const Thread*>& met);
void note_barrier(Block& block);
// The running thread arrives at something that keeps `known` of all who did; somebody who waited
// for it comes after them.
void note_arrival(std::vector<std::uint32_t>& known);
void note_departure(const std::vector<std::uint32_t>& known);
// Bytes that were written from outside of kernels.
void note_written(const void* address, std::size_t bytes);
// A fence of the running thread; accesses that it makes by an instruction from ptx.h. (Atomics:
// warp.h.)
void note_fence();
void note_read(const void* address, std::size_t bytes, void* caller);
void note_write(const void* address, std::size_t bytes, void* caller);

// The shadow of an allocation or of a block's shared memory, while it exists.
std::shared_ptr<Shadow> watch(const GuardedMemory& memory, bool shared);
void unwatch(const GuardedMemory& memory);

}  // namespace emulation
}  // namespace fastbp
