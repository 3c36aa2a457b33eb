// Memory of a CUDA device, and arrays of callers that lie there (python/fastbp/device_rows.py): copies,
// conversion, checks, and what DLPack's capsules hold.
#include <pybind11/stl.h>

#include <algorithm>

#include "backend/cuda_library.h"
#include "bindings/arrays.h"
#include "bindings/bind.h"
#include "bindings/cuda_errors.h"
#include "bindings/python_lock.h"

namespace fastbp {
namespace {

using Address = std::uintptr_t;

void* pointer(Address address) { return reinterpret_cast<void*>(address); }

// f(functions of the library) on a device, without the Python lock.
template <class F> void on_device(int device, F&& f) {
  const fbp_api& api = cuda_api();
  int32_t code = FBP_OK;
  {
    const PythonUnlocked unlocked;
    code = api.select_device(device);
    if (code == FBP_OK) code = f(api);
  }
  require_cuda(code);
}

class DeviceMemory {
 public:
  DeviceMemory(int device, std::size_t bytes) {
    mark_cuda_used();
    on_device(device, [&](const fbp_api& api) {
      return api.allocate(&pointer_, std::max<std::size_t>(bytes, 1));
    });
  }
  ~DeviceMemory() {
    if (pointer_ && cuda_is_usable()) cuda_api().release(pointer_);
  }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  Address address() const { return reinterpret_cast<Address>(pointer_); }

