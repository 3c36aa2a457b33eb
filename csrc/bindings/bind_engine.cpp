// fastbp._core.Engine: the network of csrc/engine behind Python arrays. Same methods as
// fastbp.reference.Engine.
#include <pybind11/stl.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <thread>

#include "bindings/arrays.h"
#include "bindings/bind.h"
#include "bindings/names.h"
#include "bindings/network_spec_in.h"
#include "bindings/plain_array.h"
#include "bindings/python_functions.h"
#include "bindings/run_ops.h"
#include "bindings/run_record.h"
#include "bindings/turn.h"
#include "kernels/cpu/bf16.h"

namespace fastbp {
namespace {

class Engine {
  std::unique_ptr<Network<float>> f32_;
  std::unique_ptr<Network<double>> f64_;
  bool compiled_ = false;
  std::mutex busy_;
  std::atomic<std::thread::id> owner_{};  // of busy_
  PythonFunctions functions_;
  std::unique_ptr<StepClock> clock_;  // of the steps, where they are timed

  // f(network) without the Python lock, one call at a time. The lock is given up first: a call in
  // progress may wait for it to run signal handlers or functions of the user's own. What such a
  // function raises is thrown from here.
  template <class Net, class F> auto unlocked(Net& net, F&& f) {
    Turn::require_other_thread(owner_);
    const PythonUnlocked unlocked;
    const Turn turn(busy_, owner_);
    functions_.begin();
    if constexpr (std::is_void_v<decltype(f(net))>) {
      f(net);
      functions_.rethrow();
    } else {
      const auto result = f(net);
      functions_.rethrow();
      return result;
    }
  }

  // The same for about `flop` operations. Short work keeps the Python lock, unless it would wait for
  // another thread's call: giving the lock up and taking it again costs as much as a small step. No
  // Python code runs meanwhile, so nobody can ask who is inside.
  template <class Net, class F> auto exclusively(Net& net, double flop, F&& f) {
    Turn::require_other_thread(owner_);
    if (flop < kShortFlop) {
      const std::unique_lock<std::mutex> turn(busy_, std::try_to_lock);
      if (turn) return f(net);
    }
    return unlocked(net, f);
  }

  // Calls f(network) for the dtype in use.
  template <class F> auto visit(F&& f) { return f32_ ? f(*f32_) : f(*f64_); }

  template <class F> auto run(F&& f) {
    return visit([&](auto& net) { return unlocked(net, f); });
  }

  void require_compiled() const {
    if (!compiled_)
      throw py::value_error("the engine has no loss and optimizer yet: call compile() first");
  }

  std::vector<MetricSpec> metric_specs(const std::vector<std::string>& names) {
    if (names.size() > std::size_t(kMaxMetrics))
      throw py::value_error("metrics: expected at most " + std::to_string(kMaxMetrics) + ", got " +
                            std::to_string(names.size()));
    return visit([&](auto& net) {
      std::vector<MetricSpec> specs;
      for (const std::string& name : names)
        specs.push_back(metric_from(name, net.loss().loss, net.layout().outputs));
      return specs;
    });
  }

  // Whether x and y are right as they are, in dtype, shape, layout and values; then `samples` are
  // theirs, `n` rows. No error: the general path explains.
  template <class Net, class T>
  bool plain_samples(Net& net, PyObject* x, PyObject* y, Samples<T>* samples, index_t* n) const {
    const PlainArray *rows = plain_array(x), *targets = plain_array(y);
    const index_t inputs = net.layout().inputs, outputs = net.layout().outputs;
    if (!compiled_ || functions_.any() || net.layout().sequences || !is_packed<T>(rows) ||
        !targets || rows->nd != 2 || rows->dimensions[0] == 0 || rows->dimensions[1] != inputs)
      return false;
    *n = rows->dimensions[0];
    samples->x = data_of<const T>(rows);
    const bool takes_labels = loss_takes_labels(net.loss().loss);
    const bool column = targets->nd == 1 || (targets->nd == 2 && targets->dimensions[1] == 1);
    const bool fits = column && targets->dimensions[0] == *n;
    if (takes_labels && fits && is_packed<std::int64_t>(targets)) {
      samples->labels = data_of<const std::int64_t>(targets);
      if (!are_labels(samples->labels, *n, outputs)) return false;
    } else {
      const ssize_t shape[2] = {*n, outputs};
      if (!is_packed<T>(targets) || !(has_shape(targets, 2, shape) || (fits && outputs == 1)))
        return false;
      samples->target = data_of<const T>(targets);
      const TargetRange range = loss_target_range(net.loss().loss);
      if (!all_within(samples->target, *n * outputs, range.low, range.high)) return false;
    }
    return kernels<T>().first_non_finite(samples->x, *n * inputs) < 0;
  }

