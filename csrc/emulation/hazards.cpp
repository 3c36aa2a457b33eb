#include "emulation/hazards.h"

#include <dlfcn.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <iterator>
#include <map>
#include <mutex>
#include <new>
#include <set>
#include <unordered_map>

#include "core/check.h"
#include "emulation/machine.h"

namespace fastbp {
namespace emulation {

enum class Access { read, write, atomic };

namespace {

bool watching = false;  // some of the library's code was compiled to be watched

// Zeros that take no memory until they are written to.
template <class T> class LazyArray {
 public:
  explicit LazyArray(std::size_t size) : bytes_(std::max<std::size_t>(size, 1) * sizeof(T)) {
    void* const mapping = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping == MAP_FAILED) throw std::bad_alloc();
    data_ = static_cast<T*>(mapping);
  }
  ~LazyArray() { munmap(data_, bytes_); }
  LazyArray(const LazyArray&) = delete;
  LazyArray& operator=(const LazyArray&) = delete;
  T& operator[](std::size_t i) { return data_[i]; }

 private:
  std::size_t bytes_;
  T* data_;
};

// Who came to a byte last. `phase` counts launches and meetings of the whole grid: what happened in
// another phase is over.
struct Visit {
  std::uint32_t phase, block, time;
  std::uint16_t thread;
  std::uint8_t many;  // of a read: 1 several threads of one warp, 2 of the block, 3 several blocks
  std::uint8_t atomic;  // of a write
};
struct Cell {
  Visit write, read;
  bool operator==(const Cell& other) const { return std::memcmp(this, &other, sizeof *this) == 0; }
};
static_assert(sizeof(Cell) == 32, "has no bytes between its members");

std::uint32_t phase = 0;
// For blocks that speak by atomics: whose writes one knows of that comes to an address; and who
// knows of whom.
using Blocks = std::set<std::size_t>;
std::unordered_map<const void*, Blocks> published;
std::unordered_map<std::size_t, Blocks> known_blocks;
std::set<std::size_t> fenced;

std::mutex shadows_mutex;
std::map<const void*, std::shared_ptr<Shadow>> shadows;  // by the end of their memory
std::atomic<std::uint64_t> shadows_changes{1};

bool knows_block(std::size_t block, std::size_t other) {
  const auto found = known_blocks.find(block);
  return found != known_blocks.end() && found->second.count(other) != 0;
}

// Whether all that `other` of the same block did at `time` comes before what `self` does now.
bool is_before(const Thread& self, int other, std::uint32_t time) {
  if (other == self.number || time < self.block->barrier_time) return true;
  return !self.known.empty() && time <= self.known[std::size_t(other)];
}

bool readers_are_before(const Thread& self, const Visit& read) {
  if (read.time < self.block->barrier_time) return true;
  if (!read.many) return is_before(self, read.thread, read.time);
  const int threads = int(self.block->threads.size());
  const int first = read.many == 1 ? read.thread / warpSize * warpSize : 0;
  const int end = read.many == 1 ? std::min(first + warpSize, threads) : threads;
  for (int i = first; i < end; ++i)
    if (!is_before(self, i, read.time)) return false;
  return true;
}

const char* verb(Access access) {
  return access == Access::read    ? "reads"
         : access == Access::write ? "writes"
                                   : "changes atomically";
}

// "gemm.cu:103" for a code address, as addr2line says; empty where it cannot.
std::string source_line(void* pc) {
  Dl_info library{};
  if (!dladdr(pc, &library) || !library.dli_fname) return "";
  const auto offset = static_cast<char*>(pc) - static_cast<char*>(library.dli_fbase) - 1;
  char command[4352], line[512] = "";
  std::snprintf(command, sizeof command, "addr2line -s -e '%s' 0x%llx 2>/dev/null",
                library.dli_fname, static_cast<unsigned long long>(offset));
  FILE* const pipe = popen(command, "r");
  if (!pipe) return "";
  const bool good = std::fgets(line, sizeof line, pipe) != nullptr;
  pclose(pipe);
  std::string found = good ? line : "";
  found.erase(std::min(found.find_first_of(" \n"), found.size()));
  return found.empty() || found[0] == '?' ? "" : " at " + found;
}

}  // namespace

class Shadow {
 public:
  Shadow(const GuardedMemory& memory, bool shared)
      : base(static_cast<const char*>(memory.data())), bytes(memory.bytes()), shared_(shared),
        written_(bytes), cells_(bytes) {}

