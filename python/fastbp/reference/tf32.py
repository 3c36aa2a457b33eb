"""TF32: float32 with 11 bits of precision, in integer operations that NumPy has."""

import numpy as np

from .arrays import F64, as_float64


def round_to_tf32(a: F64) -> F64:
    """a in float32, then in TF32: to nearest, ties away from zero, beyond the range to infinity.

    The lower 13 bits are dropped after adding half of what the last of the others is worth. What is
    not finite stays as it is.
    """
    with np.errstate(all="ignore"):
        single = as_float64(a).astype(np.float32)
    bits = (single.view(np.uint32) + np.uint32(0x1000)) & np.uint32(0xFFFFE000)
    return as_float64(np.where(np.isfinite(single), bits.view(np.float32), single))
