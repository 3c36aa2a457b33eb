// What runs where: instruction sets, threads, build facts, random streams and the probe of the
// machine's peak.
#include <chrono>

#include "backend/pool_terms.h"
#include "backend/team.h"
#include "bindings/arrays.h"
#include "bindings/bind.h"
#include "bindings/python_lock.h"
#include "core/arena.h"
#include "core/random.h"
#include "engine/network.h"
#include "kernels/cpu/bf16.h"
#include "kernels/cpu/cpuid.h"
#include "kernels/cpu/dispatch.h"

namespace fastbp {
namespace {

py::list names(const std::vector<const Isa*>& isas) {
  py::list list;
  for (const Isa* isa : isas) list.append(isa->name);
  return list;
}

py::dict isas() {
  py::dict d;
  d["compiled"] = names(compiled_isas());
  d["available"] = names(available_isas());
  d["active"] = active_isa().name;
  return d;
}

py::dict build_info() {
  const CpuDescription cpu = describe_cpu();
  py::dict d;
  d["version"] = FASTBP_VERSION;
  d["compiler"] = FASTBP_COMPILER;
  d["flags"] = FASTBP_FLAGS;
  d["build_type"] = FASTBP_BUILD_TYPE;
  d["sanitize"] = FASTBP_SANITIZE;
  d["cpu"] = cpu.brand;
  d["l1d_bytes"] = cpu.l1d_bytes;
  d["l2_bytes"] = cpu.l2_bytes;
  d["l3_bytes"] = cpu.l3_bytes;
  return d;
}

RandomStream stream_of(std::uint64_t seed, std::uint32_t stream, std::uint32_t purpose) {
  return {seed, stream, purpose};
}

// Calls fill(data, n) on the values of `out`.
template <class Fill> void fill_random(py::array& out, Fill&& fill) {
  with_dtype(float_dtype(out, "out"), [&](auto zero) {
    using T = decltype(zero);
    T* data = output<T>(out, "out");
    const index_t n = out.size();
    const PythonUnlocked unlocked;
    fill(data, n);
  });
}

py::array_t<std::int64_t> permutation(index_t n, std::uint64_t seed, std::uint32_t epoch) {
  if (n < 0 || n >= index_t(1) << 32)
    throw py::value_error("n: expected 0 <= n < 2^32, got " + std::to_string(n));
  py::array_t<std::int64_t> order(n);
  std::int64_t* data = order.mutable_data();
  const PythonUnlocked unlocked;
  random_permutation(data, n, seed, epoch, active_isa().table_f32().random_batch);
  return order;
}

double (*probe_of(const std::string& dtype))(double) {
  if (dtype == "float32") return active_isa().table_f32().fma_probe;
  if (dtype == "float64") return active_isa().table_f64().fma_probe;
  if (dtype != "bfloat16")
    throw py::value_error("dtype: expected 'float32', 'float64' or 'bfloat16', got '" + dtype +
                          "'");
  const Bf16Kernels* bf16 = bf16_kernels();
  if (!bf16) throw std::runtime_error("dtype 'bfloat16' is not available: " + bf16_problem());
  return bf16->fma_probe;
}

// Best rate of several runs of `seconds` in all, in GFLOP/s, on `threads` threads at once.
double probe_peak(const std::string& dtype, int threads, double seconds) {
  if (threads < 1)
    throw py::value_error("threads: expected at least 1, got " + std::to_string(threads));
  struct Probe {
    double (*run)(double);
    double flop;
  } probe{probe_of(dtype), 2e7};
  const PythonUnlocked unlocked;
  double best = 0, spent = 0;
  while (spent < seconds) {
    const auto start = std::chrono::steady_clock::now();
    int count = 1;
    struct Run {
      Probe* probe;
      int* count;
    } run{&probe, &count};
    Team::instance().run(
        threads,
        [](void* context, Worker& worker) {
          const Run& r = *static_cast<Run*>(context);
          if (worker.id == 0) *r.count = worker.count;
          worker.barrier();
          r.probe->run(r.probe->flop);
          worker.barrier();
        },
        &run, true);
    const double took =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    spent += took;
    const double rate = probe.flop * count / took;
    if (rate > best) best = rate;
    // Long enough that starting the threads does not count.
    if (took < 0.005) probe.flop *= 2;
  }
  return best * 1e-9;
}

// Terms for the threads of a pool, each of which enters them as a context.
void bind_pool_terms(py::module_& m) {
  const auto leave = [](PoolTerms&, const py::args&) { set_pool_terms(nullptr); };
  py::class_<PoolTerms>(m, "PoolTerms")
      .def(py::init<>())
      .def("__enter__",
           [](PoolTerms& terms) {
             if (pool_terms()) throw std::runtime_error("this thread has terms already");
             set_pool_terms(&terms);
           })
      .def("__exit__", leave)
      .def_property(
          "threads", [](const PoolTerms& terms) { return terms.threads.load(); },
          [](PoolTerms& terms, int n) { terms.threads = n < 1 ? 1 : n; })
      .def("stop", [](PoolTerms& terms) { terms.stop = true; });
  m.def("told_to_stop", [] { return pool_terms() && pool_terms()->stop; });
}

}  // namespace

void bind_machine(py::module_& m) {
  using namespace py::literals;
  m.def("isas", &isas);
  m.def("bfloat16_problem", [] { return bf16_problem(); });
  m.def("set_isa", &set_active_isa, "name"_a);
  m.def("get_num_threads", &num_threads);
  m.def("set_num_threads", &set_num_threads, "n"_a);
  bind_pool_terms(m);
  m.def("set_parallel_threshold", &set_parallel_threshold, "flop"_a);
  m.def("get_parallel_threshold", &parallel_threshold);
  m.def("build_info", &build_info);
  m.def("probe_peak", &probe_peak, "dtype"_a, "threads"_a, "seconds"_a);
  m.def("arena_statistics", [] {
    const ArenaStatistics s = arena_statistics();
    return py::make_tuple(s.allocations, s.bytes_in_use);
  });
  m.def(
      "random_uniform",
      [](py::array out, double low, double high, std::uint64_t seed, std::uint32_t stream,
         std::uint32_t purpose) {
        fill_random(out, [&](auto* data, index_t n) {
          random_uniform(data, n, low, high, stream_of(seed, stream, purpose));
        });
      },
      "out"_a, "low"_a, "high"_a, "seed"_a, "stream"_a, "purpose"_a);
  m.def(
      "random_normal",
      [](py::array out, double mean, double stddev, std::uint64_t seed, std::uint32_t stream,
         std::uint32_t purpose) {
        fill_random(out, [&](auto* data, index_t n) {
          random_normal(data, n, mean, stddev, stream_of(seed, stream, purpose));
        });
      },
      "out"_a, "mean"_a, "stddev"_a, "seed"_a, "stream"_a, "purpose"_a);
  m.def("permutation", &permutation, "n"_a, "seed"_a, "epoch"_a);
}

}  // namespace fastbp
