// Runs a grid: block after block, a block's threads from barrier to barrier.
#include <csignal>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <vector>

#include <pthread.h>

#include "core/environment.h"
#include "emulation/fiber.h"
#include "emulation/memory.h"
#include "emulation/runtime.h"
#include "emulation/schedule.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace fastbp {
namespace emulation {
namespace {

struct Thread {
  Fiber fiber;
  uint3 index{};
  bool ended = false;
  // The barrier where it waits.
  const char* file = nullptr;
  int line = 0;

  bool waits_with(const Thread& other) const {
    return line == other.line && std::strcmp(file, other.file) == 0;
  }
};

// The device, and the kernel that it runs. `mutex` is held from a launch's beginning to its end.
struct Machine {
  std::mutex mutex;
  Schedule schedule;
  bool schedule_known = false;
  // Kept from launch to launch: as many as the largest block had.
  std::vector<std::unique_ptr<Thread>> threads;
  std::size_t thread_count = 0;
  std::unique_ptr<GuardedMemory> shared;
  const std::function<void()>* body = nullptr;
  Thread* running = nullptr;  // null between threads
  pthread_t host{};           // the OS thread that runs them
  bool faulted = false;       // at this address
  const void* fault_address = nullptr;
  cudaError_t error = cudaSuccess;
  std::string reason;