  // f(network, samples, n) as a Python object, None where x and y are not plain.
  template <class F> PyObject* with_plain_samples(PyObject* x, PyObject* y, F&& f) {
    return visit([&](auto& net) -> PyObject* {
      using T = std::remove_pointer_t<decltype(net.block().w)>;
      Samples<T> samples;
      index_t n = 0;
      if (!plain_samples(net, x, y, &samples, &n)) Py_RETURN_NONE;
      return f(net, samples, n);
    });
  }

  template <class Net>
  static void require_loss_of_labels(const Net& net, index_t n, const py::array& y) {
    if (!loss_takes_labels(net.loss().loss))
      throw py::value_error("y: expected shape (" + std::to_string(n) + ", " +
                            std::to_string(net.layout().outputs) + ") for loss '" +
                            loss_name(net.loss().loss) + "', got a " + describe(y));
  }

  // Checks x, y and the weights of the rows (or None), then calls f(network, samples, n) without the
  // Python lock.
  template <class F>
  auto with_samples(const RowsIn& rows, const py::array& y, const py::object& weights, F&& f) {
    return visit([&](auto& net) { return with_samples_of(net, rows, y, weights, f); });
  }

  template <class Net, class F>
  auto with_samples_of(Net& net, const RowsIn& rows, const py::array& y, const py::object& weights,
                       F&& f) {
    using T = std::remove_pointer_t<decltype(net.block().w)>;
    const NetworkLayout& layout = net.layout();
    Samples<T> samples = rows.samples<T>(layout);
    const index_t n = rows.count();
    if (n == 0) throw py::value_error("x: expected at least one sample, got a " + describe(rows.x));
    if (y.ndim() == 1 + layout.stages.back().sequence) {
      require_loss_of_labels(net, n, y);
      samples.labels = input<std::int64_t>(y, "y");
      require_labels_shape(y, rows, layout);
      require_labels(samples.labels, y.size(), layout.outputs);
    } else {
      samples.target = input<T>(y, "y");
      require_outputs(y, "y", rows, layout);
    }
    if (!weights.is_none()) {
      const py::array given = py::cast<py::array>(weights);
      samples.weight = input<T>(given, "weights");
      require_weights_shape(given, rows, layout);
    }
    return unlocked(net, [&](auto& same) { return f(same, samples, n); });
  }

 public:
  Engine(index_t inputs, const py::list& layers, const std::string& dtype, std::uint64_t seed,
         bool sequences) {
    const NetworkSpec spec = network_spec(inputs, layers, seed, sequences, &functions_);
    const Isa& isa = active_isa();
    if (dtype == "float32")
      f32_ = std::make_unique<Network<float>>(spec, isa.table_f32());
    else if (dtype == "float64")
      f64_ = std::make_unique<Network<double>>(spec, isa.table_f64());
    else if (dtype != "bfloat16")
      throw py::value_error("dtype: expected 'float32', 'float64' or 'bfloat16', got '" + dtype +
                            "'");
    else if (const Bf16Kernels* bf16 = bf16_kernels())
      f32_ = std::make_unique<Network<float>>(spec, isa.table_f32(), bf16->gemm);
    else
      throw std::runtime_error("dtype 'bfloat16' is not available: " + bf16_problem());
    visit([&](auto& net) {
      using T = std::remove_pointer_t<decltype(net.block().w)>;
      net.set_host_functions(functions_.table<T>());
    });
  }

  py::list parameter_shapes() {
    return visit([](auto& net) {
      py::list rows;
      for (const Stage& s : net.layout().stages)
        if (s.parameter_count() > 0)
          rows.append(
              py::make_tuple(s.parameter_offset, s.parameter_rows, s.parameter_cols, s.bias));
      return rows;
    });
  }

