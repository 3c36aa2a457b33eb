#include "core/arena.h"

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
#include <utility>

#if defined(__linux__) && !defined(__SANITIZE_ADDRESS__)
#define FBP_ARENA_MMAP 1
#include <sys/mman.h>
#else
#define FBP_ARENA_MMAP                                                                             \
  0  // AddressSanitizer watches the ends of malloc's blocks, not those of mmap's
#endif

namespace fastbp {

namespace {

// Pointer differences must fit std::ptrdiff_t.
constexpr std::size_t kMaxBytes = std::numeric_limits<std::size_t>::max() / 2;

constexpr std::size_t kHugePage = std::size_t{2} << 20;
constexpr std::size_t kPage = 65536;  // a multiple of every ordinary page size in use

std::atomic<std::size_t> allocations{0};
std::atomic<std::size_t> bytes_in_use{0};

std::size_t round_up(std::size_t bytes, std::size_t multiple) {
  return checked_sum(bytes, multiple - 1) / multiple * multiple;
}

#if FBP_ARENA_MMAP
// Whether a block of this size is mapped pages rather than malloc's.
bool is_mapped(std::size_t bytes) { return bytes >= kHugePage; }

// Zero pages beginning at a multiple of kHugePage: maps one huge page too many and gives the ends back.
void* map_pages(std::size_t bytes) {
  const std::size_t mapped = checked_sum(bytes, kHugePage);
  void* map = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (map == MAP_FAILED) throw std::bad_alloc();
  auto* begin = static_cast<unsigned char*>(map);
  const std::size_t over = reinterpret_cast<std::uintptr_t>(map) % kHugePage;
  const std::size_t head = over ? kHugePage - over : 0;
  const std::size_t tail = kHugePage - head;
  if (head) munmap(begin, head);
  if (tail) munmap(begin + head + bytes, tail);
  madvise(begin + head, bytes, MADV_HUGEPAGE);  // a wish: refusal changes nothing but speed
  return begin + head;
}
#endif

}  // namespace

std::size_t checked_product(std::size_t a, std::size_t b) {
  if (b != 0 && a > kMaxBytes / b) throw std::bad_alloc();
  return a * b;
}

std::size_t checked_sum(std::size_t a, std::size_t b) {
  if (a > kMaxBytes || b > kMaxBytes - a) throw std::bad_alloc();
  return a + b;
}

std::size_t ArenaLayout::add(std::size_t bytes) {
  const std::size_t offset = total_;
  total_ = checked_sum(offset, round_up(bytes, kCacheLine));
  return offset;
}

Arena::Arena(std::size_t bytes) {
  if (bytes == 0) return;
  std::size_t size = round_up(bytes, kCacheLine);
#if FBP_ARENA_MMAP
  if (is_mapped(size)) {
    size = round_up(size, kPage);
    data_ = map_pages(size);
  }
#endif
  if (!data_) {
    if (posix_memalign(&data_, kCacheLine, size) != 0) {
      data_ = nullptr;
      throw std::bad_alloc();
    }
    std::memset(data_, 0, size);
  }
  size_ = size;
  allocations.fetch_add(1, std::memory_order_relaxed);
  bytes_in_use.fetch_add(size, std::memory_order_relaxed);
}

Arena& Arena::operator=(Arena&& other) noexcept {
  Arena old(std::move(other));
  swap(old);
  return *this;
}

Arena::~Arena() {
  if (!data_) return;
  bytes_in_use.fetch_sub(size_, std::memory_order_relaxed);
#if FBP_ARENA_MMAP
  if (is_mapped(size_)) {
    munmap(data_, size_);
    return;
  }
#endif
  std::free(data_);
}

void Arena::swap(Arena& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
}

ArenaStatistics arena_statistics() {
  return {allocations.load(std::memory_order_relaxed),
          bytes_in_use.load(std::memory_order_relaxed)};
}

}  // namespace fastbp
