#include "kernels/cpu/dispatch.h"

#include <atomic>

#include "core/check.h"
#include "kernels/cpu/cpuid.h"
#include "kernels/cpu/two_products.h"

// The build defines FASTBP_WITH_<NAME>=1 for each isa_<name>.cpp that it compiles.
#if !defined(FASTBP_WITH_SCALAR)
#define FASTBP_WITH_SCALAR 0
#endif
#if !defined(FASTBP_WITH_AVX2)
#define FASTBP_WITH_AVX2 0
#endif
#if !defined(FASTBP_WITH_AVX512)
#define FASTBP_WITH_AVX512 0
#endif
#if !defined(FASTBP_WITH_NEON)
#define FASTBP_WITH_NEON 0
#endif

// FBP_TABLES(isa, FASTBP_WITH_ISA): its two entry points, or two null pointers.
#define FBP_TABLES_0(isa) nullptr, nullptr
#define FBP_TABLES_1(isa) isa::table_f32, isa::table_f64
#define FBP_TABLES_EXPANDED(isa, with) FBP_TABLES_##with(isa)
#define FBP_TABLES(isa, with) FBP_TABLES_EXPANDED(isa, with)

#define FBP_DECLARE_TABLES(isa)                                                                    \
  namespace fastbp::isa {                                                                          \
  const KernelTable<float>& table_f32();                                                           \
  const KernelTable<double>& table_f64();                                                          \
  }
FBP_DECLARE_TABLES(scalar)
FBP_DECLARE_TABLES(avx2)
FBP_DECLARE_TABLES(avx512)
FBP_DECLARE_TABLES(neon)

namespace fastbp {

namespace {

// Slowest first.
constexpr Isa kIsas[] = {
    {"scalar", "nothing", [] { return true; }, FBP_TABLES(scalar, FASTBP_WITH_SCALAR)},
    {"avx2", "AVX2 and FMA", [] { return cpu_features().avx2; },
     FBP_TABLES(avx2, FASTBP_WITH_AVX2)},
    {"avx512", "AVX-512 F, VL, DQ and BW", [] { return cpu_features().avx512; },
     FBP_TABLES(avx512, FASTBP_WITH_AVX512)},
    {"neon", "a 64-bit ARM processor", [] { return cpu_features().neon; },
     FBP_TABLES(neon, FASTBP_WITH_NEON)},
};

std::atomic<const Isa*> the_active_isa{nullptr};

template <class Condition> std::vector<const Isa*> rows_where(Condition condition) {
  std::vector<const Isa*> rows;
  for (const Isa& isa : kIsas) {
    if (condition(isa)) rows.push_back(&isa);
  }
  return rows;
}

std::string choices() {
  std::string names;
  for (const Isa* isa : available_isas()) names += text(names.empty() ? "" : ", ", isa->name);
  return names;
}

}  // namespace

std::vector<const Isa*> known_isas() {
  return rows_where([](const Isa&) { return true; });
}

std::vector<const Isa*> compiled_isas() {
  return rows_where([](const Isa& isa) { return isa.compiled(); });
}

std::vector<const Isa*> available_isas() {
  return rows_where([](const Isa& isa) { return isa.compiled() && isa.supported(); });
}

const Isa& find_isa(const std::string& name, const char* source) {
  std::string reason = "there is no such instruction set";
  for (const Isa& isa : kIsas) {
    if (name != isa.name) continue;
    if (!isa.compiled()) {
      reason = text("this build of fastbp has no ", name, " kernels");
    } else if (!isa.supported()) {
      reason = text("it needs ", isa.needs, ", which this CPU or operating system does not offer");
    } else {
      return isa;
    }
  }
  throw_invalid(source, text("one of ", choices()), text("'", name, "': ", reason));
}

const Isa& choose_isa(Environment environment) {
  const char* name = setting(environment, "FASTBP_ISA");
  if (name) return find_isa(name, "environment variable FASTBP_ISA");
  return *available_isas().back();
}

const Isa& active_isa() {
  const Isa* active = the_active_isa.load(std::memory_order_acquire);
  if (!active) {
    const Isa* chosen = &choose_isa(process_environment);
    // Another thread may have set one meanwhile: then that stays.
    if (the_active_isa.compare_exchange_strong(active, chosen, std::memory_order_acq_rel))
      return *chosen;
  }
  return *active;
}

void set_active_isa(const std::string& name) {
  the_active_isa.store(&find_isa(name, "isa"), std::memory_order_release);
}

bool two_products_a_clock() { return cpu_features().avx512 && !cpu_features().amd; }

}  // namespace fastbp
