#include "backend/cuda_library.h"

#include <dlfcn.h>
#include <pthread.h>

#include <atomic>
#include <cstring>
#include <memory>
#include <mutex>

#include "core/check.h"

namespace fastbp {
namespace {

struct Loaded {
  std::string path;
  const char* build_info = nullptr;
  fbp_api api{};
};

std::mutex load_mutex;
Loaded loaded;                         // complete before `usable` says so
std::atomic<const fbp_api*> usable{};  // null: not loaded, or of no use after a fork
std::atomic<bool> used{false}, forked{false};

[[maybe_unused]] const int fork_handler = pthread_atfork(nullptr, nullptr, [] {
  if (!used) return;
  usable = nullptr;
  forked = true;
});

struct Closer {
  void operator()(void* handle) const { dlclose(handle); }
};
using Handle = std::unique_ptr<void, Closer>;

template <class Function> Function* function_of(const Handle& library, const char* name) {
  void* const symbol = dlsym(library.get(), name);
  if (!symbol)
    throw CudaUnavailable("bad_library",
                          text("it has no function ", name, ": it is not fastbp's CUDA library"));
  return reinterpret_cast<Function*>(symbol);
}

// The value of a key in fbp_build_info's text.
std::string value_of(const std::string& info, const std::string& key) {
  const std::string padded = " " + info + " ";
  const std::size_t at = padded.find(" " + key + "=");
  if (at == std::string::npos) return "unknown";
  const std::size_t start = at + key.size() + 2;
  return padded.substr(start, padded.find(' ', start) - start);
}

void require_version(std::int32_t abi, const char* build_info) {
  const std::string version = value_of(build_info, "version");
  if (abi == FBP_ABI_VERSION && version == FASTBP_VERSION) return;
  throw CudaUnavailable("version_mismatch",
                        text("fastbp ", FASTBP_VERSION, " (interface ", FBP_ABI_VERSION,
                             ") needs the CUDA library of the same version; this one is of ",
                             version, " (interface ", abi, ")"));
}

}  // namespace

void load_cuda_library(const std::string& path) {
  const std::lock_guard<std::mutex> lock(load_mutex);
  if (loaded.path == path) return;
  if (!loaded.path.empty())
    throw CudaUnavailable("already_loaded", text("this process uses ", loaded.path, " already"));
  Handle library(dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL));
  if (!library) throw CudaUnavailable("bad_library", dlerror());
  // These three have the same form in every version; whatever else there is belongs to this one.
  const auto abi_version = function_of<decltype(fbp_abi_version)>(library, "fbp_abi_version");
  const auto build_info = function_of<decltype(fbp_build_info)>(library, "fbp_build_info");
  const auto get_api = function_of<decltype(fbp_get_api)>(library, "fbp_get_api");
  require_version(abi_version(), build_info());
  loaded.api.size = sizeof loaded.api;
  if (get_api(&loaded.api) != FBP_OK)
    throw CudaUnavailable("version_mismatch", "its table of functions has another size");
  loaded.build_info = build_info();
  loaded.path = path;
  library.release();  // kept to the end of the process: kernels may be running
  if (!forked) usable = &loaded.api;
}

const char* cuda_build_info() {
  const std::lock_guard<std::mutex> lock(load_mutex);
  return loaded.build_info;
}

const std::string& cuda_library_path() {
  const std::lock_guard<std::mutex> lock(load_mutex);
  return loaded.path;
}

void mark_cuda_used() { used = true; }

bool cuda_is_usable() { return usable.load(std::memory_order_acquire) != nullptr; }

const fbp_api& cuda_api() {
  const fbp_api* const api = usable.load(std::memory_order_acquire);
  if (api) return *api;
  if (forked)
    throw CudaUnavailable(
        "forked", "CUDA was used before this process was forked, and it does not survive a fork");
  throw CudaUnavailable("no_backend", "no CUDA library is loaded");
}

}  // namespace fastbp