  index_t carried_width() {
    return visit([](auto& net) { return net.layout().carried_width; });
  }

  index_t inputs() {
    return visit([](auto& net) { return net.layout().inputs; });
  }

  py::list state_shapes() {
    return visit([](auto& net) {
      py::list rows;
      for (const Stage& s : net.layout().stages)
        if (s.state_rows > 0) rows.append(py::make_tuple(s.state_offset, s.state_rows, s.outputs));
      return rows;
    });
  }

  // A live array; `owner`, this engine's Python object, lives as long as the array.
  py::array state(const py::object& owner) {
    return visit([&](auto& net) -> py::array {
      using T = std::remove_pointer_t<decltype(net.state())>;
      return py::array(py::dtype::of<T>(), {net.layout().state_count}, {}, net.state(), owner);
    });
  }

  void set_trainable(const std::vector<bool>& layers) {
    const std::size_t expected =
        visit([](auto& net) { return net.layout().stage_of_layer.size(); });
    if (layers.size() != expected)
      throw py::value_error("layers: expected " + std::to_string(expected) + " values, got " +
                            std::to_string(layers.size()));
    run([&](auto& net) { net.set_trainable(layers); });
  }

  // A live array of the flat layout; `owner`, this engine's Python object, lives as long as the
  // array.
  template <class Pick> py::array flat(const py::object& owner, Pick&& pick) {
    return visit([&](auto& net) -> py::array {
      auto* data = pick(net.block());
      return py::array(py::dtype::of<std::remove_pointer_t<decltype(data)>>(),
                       {net.layout().parameter_count}, {}, data, owner);
    });
  }

  py::list optimizer_state(const py::object& owner) {
    py::list arrays;
    const int slots = compiled_ ? visit([](auto& net) { return net.slots(); }) : 0;
    for (int k = 0; k < slots; ++k)
      arrays.append(flat(owner, [k](auto block) { return block.slot[k]; }));
    const bool sum = visit([](auto& net) { return net.rules().accumulation > 1; });
    const bool average = visit([](auto& net) { return net.rules().average; });
    if (sum) arrays.append(flat(owner, [](auto block) { return block.accumulated; }));
    if (average) arrays.append(flat(owner, [](auto block) { return block.average; }));
    return arrays;
  }

  // A loss that is no name is a function of the user's own; targets and metrics are then those of mse.
  void compile(const py::object& loss, double loss_param, const std::string& optimizer,
               const py::dict& hyper) {
    const bool custom = !py::isinstance<py::str>(loss);
    const bool sequences = visit([](auto& net) { return net.layout().sequences; });
    if (custom && sequences)
      throw py::value_error("loss: expected a name, got a function: those run on rows that are no "
                            "sequences");
    const LossSpec l{loss_index(custom ? "mse" : py::cast<std::string>(loss)), loss_param, custom};
    const OptimizerSpec o{optimizer_index(optimizer), hyper_from(hyper)};
    run([&](auto& net) {
      net.compile(l, o);
      const py::gil_scoped_acquire locked;
      functions_.set_loss(custom ? loss : py::none());
    });
    compiled_ = true;
  }

  void set_hyper(const py::dict& values) {
    const Hyper hyper = hyper_from(values);
    run([&](auto& net) { net.set_hyper(hyper); });
  }

  void set_rules(const py::dict& values) {
    require_compiled();
    const index_t count = visit([](auto& net) { return net.layout().parameter_count; });
    const UpdateRules rules = rules_from(values, count);
    run([&](auto& net) { net.set_rules(rules); });
  }

