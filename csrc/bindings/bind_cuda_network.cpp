// fastbp._core.CudaNetwork: a network of the CUDA library behind Python arrays. fastbp/cuda_engine.py
// makes of it an engine with the methods of fastbp._core.Engine.
#include <pybind11/stl.h>

#include <algorithm>
#include <array>

#include "backend/cuda_library.h"
#include "bindings/arrays.h"
#include "bindings/bind.h"
#include "bindings/cuda_descriptions.h"
#include "bindings/cuda_errors.h"
#include "bindings/cuda_functions.h"
#include "bindings/cuda_samples.h"
#include "bindings/names.h"
#include "bindings/network_spec_in.h"
#include "bindings/python_lock.h"
#include "bindings/run_record.h"
#include "bindings/turn.h"
#include "engine/step_clock.h"

namespace fastbp {
namespace {

int32_t ask(void* signals) {
  const Interrupt& interrupt = *static_cast<const Interrupt*>(signals);
  return interrupt.pending(interrupt.context) ? 1 : 0;
}

class CudaNetwork {
 public:
  CudaNetwork(index_t inputs, const py::list& layers, const std::string& dtype, std::uint64_t seed,
              int device, bool sequences)
      : wide_(dtype == "float64") {
    const NetworkSpec described = network_spec(inputs, layers, seed, sequences, functions_);
    layout_ = make_layout(described);
    std::vector<fbp_layer> specs;
    for (const LayerSpec& layer : described.layers) specs.push_back(layer_out(layer));
    const fbp_network_spec spec{dtype_code(dtype), device, inputs,   int64_t(specs.size()),
                                specs.data(),      seed,   sequences};
    const fbp_network_api& api = *cuda_api().network;
    mark_cuda_used();
    require_cuda(api.create(&spec, &network_));
    const fbp_host_functions functions =
        wide_ ? cuda_functions<double>(&functions_) : cuda_functions<float>(&functions_);
    require_cuda(api.set_functions(network_, &functions));
  }
  ~CudaNetwork() {
    if (network_ && cuda_is_usable()) cuda_api().network->destroy(network_);
  }
  CudaNetwork(const CudaNetwork&) = delete;
  CudaNetwork& operator=(const CudaNetwork&) = delete;

  py::list parameter_shapes() const {
    const auto shapes_of = api().parameter_shapes;
    std::vector<std::array<int64_t, 4>> shapes(std::size_t(shapes_of(network_, nullptr, 0)));
    shapes_of(network_, reinterpret_cast<int64_t (*)[4]>(shapes.data()), int64_t(shapes.size()));
    py::list rows;
    for (const auto& s : shapes) rows.append(py::make_tuple(s[0], s[1], s[2], s[3] != 0));
    return rows;
  }
  std::int64_t parameter_count() const { return api().parameter_count(network_); }
  py::list state_shapes() const {
    const auto shapes_of = api().state_shapes;
    std::vector<std::array<int64_t, 3>> shapes(std::size_t(shapes_of(network_, nullptr, 0)));
    shapes_of(network_, reinterpret_cast<int64_t (*)[3]>(shapes.data()), int64_t(shapes.size()));
    py::list rows;
    for (const auto& s : shapes) rows.append(py::make_tuple(s[0], s[1], s[2]));
    return rows;
  }
  index_t carried_width() const { return layout_.carried_width; }
  std::int64_t state_count() const { return api().state_count(network_); }

  void read(int array, py::array out) {
    void* const data = flat(out, "out", array, true);
    run([&](const fbp_network_api& f) { return f.read(network_, array, data); });
  }
  void write(int array, py::array from) {
    const void* const data = flat(from, "array", array, false);
    run([&](const fbp_network_api& f) { return f.write(network_, array, data); });
  }

