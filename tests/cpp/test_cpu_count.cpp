// build: backend/cpu_count.cpp
// The default thread count, with cgroup trees made up in a temporary folder.
#include <sched.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>

#include "backend/cpu_count.h"
#include "check.h"

using namespace fastbp;
namespace fs = std::filesystem;

namespace {

// A folder that looks like / to the code under test, removed at the end.
class FakeRoot {
 public:
  FakeRoot() {
    std::string name = (fs::temp_directory_path() / "fastbp_root_XXXXXX").string();
    FBP_EXPECT(mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  ~FakeRoot() { fs::remove_all(path_); }

  FakeRoot& write(const std::string& file, const std::string& content) {
    const fs::path path = path_ / file;
    fs::create_directories(path.parent_path());
    std::ofstream(path) << content << '\n';
    return *this;
  }
  std::string path() const { return path_.string(); }

 private:
  fs::path path_;
};

void version_2() {
  FakeRoot root;
  FBP_EXPECT(cgroup_cpus(root.path()) == 0);  // no cgroups at all
  root.write("proc/self/cgroup", "0::/user.slice/job").write("sys/fs/cgroup/cgroup.procs", "1");
  FBP_EXPECT(cgroup_cpus(root.path()) == 0);
  root.write("sys/fs/cgroup/user.slice/job/cpu.max", "max 100000");
  FBP_EXPECT(cgroup_cpus(root.path()) == 0);
  root.write("sys/fs/cgroup/user.slice/job/cpu.max", "300000 100000");
  FBP_EXPECT(cgroup_cpus(root.path()) == 3);
  root.write("sys/fs/cgroup/user.slice/cpu.max",
             "150000 100000");  // of the folder above: binds too
  FBP_EXPECT(cgroup_cpus(root.path()) == 2);
  root.write("sys/fs/cgroup/user.slice/job/cpu.max", "10000 100000");
  FBP_EXPECT(cgroup_cpus(root.path()) == 1);
}

// Docker without a cgroup namespace: the path is the host's, the container's own files lie at the top.
void version_2_in_a_container() {
  FakeRoot root;
  root.write("proc/self/cgroup", "0::/docker/0123abc")
      .write("sys/fs/cgroup/cpu.max", "400000 100000");
  FBP_EXPECT(cgroup_cpus(root.path()) == 4);
}

void version_1() {
  FakeRoot root;
  root.write("proc/self/cgroup", "9:memory:/big\n4:cpu,cpuacct:/batch\n1:name=systemd:/");
  root.write("sys/fs/cgroup/cpu,cpuacct/batch/cpu.cfs_quota_us", "-1");
  root.write("sys/fs/cgroup/cpu,cpuacct/batch/cpu.cfs_period_us", "100000");
  FBP_EXPECT(cgroup_cpus(root.path()) == 0);
  root.write("sys/fs/cgroup/cpu,cpuacct/batch/cpu.cfs_quota_us", "250000");
  FBP_EXPECT(cgroup_cpus(root.path()) == 3);
  root.write("proc/self/cgroup", "9:cpuset:/batch\n");  // not the controller that has quotas
  FBP_EXPECT(cgroup_cpus(root.path()) == 0);
}

void nonsense_is_no_limit() {
  for (const char* content :
       {"", "rubbish", "100000", "100000 0", "0 100000", "-5 100000", "1 x"}) {
    FakeRoot root;
    root.write("proc/self/cgroup", "no colons\n0::\n0::relative\n0::/")
        .write("sys/fs/cgroup/cpu.max", content);
    FBP_EXPECT(cgroup_cpus(root.path()) == 0);
  }
}

void affinity() {
  FBP_EXPECT(affinity_cpus() >= 1);
  FakeRoot root;
  root.write("proc/self/cgroup", "0::/").write("sys/fs/cgroup/cpu.max", "100000000 100000");
  FBP_EXPECT(usable_cpus(root.path()) == affinity_cpus());
  root.write("sys/fs/cgroup/cpu.max", "50000 100000");
  FBP_EXPECT(usable_cpus(root.path()) == 1);
  FBP_EXPECT(usable_cpus() >= 1);
#if defined(__linux__)
  cpu_set_t before, one;
  FBP_EXPECT(sched_getaffinity(0, sizeof before, &before) == 0);
  CPU_ZERO(&one);
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &before) && CPU_COUNT(&one) == 0) CPU_SET(cpu, &one);
  }
  FBP_EXPECT(sched_setaffinity(0, sizeof one, &one) == 0);
  FBP_EXPECT(affinity_cpus() == 1);
  FBP_EXPECT(sched_setaffinity(0, sizeof before, &before) == 0);
#endif
}

const char* asked = nullptr;
const char* environment(const char* name) {
  return std::string(name) == "FASTBP_NUM_THREADS" ? asked : nullptr;
}

void the_environment_decides() {
  for (const char* none : {static_cast<const char*>(nullptr), ""}) {
    asked = none;
    FBP_EXPECT(default_num_threads(environment) == usable_cpus());
  }
  asked = "1";
  FBP_EXPECT(default_num_threads(environment) == 1);
  asked = "1024";
  FBP_EXPECT(default_num_threads(environment) == 1024);
  for (const char* bad :
       {"0", "-1", "1025", "two", "2.0", "2 ", " 2", "+2", "99999999999999999999"}) {
    asked = bad;
    FBP_EXPECT_THROW(default_num_threads(environment), std::invalid_argument);
    FBP_EXPECT(fbp_message_has("FASTBP_NUM_THREADS"));
    FBP_EXPECT(fbp_message_has("from 1 to 1024"));
    FBP_EXPECT(fbp_message_has(bad));
  }
}

}  // namespace

int main() {
  version_2();
  version_2_in_a_container();
  version_1();
  nonsense_is_no_limit();
  affinity();
  the_environment_decides();
  return fbp_test_result();
}