  py::tuple train(const py::object& x, const py::array& y, index_t batch_size, index_t epochs,
                  std::int64_t first_epoch, bool shuffle, std::uint64_t seed,
                  const std::vector<std::string>& metrics, const py::object& position,
                  const py::object& record, index_t steps, py::object outputs,
                  const py::object& weights) {
    require_compiled();
    if (batch_size < 1)
      throw py::value_error("batch_size: expected at least 1, got " + std::to_string(batch_size));
    if (epochs < 0)
      throw py::value_error("epochs: expected at least 0, got " + std::to_string(epochs));
    const std::vector<MetricSpec> what = metric_specs(metrics);
    py::array values = record;
    const index_t width = value_count(what);
    if (record.is_none()) {
      py::array_t<double> fresh({epochs, width});
      std::fill_n(fresh.mutable_data(), fresh.size(), 0.0);
      values = fresh;
    }
    require_shape(values, "record", epochs, width);
    const Schedule schedule{batch_size, epochs, first_epoch, shuffle, seed};
    const Interrupt signals = python_signals();
    RowsIn rows(x);
    rows.states_rows = batch_size;
    if (!rows.states.is_none() && rows.count() % batch_size != 0)
      throw py::value_error("states: expected whole batches of " + std::to_string(batch_size) +
                            ", got " + std::to_string(rows.count()) + " sequences");
    RunRecord run = run_record(values, position, epochs, rows.count());
    run.steps = steps;
    const KeptPosition kept_position(run, position);
    const bool finished = visit([&](auto& net) {
      using T = std::remove_pointer_t<decltype(net.block().w)>;
      T* kept = outputs_array<T>(outputs, rows, net.layout());
      return with_samples_of(net, rows, y, weights,
                             [&](auto& same, const Samples<T>& samples, index_t n) {
                               return same.train(samples, n, schedule, what, signals, run, kept);
                             });
    });
    if (!finished) throw py::error_already_set();
    const py::slice all(0, epochs, 1), rest(1, width, 1);
    return py::make_tuple(values[py::make_tuple(all, 0)], values[py::make_tuple(all, rest)]);
  }

  void train_batch(const py::object& x, const py::array& y, const std::vector<std::string>& metrics,
                   py::array sums, py::object outputs, const py::object& weights) {
    require_compiled();
    const std::vector<MetricSpec> what = metric_specs(metrics);
    double* totals = output<double>(sums, "sums");
    require_length(sums, "sums", value_count(what));
    const RowsIn rows(x);
    visit([&](auto& net) {
      using T = std::remove_pointer_t<decltype(net.block().w)>;
      T* kept = outputs_array<T>(outputs, rows, net.layout());
      with_samples_of(net, rows, y, weights, [&](auto& same, const Samples<T>& samples, index_t n) {
        same.step(samples, n, what, totals, kept);
      });
    });
  }

  double step(const py::object& x, const py::array& y, const py::object& weights) {
    require_compiled();
    return with_samples(RowsIn(x), y, weights, [](auto& net, const auto& samples, index_t n) {
      return net.step(samples, n);
    });
  }

  double gradients(const py::object& x, const py::array& y, const py::object& weights) {
    require_compiled();
    return with_samples(RowsIn(x), y, weights, [](auto& net, const auto& samples, index_t n) {
      return net.gradients(samples, n, nullptr);
    });
  }

  py::tuple input_gradient(const py::object& x, const py::array& y, const py::object& weights) {
    require_compiled();
    const RowsIn rows(x);
    py::array dx(py::dtype(f32_ ? "float32" : "float64"),
                 std::vector<index_t>(rows.x.shape(), rows.x.shape() + rows.x.ndim()));
    void* data = dx.mutable_data();
    const double loss =
        with_samples(rows, y, weights, [data](auto& net, const auto& samples, index_t n) {
          using T = std::remove_cv_t<std::remove_pointer_t<decltype(samples.x)>>;
          return net.gradients(samples, n, static_cast<T*>(data));
        });
    return py::make_tuple(loss, dx);
  }

  py::tuple evaluate(const py::object& x, const py::array& y, index_t batch_size,
                     const std::vector<std::string>& metrics, py::object outputs,
                     const py::object& weights) {
    require_compiled();
    if (batch_size < 1)
      throw py::value_error("batch_size: expected at least 1, got " + std::to_string(batch_size));
    const std::vector<MetricSpec> what = metric_specs(metrics);
    std::vector<double> values(std::size_t(value_count(what)));
    const Interrupt signals = python_signals();
    const RowsIn rows(x);
    const bool finished = visit([&](auto& net) {
      using T = std::remove_pointer_t<decltype(net.block().w)>;
      T* kept = outputs_array<T>(outputs, rows, net.layout());
      return with_samples_of(
          net, rows, y, weights, [&](auto& same, const Samples<T>& samples, index_t n) {
            return same.evaluate(samples, n, batch_size, what, signals, values.data(), kept);
          });
    });
    if (!finished) throw py::error_already_set();
    return py::make_tuple(values[0], std::vector<double>(values.begin() + 1, values.end()));
  }

