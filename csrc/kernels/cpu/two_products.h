// What the kernels ask of the processor beyond its instruction set. It never changes a result.
#pragma once

namespace fastbp {

// Whether a core makes two products of 512 bits a clock, as Intel's servers do; no bit of CPUID says so. Lines that have to be
// waited for, which cost little beside one product a clock, are then what products wait for (docs/performance.md).
bool two_products_a_clock();

}  // namespace fastbp
