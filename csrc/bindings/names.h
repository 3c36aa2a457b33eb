// Names to table indices, made from the lists in csrc/ops; a wrong name raises ValueError with the
// choices.
#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <string_view>

#include "engine/network.h"

namespace fastbp {

int activation_index(const std::string& name);
int loss_index(const std::string& name);
int optimizer_index(const std::string& name);
int vector_function_index(const std::string& name);
int cell_index(const std::string& name);

// The same without a word: -1 for a wrong name.
int find_activation(std::string_view name);
int find_loss(std::string_view name);
int find_vector_function(std::string_view name);

const char* loss_name(int index);
const char* activation_name(int index);
double loss_default_param(int index);
double loss_param_high(int index);  // excluded
double activation_default_param(int index);
Saves activation_saves(int index);
bool loss_takes_labels(int index);

// The range of the targets that a loss takes, all of them finite; of softmax's rows of class weights
// too. fastbp.arrays has the words for others.
struct TargetRange { double low, high; };
TargetRange loss_target_range(int index);

// {"learning_rate": 0.1, ...} -> Hyper; unknown keys raise ValueError.
Hyper hyper_from(const pybind11::dict& values);

// {"clip_norm": 1.0, ...} -> UpdateRules for so many parameters; ValueError for what they cannot be.
// Keys: clip_norm, clip_value, accumulation, average_momentum; "ranges", tuples (begin, end, rate,
// l1, l2); "column_limits", tuples (begin, rows, cols, limit); "rates", tuples (start, form, first, last, length, ratio, ahead); "rate_values".
UpdateRules rules_from(const pybind11::dict& values, index_t parameters);

// What "accuracy", "mse", "mae" mean for a network with this loss and number of outputs.
MetricSpec metric_from(const std::string& name, int loss, index_t outputs);

}  // namespace fastbp
