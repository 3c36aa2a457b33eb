"""The metrics, one value per row of a batch; the caller averages over rows.

METRICS is the one list. y is the network's output (B, O) in float64, t the target as in losses.py,
loss the name of the loss the network was compiled with: it says how outputs are to be read.
"""

from collections.abc import Callable

import numpy as np

from .arrays import F64, Array, as_float64
from .losses import LOSSES, one_hot, softmax


def _accuracy(y: F64, t: Array, loss: str) -> F64:
    """1 for a right row, 0 for a wrong one; with several yes/no outputs the share of right ones.

    Yes/no outputs are compared with the loss's threshold (probabilities 0.5, logits 0), their
    targets with 0.5; so is the single output of a loss without threshold. Otherwise a row's class
    is the position of its first largest element, or the class number.
    """
    threshold = LOSSES[loss].threshold
    if threshold is None and y.shape[1] == 1 and not LOSSES[loss].rows:
        threshold = 0.5
    if threshold is not None:
        return as_float64(np.mean((y > threshold) == (t > 0.5), axis=1, dtype=np.float64))
    wanted = t if t.ndim == 1 else np.argmax(t, axis=1)
    return as_float64(np.argmax(y, axis=1) == wanted)


def _difference(y: F64, t: Array, loss: str) -> F64:
    """Output minus target; of logits of classes the output is their softmax."""
    if LOSSES[loss].rows:
        y = softmax(y)
    return y - (one_hot(t, y.shape[1]) if t.ndim == 1 else t)


def _mse(y: F64, t: Array, loss: str) -> F64:
    """Mean over the row of (y - t)^2."""
    return as_float64(np.mean(_difference(y, t, loss) ** 2, axis=1))


def _mae(y: F64, t: Array, loss: str) -> F64:
    """Mean over the row of |y - t|."""
    return as_float64(np.mean(np.abs(_difference(y, t, loss)), axis=1))


METRICS: dict[str, Callable[[F64, Array, str], F64]] = {
    "accuracy": _accuracy,
    "mse": _mse,
    "mae": _mae,
}