  // As Engine::compile.
  void compile(const py::object& loss, double loss_param, const std::string& optimizer,
               const py::dict& hyper) {
    const bool custom = !py::isinstance<py::str>(loss);
    const std::string name = custom ? "mse" : py::cast<std::string>(loss);
    const int index = loss_index(name);
    optimizer_index(optimizer);
    const fbp_hyper values = hyper_out(hyper_from(hyper));
    run([&](const fbp_network_api& f) {
      const int32_t code = f.compile(network_, custom ? nullptr : name.c_str(), loss_param,
                                     optimizer.c_str(), &values);
      if (code != FBP_OK) return code;
      const py::gil_scoped_acquire locked;
      functions_.set_loss(custom ? loss : py::none());
      return code;
    });
    loss_ = index;
  }
  void set_hyper(const py::dict& hyper) {
    const fbp_hyper values = hyper_out(hyper_from(hyper));
    run([&](const fbp_network_api& f) { return f.set_hyper(network_, &values); });
  }
  // As Engine::set_rules and Engine::set_trainable.
  void set_rules(const py::dict& values) {
    require_compiled();
    const RulesOut rules(rules_from(values, parameter_count()));
    const fbp_rules to = rules.view();
    run([&](const fbp_network_api& f) { return f.set_rules(network_, &to); });
  }
  void set_trainable(const std::vector<bool>& layers) {
    const std::vector<int32_t> given(layers.begin(), layers.end());
    run([&](const fbp_network_api& f) {
      return f.set_trainable(network_, given.data(), int64_t(given.size()));
    });
  }
  std::int64_t steps() const { return api().steps(network_); }
  std::int64_t replays() const { return api().replays(network_); }
  std::int64_t persistent_steps() const { return api().persistent_steps(network_); }
  void set_persistent(bool allowed) {
    run([&](const fbp_network_api& f) { return f.set_persistent(network_, allowed); });
  }
  void start_clock() {
    run([&](const fbp_network_api& f) { return f.start_clock(network_); });
    clock_runs_ = true;
  }
  // As the CPU's engine.
  py::dict stop_clock() {
    if (!clock_runs_) throw std::runtime_error("the clock does not run: call start_clock() first");
    clock_runs_ = false;
    const std::size_t values = layout_.stage_of_layer.size() + 1;
    std::vector<double> seconds(kStepParts * values);
    run([&](const fbp_network_api& f) { return f.stop_clock(network_, seconds.data()); });
    py::dict by_part;
    for (std::size_t part = 0; part < kStepParts; ++part)
      by_part[kStepPartNames[part]] =
          py::array_t<double>(ssize_t(values), seconds.data() + part * values);
    return by_part;
  }
  void set_steps(std::int64_t count) {
    if (count < 0)
      throw py::value_error("steps: expected at least 0, got " + std::to_string(count));
    run([&](const fbp_network_api& f) { return f.set_steps(network_, count); });
  }
  void set_stream(std::uintptr_t stream) {
    run([&](const fbp_network_api& f) {
      stream_ = reinterpret_cast<void*>(stream);
      return f.set_stream(network_, stream_);
    });
  }

  // Arguments as Engine::train.
  py::tuple train(const py::object& x, const py::object& y, index_t batch_size, index_t epochs,
                  std::int64_t first_epoch, bool shuffle, std::uint64_t seed,
                  const std::vector<std::string>& metrics, const py::object& position,
                  const py::object& record, index_t steps, const py::object& outputs,
                  const py::object& weights) {
    require_batch_size(batch_size);
    if (epochs < 0)
      throw py::value_error("epochs: expected at least 0, got " + std::to_string(epochs));
    const std::vector<fbp_metric> what = metrics_of(metrics);
    const index_t places = index_t(what.size() + 1);
    py::array values = record.is_none() ? zeros(epochs, places) : py::array(record);
    require_shape(values, "record", epochs, places);
    fbp_train_args args{};
    args.samples = samples().of(x, y, weights, batch_size);
    if (args.samples.states && args.samples.n % batch_size != 0)
      throw py::value_error("states: expected whole batches of " + std::to_string(batch_size) +
                            ", got " + std::to_string(args.samples.n) + " sequences");
    const RunRecord start = run_record(values, position, epochs, args.samples.n);
    args.batch_size = batch_size;
    args.epochs = epochs;
    args.first_epoch = first_epoch;
    args.shuffle = shuffle;
    args.seed = seed;
    args.means = args.resets = true;
    args.epoch = start.epoch;
    args.at = start.at;
    args.record = start.values;
    args.steps = steps;
    run_train(args, what, outputs, [&] {
      RunRecord reached;
      reached.epoch = args.epoch;
      reached.at = args.at;
      keep_position(reached, position);
    });
    const py::slice all(0, epochs, 1), rest(1, places, 1);
    return py::make_tuple(values[py::make_tuple(all, 0)], values[py::make_tuple(all, rest)]);
  }

