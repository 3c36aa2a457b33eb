// How many threads this process should use: no more than the CPUs it may run on, nor than its container's CPU quota pays for.
#pragma once

#include <string>

#include "core/environment.h"

namespace fastbp {

// CPUs in this process's affinity mask (all of the machine's where there is no such thing); at least 1.
int affinity_cpus();

// The CPU quota of this process's cgroup or of one that holds it, whichever is least, rounded up to whole CPUs; 0: none.
// Reads proc/self/cgroup and sys/fs/cgroup (versions 1 and 2) below `root`.
int cgroup_cpus(const std::string& root = "/");

// The least of the two above.
int usable_cpus(const std::string& root = "/");

// FASTBP_NUM_THREADS where it is set (and not empty), else usable_cpus(root). std::invalid_argument where the variable is not a whole
// number from 1 to kMaxThreads.
int default_num_threads(Environment environment, const std::string& root = "/");

}  // namespace fastbp
