// fastbp.ops on device memory: pointers and strides as Python has checked them (device_ops.py), to
// the CUDA library.
#include <pybind11/stl.h>

#include <array>

#include "backend/cuda_library.h"
#include "bindings/arrays.h"
#include "bindings/bind.h"
#include "bindings/cuda_errors.h"
#include "bindings/names.h"
#include "bindings/python_lock.h"

namespace fastbp {
namespace {

using Address = std::uintptr_t;

void* pointer(Address address) { return reinterpret_cast<void*>(address); }

int32_t dtype_code(const std::string& dtype) {
  return dtype == "float64" ? FBP_FLOAT64 : FBP_FLOAT32;
}

using Matrix = std::tuple<Address, index_t, index_t>;  // start, strides of rows and columns

void cuda_matmul(const std::string& dtype, const std::optional<std::string>& activation,
                 double param, const std::array<index_t, 3>& sizes, const Matrix& a,
                 const Matrix& b, Address bias, const std::pair<Address, index_t>& c,
                 Address stream) {
  fbp_matmul_args args{};
  args.dtype = dtype_code(dtype);
  args.activation = activation ? activation_index(*activation) : FBP_NO_ACTIVATION;
  args.param = param;
  std::tie(args.m, args.n, args.k) = std::tie(sizes[0], sizes[1], sizes[2]);
  args.a = pointer(std::get<0>(a));
  args.a_row = std::get<1>(a);
  args.a_col = std::get<2>(a);
  args.b = pointer(std::get<0>(b));
  args.b_row = std::get<1>(b);
  args.b_col = std::get<2>(b);
  args.bias = pointer(bias);
  (activation ? args.out : args.c) = pointer(c.first);
  (activation ? args.out_row : args.c_row) = c.second;
  const fbp_api& api = cuda_api();
  require_cuda(api.matmul(&args, pointer(stream)));
}

// out = f(x), or x f'(saved) where `saved` is not 0; n elements.
void cuda_activation(const std::string& dtype, const std::string& name, double param, index_t n,
                     Address x, Address saved, Address out, Address stream) {
  fbp_activation_args args{};
  args.dtype = dtype_code(dtype);
  args.activation = activation_index(name);
  args.param = param;
  args.rows = 1;
  args.cols = args.x_row = args.saved_row = args.out_row = n;
  args.x = pointer(x);
  args.saved = pointer(saved);
  args.out = pointer(out);
  const fbp_api& api = cuda_api();
  require_cuda((saved ? api.activation_backward : api.activation_forward)(&args, pointer(stream)));
}

void cuda_synchronize(Address stream) {
  const fbp_api& api = cuda_api();
  int32_t code = FBP_OK;
  {
    const PythonUnlocked unlocked;
    code = api.synchronize(pointer(stream));
  }
  require_cuda(code);
}

// The bytes of a contiguous array of the host from the device's memory, behind what the stream has to
// do.
void cuda_copy_to_host(Address from, py::array to, Address stream) {
  void* const data = to.mutable_data();
  const std::size_t bytes = std::size_t(to.nbytes());
  const fbp_api& api = cuda_api();
  int32_t code = FBP_OK;
  {
    const PythonUnlocked unlocked;
    code = api.copy_to_host(data, pointer(from), bytes, pointer(stream));
  }
  require_cuda(code);
}

}  // namespace

void bind_device_ops(py::module_& m) {
  using namespace py::literals;
  m.def("cuda_matmul", &cuda_matmul, "dtype"_a, "activation"_a, "param"_a, "sizes"_a, "a"_a, "b"_a,
        "bias"_a, "c"_a, "stream"_a);
  m.def("cuda_activation", &cuda_activation, "dtype"_a, "name"_a, "param"_a, "n"_a, "x"_a,
        "saved"_a, "out"_a, "stream"_a);
  m.def("cuda_copy_to_host", &cuda_copy_to_host, "from_"_a, "to"_a, "stream"_a);
  m.def("cuda_synchronize", &cuda_synchronize, "stream"_a);
}

}  // namespace fastbp
