// The C interface (fastbp_cuda.h): checks arguments, turns them into the kernels' structs, and
// errors into codes and texts.
#include "kernels/cuda/fastbp_cuda.h"

#include <cstdio>
#include <exception>
#include <string>

#include "engine/cuda/blas_library.h"
#include "engine/cuda/blas_products.h"
#include "engine/cuda/network_api.h"
#include "kernels/cuda/intake.h"
#include "kernels/cuda/kernels.h"
#include "ops/activations.h"

namespace fastbp {
namespace cuda {
namespace {

thread_local char last_error_text[1024] = "";

int32_t fail(int32_t code, const char* what, const char* why) {
  std::snprintf(last_error_text, sizeof last_error_text, "%s: %s", what, why);
  return code;
}

int32_t result(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return FBP_OK;
  return fail(error == cudaErrorMemoryAllocation ? FBP_OUT_OF_MEMORY : FBP_DEVICE_ERROR, what,
              cudaGetErrorString(error));
}

int32_t invalid(const char* what, const char* why) { return fail(FBP_INVALID_ARGUMENT, what, why); }

const char* last_error() { return last_error_text; }

int32_t device_count(int32_t* count) {
  if (!count) return invalid("device_count", "count is null");
  int number = 0;
  const cudaError_t error = cudaGetDeviceCount(&number);
  *count = error == cudaSuccess ? number : 0;
  return result(error, "device_count");
}

int32_t device_name(int32_t device, char* name, size_t capacity) {
  if (!name || capacity == 0) return invalid("device_name", "there is no room for the name");
  cudaDeviceProp properties;
  const cudaError_t error = cudaGetDeviceProperties(&properties, device);
  if (error == cudaSuccess) std::snprintf(name, capacity, "%s", properties.name);
  return result(error, "device_name");
}

int32_t allocate(void** pointer, size_t bytes) {
  if (!pointer) return invalid("allocate", "pointer is null");
  return result(cudaMalloc(pointer, bytes), "allocate");
}

int32_t release(void* pointer) { return result(cudaFree(pointer), "release"); }

int32_t synchronize(void* stream) {
  return result(cudaStreamSynchronize(static_cast<cudaStream_t>(stream)), "synchronize");
}

int32_t select_device(int32_t device) { return result(cudaSetDevice(device), "select_device"); }

int32_t device_of(const void* pointer, int32_t* device) {
  if (!device) return invalid("device_of", "device is null");
  cudaPointerAttributes attributes{};
  const cudaError_t error = cudaPointerGetAttributes(&attributes, pointer);
  const bool there =
      attributes.type != cudaMemoryTypeHost && attributes.type != cudaMemoryTypeUnregistered;
  *device = error == cudaSuccess && there ? attributes.device : -1;
  return result(error, "device_of");
}

int32_t copy(void* target, const void* source, size_t bytes, cudaMemcpyKind kind, void* stream,
             const char* what) {
  if (bytes && (!target || !source)) return invalid(what, "a pointer is null");
  const cudaError_t error =
      cudaMemcpyAsync(target, source, bytes, kind, static_cast<cudaStream_t>(stream));
  if (error != cudaSuccess) return result(error, what);
  return result(cudaStreamSynchronize(static_cast<cudaStream_t>(stream)), what);
}

int32_t copy_to_device(void* target, const void* source, size_t bytes, void* stream) {
  return copy(target, source, bytes, cudaMemcpyHostToDevice, stream, "copy_to_device");
}

int32_t copy_to_host(void* target, const void* source, size_t bytes, void* stream) {
  return copy(target, source, bytes, cudaMemcpyDeviceToHost, stream, "copy_to_host");
}

constexpr int32_t saves_code(Saves saves) {
  return saves == Saves::None    ? FBP_SAVES_NOTHING
         : saves == Saves::Input ? FBP_SAVES_INPUT
                                 : FBP_SAVES_OUTPUT;
}
#define FBP_INFO(A) {A::name, saves_code(A::saves), A::default_param},
constexpr fbp_activation_info kActivations[] = {FBP_ACTIVATIONS(FBP_INFO)};
#undef FBP_INFO

bool is_activation(int32_t index) { return index >= 0 && index < kActivationCount; }

template <class T>
ActivationTile<T> tile_of(const void* saved, int64_t saved_row, void* out, int64_t out_row,
                          double param) {
  ActivationTile<T> tile;
  tile.saved = static_cast<const T*>(saved);
  tile.saved_row = saved_row;
  tile.out = static_cast<T*>(out);
  tile.out_row = out_row;
  tile.param = static_cast<T>(param);
  return tile;
}

template <class T> int32_t run_matmul(const fbp_matmul_args& args, void* stream) {
  GemmArgs<T> g;
  g.m = args.m;
  g.n = args.n;
  g.k = args.k;
  g.a = static_cast<const T*>(args.a);
  g.a_row = args.a_row;
  g.a_col = args.a_col;
  g.b = static_cast<const T*>(args.b);
  g.b_row = args.b_row;
  g.b_col = args.b_col;
  g.c = static_cast<T*>(args.c);
  g.c_row = args.c_row;
  g.bias = static_cast<const T*>(args.bias);
  g.discard_c = !args.c;
  const auto tile = tile_of<T>(nullptr, 0, args.out, args.out_row, args.param);
  return result(gemm(g, args.activation, tile, static_cast<cudaStream_t>(stream)), "matmul");
}

int32_t matmul(const fbp_matmul_args* args, void* stream) {
  if (!args) return invalid("matmul", "args is null");
  const bool activates = args->activation != FBP_NO_ACTIVATION;
  if (activates && !is_activation(args->activation))
    return invalid("matmul", "there is no such activation");
  if (args->m < 0 || args->n < 0 || args->k < 0) return invalid("matmul", "a size is negative");
  if (args->m && args->n) {
    if (args->k && (!args->a || !args->b)) return invalid("matmul", "a or b is null");
    if (activates ? !args->out : !args->c)
      return invalid("matmul", "there is no memory for the result");
  }
  if (args->dtype == FBP_FLOAT32) return run_matmul<float>(*args, stream);
  if (args->dtype == FBP_FLOAT64) return run_matmul<double>(*args, stream);
  return invalid("matmul", "the dtype is neither float32 nor float64");
}

template <class T>
int32_t run_activation(const fbp_activation_args& args, bool forward, void* stream) {
  ElementwiseArgs<T> e;
  e.rows = args.rows;
  e.cols = args.cols;
  e.x = static_cast<const T*>(args.x);
  e.x_row = args.x_row;
  e.tile = tile_of<T>(args.saved, args.saved_row, args.out, args.out_row, args.param);
  const auto on = static_cast<cudaStream_t>(stream);
  return forward ? result(activation_forward(args.activation, e, on), "activation_forward")
                 : result(activation_backward(args.activation, e, on), "activation_backward");
}

int32_t activation(const fbp_activation_args* args, bool forward, void* stream) {
  const char* const what = forward ? "activation_forward" : "activation_backward";
  if (!args) return invalid(what, "args is null");
  if (!is_activation(args->activation)) return invalid(what, "there is no such activation");
  if (args->rows < 0 || args->cols < 0) return invalid(what, "a size is negative");
  if (args->rows && args->cols) {
    const bool needs_saved = !forward && kActivations[args->activation].saves != FBP_SAVES_NOTHING;
    if (!args->x || !args->out || (needs_saved && !args->saved))
      return invalid(what, "a pointer is null");
  }
  if (args->dtype == FBP_FLOAT32) return run_activation<float>(*args, forward, stream);
  if (args->dtype == FBP_FLOAT64) return run_activation<double>(*args, forward, stream);
  return invalid(what, "the dtype is neither float32 nor float64");
}

int32_t forward(const fbp_activation_args* args, void* stream) {
  return activation(args, true, stream);
}
int32_t backward(const fbp_activation_args* args, void* stream) {
  return activation(args, false, stream);
}

// Memory for one value of a call, which is on the stream like the work that uses it.
template <class V> class Scratch {
 public:
  explicit Scratch(cudaStream_t stream) : stream_(stream) {
    error = cudaMallocAsync(&there_, sizeof(V), stream);
    if (error == cudaSuccess) error = cudaMemsetAsync(there_, 0, sizeof(V), stream);
  }
  ~Scratch() {
    if (there_) cudaFreeAsync(there_, stream_);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  cudaError_t error = cudaSuccess;
  V* there() const { return static_cast<V*>(there_); }
  // Waits for it.
  cudaError_t fetch(V* value) const {
    const cudaError_t copied =
        cudaMemcpyAsync(value, there_, sizeof(V), cudaMemcpyDeviceToHost, stream_);
    return copied == cudaSuccess ? cudaStreamSynchronize(stream_) : copied;
  }

 private:
  cudaStream_t stream_;
  void* there_ = nullptr;
};

const char* intake_problem(const fbp_intake_args& args) {
  if (args.from < FBP_NUMBER_BOOL || args.from > FBP_NUMBER_FLOAT64)
    return "there is no such number";
  if (args.to != FBP_NUMBER_FLOAT32 && args.to != FBP_NUMBER_FLOAT64 && args.to != FBP_NUMBER_INT64)
    return "numbers become float32, float64 or int64";
  if (args.axes < 1 || args.axes > FBP_INTAKE_AXES) return "there are too few or too many axes";
  if (args.lengths && args.axes < 2) return "lengths are about axis 1";
  for (int32_t axis = 0; axis < args.axes; ++axis)
    if (args.shape[axis] < 0) return "a size is negative";
  return nullptr;
}

int32_t intake(const fbp_intake_args* args, void* stream, int32_t* accepted) {
  if (!args || !accepted) return invalid("intake", "args or accepted is null");
  if (const char* problem = intake_problem(*args)) return invalid("intake", problem);
  *accepted = 1;
  index_t count = 1;
  for (int32_t axis = 0; axis < args->axes; ++axis) count *= args->shape[axis];
  if (count == 0) return FBP_OK;
  if (!args->x) return invalid("intake", "x is null");
  const auto on = static_cast<cudaStream_t>(stream);
  if (!args->checks) return result(cuda::intake(*args, count, nullptr, on), "intake");
  const Scratch<int> wrong(on);
  cudaError_t error = wrong.error;
  if (error == cudaSuccess) error = cuda::intake(*args, count, wrong.there(), on);
  int found = 0;
  if (error == cudaSuccess) error = wrong.fetch(&found);
  *accepted = found == 0;
  return result(error, "intake");
}

int32_t sum(const double* x, int64_t n, void* stream, double* total) {
  if (!total || n < 0 || (n && !x)) return invalid("sum", "an argument is missing");
  const auto on = static_cast<cudaStream_t>(stream);
  const Scratch<double> there(on);
  cudaError_t error = there.error;
  if (error == cudaSuccess) error = cuda::sum(x, n, there.there(), on);
  if (error == cudaSuccess) error = there.fetch(total);
  return result(error, "sum");
}

int32_t load_blas_file(const char* path, int64_t* version) {
  if (!path || !version) return invalid("load_blas", "path or version is null");
  try {
    *version = load_blas(path);
    return FBP_OK;
  } catch (const std::exception& error) { return tell(FBP_INVALID_ARGUMENT, error.what()); }
}

int32_t copy_choices(char* text, size_t capacity, size_t* length) {
  if (!text || !length) return invalid("blas_choices", "text or length is null");
  try {
    const std::string all = blas_choices();
    std::snprintf(text, capacity, "%s", all.c_str());
    *length = all.size();
    return FBP_OK;
  } catch (const std::exception& error) { return tell(FBP_OUT_OF_MEMORY, error.what()); }
}

}  // namespace

int32_t tell(int32_t code, const char* text) {
  std::snprintf(last_error_text, sizeof last_error_text, "%s", text);
  return code;
}

}  // namespace cuda
}  // namespace fastbp

#define FBP_EXPORT __attribute__((visibility("default")))

FBP_EXPORT int32_t fbp_abi_version(void) { return FBP_ABI_VERSION; }

FBP_EXPORT int32_t fbp_get_api(fbp_api* api) {
  using namespace fastbp::cuda;
  if (!api || api->size != sizeof(fbp_api))
    return invalid("fbp_get_api", "the table's size is another version's");
  *api = {sizeof(fbp_api), last_error,    device_count,   device_name,
          allocate,        release,       copy_to_device, copy_to_host,
          synchronize,     select_device, device_of,      fastbp::kActivationCount,
          kActivations,    matmul,        forward,        backward,
          intake,          sum,           load_blas_file, copy_choices,
          &kNetworkApi};
  return FBP_OK;
}
