#include "backend/placement.h"

#if defined(__linux__)
#include <sched.h>
#endif

namespace fastbp {

#if defined(__linux__)

int current_cpu() { return sched_getcpu(); }

// A machine of more CPUs than cpu_set_t has is left as it is: sched_getaffinity() refuses.
void leave_cpu(int cpu) {
  cpu_set_t allowed;
  if (cpu < 0 || cpu >= CPU_SETSIZE || sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  cpu_set_t others = allowed;
  CPU_CLR(cpu, &others);
  if (CPU_COUNT(&others) == 0 || sched_setaffinity(0, sizeof others, &others) != 0) return;
  sched_setaffinity(0, sizeof allowed, &allowed);
}

#else

int current_cpu() { return -1; }
void leave_cpu(int) {}

#endif

}  // namespace fastbp
