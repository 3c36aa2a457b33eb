"""What several networks say together: means of outputs and probabilities, their spread, scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from . import devices, holdout
from .arrays import Array, stored
from .initializers import Constant
from .layers import Dense
from .model import Sequential
from .sequences import with_lengths

if TYPE_CHECKING:
    from .ensemble import Ensemble

Members = Sequence[Sequential]


def stacked(each: Sequence[Any]) -> Array:
    """The members' arrays as one. Raises ValueError where their shapes differ."""
    shapes = {array.shape for array in each}
    if len(shapes) > 1:
        raise ValueError(f"the members' outputs have different shapes: {sorted(shapes)}")
    return np.stack([np.asarray(array) for array in each])


def mean(own: Array) -> Array:
    """Of (members, ...), summed in float64, in their dtype."""
    value: Array = own.mean(axis=0, dtype=np.float64).astype(own.dtype)
    return value


def spread(own: Array) -> Array:
    """The standard deviation among the members, in their dtype."""
    value: Array = own.std(axis=0, dtype=np.float64).astype(own.dtype)
    return value


def outputs(own: Array, members: Members) -> Array:
    """One output from the members' own: the mean, or the logits of the mean probabilities.

    log(mean softmax(z)) and, for a sigmoid, log(mean s / mean (1 - s)), by way of logarithms: no
    probability is so small that it counts as 0.
    """
    compiled = members[0]._compiled
    link = None if compiled is None else compiled.loss.traits.link
    z = own.astype(np.float64)
    if link == "softmax":
        value = _log_mean(z - _log_sum(z, -1)[..., None])
    elif link == "sigmoid":
        value = _log_mean(-np.logaddexp(0, -z)) - _log_mean(-np.logaddexp(0, z))
    else:
        return mean(own)
    return value.astype(own.dtype)


def _log_sum(z: Array, axis: int) -> Array:
    value: Array = np.logaddexp.reduce(z, axis=axis)
    return value


def _log_mean(z: Array) -> Array:
    value: Array = _log_sum(z, 0) - np.log(len(z))
    return value


def classes(output: Array, members: Members) -> Array:
    """Classes as int64 from one output; see Sequential.predict_class."""
    return members[0]._classes_of(output)


def evaluate(
    ensemble: Ensemble, X: Any, y: Any, batch_size: int, sample_weight: Any, lengths: Any
) -> dict[str, float]:
    """Loss and metrics of the ensemble's predictions; see Ensemble.evaluate.

    They are those of a network that gives its inputs back: one formula for both.
    """
    first = ensemble.members[0]
    compiled = first._require_compiled()
    x = with_lengths(X, lengths)
    rows, target = holdout.pair(first, x, y)
    target = first._host("y", target)
    output = ensemble.predict(x)
    runs = first._runs(rows)
    if runs is not None:
        if sample_weight is not None:
            sample_weight = first._samples(sample_weight, rows, target)[runs]
        output, target = output[runs], target[runs]
    units = output.shape[-1]
    same = Sequential([Dense(units, use_bias=False, kernel_initializer=Constant(0.0))], seed=0)
    device = "cpu" if devices.is_cuda(first.device) else first.device
    same.compile("sgd", compiled.loss, compiled.metrics, device, stored(first.dtype).name)
    same.build(units)
    same.set_parameters({"0.kernel": np.eye(units)})
    return same.evaluate(output, target, batch_size, sample_weight=sample_weight)
