// What the methods of a network on CUDA take as rows, targets and weights, checked: arrays of the host, or
// rows on the device (device_rows.h), all of one kind.
#pragma once

#include "backend/cuda_library.h"
#include "bindings/device_rows.h"
#include "bindings/names.h"
#include "bindings/rows_in.h"

namespace fastbp {

struct CudaSamples {
  const NetworkLayout& layout;
  py::dtype dtype;  // the network's
  int loss;         // negative: none yet

  void require_compiled() const {
    if (loss < 0)
      throw py::value_error("the engine has no loss and optimizer yet: call compile() first");
  }

  std::vector<index_t> outputs_shape(const fbp_samples& rows) const {
    if (layout.stages.back().sequence) return {rows.n, rows.steps, layout.outputs};
    return {rows.n, layout.outputs};
  }

  // What the engine's methods take as x, without targets.
  fbp_samples rows_here(const RowsIn& given) const {
    fbp_samples rows{};
    const auto take = [&](const auto& checked) {
      rows.x = checked.x;
      rows.steps = checked.steps;
      rows.lengths = checked.lengths;
      rows.states = checked.states;
    };
    if (dtype.itemsize() == sizeof(double))
      take(given.samples<double>(layout));
    else
      take(given.samples<float>(layout));
    rows.host_lengths = rows.lengths;
    rows.n = given.count();
    return rows;
  }

  // Sequences with lengths or states are an object or a tuple of them and their values.
  static py::object values_of(const py::object& x) {
    if (py::isinstance<py::tuple>(x)) return py::tuple(x)[0];
    return py::hasattr(x, "values") ? py::object(x.attr("values")) : x;
  }

  static bool are_there(const py::object& x) { return DeviceRows::is_one(values_of(x)); }

  // The same of rows on the device, without targets; their lengths are there too.
  fbp_samples rows_there(const py::object& x, index_t states_rows) const {
    const py::object values = values_of(x);
    const DeviceRows given(values);
    fbp_samples rows{};
    rows.on_device = 1;
    rows.n = given.shape.empty() ? 0 : given.shape[0];
    rows.steps = layout.sequences && given.shape.size() == 3 ? given.shape[1] : 1;
    if (layout.sequences)
      given.require("x", dtype, {rows.n, rows.steps, layout.inputs});
    else
      given.require("x", dtype, {rows.n, layout.inputs});
    rows.x = given.pointer;
    if (values.is(x)) return rows;
    const py::object lengths = x.attr("lengths_there"), states = x.attr("states");
    if (!lengths.is_none()) {
      const DeviceRows ends(lengths);
      ends.require("lengths", py::dtype::of<std::int64_t>(), {rows.n});
      rows.lengths = static_cast<const std::int64_t*>(ends.pointer);
      const py::array here = x.attr("lengths");
      rows.host_lengths = input<std::int64_t>(here, "lengths");
      require_length(here, "lengths", rows.n);
    }
    if (!states.is_none()) {
      py::array of_rows = states;
      require_array(of_rows, "states", dtype, true);
      require_shape(of_rows, "states", states_rows < 0 ? rows.n : states_rows,
                    layout.carried_width);
      rows.states = of_rows.mutable_data();
    }
    return rows;
  }

  // x, y and the weights of the rows (or None), checked: all on the host, or all on the device, where
  // class numbers have been checked before.
  fbp_samples of(const py::object& x, const py::object& y, const py::object& weights,
                 index_t states_rows = -1) const {
    require_compiled();
    if (are_there(x)) return samples_there(x, y, weights, states_rows);
    RowsIn given(x);
    given.states_rows = states_rows;
    return samples_here(given, py::cast<py::array>(y), weights);
  }

  fbp_samples samples_there(const py::object& x, const py::object& y, const py::object& weights,
                            index_t states_rows) const {
    fbp_samples rows = rows_there(x, states_rows);
    require_some(rows, "shape (0, ...) on the device");
    const DeviceRows target(y);
    const std::vector<index_t> shape = outputs_shape(rows), each(shape.begin(), shape.end() - 1);
    if (target.shape.size() == each.size() && loss_takes_labels(loss)) {
      target.require("y", py::dtype::of<std::int64_t>(), each);
      rows.labels = static_cast<const std::int64_t*>(target.pointer);
    } else {
      target.require("y", dtype, shape);
      rows.target = target.pointer;
    }
    if (!weights.is_none()) {
      const DeviceRows of_rows(weights);
      of_rows.require("weights", dtype, each);
      rows.weight = of_rows.pointer;
    }
    return rows;
  }

  static void require_some(const fbp_samples& rows, const std::string& got) {
    if (rows.n == 0) throw py::value_error("x: expected at least one sample, got a " + got);
  }

  fbp_samples samples_here(const RowsIn& given, const py::array& y,
                           const py::object& weights) const {
    fbp_samples rows = rows_here(given);
    require_some(rows, describe(given.x));
    if (y.ndim() == 1 + layout.stages.back().sequence && loss_takes_labels(loss)) {
      rows.labels = input<std::int64_t>(y, "y");
      require_labels_shape(y, given, layout);
      require_labels(rows.labels, y.size(), layout.outputs);
    } else {
      require_array(y, "y", dtype, false);
      require_outputs(y, "y", given, layout);
      rows.target = y.data();
    }
    if (!weights.is_none()) {
      const py::array of_rows = py::cast<py::array>(weights);
      require_array(of_rows, "weights", dtype, false);
      require_weights_shape(of_rows, given, layout);
      rows.weight = of_rows.data();
    }
    return rows;
  }
};

}  // namespace fastbp
