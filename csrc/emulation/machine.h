// The emulated device while it runs a kernel: blocks, threads, and where they wait.
#pragma once

#include <pthread.h>

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "emulation/device.h"
#include "emulation/fiber.h"
#include "emulation/hazards.h"
#include "emulation/memory.h"
#include "emulation/schedule.h"
#include "emulation/shared_barriers.h"

namespace fastbp {
namespace emulation {

struct Block;

// A copy that a thread has begun and not waited for.
struct AsyncCopy {
  void* shared;
  const void* global;
  int size, bytes;  // of the whole, and of what is copied; zeros behind it
  void* caller;
};

// Where a thread is between two of its pieces.
enum class State {
  ready,
  at_barrier,
  at_warp_call,
  at_grid_barrier,
  at_shared_barrier,
  at_group_call,
  ended
};

// A product of a warp group that has begun and not been waited for (kernels/cuda/wgmma.cuh).
struct GroupProduct {
  float* d;
  std::uint64_t a, b;
  bool add, a_transposed, b_transposed;
  float (*widen)(std::uint32_t);  // what 16 bits of A and B stand for
};

struct Thread {
  Fiber fiber;
  Block* block = nullptr;
  uint3 index{};
  int number = 0;  // in its block, x fastest
  State state = State::ready;
  // Where it waits.
  const char* file = nullptr;
  int line = 0;
  WarpCall call{};                       // at_warp_call
  std::uint64_t answer = 0;              // of the last one
  std::vector<AsyncCopy> copies;         // begun, in order
  std::vector<std::size_t> copy_groups;  // where in `copies` each committed group ends
  std::vector<GroupProduct> products;    // begun, in order
  std::vector<std::size_t> product_groups;
  bool products_fenced = false;
  const void* shared_barrier = nullptr;  // at_shared_barrier
  int parity = 0;
  // For hazards.cpp: of each thread of the block, until when its accesses come before this one's.
  std::vector<std::uint32_t> known;

  int lane() const { return number % warpSize; }
  int warp() const { return number / warpSize; }
};

struct Block {
  uint3 index{};
  std::size_t number = 0;  // in the grid, x fastest
  std::vector<Thread*> threads;
  std::unique_ptr<GuardedMemory> shared;
  SharedBarriers shared_barriers;
  // For hazards.cpp: a count of meetings; at which the last barrier was; of the shared memory.
  std::uint32_t time = 1, barrier_time = 1;
  std::shared_ptr<Shadow> shadow;
};

// `mutex` is held from a launch's beginning to its end.
struct Machine {
  std::mutex mutex;
  Schedule schedule;
  bool schedule_known = false;
  // Kept from launch to launch: as many as the largest launch had at once.
  std::vector<std::unique_ptr<Thread>> threads;
  std::vector<Block> blocks;  // those that are running
  bool cooperative = false;
  int capability = 90;  // while the kernel runs
  const char* kernel = "";
  std::map<std::string, long long> launches;  // of each kernel
  const std::function<void()>* body = nullptr;
  Thread* running = nullptr;  // null between threads
  pthread_t host{};           // the OS thread that runs them
  bool faulted = false;       // at this address
  const void* fault_address = nullptr;
  cudaError_t error = cudaSuccess;
  std::string reason;

  bool fail(cudaError_t code, std::string text) {
    if (error == cudaSuccess) {
      error = code;
      reason = std::move(text);
    }
    return false;
  }
};
extern Machine machine;

std::string name_of(const char* what, uint3 at);  // "thread (1, 0, 0)"
std::string name_of(const Thread& thread);        // "thread (1, 0, 0) of block (0, 0, 0)"
std::string state_of(const Thread& thread);       // where it waits

// Gives way to the other threads; a failed kernel does not come back.
void wait(State state, const char* file, int line);
// The kernel is wrong: for the running thread, does not return.
[[noreturn]] void abort_kernel(cudaError_t error, const std::string& reason);

// Threads of the block that wait in warp functions and have all come go on. True where some did.
bool resolve_warps(Block& block);
// Why threads that wait in warp functions cannot go on; empty where none waits.
std::string stuck_warp(const Block& block);

}  // namespace emulation
}  // namespace fastbp