  void train_batch(const py::object& x, const py::object& y,
                   const std::vector<std::string>& metrics, py::array sums,
                   const py::object& outputs, const py::object& weights) {
    const std::vector<fbp_metric> what = metrics_of(metrics);
    fbp_train_args args{};
    args.record = output<double>(sums, "sums");
    require_length(sums, "sums", index_t(what.size() + 1));
    args.samples = samples().of(x, y, weights);
    args.batch_size = args.samples.n;
    args.epochs = 1;
    args.steps = -1;
    run_train(args, what, outputs, [] {});
  }

  // Copies of the rows stay on the device until release().
  void hold(const py::object& x, const py::object& y, const py::object& weights) {
    const fbp_samples rows = samples().of(x, y, weights);
    run([&](const fbp_network_api& f) { return f.hold(network_, &rows); });
  }
  void release() {
    run([&](const fbp_network_api& f) { return f.release(network_); });
  }

  double step(const py::object& x, const py::object& y, const py::object& weights) {
    const fbp_samples batch = samples().of(x, y, weights);
    double loss = 0;
    run([&](const fbp_network_api& f) { return f.step(network_, &batch, &loss); });
    return loss;
  }

  double gradients(const py::object& x, const py::object& y, const py::object& weights) {
    return gradients_and(samples().of(x, y, weights), nullptr);
  }
  // dx: for rows on the device, rows there of x's shape, which are filled.
  py::tuple input_gradient(const py::object& x, const py::object& y, const py::object& weights,
                           const py::object& dx) {
    const fbp_samples batch = samples().of(x, y, weights);
    if (batch.on_device) {
      const DeviceRows to(dx);
      to.require("dx", dtype(), DeviceRows(CudaSamples::values_of(x)).shape);
      return py::make_tuple(gradients_and(batch, to.pointer), dx);
    }
    const py::array values = RowsIn(x).x;
    py::array made(values.dtype(),
                   std::vector<index_t>(values.shape(), values.shape() + values.ndim()));
    const double loss = gradients_and(batch, made.mutable_data());
    return py::make_tuple(loss, made);
  }

  py::tuple evaluate(const py::object& x, const py::object& y, index_t batch_size,
                     const std::vector<std::string>& metrics, const py::object& outputs,
                     const py::object& weights) {
    require_batch_size(batch_size);
    const std::vector<fbp_metric> what = metrics_of(metrics);
    std::vector<double> values(what.size() + 1);
    const Interrupt signals = python_signals();
    fbp_evaluate_args args{};
    args.samples = samples().of(x, y, weights);
    args.batch_size = batch_size;
    args.metric_count = int32_t(what.size());
    args.metrics = what.data();
    args.values = values.data();
    args.outputs = kept_outputs(outputs, args.samples);
    args.interrupt = interrupt_of(signals);
    run([&](const fbp_network_api& f) { return f.evaluate(network_, &args); });
    const double loss = values[0];
    values.erase(values.begin());
    return py::make_tuple(loss, values);
  }

