#include "emulation/memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <new>

namespace fastbp {
namespace emulation {
namespace {

// As float64, and the upper half as float32, NaN: exponent all ones. The quiet bit is the
// mantissa's highest: clear in the float64 and in the lower half's float32. (A word that repeats
// cannot be signalling as both.)
constexpr std::uint64_t kPoison = 0x7ff4dead7fa0deadull;

std::size_t page_bytes() { return static_cast<std::size_t>(sysconf(_SC_PAGESIZE)); }

std::size_t whole_pages(std::size_t bytes) {
  const std::size_t page = page_bytes();
  if (bytes > SIZE_MAX - 3 * page) throw std::bad_alloc();
  return (bytes + page - 1) / page * page;
}

}  // namespace

GuardedMemory::GuardedMemory(std::size_t bytes) : bytes_(bytes) {
  const std::size_t page = page_bytes(), usable = whole_pages(bytes);
  mapped_bytes_ = usable + 2 * page;
  void* const mapping = mmap(nullptr, mapped_bytes_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping == MAP_FAILED) throw std::bad_alloc();
  mapping_ = static_cast<char*>(mapping);
  data_ = mapping_ + page + usable - bytes;
  if (usable && mprotect(mapping_ + page, usable, PROT_READ | PROT_WRITE) != 0) {
    munmap(mapping_, mapped_bytes_);
    throw std::bad_alloc();
  }
  poison();
}

GuardedMemory::~GuardedMemory() { munmap(mapping_, mapped_bytes_); }

void GuardedMemory::poison() {
  for (char* p = mapping_ + page_bytes(); p < data_ + bytes_; p += sizeof kPoison)
    std::memcpy(p, &kPoison, sizeof kPoison);
}

bool GuardedMemory::slack_is_intact() const {
  for (const char* p = mapping_ + page_bytes(); p < data_; ++p)
    if (*p != reinterpret_cast<const char*>(
                  &kPoison)[reinterpret_cast<std::uintptr_t>(p) % sizeof kPoison])
      return false;
  return true;
}

std::string GuardedMemory::describe(const void* address) const {
  const char* const p = static_cast<const char*>(address);
  if (p < mapping_ || p >= mapping_ + mapped_bytes_) return "";
  const std::string size = std::to_string(bytes_) + " bytes";
  if (p >= data_ + bytes_)
    return std::to_string(p - data_ - std::ptrdiff_t(bytes_)) + " bytes past the end of " + size;
  if (p < data_) return std::to_string(data_ - p) + " bytes in front of " + size;
  return "within " + size;
}

}  // namespace emulation
}  // namespace fastbp
