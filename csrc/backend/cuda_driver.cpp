#include "backend/cuda_driver.h"

#include <dlfcn.h>

#include "backend/cuda_library.h"
#include "core/check.h"

namespace fastbp {
namespace {

// The part of the driver's interface that is needed; names, numbers and signatures are those of
// CUDA's cuda.h, which is not there where fastbp is built without CUDA.
constexpr int kSuccess = 0, kStubLibrary = 34, kNoDevice = 100;
constexpr int kCapabilityMajor = 75, kCapabilityMinor = 76;  // CUdevice_attribute
using Init = int(unsigned flags);
using DriverGetVersion = int(int* version);
using GetErrorString = int(int error, const char** text);
using DeviceGetCount = int(int* count);
using DeviceGet = int(int* device, int ordinal);
using DeviceGetName = int(char* name, int capacity, int device);
using DeviceGetAttribute = int(int* value, int attribute, int device);
using DeviceTotalMem = int(std::size_t* bytes, int device);

// Kept open for the process: the driver cannot be unloaded.
void* driver_library() {
  static void* const handle = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  return handle;
}

template <class Function> Function* driver_function(const char* name) {
  void* const symbol = dlsym(driver_library(), name);
  if (!symbol) throw CudaUnavailable("driver_error", text("libcuda.so.1 has no function ", name));
  return reinterpret_cast<Function*>(symbol);
}

void check(int error, const char* what) {
  if (error == kSuccess) return;
  if (error == kNoDevice) throw CudaUnavailable("no_device", "the driver reports 0 devices");
  if (error == kStubLibrary)
    throw CudaUnavailable("no_driver",
                          "the libcuda.so.1 that was found is the toolkit's stub, not a driver");
  const char* why = nullptr;
  driver_function<GetErrorString>("cuGetErrorString")(error, &why);
  throw CudaUnavailable("driver_error", text("the driver's ", what, " failed with error ", error,
                                             ": ", why ? why : "unknown"));
}

CudaDevice describe(int ordinal) {
  int device = 0, major = 0, minor = 0;
  char name[256] = "";
  CudaDevice found;
  check(driver_function<DeviceGet>("cuDeviceGet")(&device, ordinal), "cuDeviceGet");
  check(driver_function<DeviceGetName>("cuDeviceGetName")(name, int(sizeof name), device),
        "cuDeviceGetName");
  const auto attribute = driver_function<DeviceGetAttribute>("cuDeviceGetAttribute");
  check(attribute(&major, kCapabilityMajor, device), "cuDeviceGetAttribute");
  check(attribute(&minor, kCapabilityMinor, device), "cuDeviceGetAttribute");
  check(driver_function<DeviceTotalMem>("cuDeviceTotalMem_v2")(&found.memory, device),
        "cuDeviceTotalMem");
  found.name = name;
  found.capability = 10 * major + minor;
  return found;
}

}  // namespace

CudaDriver find_cuda_driver() {
  CudaDriver driver;
  if (!driver_library()) {
    const char* const why = dlerror();  // null where an earlier call was told
    driver.problem = why ? why : "libcuda.so.1 cannot be loaded";
    return driver;
  }
  driver.found = true;
  check(driver_function<DriverGetVersion>("cuDriverGetVersion")(&driver.version),
        "cuDriverGetVersion");
  return driver;
}

std::vector<CudaDevice> list_cuda_devices() {
  if (!driver_library()) throw CudaUnavailable("no_driver", "libcuda.so.1 was not found");
  mark_cuda_used();
  check(driver_function<Init>("cuInit")(0), "cuInit");
  int count = 0;
  check(driver_function<DeviceGetCount>("cuDeviceGetCount")(&count), "cuDeviceGetCount");
  if (count == 0) throw CudaUnavailable("no_device", "the driver reports 0 devices");
  std::vector<CudaDevice> devices;
  for (int i = 0; i < count; ++i) devices.push_back(describe(i));
  return devices;
}

}  // namespace fastbp
