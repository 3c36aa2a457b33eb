#include "bindings/network_spec_in.h"

#include <string>
#include <vector>

#include "bindings/names.h"

namespace py = pybind11;

namespace fastbp {
namespace {

ScanWays scan_ways(const std::string& name) {
  if (name == "one") return ScanWays::one;
  if (name == "concat") return ScanWays::both_side_by_side;
  if (name == "sum") return ScanWays::both_added;
  throw py::value_error("ways: expected 'one', 'concat' or 'sum', got '" + name + "'");
}

void require_rate(double rate) {
  if (!(rate >= 0 && rate < 1))
    throw py::value_error("rate: expected 0 <= rate < 1, got " + std::to_string(rate));
}

LayerSpec scan_spec(const py::tuple& t) {
  LayerSpec layer;
  layer.kind = LayerSpec::Kind::scan;
  layer.cell = cell_index(py::cast<std::string>(t[1]));
  layer.units = py::cast<index_t>(t[2]);
  layer.use_bias = py::cast<bool>(t[3]);
  layer.sequence = py::cast<bool>(t[4]);
  layer.reverse = py::cast<bool>(t[5]);
  if (layer.units < 1)
    throw py::value_error("units: expected at least 1, got " + std::to_string(layer.units));
  if (t.size() == 6) return layer;
  layer.ways = scan_ways(py::cast<std::string>(t[6]));
  layer.truncate = py::cast<index_t>(t[7]);
  layer.state_rate = py::cast<double>(t[8]);
  if (layer.ways != ScanWays::one && layer.reverse)
    throw py::value_error("reverse: a 'scan' of both ways has no direction");
  if (layer.truncate < 0)
    throw py::value_error("truncate: expected at least 0, got " + std::to_string(layer.truncate));
  require_rate(layer.state_rate);
  return layer;
}

LayerSpec activation_spec(const py::tuple& t, PythonFunctions& functions) {
  LayerSpec layer;
  if (py::isinstance<py::str>(t[1])) {
    layer.kind = LayerSpec::Kind::activation;
    layer.activation = activation_index(py::cast<std::string>(t[1]));
    layer.param = py::cast<double>(t[2]);
    return layer;
  }
  layer.kind = LayerSpec::Kind::custom;
  layer.function = functions.add_activation(t[1]);
  return layer;
}

LayerSpec embedding_spec(const py::tuple& t, const NetworkSpec& before) {
  LayerSpec layer;
  layer.kind = LayerSpec::Kind::embedding;
  layer.span = py::cast<index_t>(t[1]);
  layer.units = py::cast<index_t>(t[2]);
  if (layer.span < 1 || layer.units < 1)
    throw py::value_error("entries, units: expected at least 1, got " + std::to_string(layer.span) +
                          " and " + std::to_string(layer.units));
  if (!before.layers.empty()) throw py::value_error("layers: an 'embedding' stands first");
  return layer;
}

// What is added must be as wide as what it is added to, and have as many rows.
void require_equal_widths(const NetworkSpec& spec) {
  std::vector<index_t> width{spec.inputs};  // of each layer's input
  std::vector<bool> sequence{spec.sequences};
  for (const LayerSpec& layer : spec.layers) {
    const bool adds = layer.kind == LayerSpec::Kind::add;
    const std::size_t other = width.size() - 1 - std::size_t(adds ? layer.span : 0);
    if (width[other] != width.back())
      throw py::value_error("add: expected as many outputs as inputs, got " +
                            std::to_string(width.back()) + " and " + std::to_string(width[other]));
    if (sequence[other] != sequence.back())
      throw py::value_error("add: expected an output for every step of its input");
    const bool units = layer.kind == LayerSpec::Kind::dense || layer.kind == LayerSpec::Kind::scan;
    const index_t beside = layer.ways == ScanWays::both_side_by_side ? 2 : 1;
    const bool table = layer.kind == LayerSpec::Kind::embedding;
    width.push_back(units ? beside * layer.units : width.back() * (table ? layer.units : 1));
    sequence.push_back(layer.kind == LayerSpec::Kind::scan ? layer.sequence : sequence.back());
  }
}

// Raises ValueError unless what a scan reads are the values x W + b of its gates, step by step, and
// unless no layer of a network of sequences needs the whole batch.
void require_scannable(const NetworkSpec& spec) {
  bool sequence = spec.sequences;
  index_t width = 0;  // of a dense layer in front, 0 where there is none
  for (const LayerSpec& layer : spec.layers) {
    if (layer.kind == LayerSpec::Kind::scan) {
      if (!sequence) throw py::value_error("layers: a 'scan' reads sequences");
      const index_t ways = layer.ways == ScanWays::one ? 1 : 2;
      if (width != ways * cell_info(layer.cell).gates * layer.units)
        throw py::value_error("layers: a 'scan' of " + std::to_string(layer.units) +
                              " units stands behind a 'dense' layer of all its gates");
      sequence = layer.sequence;
    }
    if (spec.sequences && layer.kind == LayerSpec::Kind::batch_norm)
      throw py::value_error("layers: no 'batch_norm' in a network of sequences");
    width = layer.kind == LayerSpec::Kind::dense ? layer.units : 0;
  }
}

}  // namespace

NetworkSpec network_spec(index_t inputs, const py::list& layers, std::uint64_t seed, bool sequences,
                         PythonFunctions& functions) {
  if (inputs < 1)
    throw py::value_error("inputs: expected at least 1, got " + std::to_string(inputs));
  NetworkSpec spec;
  spec.inputs = inputs;
  spec.seed = seed;
  spec.sequences = sequences;
  for (py::handle entry : layers) {
    const py::tuple t = py::cast<py::tuple>(entry);
    const std::string kind = py::cast<std::string>(t[0]);
    LayerSpec layer;
    if (kind == "dense") {
      layer.units = py::cast<index_t>(t[1]);
      layer.use_bias = py::cast<bool>(t[2]);
      if (layer.units < 1)
        throw py::value_error("units: expected at least 1, got " + std::to_string(layer.units));
    } else if (kind == "activation") {
      layer = activation_spec(t, functions);
    } else if (kind == "dropout") {
      layer.kind = LayerSpec::Kind::dropout;
      layer.param = py::cast<double>(t[1]);
      require_rate(layer.param);
      layer.per_sequence = t.size() > 2 && py::cast<bool>(t[2]);
    } else if (kind == "scan") {
      layer = scan_spec(t);
    } else if (kind == "embedding") {
      layer = embedding_spec(t, spec);
    } else if (kind == "normalize") {
      layer.kind = LayerSpec::Kind::normalize;
    } else if (kind == "softmax") {
      layer.kind = LayerSpec::Kind::softmax;
    } else if (kind == "add") {
      layer.kind = LayerSpec::Kind::add;
      layer.span = py::cast<index_t>(t[1]);
      if (layer.span < 1 || layer.span > index_t(spec.layers.size()))
        throw py::value_error("span: expected 1 to the number of layers before, got " +
                              std::to_string(layer.span));
    } else if (kind == "layer_norm" || kind == "batch_norm") {
      layer.kind = kind == "layer_norm" ? LayerSpec::Kind::layer_norm : LayerSpec::Kind::batch_norm;
      layer.param = py::cast<double>(t[1]);
      layer.use_bias = py::cast<bool>(t[2]);
      layer.use_scale = py::cast<bool>(t[3]);
      if (layer.kind == LayerSpec::Kind::batch_norm) layer.momentum = py::cast<double>(t[4]);
      if (!(layer.param >= 0) || !(layer.momentum >= 0 && layer.momentum <= 1))
        throw py::value_error(
            "epsilon, momentum: expected epsilon >= 0 and 0 <= momentum <= 1, got " +
            std::to_string(layer.param) + " and " + std::to_string(layer.momentum));
    } else {
      throw py::value_error("layers: expected 'dense', 'activation', 'dropout', 'layer_norm', "
                            "'batch_norm', 'normalize', 'embedding', 'add', 'scan' or "
                            "'softmax', got '" +
                            kind + "'");
    }
    spec.layers.push_back(layer);
  }
  require_equal_widths(spec);
  if (spec.layers.empty()) throw py::value_error("layers: expected at least one layer, got none");
  require_scannable(spec);
  return spec;
}

}  // namespace fastbp