 private:
  void* pointer_ = nullptr;
};

int device_of(Address address) {
  const fbp_api& api = cuda_api();
  int32_t device = -1;
  require_cuda(api.device_of(pointer(address), &device));
  return device;
}

// The bytes of a contiguous array of the host, to the device's memory; complete when it returns.
void copy_to_device(int device, const py::array& from, Address to) {
  const void* const data = from.data();
  const auto bytes = std::size_t(from.nbytes());
  on_device(device, [&](const fbp_api& api) {
    return api.copy_to_device(pointer(to), data, bytes, nullptr);
  });
}

int32_t number_code(const std::string& kind) {
  static const char* const kinds[] = {"b1", "u1", "u2", "u4", "u8", "i1",
                                      "i2", "i4", "i8", "f2", "f4", "f8"};
  const auto found = std::find(std::begin(kinds), std::end(kinds), kind);
  if (found == std::end(kinds)) throw py::type_error("there is no number of kind " + kind);
  return int32_t(found - std::begin(kinds));
}

// As fbp_intake_args; 0 for null addresses. `accepted`: None, or (low, high, whole) that numbers must
// keep to. Returns whether they do.
bool intake(int device, const std::string& from, const std::string& to,
            const std::vector<index_t>& shape, const std::vector<index_t>& strides, Address x,
            Address rows, Address lengths, double divisor, Address out, const py::object& accepted,
            Address stream) {
  fbp_intake_args args{};
  args.from = number_code(from);
  args.to = number_code(to);
  if (shape.empty() || shape.size() > FBP_INTAKE_AXES || shape.size() != strides.size())
    throw py::value_error("shape, strides: expected 1 to " + std::to_string(FBP_INTAKE_AXES) +
                          " axes");
  args.axes = int32_t(shape.size());
  std::copy(shape.begin(), shape.end(), args.shape);
  std::copy(strides.begin(), strides.end(), args.strides);
  args.x = pointer(x);
  args.rows = static_cast<const int64_t*>(pointer(rows));
  args.lengths = static_cast<const int64_t*>(pointer(lengths));
  args.divisor = divisor;
  args.out = pointer(out);
  args.checks = !accepted.is_none();
  if (args.checks) {
    const auto [low, high, whole] = accepted.cast<std::tuple<double, double, bool>>();
    args.low = low, args.high = high, args.whole = whole;
  }
  int32_t good = 0;
  on_device(device, [&](const fbp_api& api) { return api.intake(&args, pointer(stream), &good); });
  return good != 0;
}

// The sum of n numbers of at least 0, float64 on the device.
double sum(int device, Address x, index_t n, Address stream) {
  double total = 0;
  on_device(device, [&](const fbp_api& api) {
    return api.sum(static_cast<const double*>(pointer(x)), n, pointer(stream), &total);
  });
  return total;
}

// DLPack 1.0's structs (dmlc/dlpack, include/dlpack/dlpack.h).
struct DLTensor {
  void* data;
  std::int32_t device_type, device_id;
  std::int32_t ndim;
  std::uint8_t code, bits;
  std::uint16_t lanes;
  std::int64_t *shape, *strides;
  std::uint64_t byte_offset;
};
struct ManagedTensor {
  DLTensor tensor;
  void* manager;
  void (*deleter)(ManagedTensor*);
};
struct VersionedTensor {
  std::uint32_t major, minor;
  void* manager;
  void (*deleter)(VersionedTensor*);
  std::uint64_t flags;  // 1: read-only
  DLTensor tensor;
};

// What holds the memory of a capsule until Python lets go of it.
template <class Managed> py::capsule taken_over(const py::capsule& given, const char* used) {
  auto* const managed = static_cast<Managed*>(given.get_pointer());
  const py::capsule holder(managed, [](void* held) {
    auto* const tensor = static_cast<Managed*>(held);
    if (tensor->deleter) tensor->deleter(tensor);
  });
  PyCapsule_SetName(given.ptr(), used);  // from now on its own destructor leaves it alone
  return holder;
}

// The same as __cuda_array_interface__ says of an array, with (holder, device's number) besides.
py::tuple described(const DLTensor& t, bool read_only, const py::capsule& holder) {
  constexpr char letters[] = {'i', 'u', 'f'};  // kDLInt, kDLUInt, kDLFloat
  constexpr std::uint8_t of_bools = 6;
  const char letter = t.code < 3 ? letters[t.code] : t.code == of_bools ? 'b' : '?';
  std::vector<index_t> shape(t.shape, t.shape + t.ndim);
  py::dict interface;
  interface["shape"] = py::tuple(py::cast(shape));
  interface["typestr"] =
      std::string("<") + letter + std::to_string(t.lanes == 1 ? t.bits / 8 : t.lanes * t.bits / 8);
  interface["data"] =
      py::make_tuple(reinterpret_cast<Address>(t.data) + t.byte_offset, py::bool_(read_only));
  interface["version"] = 3;
  if (t.strides) {
    std::vector<index_t> strides(t.strides, t.strides + t.ndim);
    for (index_t& stride : strides) stride *= t.bits / 8;
    interface["strides"] = py::tuple(py::cast(strides));
  }
  return py::make_tuple(interface, holder, t.device_id);
}

py::tuple dlpack_view(const py::capsule& capsule) {
  const std::string name = capsule.name() ? capsule.name() : "";
  if (name == "dltensor_versioned") {
    const auto* given = static_cast<VersionedTensor*>(capsule.get_pointer());
    if (given->major != 1)
      throw py::type_error("DLPack of version " + std::to_string(given->major) + " is not known");
    const py::capsule holder = taken_over<VersionedTensor>(capsule, "used_dltensor_versioned");
    return described(given->tensor, (given->flags & 1) != 0, holder);
  }
  if (name != "dltensor")
    throw py::type_error("expected a DLPack capsule that nobody has used; its name is '" + name +
                         "'");
  const auto* given = static_cast<ManagedTensor*>(capsule.get_pointer());
  const py::capsule holder = taken_over<ManagedTensor>(capsule, "used_dltensor");
  return described(given->tensor, false, holder);
}

}  // namespace

void bind_device_arrays(py::module_& m) {
  using namespace py::literals;
  py::class_<DeviceMemory>(m, "DeviceMemory")
      .def(py::init<int, std::size_t>(), "device"_a, "bytes"_a)
      .def_property_readonly("pointer", &DeviceMemory::address);
  m.def("cuda_device_of", &device_of, "pointer"_a);
  m.def("cuda_copy_to_device", &copy_to_device, "device"_a, "from_"_a, "to"_a);
  m.def("cuda_intake", &intake, "device"_a, "from_"_a, "to"_a, "shape"_a, "strides"_a, "x"_a,
        "rows"_a, "lengths"_a, "divisor"_a, "out"_a, "accepted"_a, "stream"_a);
  m.def("cuda_sum", &sum, "device"_a, "x"_a, "n"_a, "stream"_a);
  m.def("cuda_dlpack_view", &dlpack_view, "capsule"_a);
}

}  // namespace fastbp