  bool fail(cudaError_t code, std::string text) {
    error = code;
    reason = std::move(text);
    return false;
  }
};
Machine machine;

std::string name_of(const char* what, uint3 at) {
  return std::string(what) + " (" + std::to_string(at.x) + ", " + std::to_string(at.y) + ", " +
         std::to_string(at.z) + ")";
}

std::string state_of(const Thread& thread) {
  if (thread.ended) return name_of("thread", thread.index) + " has ended";
  return name_of("thread", thread.index) + " is at " + thread.file + ":" +
         std::to_string(thread.line);
}

// Position of item `i` in a box, x fastest.
uint3 unravel(std::size_t i, dim3 box) {
  return {unsigned(i % box.x), unsigned(i / box.x % box.y), unsigned(i / box.x / box.y)};
}

std::size_t volume(dim3 box) { return std::size_t{box.x} * box.y * box.z; }

// The kernel has touched a page that it may not: leaves it, for run_thread to report. Faults of
// other threads go where they went before.
struct sigaction previous_action;
void on_fault(int, siginfo_t* info, void*) {
  if (machine.running && pthread_equal(machine.host, pthread_self())) {
    machine.faulted = true;
    machine.fault_address = info->si_addr;
    Fiber::suspend();
  }
  sigaction(SIGSEGV, &previous_action, nullptr);  // returning meets the fault again
}

bool report_fault(const void* address) {
  std::string where = describe_allocated(address);
  if (where.empty()) {
    where = machine.shared->describe(address);
    where = where.empty() ? "that is not the device's" : where + " of shared memory";
  }
  return machine.fail(cudaErrorIllegalAddress, name_of("thread", threadIdx) + " of " +
                                                   name_of("block", blockIdx) + " touched memory " +
                                                   where);
}

class FaultHandler {
 public:
  FaultHandler() {
    struct sigaction action{};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO;
    sigemptyset(&action.sa_mask);
    sigaction(SIGSEGV, &action, &previous_action);
  }
  ~FaultHandler() { sigaction(SIGSEGV, &previous_action, nullptr); }
  FaultHandler(const FaultHandler&) = delete;
  FaultHandler& operator=(const FaultHandler&) = delete;
};

// Runs one thread to its next barrier or its end. False where it failed.
bool run_thread(Thread& thread) {
  threadIdx = thread.index;
  machine.running = &thread;
  machine.faulted = false;
  thread.ended = thread.fiber.resume();
  machine.running = nullptr;
  return !machine.faulted || report_fault(machine.fault_address);
}

// Whether all threads of the block have ended, or all wait at one barrier.
bool threads_agree() {
  const Thread& first = *machine.threads[0];
  for (std::size_t i = 1; i < machine.thread_count; ++i) {
    const Thread& other = *machine.threads[i];
    if (first.ended == other.ended && (first.ended || first.waits_with(other))) continue;
    return machine.fail(cudaErrorLaunchFailure, "the threads of " + name_of("block", blockIdx) +
                                                    " do not meet at one barrier: " +
                                                    state_of(first) + ", " + state_of(other));
  }
  return true;
}

bool run_block() {
  machine.shared->poison();
  for (std::size_t i = 0; i < machine.thread_count; ++i) {
    Thread& thread = *machine.threads[i];
    thread.index = unravel(i, blockDim);
    thread.fiber.start([] { (*machine.body)(); });
  }
  std::vector<std::size_t> order;
  do {
    machine.schedule.arrange(machine.thread_count, order);
    for (const std::size_t i : order)
      if (!run_thread(*machine.threads[i])) return false;
    if (!threads_agree()) return false;
  } while (!machine.threads[0]->ended);
  return machine.shared->slack_is_intact() ||
         machine.fail(cudaErrorIllegalAddress, "memory in front of shared memory was written to");
}

// The limits of compute capability 7.5 to 12.0 (CUDA C++ programming guide, technical
// specifications).
bool shape_is_valid(const LaunchShape& shape) {
  const dim3 grid = shape.grid, block = shape.block;
  if (volume(grid) == 0 || grid.x > 2147483647 || grid.y > 65535 || grid.z > 65535)
    return machine.fail(cudaErrorInvalidConfiguration,
                        "no device takes " + name_of("a grid of", {grid.x, grid.y, grid.z}));
  if (volume(block) == 0 || volume(block) > 1024 || block.x > 1024 || block.y > 1024 ||
      block.z > 64)
    return machine.fail(cudaErrorInvalidConfiguration,
                        "no device takes " + name_of("a block of", {block.x, block.y, block.z}));
  if (shape.shared_bytes > 48 * 1024)
    return machine.fail(cudaErrorInvalidConfiguration,
                        std::to_string(shape.shared_bytes) +
                            " bytes of shared memory are more than 48 KiB");
  return true;
}

bool read_schedule() {
  if (machine.schedule_known) return true;
  const char* const text = setting(process_environment, "FASTBP_EMULATION_SCHEDULE");
  if (text && !machine.schedule.parse(text))
    return machine.fail(cudaErrorInvalidValue, std::string("FASTBP_EMULATION_SCHEDULE is '") +
                                                   text +
                                                   "', expected forward, reverse or random:<seed>");
  return machine.schedule_known = true;
}

bool run_grid(const LaunchShape& shape) {
  if (!shape_is_valid(shape) || !read_schedule()) return false;
  gridDim = shape.grid;
  blockDim = shape.block;
  machine.thread_count = volume(shape.block);
  while (machine.threads.size() < machine.thread_count)
    machine.threads.push_back(std::make_unique<Thread>());
  machine.shared = std::make_unique<GuardedMemory>(shape.shared_bytes);
  machine.host = pthread_self();
  const FaultHandler handler;
  const Schedule start = machine.schedule;
  std::vector<std::size_t> order;
  machine.schedule.arrange(volume(shape.grid), order);
  bool good = true;
  for (std::size_t i = 0; good && i < order.size(); ++i) {
    blockIdx = unravel(order[i], shape.grid);
    good = run_block();
  }
  machine.schedule = start;  // every launch begins with the seed: it can be repeated by itself
  return good;
}

}  // namespace

bool set_schedule(const char* text) {
  const std::lock_guard<std::mutex> lock(machine.mutex);
  if (!machine.schedule.parse(text)) return false;
  return machine.schedule_known = true;
}

void sync_threads(const char* file, int line) {
  machine.running->file = file;
  machine.running->line = line;
  Fiber::suspend();
}

void* shared_memory() { return machine.shared->data(); }

void launch(const LaunchShape& shape, const std::function<void()>& thread) {
  const std::lock_guard<std::mutex> lock(machine.mutex);
  machine.error = cudaSuccess;
  machine.body = &thread;
  try {
    run_grid(shape);
  } catch (const std::bad_alloc&) {
    machine.fail(cudaErrorMemoryAllocation, "out of memory for the emulated device");
  }
  if (machine.error != cudaSuccess) set_last_error(failed(machine.error, machine.reason));
}

}  // namespace emulation
}  // namespace fastbp

// fastbp::emulation::set_schedule for those who load the library; 0, or 1 for a text that is no
// schedule.
extern "C" __attribute__((visibility("default"))) int fbp_emulation_set_schedule(const char* text) {
  return fastbp::emulation::set_schedule(text) ? 0 : 1;
}