  // Of rows on the device out is there too, and the work comes behind what that stream has to do.
  void predict(const py::object& x, const py::object& out, bool training, std::uintptr_t on) {
    fbp_samples rows{};
    void* data = nullptr;
    if (CudaSamples::are_there(x)) {
      rows = samples().rows_there(x, -1);
      const DeviceRows to(out);
      to.require("out", dtype(), samples().outputs_shape(rows));
      data = to.pointer;
    } else {
      const RowsIn given(x);
      rows = samples().rows_here(given);
      py::array to = out;
      require_array(to, "out", dtype(), true);
      require_outputs(to, "out", given, layout_);
      data = to.mutable_data();
    }
    const Interrupt signals = python_signals();
    const fbp_interrupt interrupt = interrupt_of(signals);
    run([&](const fbp_network_api& f) {
      if (on) f.set_stream(network_, reinterpret_cast<void*>(on));
      const int32_t code = f.predict(network_, &rows, data, training, &interrupt);
      if (on) f.set_stream(network_, stream_);
      return code;
    });
  }

 private:
  static const fbp_network_api& api() { return *cuda_api().network; }

  // f(functions of the library) without the Python lock, one call at a time. What a function of the
  // user's own raises in it is thrown from here.
  template <class F> int32_t call(F&& f) {
    const fbp_network_api& functions = api();
    Turn::require_other_thread(owner_);
    const PythonUnlocked unlocked;
    const Turn turn(busy_, owner_);
    functions_.begin();
    const int32_t code = f(functions);
    functions_.rethrow();
    return code;
  }
  template <class F> void run(F&& f) { require_cuda(call(f)); }

  // The rest of a run's arguments, and the run; afterwards, whatever ended it, `always()`.
  template <class F>
  void run_train(fbp_train_args& args, const std::vector<fbp_metric>& what,
                 const py::object& outputs, F&& always) {
    const Interrupt signals = python_signals();
    args.metric_count = int32_t(what.size());
    args.metrics = what.data();
    args.outputs = kept_outputs(outputs, args.samples);
    args.interrupt = interrupt_of(signals);
    int32_t code = FBP_OK;
    try {
      code = call([&](const fbp_network_api& f) { return f.train(network_, &args); });
    } catch (...) {
      always();
      throw;
    }
    always();
    require_cuda(code);
  }

  // The array (host) that is to be filled with the outputs for those rows; null for None.
  void* kept_outputs(const py::object& outputs, const fbp_samples& rows) const {
    if (outputs.is_none()) return nullptr;
    py::array array = outputs;
    require_array(array, "outputs", dtype(), true);
    const std::vector<index_t> shape = samples().outputs_shape(rows);
    require_rows(array, "outputs", rows.n, {shape.begin() + 1, shape.end()});
    return array.mutable_data();
  }
  static py::array zeros(index_t rows, index_t cols) {
    py::array_t<double> fresh({rows, cols});
    std::fill_n(fresh.mutable_data(), fresh.size(), 0.0);
    return fresh;
  }

  py::dtype dtype() const { return wide_ ? py::dtype::of<double>() : py::dtype::of<float>(); }

  void* flat(py::array& a, const char* name, int number, bool writeable) const {
    require_array(a, name, dtype(), writeable);
    require_length(a, name,
                   number == FBP_LOSS_SCALE ? 3
                   : number == FBP_STATE    ? state_count()
                                            : parameter_count());
    return const_cast<void*>(a.data());
  }

  CudaSamples samples() const { return {layout_, dtype(), loss_}; }

  void require_compiled() const { samples().require_compiled(); }
  static void require_batch_size(index_t batch_size) {
    if (batch_size < 1)
      throw py::value_error("batch_size: expected at least 1, got " + std::to_string(batch_size));
  }

  std::vector<fbp_metric> metrics_of(const std::vector<std::string>& names) const {
    require_compiled();
    std::vector<fbp_metric> metrics;
    for (const std::string& name : names)
      metrics.push_back(metric_out(name, metric_from(name, loss_, layout_.outputs)));
    return metrics;
  }