  void predict(const py::object& x, py::array out, bool training) {
    const RowsIn rows(x);
    const bool finished = visit([&](auto& net) {
      using T = std::remove_pointer_t<decltype(net.block().w)>;
      const Samples<T> samples = rows.samples<T>(net.layout());
      T* to = output<T>(out, "out");
      require_outputs(out, "out", rows, net.layout());
      const index_t n = rows.count();
      const Interrupt signals = python_signals();
      return unlocked(net,
                      [&](auto& same) { return same.predict(samples, n, to, signals, training); });
    });
    if (!finished) throw py::error_already_set();
  }

  // The quick calls: None, with nothing done, unless every argument is right as it is.

  PyObject* quick_step(PyObject* const* call) {
    return with_plain_samples(call[0], call[1], [&](auto& net, const auto& samples, index_t n) {
      return PyFloat_FromDouble(exclusively(net, net.layout().training_flop(n),
                                            [&](auto& same) { return same.step(samples, n); }));
    });
  }

  // True where x and y can be given to the engine's methods without further checks.
  PyObject* accepts(PyObject* const* call) {
    return with_plain_samples(call[0], call[1], [&](auto&, const auto& samples, index_t) {
      const int axes = samples.labels ? 1 : 2;
      return PyBool_FromLong(plain_array(call[1])->nd == axes);
    });
  }

  PyObject* quick_predict(PyObject* const* call) {
    return visit([&](auto& net) -> PyObject* {
      using T = std::remove_pointer_t<decltype(net.block().w)>;
      const PlainArray* x = plain_array(call[0]);
      if (functions_.any() || net.layout().sequences || !is_packed<T>(x) || x->nd != 2 ||
          x->dimensions[0] == 0 || x->dimensions[1] != net.layout().inputs)
        Py_RETURN_NONE;
      const index_t n = x->dimensions[0];
      const ssize_t shape[2] = {n, net.layout().outputs};
      Result<T> out = new_array<T>(2, shape);
      if (!out.object) Py_RETURN_NONE;
      const double flop = net.layout().inference_flop(n);
      const Interrupt signals = flop < kShortFlop ? Interrupt{} : python_signals();
      const bool finished = exclusively(net, flop, [&](auto& same) {
        Samples<T> samples;
        samples.x = data_of<const T>(x);
        return same.predict(samples, n, out.data, signals);
      });
      return finished ? out.object.release().ptr() : nullptr;  // the handler's exception is set
    });
  }

  // Steps are timed from now on, until the times are asked for.
  void start_clock() {
    run([&](auto& net) {
      clock_ = std::make_unique<StepClock>(net.layout().stages.size());
      net.set_clock(clock_.get());
    });
  }
  // The seconds of each part by layer, and at the end those of all layers together.
  py::dict stop_clock() {
    if (!clock_) throw std::runtime_error("the clock does not run: call start_clock() first");
    run([](auto& net) { net.set_clock(nullptr); });
    const std::unique_ptr<StepClock> clock = std::move(clock_);
    py::dict seconds;
    for (std::size_t part = 0; part < kStepParts; ++part) {
      const std::vector<double> by_layer =
          visit([&](auto& net) { return net.layout().by_layer(clock->seconds(StepPart(part))); });
      seconds[kStepPartNames[part]] =
          py::array_t<double>(ssize_t(by_layer.size()), by_layer.data());
    }
    return seconds;
  }

