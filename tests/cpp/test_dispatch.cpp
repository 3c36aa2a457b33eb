// build: kernels/cpu/cpuid.cpp kernels/cpu/dispatch.cpp -DFASTBP_WITH_SCALAR=1 -DFASTBP_WITH_AVX2=1
// The choice of instruction set, with stand-ins for the kernel tables of a build that has scalar and avx2.
#include <thread>
#include <vector>

#include "check.h"
#include "kernels/cpu/cpuid.h"
#include "kernels/cpu/dispatch.h"

namespace fastbp {

template <class T> struct KernelTable { const char* isa; };

#define STAND_IN(isa)                                                                              \
  namespace isa {                                                                                  \
  const KernelTable<float> f32{#isa};                                                              \
  const KernelTable<double> f64{#isa};                                                             \
  const KernelTable<float>& table_f32();                                                           \
  const KernelTable<double>& table_f64();                                                          \
  const KernelTable<float>& table_f32() { return f32; }                                            \
  const KernelTable<double>& table_f64() { return f64; }                                           \
  }
STAND_IN(scalar)
STAND_IN(avx2)

}  // namespace fastbp

using namespace fastbp;

namespace {

const char* asked = nullptr;
const char* environment(const char* name) {
  return std::string(name) == "FASTBP_ISA" ? asked : nullptr;
}

std::vector<std::string> names(const std::vector<const Isa*>& rows) {
  std::vector<std::string> list;
  for (const Isa* isa : rows) list.push_back(isa->name);
  return list;
}

void lists() {
  using List = std::vector<std::string>;
  FBP_EXPECT((names(known_isas()) == List{"scalar", "avx2", "avx512", "neon"}));
  FBP_EXPECT((names(compiled_isas()) == List{"scalar", "avx2"}));
  FBP_EXPECT(names(available_isas()) ==
             (cpu_features().avx2 ? List{"scalar", "avx2"} : List{"scalar"}));
  for (const Isa* isa : available_isas()) {
    FBP_EXPECT(std::string(isa->name) == isa->table_f32().isa);
    FBP_EXPECT(std::string(isa->name) == isa->table_f64().isa);
  }
}

void the_environment_chooses() {
  for (const char* none : {static_cast<const char*>(nullptr), ""}) {
    asked = none;
    FBP_EXPECT(&choose_isa(environment) == available_isas().back());
  }
  asked = "scalar";
  FBP_EXPECT(std::string(choose_isa(environment).name) == "scalar");
}

void wrong_names_are_refused() {
  for (const char* name : {"sse9", "SCALAR", " scalar", "avx"}) {
    asked = name;
    FBP_EXPECT_THROW(choose_isa(environment), std::invalid_argument);
    FBP_EXPECT(fbp_message_has("FASTBP_ISA"));
    FBP_EXPECT(fbp_message_has(name));
    FBP_EXPECT(fbp_message_has("one of scalar"));
    FBP_EXPECT(fbp_message_has("no such instruction set"));
  }
  FBP_EXPECT_THROW(find_isa("avx512", "isa"), std::invalid_argument);
  FBP_EXPECT(fbp_message_has("this build of fastbp has no avx512 kernels"));
  if (!cpu_features().avx2) {
    FBP_EXPECT_THROW(find_isa("avx2", "isa"), std::invalid_argument);
    FBP_EXPECT(fbp_message_has("it needs AVX2 and FMA"));
  }
}

void the_active_one_can_be_set() {
  set_active_isa("scalar");
  FBP_EXPECT(std::string(active_isa().name) == "scalar");
  FBP_EXPECT_THROW(set_active_isa("nonsense"), std::invalid_argument);
  FBP_EXPECT(std::string(active_isa().name) == "scalar");

  std::vector<std::thread> threads;
  const std::string best = available_isas().back()->name;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&best, i] {
      for (int k = 0; k < 1000; ++k) {
        set_active_isa((k + i) % 2 ? best : "scalar");
        const std::string name = active_isa().name;
        FBP_EXPECT(name == "scalar" || name == best);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace

int main() {
  lists();
  the_environment_chooses();
  wrong_names_are_refused();
  the_active_one_can_be_set();
  return fbp_test_result();
}
