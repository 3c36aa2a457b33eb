#include "backend/cpu_count.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "backend/team.h"
#include "core/check.h"

#if defined(__linux__)
#include <sched.h>
#endif

namespace fastbp {

namespace {

constexpr double kNoQuota = 1e9;

double quotient(double quota, double period) {
  return quota > 0 && period > 0 ? quota / period : kNoQuota;
}

// Version 2, cpu.max: "150000 100000" is 1.5 CPUs, "max 100000" is no limit. No file: no limit.
double quota_v2(const std::string& folder) {
  std::ifstream file(folder + "/cpu.max");
  double quota = 0, period = 0;
  return file >> quota >> period ? quotient(quota, period) : kNoQuota;
}

// Version 1: cpu.cfs_quota_us (-1 for no limit) over cpu.cfs_period_us.
double quota_v1(const std::string& folder) {
  std::ifstream quota_file(folder + "/cpu.cfs_quota_us"),
      period_file(folder + "/cpu.cfs_period_us");
  double quota = 0, period = 0;
  return quota_file >> quota && period_file >> period ? quotient(quota, period) : kNoQuota;
}

// The least quota of mount/path and the folders above it, up to the mount. Inside a container the path may be the host's
// and not exist below the mount, whose top folder is then the container's own.
double least_quota(double (*quota)(const std::string&), const std::string& mount,
                   std::string path) {
  double least = quota(mount);
  while (path.size() > 1) {
    least = std::min(least, quota(mount + path));
    path.resize(path.rfind('/'));
  }
  return least;
}

bool names_controller(const std::string& controllers, const std::string& name) {
  std::istringstream list(controllers);
  for (std::string item; std::getline(list, item, ',');) {
    if (item == name) return true;
  }
  return false;
}

}  // namespace

int affinity_cpus() {
#if defined(__linux__)
  // The mask must be as large as the kernel's: EINVAL says that it is larger than asked for.
  for (int cpus = 1024; cpus <= (1 << 20); cpus *= 2) {
    cpu_set_t* set = CPU_ALLOC(static_cast<std::size_t>(cpus));
    if (!set) break;
    const std::size_t size = CPU_ALLOC_SIZE(static_cast<std::size_t>(cpus));
    const bool known = sched_getaffinity(0, size, set) == 0;
    const int count = known ? CPU_COUNT_S(size, set) : 0;
    CPU_FREE(set);
    if (known) return std::max(count, 1);
  }
#endif
  return std::max(static_cast<int>(std::thread::hardware_concurrency()), 1);
}

int cgroup_cpus(const std::string& root) {
  const std::string mounts = root + "/sys/fs/cgroup";
  double least = kNoQuota;
  std::ifstream groups(root + "/proc/self/cgroup");
  // "0::/path" for version 2, "4:cpu,cpuacct:/path" for version 1; both on a machine in between.
  for (std::string line; std::getline(groups, line);) {
    const std::size_t first = line.find(':');
    const std::size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string path = line.substr(second + 1);
    if (path.empty() || path[0] != '/') continue;
    if (controllers.empty()) {
      for (const char* mount : {"", "/unified"}) {
        least = std::min(least, least_quota(quota_v2, mounts + mount, path));
      }
    } else if (names_controller(controllers, "cpu")) {
      for (const char* mount : {"/cpu", "/cpu,cpuacct", "/cpuacct,cpu"}) {
        least = std::min(least, least_quota(quota_v1, mounts + mount, path));
      }
    }
  }
  return least >= kNoQuota ? 0 : std::max(static_cast<int>(std::ceil(least)), 1);
}

int usable_cpus(const std::string& root) {
  const int quota = cgroup_cpus(root);
  const int cpus = affinity_cpus();
  return quota > 0 ? std::min(quota, cpus) : cpus;
}

int default_num_threads(Environment environment, const std::string& root) {
  const char* asked = setting(environment, "FASTBP_NUM_THREADS");
  if (!asked) return std::min(usable_cpus(root), kMaxThreads);
  int count = 0;
  const char* end = asked + std::strlen(asked);
  const auto [stop, error] = std::from_chars(asked, end, count);
  FBP_CHECK(error == std::errc() && stop == end && count >= 1 && count <= kMaxThreads,
            "environment variable FASTBP_NUM_THREADS",
            text("a whole number of threads from 1 to ", kMaxThreads,
                 " (unset it to use the CPUs of this process)"),
            text("'", asked, "'"));
  return count;
}

}  // namespace fastbp
