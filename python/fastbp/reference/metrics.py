"""The metrics, one value per row of a batch; the caller averages over rows, or adds up counts.

METRICS is the one list of means. y is the network's output (B, O) in float64, t the target as in
losses.py, loss the name of the loss the network was compiled with: it says how outputs are to be
read.
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


def _class_counts(y: F64, t: Array, loss: str) -> F64:
    """(B, 3 C): in which of its classes the row is right, for which it is taken, of which it is.

    C is 2 for one output; of several outputs with a threshold each is a class of its own.
    """
    threshold, classes = LOSSES[loss].threshold, max(y.shape[1], 2)
    if threshold is None and (y.shape[1] > 1 or LOSSES[loss].rows):
        q = one_hot(np.argmax(y, axis=1), classes)
        t = one_hot(t if t.ndim == 1 else np.argmax(t, axis=1), classes)
    else:
        q = as_float64(y > (0.5 if threshold is None else threshold))
        t = as_float64(t > 0.5)
        if y.shape[1] == 1:
            q, t = np.hstack([1 - q, q]), np.hstack([1 - t, t])
    return np.hstack([q * t, q, t])


def _in_top(k: int, y: F64, t: Array) -> F64:
    """1 where fewer than k scores come before the class's own; of equal ones the later do."""
    wanted = t if t.ndim == 1 else np.argmax(t, axis=1)
    own = y[np.arange(len(y)), wanted][:, None]
    later = np.arange(y.shape[1]) > wanted[:, None]
    before = (y > own) | ((y == own) & later)
    return as_float64(before.sum(axis=1) < k)


Metric = Callable[[F64, Array, str], F64]
METRICS: dict[str, Metric] = {"accuracy": _accuracy, "mse": _mse, "mae": _mae}


def metric(name: str) -> Metric:
    """One of METRICS, "class_counts" or "top_<number>", which is about one class of several."""
    if name == "class_counts":
        return _class_counts
    stem, _, number = name.partition("_")
    if stem == "top" and number.isascii() and number.isdigit():
        return lambda y, t, loss: _in_top(int(number), y, t)
    if name not in METRICS:
        raise ValueError(
            f"unknown metric {name!r}; choose one of: {', '.join(METRICS)}, class_counts, top_5"
        )
    return METRICS[name]


def width(name: str, outputs: int) -> int:
    """How many values a record has for it: of counts three for each class, else one."""
    return 3 * max(outputs, 2) if name == "class_counts" else 1
