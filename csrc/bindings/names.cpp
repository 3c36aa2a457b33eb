#include "bindings/names.h"

#include <pybind11/stl.h>

#include "bindings/bind.h"

#include <cmath>
#include <stdexcept>

namespace py = pybind11;

namespace fastbp {
namespace {

struct ActivationRow {
  const char* name;
  Saves saves;
  double default_param;
};
#define FBP_ROW(A) {A::name, A::saves, A::default_param},
constexpr ActivationRow kActivations[] = {FBP_ACTIVATIONS(FBP_ROW)};
#undef FBP_ROW

struct LossRow {
  const char* name;
  bool elementwise;
  const char* parameter;
  double default_param, param_high;
  double target_low, target_high;
  double threshold;
};
#define FBP_ROW(L)                                                                                 \
  {L::name,       L::elementwise, L::parameter,   L::default_param,                                \
   L::param_high, L::target_low,  L::target_high, L::threshold},
constexpr LossRow kLosses[] = {FBP_LOSSES(FBP_ROW)};
#undef FBP_ROW

struct OptimizerRow {
  const char* name;
  int slots;
  const char* hyper;
};
#define FBP_ROW(O) {O::name, O::slots, O::hyper},
constexpr OptimizerRow kOptimizers[] = {FBP_OPTIMIZERS(FBP_ROW)};
#undef FBP_ROW

struct FunctionRow { const char* name; };
#define FBP_ROW(name) {#name},
constexpr FunctionRow kFunctions[] = {FBP_VECTOR_FUNCTIONS(FBP_ROW)};
#undef FBP_ROW

#define FBP_ROW(C) {C::name},
constexpr FunctionRow kCells[] = {FBP_CELLS(FBP_ROW)};
#undef FBP_ROW

template <class Row, std::size_t N> int find(const Row (&rows)[N], std::string_view name) {
  for (std::size_t i = 0; i < N; ++i)
    if (name == rows[i].name) return int(i);
  return -1;
}

template <class Row, std::size_t N>
int index_of(const Row (&rows)[N], const std::string& name, const char* what) {
  const int index = find(rows, name);
  if (index >= 0) return index;
  std::string choices;
  for (std::size_t i = 0; i < N; ++i) choices += (i ? ", " : "") + std::string(rows[i].name);
  throw py::value_error(std::string("unknown ") + what + " '" + name +
                        "'; choose one of: " + choices);
}

const char* saves_name(Saves saves) {
  return saves == Saves::None ? "none" : saves == Saves::Input ? "input" : "output";
}

}  // namespace

int activation_index(const std::string& name) { return index_of(kActivations, name, "activation"); }
int loss_index(const std::string& name) { return index_of(kLosses, name, "loss"); }
int optimizer_index(const std::string& name) { return index_of(kOptimizers, name, "optimizer"); }
int vector_function_index(const std::string& name) {
  return index_of(kFunctions, name, "function");
}

int cell_index(const std::string& name) { return index_of(kCells, name, "cell"); }

int find_activation(std::string_view name) { return find(kActivations, name); }
int find_loss(std::string_view name) { return find(kLosses, name); }
int find_vector_function(std::string_view name) { return find(kFunctions, name); }

const char* loss_name(int index) { return kLosses[index].name; }
const char* activation_name(int index) { return kActivations[index].name; }
double loss_default_param(int index) { return kLosses[index].default_param; }
double activation_default_param(int index) { return kActivations[index].default_param; }
Saves activation_saves(int index) { return kActivations[index].saves; }
bool loss_takes_labels(int index) { return !kLosses[index].elementwise; }

double loss_param_high(int index) { return kLosses[index].param_high; }

TargetRange loss_target_range(int index) {
  return {kLosses[index].target_low, kLosses[index].target_high};
}

Hyper hyper_from(const py::dict& values) {
  Hyper h;
  struct Field {
    const char* name;
    double* value;
  } fields[] = {{"learning_rate", &h.learning_rate},
                {"momentum", &h.momentum},
                {"rho", &h.rho},
                {"beta_1", &h.beta_1},
                {"beta_2", &h.beta_2},
                {"epsilon", &h.epsilon},
                {"weight_decay", &h.weight_decay}};
  for (auto item : values) {
    const std::string key = py::cast<std::string>(item.first);
    double* value = nullptr;
    for (Field& field : fields)
      if (key == field.name) value = field.value;
    if (!value) throw py::value_error("unknown hyper-parameter '" + key + "'");
    *value = py::cast<double>(item.second);
  }
  return h;
}

namespace {

template <class T> void take(const py::dict& values, const char* key, T* value) {
  if (values.contains(key)) *value = py::cast<T>(values[key]);
}

void require_rule(bool right, const char* what) {
  if (!right) throw py::value_error(std::string("rules: ") + what);
}

}  // namespace

UpdateRules rules_from(const py::dict& values, index_t parameters) {
  UpdateRules rules;
  take(values, "clip_norm", &rules.clip_norm);
  take(values, "clip_value", &rules.clip_value);
  take(values, "accumulation", &rules.accumulation);
  rules.average = values.contains("average_momentum");
  take(values, "average_momentum", &rules.average_momentum);
  take(values, "rate_values", &rules.rate_values);
  std::vector<std::tuple<index_t, index_t, double, double, double>> ranges;
  take(values, "ranges", &ranges);
  for (const auto& [begin, end, rate, l1, l2] : ranges) {
    const index_t after = rules.ranges.empty() ? 0 : rules.ranges.back().end;
    require_rule(after <= begin && begin <= end && end <= parameters,
                 "ranges must follow each other within the parameters");
    rules.ranges.push_back({begin, end, rate, l1, l2});
  }
  std::vector<std::tuple<index_t, index_t, index_t, double>> limits;
  take(values, "column_limits", &limits);
  for (const auto& [begin, rows, cols, limit] : limits) {
    require_rule(begin >= 0 && rows > 0 && cols > 0 && begin <= parameters &&
                     rows <= (parameters - begin) / cols,
                 "column_limits must lie within the parameters");
    require_rule(limit > 0, "the limit of a column's norm must be above 0");
    rules.column_limits.push_back({begin, rows, cols, limit});
  }
  std::vector<std::tuple<std::int64_t, int, double, double, double, double, double>> rates;
  take(values, "rates", &rates);
  for (const auto& [start, form, first, last, length, ratio, ahead] : rates) {
    const bool follows = rules.rates.empty() ? start == 0 : start > rules.rates.back().start;
    require_rule(follows, "rates must begin at 0 and follow each other");
    require_rule(form >= 0 && form <= int(RateForm::table), "unknown form of a rate");
    require_rule(length > 0 && ratio > 0, "length and ratio of a rate must be above 0");
    require_rule(RateForm(form) != RateForm::table || !rules.rate_values.empty(),
                 "a table needs rate_values");
    rules.rates.push_back({start, RateForm(form), first, last, length, ratio, ahead});
  }
  require_rule(rules.clip_norm >= 0 && rules.clip_value >= 0 && rules.accumulation >= 1,
               "clip_norm and clip_value must be at least 0, accumulation at least 1");
  return rules;
}

namespace {

// 5 of "top_5"; 0 of anything else.
index_t top_number(const std::string& name) {
  const std::string digits = name.compare(0, 4, "top_") == 0 ? name.substr(4) : "";
  const bool number = !digits.empty() && digits.size() <= 6 &&
                      digits.find_first_not_of("0123456789") == std::string::npos;
  return number ? index_t(std::stol(digits)) : 0;
}

}  // namespace

MetricSpec metric_from(const std::string& name, int loss, index_t outputs) {
  MetricSpec spec;
  const bool logits_of_classes = loss_takes_labels(loss);
  if (name == "mse" || name == "mae") {
    spec.kind = name == "mse" ? MetricKind::mse : MetricKind::mae;
    spec.of_softmax = logits_of_classes;
    return spec;
  }
  const double threshold = kLosses[loss].threshold;
  const bool by_class = logits_of_classes || (std::isnan(threshold) && outputs > 1);
  spec.threshold = std::isnan(threshold) ? 0.5 : threshold;
  spec.k = by_class ? top_number(name) : 0;
  if (name == "accuracy") {
    spec.kind = by_class ? MetricKind::accuracy_argmax : MetricKind::accuracy_threshold;
  } else if (name == "class_counts") {
    spec.kind = by_class ? MetricKind::counts_argmax : MetricKind::counts_threshold;
    spec.counts = 3 * (outputs == 1 ? 2 : outputs);
  } else if (spec.k > 0) {
    spec.kind = MetricKind::top_k;
  } else {
    throw py::value_error("unknown metric '" + name +
                          "'; choose one of: accuracy, mse, mae, class_counts, and for one class "
                          "of several top_<number>");
  }
  return spec;
}

void bind_names(py::module_& m) {
  m.def("activations", [] {
    py::list rows;
    for (const ActivationRow& row : kActivations) {
      py::dict d;
      d["name"] = row.name;
      d["saves"] = saves_name(row.saves);
      d["default_param"] = row.default_param;
      rows.append(d);
    }
    return rows;
  });
  m.def("losses", [] {
    py::list rows;
    for (const LossRow& row : kLosses) {
      py::dict d;
      d["name"] = row.name;
      d["parameter"] = row.parameter;
      d["default_param"] = row.default_param;
      d["param_high"] = row.param_high;
      d["targets"] = py::make_tuple(row.target_low, row.target_high);
      rows.append(d);
    }
    return rows;
  });
  m.def("optimizers", [] {
    py::list rows;
    for (const OptimizerRow& row : kOptimizers) {
      py::dict d;
      d["name"] = row.name;
      d["slots"] = row.slots;
      d["hyper"] = py::str(row.hyper).attr("split")();
      rows.append(d);
    }
    return rows;
  });
  m.def("vector_functions", [] {
    py::list rows;
    for (const FunctionRow& row : kFunctions) rows.append(row.name);
    return rows;
  });
}

}  // namespace fastbp
