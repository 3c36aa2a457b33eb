// On which CPU a thread runs, and how it gets off one.
#pragma once

namespace fastbp {

// The CPU that the calling thread runs on; -1 where the system does not say.
int current_cpu();

// Moves the calling thread to another of the CPUs that it may use, if there is one. It may be moved on from there: its
// affinity is what it was.
void leave_cpu(int cpu);

}  // namespace fastbp
