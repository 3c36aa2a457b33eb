// fastbp._core.Engine: the network of csrc/engine behind Python arrays. Same methods as
// fastbp.reference.Engine.
#include <pybind11/stl.h>

#include <memory>

#include "bindings/arrays.h"
#include "bindings/bind.h"
#include "bindings/names.h"
#include "bindings/quick_engine.h"
#include "bindings/run_record.h"

namespace fastbp {
namespace {

class Engine : public QuickCalls {
  std::unique_ptr<StepClock> clock_;  // of the steps, where they are timed

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
  using QuickCalls::QuickCalls;

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

  // The loss and the gradient, copied before another thread's call can change it.
  py::tuple flat_gradient(const py::object& x, const py::array& y, const py::object& weights) {
    require_compiled();
    py::array made = visit([](auto& net) -> py::array {
      using T = std::remove_pointer_t<decltype(net.block().w)>;
      return py::array_t<T>(net.layout().parameter_count);
    });
    void* const data = made.mutable_data();
    const double loss =
        with_samples(RowsIn(x), y, weights, [data](auto& net, const auto& samples, index_t n) {
          using T = std::remove_pointer_t<decltype(net.block().w)>;
          const double value = net.gradients(samples, n, nullptr);
          std::copy_n(net.block().gradient, net.layout().parameter_count, static_cast<T*>(data));
          return value;
        });
    return py::make_tuple(loss, made);
  }

  py::tuple input_gradient(const py::object& x, const py::array& y, const py::object& weights) {
    require_compiled();
    const RowsIn rows(x);
    const py::dtype dtype = visit(
        [](auto& net) { return py::dtype::of<std::remove_pointer_t<decltype(net.block().w)>>(); });
    py::array dx(dtype, std::vector<index_t>(rows.x.shape(), rows.x.shape() + rows.x.ndim()));
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
      const std::vector<double> by_layer = visit(
          [&](auto& net) { return net.layout().by_layer(clock->times().seconds(StepPart(part))); });
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
template <PyObject* (QuickCalls::*Method)(PyObject* const*), int Count>
PyObject* entry(PyObject* self, PyObject* const* call, Py_ssize_t count) {
  auto* instance = reinterpret_cast<py::detail::instance*>(self);
  auto* engine = instance->get_value_and_holder().value_ptr<Engine>();
  if (!engine || count != Count) Py_RETURN_NONE;
  try {
    return (engine->*Method)(call);
  } catch (const std::exception&) { Py_RETURN_NONE; }
}

template <PyObject* (QuickCalls::*Method)(PyObject* const*), int Count>
PyMethodDef quick(const char* name) {
  return fast_call(name, entry<Method, Count>);
}

PyMethodDef quick_methods[] = {
    quick<&QuickCalls::quick_step, 2>("quick_step"),
    quick<&QuickCalls::accepts, 2>("accepts"),
    quick<&QuickCalls::quick_predict, 1>("quick_predict"),
};

}  // namespace

void bind_engine(py::module_& m) {
  using namespace py::literals;
  watch_forks();
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
      .def("still", &Engine::still, "work"_a)
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
      .def("flat_gradient", &Engine::flat_gradient, "x"_a, "y"_a, "weights"_a = py::none())
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