  const char* const base;
  const std::size_t bytes;

  bool holds(const void* p) const {
    const char* const at = static_cast<const char*>(p);
    return at >= base && at < base + bytes;
  }
  void forget_written() { std::memset(&written_[0], 0, bytes); }
  void set_written(std::size_t begin, std::size_t end) {
    std::memset(&written_[begin], 1, end - begin);
  }

  void visit(const Thread& self, const void* p, std::size_t size, Access access, void* pc) {
    const auto begin = static_cast<std::size_t>(static_cast<const char*>(p) - base);
    const std::size_t end = std::min(begin + size, bytes);  // the rest is the guard page's
    Cell before{};  // of the byte that comes before this one
    for (std::size_t i = begin; i < end; ++i) {
      Cell& cell = cells_[i];
      if (i > begin && written_[i] == written_[i - 1] && cell == before) {
        cell = cells_[i - 1];
        continue;
      }
      before = cell;
      if (access != Access::write && !written_[i]) report_unwritten(self, begin, size, access, pc);
      if (const Visit* other = conflict(self, cell, access))
        report_race(self, *other, other == &cell.read, begin, size, access, pc);
      if (access == Access::read)
        note_read(self, cell.read);
      else
        cell.write = {
            phase, std::uint32_t(self.block->number), self.block->time, std::uint16_t(self.number),
            0,     access == Access::atomic};
    }
    if (access != Access::read) set_written(begin, end);
  }

 private:
  // The visit that this one races with, or null.
  const Visit* conflict(const Thread& self, const Cell& cell, Access access) const {
    const Visit &write = cell.write, &read = cell.read;
    const bool both_atomic = access == Access::atomic && write.atomic;
    if (concerns(self, write) && !both_atomic && !comes_before(self, write)) return &write;
    if (access == Access::read || !concerns(self, read)) return nullptr;
    return comes_before(self, read) ? nullptr : &read;
  }
  bool concerns(const Thread& self, const Visit& visit) const {
    return visit.phase == phase && !(shared_ && visit.block != self.block->number);
  }
  bool comes_before(const Thread& self, const Visit& visit) const {
    if (visit.many == 3) return false;
    if (visit.block != self.block->number) return knows_block(self.block->number, visit.block);
    return readers_are_before(self, visit);
  }

  void note_read(const Thread& self, Visit& read) const {
    const Visit own = {
        phase, std::uint32_t(self.block->number), self.block->time, std::uint16_t(self.number), 0,
        0};
    if (!concerns(self, read) || (read.block == own.block && readers_are_before(self, read))) {
      read = own;
      return;
    }
    if (read.block != own.block) {
      read.many = knows_block(own.block, read.block) ? 0 : 3;
      if (!read.many) read = own;
      return;
    }
    const bool same_warp = read.thread / warpSize == self.warp() && read.many < 2;
    read.many = read.many == 3 ? 3 : same_warp ? 1 : 2;
    read.time = own.time;
  }

  std::string place(std::size_t offset, std::size_t size) const {
    return text(size, size == 1 ? " byte" : " bytes", " at offset ", offset, " of ", bytes,
                " bytes of ", shared_ ? "shared" : "global", " memory");
  }
  [[noreturn]] void report_unwritten(const Thread& self, std::size_t offset, std::size_t size,
                                     Access access, void* pc) const {
    abort_kernel(cudaErrorLaunchFailure,
                 text(name_of(self), " ", verb(access), " ", place(offset, size), source_line(pc),
                      ", which nothing has written"));
  }
  [[noreturn]] void report_race(const Thread& self, const Visit& other, bool was_read,
                                std::size_t offset, std::size_t size, Access access,
                                void* pc) const {
    const std::string who =
        other.many ? "several threads"
        : other.block == self.block->number
            ? name_of("thread", self.block->threads[other.thread]->index)
            : text("thread number ", int(other.thread), " of block number ", other.block);
    abort_kernel(cudaErrorLaunchFailure,
                 text("data race: ", name_of(self), " ", verb(access), " ", place(offset, size),
                      source_line(pc), ", which ", who, was_read ? " read" : " wrote",
                      " with no meeting point between"));
  }

