#include "engine/cuda/blas_library.h"

#include <dlfcn.h>

#include <map>
#include <memory>
#include <mutex>
#include <utility>

#include "engine/cuda/resources.h"

namespace fastbp {
namespace cuda {
namespace {

// The CUDA that this library is built with: structs and numbers are those of its major version.
constexpr std::size_t kMajorVersion = 13, kMajorUnit = 10000;

std::mutex mutex;
std::map<std::string, std::unique_ptr<lt::Functions>> libraries;  // loaded, by file
std::map<std::pair<const lt::Functions*, int>, lt::Handle> handles;
BlasService service;

struct Closer {
  void operator()(void* library) const { dlclose(library); }
};

Failure unfit(const std::string& why) { return Failure(FBP_INVALID_ARGUMENT, why); }

std::unique_ptr<lt::Functions> open_library(const std::string& path) {
  std::unique_ptr<void, Closer> library(dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL));
  if (!library) throw unfit(dlerror());
  auto functions = std::make_unique<lt::Functions>();
#define FBP_FIND(name, result, parameters)                                                         \
  functions->name =                                                                                \
      reinterpret_cast<decltype(functions->name)>(dlsym(library.get(), "cublasLt" #name));         \
  if (!functions->name) throw unfit("it has no function cublasLt" #name);
  FBP_BLAS_FUNCTIONS(FBP_FIND)
#undef FBP_FIND
  const std::size_t version = functions->GetVersion();
  if (version / kMajorUnit != kMajorVersion)
    throw unfit("it is version " + std::to_string(version / kMajorUnit) + "." +
                std::to_string(version % kMajorUnit / 100) + ", and this CUDA library takes " +
                std::to_string(kMajorVersion));
  library.release();  // kept to the end of the process: its kernels may be running
  return functions;
}

}  // namespace

std::int64_t load_blas(const std::string& path) {
  const std::lock_guard<std::mutex> lock(mutex);
  const lt::Functions* chosen = nullptr;
  if (!path.empty()) {
    std::unique_ptr<lt::Functions>& known = libraries[path];
    if (!known) known = open_library(path);
    chosen = known.get();
  }
  if (service.functions != chosen) service = {chosen, service.number + 1};
  return chosen ? std::int64_t(chosen->GetVersion()) : 0;
}

BlasService blas_service() {
  const std::lock_guard<std::mutex> lock(mutex);
  return service;
}

lt::Handle blas_handle(const BlasService& of, int device) {
  const std::lock_guard<std::mutex> lock(mutex);
  const auto [place, fresh] = handles.try_emplace({of.functions, device}, nullptr);
  if (fresh && of.functions->Create(&place->second) != lt::kSuccess) place->second = nullptr;
  return place->second;
}

}  // namespace cuda
}  // namespace fastbp
