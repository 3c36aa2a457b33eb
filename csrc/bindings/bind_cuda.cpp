// What fastbp/cuda_library.py asks: loading the CUDA library, the driver, the devices.
#include <pybind11/stl.h>

#include "backend/cuda_driver.h"
#include "backend/cuda_library.h"
#include "bindings/arrays.h"
#include "bindings/bind.h"
#include "bindings/cuda_errors.h"
#include "bindings/python_lock.h"

namespace fastbp {
namespace {

// CudaUnavailable as fastbp.DeviceNotAvailableError.
void translate(std::exception_ptr thrown) {
  try {
    if (thrown) std::rethrow_exception(thrown);
  } catch (const CudaUnavailable& problem) {
    const py::object kind = py::module_::import("fastbp.errors").attr("DeviceNotAvailableError");
    PyErr_SetObject(kind.ptr(), kind(problem.what(), problem.reason).ptr());
  }
}

py::dict driver() {
  const CudaDriver found = find_cuda_driver();
  py::dict d;
  d["found"] = found.found;
  d["version"] = found.version;
  d["problem"] = found.problem;
  return d;
}

py::dict described(const std::string& name, int capability, std::size_t memory) {
  py::dict d;
  d["name"] = name;
  d["capability"] = capability;
  d["memory"] = memory;
  return d;
}

py::list driver_devices() {
  std::vector<CudaDevice> found;
  {
    const PythonUnlocked unlocked;  // starting the driver takes up to seconds
    found = list_cuda_devices();
  }
  py::list devices;
  for (const CudaDevice& device : found)
    devices.append(described(device.name, device.capability, device.memory));
  return devices;
}

// The emulated device's, which no driver knows.
py::list emulated_devices() {
  const fbp_api& api = cuda_api();
  mark_cuda_used();
  int32_t count = 0;
  if (api.device_count(&count) != FBP_OK) throw CudaUnavailable("no_device", api.last_error());
  py::list devices;
  for (int32_t i = 0; i < count; ++i) {
    char name[64] = "";
    if (api.device_name(i, name, sizeof name) != FBP_OK)
      throw CudaUnavailable("driver_error", api.last_error());
    devices.append(described(name, 0, 0));
  }
  return devices;
}

// The version of the cuBLASLt of that file, which serves from now on; "": none does. Of the table's
// functions this one may be called before a device is.
std::int64_t load_blas(const std::string& path) {
  std::int64_t version = 0;
  require_cuda(cuda_api().load_blas(path.c_str(), &version));
  return version;
}

std::string blas_choices() {
  const fbp_api& api = cuda_api();
  std::string text(1, '\0');
  std::size_t length = 0;
  do {  // others may measure meanwhile
    text.resize(length + 1);
    require_cuda(api.blas_choices(text.data(), text.size(), &length));
  } while (length >= text.size());
  text.resize(length);
  return text;
}

}  // namespace

void bind_cuda(py::module_& m) {
  using namespace py::literals;
  py::register_local_exception_translator(&translate);
  m.def("cuda_load", &load_cuda_library, "path"_a);
  m.def("cuda_library_path", &cuda_library_path);
  m.def("cuda_build_info", [] { return std::string(cuda_build_info() ? cuda_build_info() : ""); });
  m.def("cuda_driver", &driver);
  m.def("cuda_driver_devices", &driver_devices);
  m.def("cuda_emulated_devices", &emulated_devices);
  m.def("cuda_load_blas", &load_blas, "path"_a);
  m.def("cuda_blas_choices", &blas_choices);
  m.def("cuda_require_usable", [] { cuda_api(); });
}

}  // namespace fastbp
