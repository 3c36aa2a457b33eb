// Barriers in shared memory (mbarrier) and the copies that they wait for, as a block keeps them.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace fastbp {
namespace emulation {

struct Block;
struct Thread;

// A copy into shared memory that has begun and not arrived: rows of 128 bytes.
struct BoxCopy {
  unsigned char* slab;
  std::vector<const unsigned char*> rows;  // null: outside the matrix
  std::size_t row_bytes;                   // of them that are inside; zeros follow
  Thread* issuer;
  void* caller;
};

struct SharedBarrierState {
  int arrivals = 0;  // that a phase needs
  int missing = 0;
  long long bytes = 0;  // expected, less those that have come
  unsigned phase = 0;
  std::vector<BoxCopy> copies;       // on their way
  std::vector<std::uint32_t> known;  // for hazards.cpp: what those who arrived had done

  bool has_ended(int parity) const { return int(phase & 1) != parity; }
};

using SharedBarriers = std::map<const void*, SharedBarrierState>;

// Threads of the block that wait at such barriers, and need not or can see to a copy's arrival, go on.
// True where some did.
bool resolve_shared_barriers(Block& block);
// Threads that wait for their warp group go on where all four warps are there. True where some did.
bool resolve_warp_groups(Block& block);
// Why threads that wait at either cannot go on; empty where none waits.
std::string stuck_at_shared_barrier(const Block& block);

}  // namespace emulation
}  // namespace fastbp