  const bool shared_;
  LazyArray<std::uint8_t> written_;
  LazyArray<Cell> cells_;
};

namespace {

// Where a thread has looked: all of [begin, end) has this shadow, or none.
struct Found {
  std::uint64_t changes;
  const char *begin, *end;
  Shadow* shadow;
};

Found found_among_all(const char* p) {
  const std::lock_guard<std::mutex> lock(shadows_mutex);
  const auto next = shadows.upper_bound(p);
  Found found = {shadows_changes, nullptr, reinterpret_cast<const char*>(UINTPTR_MAX), nullptr};
  if (next != shadows.begin()) found.begin = static_cast<const char*>(std::prev(next)->first);
  if (next == shadows.end()) return found;
  const Shadow& shadow = *next->second;
  if (!shadow.holds(p)) {
    found.end = shadow.base;
    return found;
  }
  return {found.changes, shadow.base, shadow.base + shadow.bytes, next->second.get()};
}

Shadow* shadow_of(const void* address) {
  thread_local std::array<Found, 8> last{};  // by the pages that were asked for
  const char* const p = static_cast<const char*>(address);
  Found& found = last[reinterpret_cast<std::uintptr_t>(p) / 4096 % last.size()];
  if (found.changes != shadows_changes || p < found.begin || p >= found.end)
    found = found_among_all(p);
  return found.shadow;
}

// An access of the code at `pc`; of device memory and in a kernel it is looked at.
void visit(const void* p, std::size_t size, Access access, void* pc) {
  const Thread* const self = machine.running;
  if (!self || !pthread_equal(machine.host, pthread_self())) return;
  if (Shadow* const shadow = shadow_of(p)) shadow->visit(*self, p, size, access, pc);
}

}  // namespace

std::shared_ptr<Shadow> watch(const GuardedMemory& memory, bool shared) {
  if (!watching || memory.bytes() == 0) return nullptr;
  auto shadow = std::make_shared<Shadow>(memory, shared);
  const std::lock_guard<std::mutex> lock(shadows_mutex);
  shadows[shadow->base + shadow->bytes] = shadow;
  ++shadows_changes;
  return shadow;
}

void unwatch(const GuardedMemory& memory) {
  const std::lock_guard<std::mutex> lock(shadows_mutex);
  shadows.erase(static_cast<const char*>(memory.data()) + memory.bytes());
  ++shadows_changes;
}

void note_launch() {
  ++phase;
  published.clear();
  known_blocks.clear();
  fenced.clear();
}

void note_block(Block& block) {
  block.time = block.barrier_time = 1;
  for (Thread* thread : block.threads) thread->known.clear();
  if (block.shadow) block.shadow->forget_written();
}

void note_grid_meeting() { note_launch(); }

void note_meeting(Block& block, const std::vector<const Thread*>& met) {
  if (!watching) return;
  std::vector<std::uint32_t> known(block.threads.size());
  for (const Thread* thread : met)
    for (std::size_t i = 0; i < thread->known.size(); ++i)
      known[i] = std::max(known[i], thread->known[i]);
  for (const Thread* thread : met) known[std::size_t(thread->number)] = block.time;
  for (const Thread* thread : met) block.threads[std::size_t(thread->number)]->known = known;
  ++block.time;
}

void note_arrival(std::vector<std::uint32_t>& known) {
  if (!watching) return;
  const Thread& self = *machine.running;
  known.resize(self.block->threads.size());
  for (std::size_t i = 0; i < self.known.size(); ++i) known[i] = std::max(known[i], self.known[i]);
  known[std::size_t(self.number)] = self.block->time++;
}

void note_departure(const std::vector<std::uint32_t>& known) {
  if (!watching) return;
  Thread& self = *machine.running;
  self.known.resize(self.block->threads.size());
  for (std::size_t i = 0; i < known.size(); ++i) self.known[i] = std::max(self.known[i], known[i]);
}

void note_barrier(Block& block) { block.barrier_time = ++block.time; }

void note_written(const void* address, std::size_t bytes) {
  if (!watching || bytes == 0) return;
  if (Shadow* const shadow = shadow_of(address)) {
    const auto begin = static_cast<std::size_t>(static_cast<const char*>(address) - shadow->base);
    shadow->set_written(begin, begin + bytes);
  }
}

void note_atomic(void* address, std::size_t bytes, void* caller) {
  if (!watching) return;
  visit(address, bytes, Access::atomic, caller);
  const std::size_t block = machine.running->block->number;
  Blocks &at_address = published[address], &known = known_blocks[block];
  known.insert(at_address.begin(), at_address.end());
  if (!fenced.count(block)) return;
  at_address.insert(known.begin(), known.end());
  at_address.insert(block);
}

void note_read(const void* address, std::size_t bytes, void* caller) {
  if (watching) visit(address, bytes, Access::read, caller);
}

void note_write(const void* address, std::size_t bytes, void* caller) {
  if (watching) visit(address, bytes, Access::write, caller);
}

void note_fence() {
  if (watching) fenced.insert(machine.running->block->number);
}

}  // namespace emulation
}  // namespace fastbp

