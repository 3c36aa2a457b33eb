// What the C interface says of a network, its loss, its updates and its metrics, as the engine has it:
// names are looked up, numbers checked.
#pragma once

#include <string>
#include <vector>

#include "engine/layout.h"
#include "engine/cuda/network.h"
#include "engine/cuda/resources.h"

namespace fastbp {
namespace cuda {

Failure invalid(const std::string& text);

// All of these throw invalid(...) for what they cannot take.
NetworkSpec network_spec(const fbp_network_spec& from);
LossSpec loss_of(const char* name, double param);  // null: a function of the caller's own
OptimizerSpec optimizer_of(const char* name, const fbp_hyper& hyper);
Hyper hyper_of(const fbp_hyper& from);
UpdateRules rules_of(const fbp_rules& from, const NetworkLayout& layout);
std::vector<MetricSpec> metrics_of(const fbp_metric* from, int32_t count);

}  // namespace cuda
}  // namespace fastbp
