"""The losses: one number for a batch, and its gradient with respect to the network's output.

LOSSES is the one list; functions, engine and tests derive from it. y is the output (B, O), float64;
t the target: float64 of y's shape, or for softmax_cross_entropy also class numbers (B,), integers.
half_sse sums; the others average, softmax_cross_entropy over B rows, the rest over B O elements.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import special
from .arrays import F64, Array, as_float64, describe

DType = np.dtype[Any]


@dataclass(frozen=True)
class Loss:
    """One loss.

    elements(y, t, param, dtype) returns the loss of each element, or (B,) of each row, and its
    gradient by y, before any averaging. dtype is the one the caller works in, which matters only
    where the definition depends on it (the clipping of probabilities and rates).
    parameter: name of param in the functional layer. sums: whether a batch counts as a sum.
    rows: whether it works on rows of logits and takes class numbers. threshold: the output above
    which the accuracy reads a yes; None: a row's largest output is its class.
    """

    elements: Callable[[F64, Array, float, DType], tuple[F64, F64]]
    parameter: str | None = None
    default_param: float = 0.0
    sums: bool = False
    rows: bool = False
    threshold: float | None = None

    def value_and_gradient(
        self, y: F64, t: Array, param: float, dtype: DType, weights: F64 | None = None
    ) -> tuple[float, F64]:
        """(loss, dy) of a batch; weights (B,) are factors of the rows before the averaging."""
        values, gradients = self.elements(y, t, param, dtype)
        if weights is not None:
            values = as_float64((values.T * weights).T)
            gradients = gradients * weights[:, None]
        divisor = 1 if self.sums else values.size
        return float(np.sum(values) / divisor), gradients / divisor


def _mse(y: F64, t: Array, _: float, __: DType) -> tuple[F64, F64]:
    """Mean of (y - t)^2;  dy = 2 (y - t) / (B O)."""
    e = y - t
    return e * e, 2 * e


def _half_sse(y: F64, t: Array, _: float, __: DType) -> tuple[F64, F64]:
    """Sum of (y - t)^2 / 2;  dy = y - t."""
    e = y - t
    return e * e / 2, e


def _mae(y: F64, t: Array, _: float, __: DType) -> tuple[F64, F64]:
    """Mean of |y - t|;  dy = sign(y - t) / (B O), 0 at 0."""
    e = y - t
    return np.abs(e), np.sign(e)


def _huber(y: F64, t: Array, delta: float, _: DType) -> tuple[F64, F64]:
    """Mean of e^2 / 2 where |e| <= delta, delta (|e| - delta / 2) beyond; e = y - t. Huber 1964."""
    e = y - t
    size = np.abs(e)
    return np.where(size > delta, delta * (size - delta / 2), e * e / 2), np.clip(e, -delta, delta)


def _quantile(y: F64, t: Array, quantile: float, _: DType) -> tuple[F64, F64]:
    """Mean of q (t - y) where y < t, (1 - q)(y - t) where y > t. Koenker and Bassett 1978.

    dy = -q / (B O) where y < t, (1 - q) / (B O) where y > t, 0 at 0; q is `quantile`.
    """
    e = y - t
    slope = np.where(e < 0, -quantile, 1 - quantile)
    return slope * e, slope * np.abs(np.sign(e))


def _poisson(y: F64, t: Array, _: float, dtype: DType) -> tuple[F64, F64]:
    """Mean of y - t log y, y the rate, not below 1e-7;  dy = (1 - t / y) / (B O).

    -log of Poisson's probability of the count t, without its log t!.
    """
    rate = np.where(y < float(dtype.type(1e-7)), float(dtype.type(1e-7)), y)
    return rate - t * np.log(rate), 1 - t / rate


def _poisson_with_log_rate(z: F64, t: Array, _: float, __: DType) -> tuple[F64, F64]:
    """Mean of exp(z) - t z, the poisson loss of the rate exp(z);  dz = (exp(z) - t) / (B O)."""
    return np.exp(z) - t * z, np.exp(z) - t


def _hinge(y: F64, t: Array, _: float, __: DType) -> tuple[F64, F64]:
    """Mean of max(0, 1 - s y), s = 1 where t > 1/2, else -1;  dy = -s / (B O) where it is not 0."""
    s = np.where(t > 0.5, 1.0, -1.0)
    margin = np.maximum(0.0, 1 - s * y)
    return margin, -s * np.sign(margin)


def _squared_hinge(y: F64, t: Array, _: float, __: DType) -> tuple[F64, F64]:
    """Mean of m^2, m = max(0, 1 - s y), s = 1 where t > 1/2, else -1;  dy = -2 s m / (B O)."""
    s = np.where(t > 0.5, 1.0, -1.0)
    margin = np.maximum(0.0, 1 - s * y)
    return margin**2, -2 * s * margin


def _binary_cross_entropy(y: F64, t: Array, smoothing: float, dtype: DType) -> tuple[F64, F64]:
    """Mean of -t log p - (1 - t) log(1 - p);  dy = (p - t) / (p (1 - p)) / (B O).

    p is y clipped to [1e-7, 1 - 1e-7], the bounds taken in dtype: 1 - 1e-7 is 1 - 2^-23 in float32.
    t counts as (1 - label_smoothing) t + label_smoothing / 2.
    """
    one, margin = dtype.type(1), dtype.type(1e-7)
    p = np.clip(y, float(margin), float(one - margin))
    t = t + smoothing * (0.5 - t)
    return -(t * np.log(p) + (1 - t) * np.log1p(-p)), (p - t) / (p * (1 - p))


def _binary_cross_entropy_with_logits(
    z: F64, t: Array, smoothing: float, _: DType
) -> tuple[F64, F64]:
    """Mean of log(1 + exp(z)) - z t;  dz = (sigmoid(z) - t) / (B O).

    t counts as (1 - label_smoothing) t + label_smoothing / 2.
    """
    t = t + smoothing * (0.5 - t)
    return special.softplus(z) - z * t, special.sigmoid(z) - t


def softmax(z: F64) -> F64:
    """exp(z) / sum exp(z) over the last axis; z is shifted by its maximum, so nothing overflows."""
    e = np.exp(z - np.max(z, axis=-1, keepdims=True, initial=-np.inf))
    return as_float64(e / np.sum(e, axis=-1, keepdims=True))


def one_hot(labels: Array, classes: int) -> F64:
    """(B,) class numbers as rows (B, classes) of zeros with a one."""
    rows = np.zeros((len(labels), classes))
    rows[np.arange(len(labels)), labels] = 1
    return rows


def _softmax_cross_entropy(z: F64, t: Array, smoothing: float, _: DType) -> tuple[F64, F64]:
    """Mean over rows of logsumexp(z) sum(t) - sum(t z);  dz = (softmax(z) sum(t) - t) / B.

    t counts as (1 - label_smoothing) t + label_smoothing / K of K classes. The value is computed as
    sum t (logsumexp(z) - z), whose terms are at least 0 and do not cancel. A class of weight 0 adds
    nothing, even where its logit is -inf.
    """
    if t.ndim == 1:
        t = one_hot(t, z.shape[1])
    t = (1 - smoothing) * t + smoothing / z.shape[1]
    shifted = z - np.max(z, axis=1, keepdims=True)
    surprise = np.log(np.sum(np.exp(shifted), axis=1, keepdims=True)) - shifted
    values = np.sum(np.where(t == 0, 0.0, t * surprise), axis=1)
    return values, softmax(z) * np.sum(t, axis=1, keepdims=True) - t


_SMOOTHING = "label_smoothing"

LOSSES: dict[str, Loss] = {
    "mse": Loss(_mse),
    "half_sse": Loss(_half_sse, sums=True),
    "mae": Loss(_mae),
    "huber": Loss(_huber, parameter="delta", default_param=1.0),
    "quantile": Loss(_quantile, parameter="quantile", default_param=0.5),
    "poisson": Loss(_poisson),
    "poisson_with_log_rate": Loss(_poisson_with_log_rate),
    "hinge": Loss(_hinge, threshold=0.0),
    "squared_hinge": Loss(_squared_hinge, threshold=0.0),
    "binary_cross_entropy": Loss(_binary_cross_entropy, parameter=_SMOOTHING, threshold=0.5),
    "binary_cross_entropy_with_logits": Loss(
        _binary_cross_entropy_with_logits, parameter=_SMOOTHING, threshold=0.0
    ),
    "softmax_cross_entropy": Loss(_softmax_cross_entropy, parameter=_SMOOTHING, rows=True),
}


def check_target(y: Array, t: Array, loss: str, name: str) -> None:
    """ValueError or TypeError unless t (called `name` in messages) is a target for outputs y."""
    rows = LOSSES[loss].rows
    if y.size == 0:
        raise ValueError(f"the loss of nothing is undefined: the outputs have shape {y.shape}")
    if rows and y.ndim != 2:
        raise ValueError(f"{loss} takes logits of shape (rows, classes), got shape {y.shape}")
    if rows and t.ndim == 1:
        _check_labels(t, len(y), y.shape[1], name)
    elif t.shape != y.shape:
        raise ValueError(f"{name}: expected shape {y.shape} for loss {loss!r}, got a {describe(t)}")


def _check_labels(labels: Array, rows: int, classes: int, name: str) -> None:
    if labels.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected integers as class numbers, got a {describe(labels)}")
    if len(labels) != rows:
        raise ValueError(f"{name}: expected {rows} labels, one for each row, got {len(labels)}")
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if wrong.size:
        i = wrong[0]
        raise ValueError(f"{name}[{i}] = {labels[i]} is not a class number in 0..{classes - 1}")
