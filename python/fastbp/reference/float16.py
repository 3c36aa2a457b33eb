"""float16: what a product makes of its operands, and the scale of the loss that this needs.

A number has 11 bits of precision and goes from 2^-24 to 65504. Gradients are often smaller: they
would round to 0. So the loss is multiplied by a scale before the backward pass, and the gradient
divided by it afterwards, after PyTorch's torch.amp.GradScaler: an update whose gradient is not
finite is left out and the scale halved; after UPDATES updates in a row it is doubled. It stays a
power of two, within bounds.
"""

import numpy as np

from .arrays import F64, Array, as_float64

FIRST, UPDATES, LEAST, MOST = 65536.0, 2000, 2.0**-24, 2.0**60


def round_to_float16(a: F64) -> F64:
    """a in float32, then in float16: to nearest, ties to even, beyond the range to infinity."""
    with np.errstate(all="ignore"):
        return as_float64(as_float64(a).astype(np.float32).astype(np.float16))


def new_scale() -> Array:
    """float32 (3,): the scale, the updates since it changed last, those that were left out."""
    return np.array([FIRST, 0, 0], np.float32)


def next_scale(state: Array, finite: bool) -> None:
    """Goes on to the next update, of a gradient that was finite or not."""
    scale, good, skipped = state.tolist()
    if not finite:
        state[:] = scale / 2 if scale > LEAST else scale, 0, skipped + 1
    elif good + 1 >= UPDATES:
        state[:] = scale * 2 if scale < MOST else scale, 0, skipped
    else:
        state[1] = good + 1
