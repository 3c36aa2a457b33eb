// What the engine's methods take as x: an array of rows, or of sequences; of these also a tuple
// (sequences, lengths) or (sequences, lengths, states), where lengths may be None. The states (n,
// carried_width) are read before the first step and overwritten behind the last. Or an object with
// the attributes values, lengths and states.
#pragma once

#include <string>

#include "bindings/arrays.h"
#include "engine/step.h"

namespace fastbp {

struct RowsIn {
  py::array x;
  py::object lengths = py::none(), states = py::none();
  index_t states_rows = -1;  // of the states; -1: as many as of x

  explicit RowsIn(const py::object& given) {
    if (py::isinstance<py::array>(given)) {
      x = given;
      return;
    }
    if (!py::isinstance<py::tuple>(given)) {
      x = given.attr("values"), lengths = given.attr("lengths"), states = given.attr("states");
      return;
    }
    const py::tuple pair = given;
    if (pair.size() != 2 && pair.size() != 3)
      throw py::type_error("x: expected an array, (sequences, lengths) or (sequences, lengths, "
                           "states), got a tuple of " +
                           std::to_string(pair.size()));
    x = pair[0];
    lengths = pair[1];
    if (pair.size() == 3) states = pair[2];
  }

  // Integers of up to 8 bytes, or bools, in the machine's order of bytes.
  bool is_integers() const {
    const py::dtype kind = x.dtype();
    return (kind.kind() == 'u' || kind.kind() == 'i' || kind.kind() == 'b') &&
           py::cast<bool>(kind.attr("isnative"));
  }

  template <class T> void take_integers(Samples<T>* rows) const {
    require_array(x, "x", x.dtype(), false);
    int pair = 0;
    while (index_t(1) << pair < index_t(x.itemsize())) ++pair;
    rows->integer_type = IntegerType(2 * pair + (x.dtype().kind() == 'i'));
    rows->integers = x.data();
  }

  index_t count() const { return x.ndim() > 0 ? x.shape(0) : 0; }
  index_t steps() const { return x.ndim() == 3 ? x.shape(1) : 1; }

  // Raises ValueError unless x is (n, inputs), of numbers of T or of integers, or of a network of
  // sequences (n, steps, inputs) with lengths from 1 to steps.
  template <class T> Samples<T> samples(const NetworkLayout& layout) const {
    Samples<T> rows;
    if (!layout.sequences && is_integers())
      take_integers(&rows);
    else
      rows.x = input<T>(x, "x");
    if (!layout.sequences) {
      require_shape(x, "x", -1, layout.inputs);
      if (!lengths.is_none() || !states.is_none())
        throw py::value_error("lengths, states: the network takes no sequences");
      return rows;
    }
    require_rows(x, "x", -1, {-1, layout.inputs});
    rows.steps = x.shape(1);
    if (rows.steps == 0)
      throw py::value_error("x: expected at least one step, got a " + describe(x));
    if (!states.is_none()) {
      py::array given = states;
      rows.states = output<T>(given, "states");
      require_shape(given, "states", states_rows < 0 ? count() : states_rows, layout.carried_width);
    }
    if (lengths.is_none()) return rows;
    const py::array ends = lengths;
    rows.lengths = input<std::int64_t>(ends, "lengths");
    require_length(ends, "lengths", count());
    for (index_t i = 0; i < count(); ++i)
      if (rows.lengths[i] < 1 || rows.lengths[i] > rows.steps)
        throw py::value_error("lengths[" + std::to_string(i) +
                              "] = " + std::to_string(rows.lengths[i]) +
                              " is not a length from 1 to " + std::to_string(rows.steps));
    return rows;
  }
};

// Raises ValueError unless the shape is that of the network's outputs for those rows.
inline void require_outputs(const py::array& a, const char* name, const RowsIn& rows,
                            const NetworkLayout& layout) {
  if (layout.stages.back().sequence)
    require_rows(a, name, rows.count(), {rows.steps(), layout.outputs});
  else
    require_shape(a, name, rows.count(), layout.outputs);
}

// The same for class numbers.
inline void require_labels_shape(const py::array& y, const RowsIn& rows,
                                 const NetworkLayout& layout) {
  if (layout.stages.back().sequence)
    require_shape(y, "y", rows.count(), rows.steps());
  else if (y.shape(0) != rows.count())
    throw py::value_error("y: expected " + std::to_string(rows.count()) +
                          " labels, one for each row of x, got " + std::to_string(y.shape(0)));
}

// The same for weights: one for each class number that there would be.
inline void require_weights_shape(const py::array& weights, const RowsIn& rows,
                                  const NetworkLayout& layout) {
  if (layout.stages.back().sequence)
    require_shape(weights, "weights", rows.count(), rows.steps());
  else
    require_length(weights, "weights", rows.count());
}

}  // namespace fastbp
