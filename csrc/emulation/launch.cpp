// Runs a grid: block after block, a block's threads from one meeting point to the next.
#include <csignal>
#include <cstdint>
#include <cstring>
#include <map>
#include <new>

#include "core/check.h"
#include "core/environment.h"
#include "emulation/machine.h"
#include "emulation/runtime.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace fastbp {
namespace emulation {

Machine machine;

namespace {

std::map<const void*, std::size_t> shared_limits;  // of kernels that asked for another than 48 KiB

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

bool report_fault(const Thread& thread) {
  const void* const address = machine.fault_address;
  std::string where = describe_allocated(address);
  if (where.empty()) {
    where = thread.block->shared->describe(address);
    where = where.empty() ? "that is not the device's" : where + " of shared memory";
  }
  return machine.fail(cudaErrorIllegalAddress, name_of(thread) + " touched memory " + where);
}

class FaultHandler {
 public:
  FaultHandler() {
    struct sigaction action{};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;  // the handler may leave by Fiber::suspend()
    sigemptyset(&action.sa_mask);
    sigaction(SIGSEGV, &action, &previous_action);
  }
  ~FaultHandler() { sigaction(SIGSEGV, &previous_action, nullptr); }
  FaultHandler(const FaultHandler&) = delete;
  FaultHandler& operator=(const FaultHandler&) = delete;
};

// Runs one thread to its next meeting point or its end. False where the kernel failed.
bool run_thread(Thread& thread) {
  threadIdx = thread.index;
  blockIdx = thread.block->index;
  machine.running = &thread;
  machine.faulted = false;
  if (thread.fiber.resume()) thread.state = State::ended;
  machine.running = nullptr;
  if (machine.faulted) return report_fault(thread);
  return machine.error == cudaSuccess;
}

// The first of the block's threads that is in another state than the first, or null.
const Thread* other_state(const Block& block) {
  const Thread& first = *block.threads[0];
  for (const Thread* thread : block.threads) {
    if (thread->state != first.state) return thread;
    const bool waits = first.state != State::ended;
    if (waits && (thread->line != first.line || std::strcmp(thread->file, first.file) != 0))
      return thread;
  }
  return nullptr;
}

void release(Block& block) {
  for (Thread* thread : block.threads) thread->state = State::ready;
}

// Once no thread of the block can run: those in warp functions that have all come, or else the
// whole block at a barrier, go on. False where that is an error; `waits` where the block does, for
// the grid or for ever.
bool resolve(Block& block, bool& waits) {
  bool some = resolve_warps(block);
  some = resolve_warp_groups(block) || some;
  some = resolve_shared_barriers(block) || some;
  if (some) return machine.error == cudaSuccess;
  for (const std::string& stuck : {stuck_warp(block), stuck_at_shared_barrier(block)})
    if (!stuck.empty()) return machine.fail(cudaErrorLaunchFailure, stuck);
  const Thread& first = *block.threads[0];
  if (const Thread* other = other_state(block))
    return machine.fail(cudaErrorLaunchFailure, "the threads of " + name_of("block", block.index) +
                                                    " do not meet at one barrier: " +
                                                    state_of(first) + ", " + state_of(*other));
  waits = first.state != State::at_barrier;
  if (waits) return true;
  note_barrier(block);
  release(block);
  return true;
}

// Once all blocks wait for the grid or have ended. False at the end, or where the kernel is wrong.
bool resolve_grid() {
  const Thread& first = *machine.blocks[0].threads[0];
  for (const Block& block : machine.blocks)
    if (block.threads[0]->state != first.state)
      return machine.fail(cudaErrorLaunchFailure,
                          "the blocks do not meet at one barrier of the grid: " + state_of(first) +
                              ", " + state_of(*block.threads[0]) + " of " +
                              name_of("block", block.index));
  if (first.state == State::ended) return false;
  note_grid_meeting();
  for (Block& block : machine.blocks) release(block);
  return true;
}

// Runs the blocks that were begun to their ends.
bool run_blocks() {
  std::vector<Thread*> ready;
  std::vector<std::size_t> order;
  for (;;) {
    ready.clear();
    for (Block& block : machine.blocks)
      for (Thread* thread : block.threads)
        if (thread->state == State::ready) ready.push_back(thread);
    machine.schedule.arrange(ready.size(), order);
    for (const std::size_t i : order)
      if (!run_thread(*ready[i])) return false;
    bool all_wait = true;
    for (Block& block : machine.blocks) {
      bool waits = false;
      if (!resolve(block, waits)) return false;
      all_wait = all_wait && waits;
    }
    if (all_wait && !resolve_grid()) break;
  }
  if (machine.error != cudaSuccess) return false;
  for (const Block& block : machine.blocks)
    if (!block.shared->slack_is_intact())
      return machine.fail(cudaErrorIllegalAddress,
                          "memory in front of shared memory was written to");
  return true;
}

// Block number `number` of the grid with threads from `first` on of the machine's.
void begin_block(Block& block, std::size_t number, std::size_t first) {
  block.index = unravel(number, gridDim);
  block.number = number;
  block.shared->poison();
  block.shared_barriers.clear();
  block.threads.resize(volume(blockDim));
  for (std::size_t i = 0; i < block.threads.size(); ++i) {
    Thread& thread = *machine.threads[first + i];
    thread.block = &block;
    thread.number = int(i);
    thread.index = unravel(i, blockDim);
    thread.state = State::ready;
    thread.copies.clear();
    thread.copy_groups.clear();
    thread.products.clear();
    thread.product_groups.clear();
    thread.products_fenced = false;
    thread.fiber.start([] { (*machine.body)(); });
    block.threads[i] = &thread;
  }
  note_block(block);
}

// Room for `count` blocks at once.
void prepare(std::size_t count, const LaunchShape& shape) {
  gridDim = shape.grid;
  blockDim = shape.block;
  machine.cooperative = shape.cooperative;
  while (machine.threads.size() < count * volume(shape.block))
    machine.threads.push_back(std::make_unique<Thread>());
  machine.blocks.clear();
  machine.blocks.resize(count);
  for (Block& block : machine.blocks) {
    block.shared = std::make_unique<GuardedMemory>(shape.shared_bytes);
    block.shadow = watch(*block.shared, true);
  }
}

void clear() {
  for (const Block& block : machine.blocks)
    if (block.shared) unwatch(*block.shared);
  machine.blocks.clear();
}

bool run_in_turn(std::size_t blocks) {
  std::vector<std::size_t> order;
  machine.schedule.arrange(blocks, order);
  for (const std::size_t number : order) {
    begin_block(machine.blocks[0], number, 0);
    if (!run_blocks()) return false;
  }
  return true;
}

bool run_together(std::size_t blocks) {
  for (std::size_t number = 0; number < blocks; ++number)
    begin_block(machine.blocks[number], number, number * volume(blockDim));
  return run_blocks();
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

void run_grid(const LaunchShape& shape) {
  const std::size_t blocks = volume(shape.grid);
  if (!read_schedule()) return;
  const Schedule start = machine.schedule;
  prepare(shape.cooperative ? blocks : 1, shape);
  note_launch();
  machine.host = pthread_self();
  const FaultHandler handler;
  if (shape.cooperative)
    run_together(blocks);
  else
    run_in_turn(blocks);
  machine.schedule = start;  // every launch begins with the seed: it can be repeated by itself
}

// A kernel, now. What it does wrong is told by the next call that waits.
void run_kernel(const char* name, const LaunchShape& shape, const std::function<void()>& thread) {
  const std::lock_guard<std::mutex> lock(machine.mutex);
  machine.error = cudaSuccess;
  machine.capability = emulated_capability();
  machine.kernel = name;
  ++machine.launches[name];
  spend_kernel(name);
  machine.body = &thread;
  try {
    run_grid(shape);
  } catch (const std::bad_alloc&) {
    machine.fail(cudaErrorMemoryAllocation, "out of memory for the emulated device");
  }
  clear();
  if (machine.error != cudaSuccess)
    set_pending_error(machine.error, text(name, ": ", machine.reason));
}

cudaError_t invalid_shape(const std::string& reason) {
  return failed(cudaErrorInvalidConfiguration, reason);
}

// The limits of compute capability 7.5 to 12.0 (CUDA C++ programming guide, technical
// specifications).
cudaError_t check_shape(const void* kernel, const LaunchShape& shape) {
  const dim3 grid = shape.grid, block = shape.block;
  if (volume(grid) == 0 || grid.x > 2147483647 || grid.y > 65535 || grid.z > 65535)
    return invalid_shape("no device takes " + name_of("a grid of", {grid.x, grid.y, grid.z}));
  if (volume(block) == 0 || volume(block) > 1024 || block.x > 1024 || block.y > 1024 ||
      block.z > 64)
    return invalid_shape("no device takes " + name_of("a block of", {block.x, block.y, block.z}));
  const std::lock_guard<std::mutex> lock(machine.mutex);
  const auto own = shared_limits.find(kernel);
  const std::size_t limit = own == shared_limits.end() ? kSharedBytes : own->second;
  if (shape.shared_bytes > limit)
    return invalid_shape(text(shape.shared_bytes, " bytes of shared memory are more than ",
                              limit / 1024, " KiB, which this kernel may have"));
  const int resident = blocks_of_processor(int(volume(block)), shape.shared_bytes) * kProcessors;
  if (shape.cooperative && volume(grid) > std::size_t(resident))
    return failed(cudaErrorCooperativeLaunchTooLarge, text("a cooperative launch of ", volume(grid),
                                                           " blocks, of which the device has "
                                                           "room for ",
                                                           resident));
  return cudaSuccess;
}

}  // namespace

std::string name_of(const char* what, uint3 at) {
  return text(what, " (", at.x, ", ", at.y, ", ", at.z, ")");
}

std::string name_of(const Thread& thread) {
  return name_of("thread", thread.index) + " of " + name_of("block", thread.block->index);
}

std::string state_of(const Thread& thread) {
  if (thread.state == State::ended) return name_of("thread", thread.index) + " has ended";
  return text(name_of("thread", thread.index), " is at ", thread.file, ":", thread.line);
}

void wait(State state, const char* file, int line) {
  Thread& self = *machine.running;
  self.state = state;
  self.file = file;
  self.line = line;
  Fiber::suspend();
}

void abort_kernel(cudaError_t error, const std::string& reason) {
  machine.fail(error, reason);
  for (;;) Fiber::suspend();
}

bool set_schedule(const char* text) {
  const std::lock_guard<std::mutex> lock(machine.mutex);
  if (!machine.schedule.parse(text)) return false;
  return machine.schedule_known = true;
}

void sync_threads(const char* file, int line) { wait(State::at_barrier, file, line); }

void sync_grid(const char* file, int line) {
  if (!machine.cooperative)
    abort_kernel(cudaErrorLaunchFailure, text("a barrier of the grid, at ", file, ":", line,
                                              ", in a launch that is not cooperative"));
  wait(State::at_grid_barrier, file, line);
}

void* shared_memory() { return machine.running->block->shared->data(); }

void fence() { note_fence(); }

cudaError_t set_shared_limit(const void* kernel, int bytes) {
  if (bytes < 0 || std::size_t(bytes) > kMaxSharedBytes)
    return failed(cudaErrorInvalidValue,
                  text(bytes, " bytes of shared memory: expected 0 to ", kMaxSharedBytes));
  const std::lock_guard<std::mutex> lock(machine.mutex);
  shared_limits[kernel] = std::size_t(bytes);
  return cudaSuccess;
}

int blocks_of_processor(int threads, std::size_t shared_bytes) {
  // A block takes 1 KiB of shared memory for itself.
  const std::size_t by_memory = (kMaxSharedBytes + 1024) / (shared_bytes + 1024);
  const std::size_t by_threads = std::size_t(kThreadsOfProcessor / (threads > 0 ? threads : 1));
  const std::size_t most = 32;
  return int(std::min(most, std::min(by_memory, by_threads)));
}

long long launches_of(const char* name) {
  const std::lock_guard<std::mutex> lock(machine.mutex);
  return machine.launches[name];
}

void note_launch(const char* name) {
  const std::lock_guard<std::mutex> lock(machine.mutex);
  ++machine.launches[name];
}

void launch(const char* name, const void* kernel, const LaunchShape& shape,
            std::function<void()> thread, cudaStream_t stream) {
  cudaError_t error = check_shape(kernel, shape);
  if (error == cudaSuccess) error = enqueue(stream, [=] { run_kernel(name, shape, thread); });
  set_last_error(error);
}

}  // namespace emulation
}  // namespace fastbp

// fastbp::emulation::set_schedule for those who load the library; 0, or 1 for a text that is no
// schedule.
FBP_EXPORT int fbp_emulation_set_schedule(const char* text) {
  return fastbp::emulation::set_schedule(text) ? 0 : 1;
}
// How many kernels of this name, as FBP_LAUNCH has it, have run; of "cudaGraphLaunch", graphs.
FBP_EXPORT long long fbp_emulation_launches(const char* name) {
  return fastbp::emulation::launches_of(name);
}
