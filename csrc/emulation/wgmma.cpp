// Products of warp groups. After the PTX ISA manual, version 9.0: "Asynchronous warpgroup level matrix
// shared memory layout", "Matrix descriptor format", "Register fragment layout for accumulator
// matrix D of wgmma .m64nNk16".
#include "emulation/wgmma.h"

#include <cstring>
#include <vector>

#include "core/check.h"
#include "emulation/hazards.h"
#include "emulation/machine.h"

namespace fastbp {
namespace emulation {
namespace {

constexpr int kGroup = 128;  // threads of a warp group
constexpr int kRows = 64, kCols = 128, kDepth = 16;

[[noreturn]] void fail(const std::string& what) {
  abort_kernel(cudaErrorLaunchFailure, text(name_of(*machine.running), " ", what));
}

// The running thread's group: its 128 threads.
Thread* const* group_of(const Thread& thread) {
  const std::size_t first = std::size_t(thread.number) / kGroup * kGroup;
  if (first + kGroup > thread.block->threads.size())
    fail("calls for a product of a group of four warps that is not whole");
  return thread.block->threads.data() + first;
}

bool same(const GroupProduct& x, const GroupProduct& y) {
  return x.a == y.a && x.b == y.b && x.add == y.add && x.a_transposed == y.a_transposed &&
         x.b_transposed == y.b_transposed && x.widen == y.widen;
}

// One multiplicand: `count` rows of A, or columns of B, by 16 of k.
class Multiplicand {
 public:
  Multiplicand(std::uint64_t descriptor, bool transposed, int count, float (*widen)(std::uint32_t))
      : widen_(widen), transposed_(transposed), start_(field(descriptor, 0)),
        leading_(field(descriptor, 16)), stride_(field(descriptor, 32)) {
    if (descriptor >> 62 != 1) fail("describes a multiplicand without the swizzle of 128 bytes");
    if (descriptor >> 49 & 7) fail("describes a multiplicand with a base offset");
    values_.resize(std::size_t(count) * kDepth);
    for (int i = 0; i < count; ++i)
      for (int k = 0; k < kDepth; ++k) values_[std::size_t(i * kDepth + k)] = load(i, k);
  }
  float at(int i, int k) const { return values_[std::size_t(i * kDepth + k)]; }

 private:
  static std::uint32_t field(std::uint64_t descriptor, int bit) {
    return std::uint32_t(descriptor >> bit & 0x3fff) << 4;
  }
  float load(int i, int k) const {
    const int along = transposed_ ? i : k, across = transposed_ ? k : i;
    std::uint32_t address = start_ + std::uint32_t(across / 8) * stride_ +
                            std::uint32_t(across % 8) * 128 + std::uint32_t(along % 64) * 2;
    if (transposed_) address += std::uint32_t(along / 64) * leading_;
    address ^= (address / 128 % 8) * 16;
    const GuardedMemory& shared = *machine.running->block->shared;
    if (address < kSharedWindow || address - kSharedWindow + 2 > shared.bytes())
      fail("multiplies what is not in shared memory");
    const auto* const from =
        static_cast<const unsigned char*>(shared.data()) + (address - kSharedWindow);
    if (i % 8 == 0 || k % 8 == 0) note_read(from, 2, __builtin_return_address(0));
    std::uint16_t half;
    std::memcpy(&half, from, 2);
    return widen_(half);
  }

  float (*const widen_)(std::uint32_t);
  const bool transposed_;
  const std::uint32_t start_, leading_, stride_;
  std::vector<float> values_;
};

// The first product of each of the group's threads. Exact products are summed in double and rounded
// once; hardware may round more often.
void compute(Thread* const* group) {
  const GroupProduct& first = group[0]->products.front();
  for (int i = 0; i < kGroup; ++i)
    if (group[i]->products.empty() || !same(group[i]->products.front(), first))
      fail("calls for a product that is not the same for all of its group");
  const Multiplicand a(first.a, first.a_transposed, kRows, first.widen);
  const Multiplicand b(first.b, first.b_transposed, kCols, first.widen);
  for (int i = 0; i < kGroup; ++i) {
    float* const d = group[i]->products.front().d;
    const int row = i / warpSize * 16 + i % warpSize / 4, col = i % 4 * 2;
    for (int e = 0; e < kRows; ++e) {
      double sum = first.add ? double(d[e]) : 0;
      for (int k = 0; k < kDepth; ++k)
        sum += double(a.at(row + e / 2 % 2 * 8, k)) * double(b.at(col + e / 4 * 8 + e % 2, k));
      d[e] = float(sum);
    }
  }
  for (int i = 0; i < kGroup; ++i) group[i]->products.erase(group[i]->products.begin());
}

void meet_group(const char* what) { wait(State::at_group_call, what, 0); }

}  // namespace

void multiply_fence() { machine.running->products_fenced = true; }

void begin_multiply(float* d, std::uint64_t a, std::uint64_t b, bool add, bool a_transposed,
                    bool b_transposed, float (*widen)(std::uint32_t)) {
  Thread& self = *machine.running;
  if (!self.products_fenced) fail("calls for a product with no wgmma.fence before it");
  self.products.push_back({d, a, b, add, a_transposed, b_transposed, widen});
}

void multiply_commit() {
  Thread& self = *machine.running;
  self.products_fenced = false;
  self.product_groups.push_back(self.products.size());
}

void multiply_wait_for_all_but(int left) {
  Thread& self = *machine.running;
  if (self.product_groups.size() <= std::size_t(left)) return;
  const std::size_t done = self.product_groups.size() - std::size_t(left);
  const std::size_t count = self.product_groups[done - 1];
  Thread* const* const group = group_of(self);
  meet_group("wgmma.wait_group");
  if (&self == group[0])
    for (std::size_t i = 0; i < count; ++i) compute(group);
  meet_group("wgmma.wait_group's end");
  self.product_groups.erase(self.product_groups.begin(),
                            self.product_groups.begin() + std::ptrdiff_t(done));
  for (std::size_t& end : self.product_groups) end -= count;
}

void store_pair(float* to, float low, float high) {
  if (shared_address(to) % 8 != 0) fail("stores a pair at no multiple of 8");
  note_write(to, 2 * sizeof *to, __builtin_return_address(0));
  to[0] = low;
  to[1] = high;
}

void change_registers(int count, bool) {
  if (count % 8 != 0 || count < 24 || count > 256) fail("asks for registers that no group has");
}

bool resolve_warp_groups(Block& block) {
  bool some = false;
  for (std::size_t first = 0; first + kGroup <= block.threads.size(); first += kGroup) {
    bool here = true;
    for (std::size_t i = first; i < first + kGroup; ++i)
      here = here && block.threads[i]->state == State::at_group_call &&
             block.threads[i]->file == block.threads[first]->file;
    for (std::size_t i = first; here && i < first + kGroup; ++i)
      block.threads[i]->state = State::ready;
    some = some || here;
  }
  return some;
}

}  // namespace emulation
}  // namespace fastbp
