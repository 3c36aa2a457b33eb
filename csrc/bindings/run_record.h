// The arrays in which Python keeps where a run of epochs stands, between calls and in files.
#pragma once

#include "bindings/rows_in.h"
#include "engine/network.h"

namespace fastbp {

// `values` (epochs, 1 + metrics) float64 is the record's memory; `position` int64 (2,) holds the
// completed epochs and the rows done of the next one, None: 0 and 0. `rows` are those of an epoch.
inline RunRecord run_record(py::array& values, const py::object& position, index_t epochs,
                            index_t rows) {
  RunRecord record;
  record.values = output<double>(values, "record");
  if (position.is_none()) return record;
  py::array array = position;
  const std::int64_t* at = output<std::int64_t>(array, "position");
  require_length(array, "position", 2);
  record.epoch = at[0];
  record.at = at[1];
  if (record.epoch < 0 || record.epoch > epochs || record.at < 0 || record.at >= rows ||
      (record.epoch == epochs && record.at > 0))
    throw py::value_error("position: expected at most " + std::to_string(epochs) +
                          " epochs and fewer than " + std::to_string(rows) + " rows, got [" +
                          std::to_string(record.epoch) + ", " + std::to_string(record.at) + "]");
  return record;
}

// Writes the record's position back, unless it is None.
inline void keep_position(const RunRecord& record, const py::object& position) {
  if (position.is_none()) return;
  auto* at = static_cast<std::int64_t*>(py::array(position).mutable_data());
  at[0] = record.epoch;
  at[1] = record.at;
}

// The same when it goes, however the run ends.
class KeptPosition {
 public:
  KeptPosition(const RunRecord& record, const py::object& position)
      : record_(record), position_(position) {}
  ~KeptPosition() { keep_position(record_, position_); }
  KeptPosition(const KeptPosition&) = delete;
  KeptPosition& operator=(const KeptPosition&) = delete;

 private:
  const RunRecord& record_;
  const py::object& position_;
};

// The array (rows of x, width) that is to be filled with the network's outputs; null for None.
template <class T>
T* outputs_array(const py::object& outputs, const RowsIn& rows, const NetworkLayout& layout) {
  if (outputs.is_none()) return nullptr;
  py::array array = outputs;
  T* data = output<T>(array, "outputs");
  require_outputs(array, "outputs", rows, layout);
  return data;
}

// The same of a network that takes rows (n, inputs).
template <class T> T* outputs_array(const py::object& outputs, const py::array& x, index_t width) {
  if (outputs.is_none()) return nullptr;
  py::array array = outputs;
  T* data = output<T>(array, "outputs");
  require_shape(array, "outputs", x.ndim() > 0 ? x.shape(0) : 0, width);
  return data;
}

}  // namespace fastbp