// What the compiler calls; names and signatures are those of ThreadSanitizer's interface.
using fastbp::emulation::Access;
using fastbp::emulation::visit;

extern "C" {

void __tsan_init() { fastbp::emulation::watching = true; }
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}

#define FBP_VISITS(kind, size)                                                                     \
  void __tsan_##kind##size(void* p) { visit(p, size, Access::kind, __builtin_return_address(0)); }
#define FBP_UNALIGNED_VISITS(kind, size)                                                           \
  FBP_VISITS(kind, size)                                                                           \
  void __tsan_unaligned_##kind##size(void* p) {                                                    \
    visit(p, size, Access::kind, __builtin_return_address(0));                                     \
  }
#define FBP_ALL_VISITS(kind)                                                                       \
  FBP_VISITS(kind, 1)                                                                              \
  FBP_UNALIGNED_VISITS(kind, 2)                                                                    \
  FBP_UNALIGNED_VISITS(kind, 4)                                                                    \
  FBP_UNALIGNED_VISITS(kind, 8)                                                                    \
  FBP_UNALIGNED_VISITS(kind, 16)                                                                   \
  void __tsan_##kind##_range(void* p, unsigned long size) {                                        \
    visit(p, size, Access::kind, __builtin_return_address(0));                                     \
  }
FBP_ALL_VISITS(read)
FBP_ALL_VISITS(write)

// Atomics of the host's code, which is compiled along: what the names say, in the strictest order.
#define FBP_ATOMIC(bits, T)                                                                        \
  T __tsan_atomic##bits##_load(const volatile T* p, int) {                                         \
    return __atomic_load_n(p, __ATOMIC_SEQ_CST);                                                   \
  }                                                                                                \
  void __tsan_atomic##bits##_store(volatile T* p, T v, int) {                                      \
    __atomic_store_n(p, v, __ATOMIC_SEQ_CST);                                                      \
  }                                                                                                \
  T __tsan_atomic##bits##_exchange(volatile T* p, T v, int) {                                      \
    return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST);                                            \
  }                                                                                                \
  T __tsan_atomic##bits##_fetch_add(volatile T* p, T v, int) {                                     \
    return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST);                                             \
  }                                                                                                \
  T __tsan_atomic##bits##_fetch_sub(volatile T* p, T v, int) {                                     \
    return __atomic_fetch_sub(p, v, __ATOMIC_SEQ_CST);                                             \
  }                                                                                                \
  int __tsan_atomic##bits##_compare_exchange_strong(volatile T* p, T* old, T v, int, int) {        \
    return __atomic_compare_exchange_n(p, old, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);      \
  }                                                                                                \
  int __tsan_atomic##bits##_compare_exchange_weak(volatile T* p, T* old, T v, int, int) {          \
    return __atomic_compare_exchange_n(p, old, v, true, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);       \
  }
FBP_ATOMIC(8, std::uint8_t)
FBP_ATOMIC(32, std::uint32_t)
FBP_ATOMIC(64, std::uint64_t)
void __tsan_atomic_thread_fence(int) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

}  // extern "C"