  static fbp_interrupt interrupt_of(const Interrupt& signals) {
    if (!signals.pending) return {};
    return {ask, const_cast<Interrupt*>(&signals)};
  }

  double gradients_and(const fbp_samples& batch, void* dx) {
    double loss = 0;
    run([&](const fbp_network_api& f) { return f.gradients(network_, &batch, &loss, dx); });
    return loss;
  }

  fbp_network* network_ = nullptr;
  NetworkLayout layout_;
  PythonFunctions functions_;  // of the user's own
  bool wide_;
  int loss_ = -1;
  void* stream_ = nullptr;  // the caller's
  bool clock_runs_ = false;
  std::mutex busy_;
  Occupant owner_;  // of busy_
};

}  // namespace

void bind_cuda_network(py::module_& m) {
  using namespace py::literals;
  py::class_<CudaNetwork>(m, "CudaNetwork")
      .def(py::init<index_t, const py::list&, const std::string&, std::uint64_t, int, bool>(),
           "inputs"_a, "layers"_a, "dtype"_a, "seed"_a, "device"_a, "sequences"_a = false)
      .def_property_readonly("carried_width", &CudaNetwork::carried_width)
      .def_property_readonly("parameter_shapes", &CudaNetwork::parameter_shapes)
      .def_property_readonly("parameter_count", &CudaNetwork::parameter_count)
      .def_property_readonly("state_shapes", &CudaNetwork::state_shapes)
      .def_property_readonly("state_count", &CudaNetwork::state_count)
      .def("read", &CudaNetwork::read, "array"_a, "out"_a)
      .def("write", &CudaNetwork::write, "array"_a, "from_"_a)
      .def_property("steps", &CudaNetwork::steps, &CudaNetwork::set_steps)
      .def_property_readonly("replays", &CudaNetwork::replays)
      .def_property_readonly("persistent_steps", &CudaNetwork::persistent_steps)
      .def("set_persistent", &CudaNetwork::set_persistent, "allowed"_a)
      .def("start_clock", &CudaNetwork::start_clock)
      .def("stop_clock", &CudaNetwork::stop_clock)
      .def("set_stream", &CudaNetwork::set_stream, "stream"_a)
      .def("compile", &CudaNetwork::compile, "loss"_a, "loss_param"_a, "optimizer"_a, "hyper"_a)
      .def("set_hyper", &CudaNetwork::set_hyper, "hyper"_a)
      .def("set_rules", &CudaNetwork::set_rules, "rules"_a)
      .def("set_trainable", &CudaNetwork::set_trainable, "layers"_a)
      .def("train", &CudaNetwork::train, "x"_a, "y"_a, "batch_size"_a, "epochs"_a, "first_epoch"_a,
           "shuffle"_a, "seed"_a, "metrics"_a, "position"_a = py::none(), "record"_a = py::none(),
           "steps"_a = -1, "outputs"_a = py::none(), "weights"_a = py::none())
      .def("train_batch", &CudaNetwork::train_batch, "x"_a, "y"_a, "metrics"_a, "sums"_a,
           "outputs"_a = py::none(), "weights"_a = py::none())
      .def("hold", &CudaNetwork::hold, "x"_a, "y"_a, "weights"_a = py::none())
      .def("release", &CudaNetwork::release)
      .def("step", &CudaNetwork::step, "x"_a, "y"_a, "weights"_a = py::none())
      .def("gradients", &CudaNetwork::gradients, "x"_a, "y"_a, "weights"_a = py::none())
      .def("input_gradient", &CudaNetwork::input_gradient, "x"_a, "y"_a, "weights"_a = py::none(),
           "dx"_a = py::none())
      .def("evaluate", &CudaNetwork::evaluate, "x"_a, "y"_a, "batch_size"_a, "metrics"_a,
           "outputs"_a = py::none(), "weights"_a = py::none())
      .def("predict", &CudaNetwork::predict, "x"_a, "out"_a, "training"_a = false, "stream"_a = 0);
}

}  // namespace fastbp