  std::int64_t steps() {
    return visit([](auto& net) { return net.steps; });
  }
  void set_steps(std::int64_t steps) {
    if (steps < 0)
      throw py::value_error("steps: expected at least 0, got " + std::to_string(steps));
    run([&](auto& net) { net.steps = steps; });
  }
};

// A quick method of exactly Count arguments as Python calls it (METH_FASTCALL). What is thrown before
// anything has changed, for want of memory or from a signal handler, the general path throws again.
template <PyObject* (Engine::*Method)(PyObject* const*), int Count>
PyObject* entry(PyObject* self, PyObject* const* call, Py_ssize_t count) {
  auto* instance = reinterpret_cast<py::detail::instance*>(self);
  auto* engine = instance->get_value_and_holder().value_ptr<Engine>();
  if (!engine || count != Count) Py_RETURN_NONE;
  try {
    return (engine->*Method)(call);
  } catch (const std::exception&) { Py_RETURN_NONE; }
}

template <PyObject* (Engine::*Method)(PyObject* const*), int Count>
PyMethodDef quick(const char* name) {
  return fast_call(name, entry<Method, Count>);
}

PyMethodDef quick_methods[] = {
    quick<&Engine::quick_step, 2>("quick_step"),
    quick<&Engine::accepts, 2>("accepts"),
    quick<&Engine::quick_predict, 1>("quick_predict"),
};

}  // namespace

void bind_engine(py::module_& m) {
  using namespace py::literals;
  watch_forks_for_signals();
  py::class_<Engine> engine(m, "Engine");
  engine
      .def(py::init<index_t, const py::list&, const std::string&, std::uint64_t, bool>(),
           "inputs"_a, "layers"_a, "dtype"_a, "seed"_a = 0, "sequences"_a = false)
      .def_property_readonly("parameter_shapes", &Engine::parameter_shapes)
      .def_property_readonly("inputs", &Engine::inputs)
      .def_property_readonly("carried_width", &Engine::carried_width)
      .def_property_readonly("state_shapes", &Engine::state_shapes)
      .def_property_readonly("state",
                             [](py::object self) { return self.cast<Engine&>().state(self); })
      .def("set_trainable", &Engine::set_trainable, "layers"_a)
      .def_property_readonly("parameters",
                             [](py::object self) {
                               return self.cast<Engine&>().flat(self,
                                                                [](auto block) { return block.w; });
                             })
      .def_property_readonly("gradients_",
                             [](py::object self) {
                               return self.cast<Engine&>().flat(
                                   self, [](auto block) { return block.gradient; });
                             })
      .def_property_readonly(
          "optimizer_state",
          [](py::object self) { return self.cast<Engine&>().optimizer_state(self); })
      .def_property("steps", &Engine::steps, &Engine::set_steps)
      .def("compile", &Engine::compile, "loss"_a, "loss_param"_a, "optimizer"_a, "hyper"_a)
      .def("set_hyper", &Engine::set_hyper, "hyper"_a)
      .def("set_rules", &Engine::set_rules, "rules"_a)
      .def("train", &Engine::train, "x"_a, "y"_a, "batch_size"_a, "epochs"_a, "first_epoch"_a,
           "shuffle"_a, "seed"_a, "metrics"_a, "position"_a = py::none(), "record"_a = py::none(),
           "steps"_a = -1, "outputs"_a = py::none(), "weights"_a = py::none())
      .def("train_batch", &Engine::train_batch, "x"_a, "y"_a, "metrics"_a, "sums"_a,
           "outputs"_a = py::none(), "weights"_a = py::none())
      .def("step", &Engine::step, "x"_a, "y"_a, "weights"_a = py::none())
      .def("start_clock", &Engine::start_clock)
      .def("stop_clock", &Engine::stop_clock)
      .def("gradients", &Engine::gradients, "x"_a, "y"_a, "weights"_a = py::none())
      .def("input_gradient", &Engine::input_gradient, "x"_a, "y"_a, "weights"_a = py::none())
      .def("evaluate", &Engine::evaluate, "x"_a, "y"_a, "batch_size"_a, "metrics"_a,
           "outputs"_a = py::none(), "weights"_a = py::none())
      .def("predict", &Engine::predict, "x"_a, "out"_a, "training"_a = false);
  for (PyMethodDef& method : quick_methods) {
    PyObject* made = PyDescr_NewMethod(reinterpret_cast<PyTypeObject*>(engine.ptr()), &method);
    if (!made) throw py::error_already_set();
    engine.attr(method.ml_name) = py::reinterpret_steal<py::object>(made);
  }
}

}  // namespace fastbp
