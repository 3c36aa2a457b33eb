"""bfloat16: the upper half of float32's bits, in integer operations that NumPy has.

A number has 8 bits of precision and float32's range. A product of two is exact in float64 (and in
float32, but for denormals), so a matrix product of rounded operands, summed in float64, is more
precise than any kernel that sums in float32.
"""

import numpy as np

from .arrays import F64, as_float64

_QUIET_NAN = np.uint32(0x00400000)


def round_to_bfloat16(a: F64) -> F64:
    """a in float32, then in bfloat16: to nearest, ties to even, beyond the range to infinity.

    The lower half is dropped after adding just under half of what the upper half's last bit is
    worth, or exactly half if that bit is odd. A NaN stays one: the sum would carry it over.
    """
    with np.errstate(all="ignore"):
        single = as_float64(a).astype(np.float32)
    bits = single.view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    upper = np.where(np.isnan(single), bits | _QUIET_NAN, bits + np.uint32(0x7FFF) + odd)
    return as_float64((upper & np.uint32(0xFFFF0000)).astype(np.uint32).view(np.float32))
