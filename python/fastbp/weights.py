"""Weights of rows: sample_weight and class_weight, as factors of the rows' losses.

Row i has the weight sample_weight[i] times that of its class. A loss that averages becomes the
weighted mean sum(w l) / sum(w) over the rows of the call, as in scikit-learn: only the ratios of
weights count, equal weights change nothing, a weight of 2 counts as the row twice and one of 0 as
its absence. To that end all weights are divided by their mean w' over the rows given; a batch of B
of them has the gradient of sum(w l) / (B w'), whose mean over the batches is that of the whole,
also where a rare class is missing in most of them. (Keras is the same but for the division; weights
of mean 1, as "balanced" ones are, make it equal.) half_sse, a sum, becomes sum(w l).

Weights count in the loss, in training and in evaluation, and in no metric.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from . import checks
from .arrays import Array, as_numbers
from .errors import describe
from .losses import Loss

ClassWeight = Mapping[int, float] | str | None


def rows(
    sample_weight: Any,
    class_weight: ClassWeight,
    target: Array,
    loss: Loss,
    dtype: np.dtype[Any],
    steps: Array | None = None,
    name: str = "sample_weight",
) -> Array | None:
    """The factor of each row of `target` as the engine takes them, (n,); None where all are 1.

    target is what arrays.targets returned, steps (n,) how many losses each row has where that
    differs: the mean weight is that of the losses. Raises TypeError and ValueError for weights that
    are negative, not finite, all 0, of another length, or of classes that there are none.
    """
    weight = None if sample_weight is None else samples(sample_weight, len(target), name)
    if class_weight is not None:
        classes, count = _classes(target, loss)
        factors = _class_factors(class_weight, classes, count, weight)[classes]
        weight = factors if weight is None else weight * factors
        if not weight.any():
            raise ValueError("class_weight and sample_weight leave no row with a weight above 0")
    if weight is None:
        return None
    mean = 1.0 if loss.name == "half_sse" else _mean(weight, steps)
    ready: Array = (weight / mean).astype(dtype)
    return ready


def _mean(weight: Array, steps: Array | None) -> float:
    """Of the weights, each counted `steps` times; rounded once."""
    if steps is None:
        return math.fsum(weight.tolist()) / len(weight)
    return math.fsum((weight * steps).tolist()) / int(steps.sum())


def samples(value: Any, n: int, name: str = "sample_weight") -> Array:
    """sample_weight as float64 (n,), checked; a column (n, 1) is taken too."""
    array = as_numbers(name, value)
    if array.shape == (n, 1):
        array = array[:, 0]
    if array.shape != (n,):
        raise ValueError(f"{name} must have shape ({n},), one for each row; got {array.shape}")
    weight = array.astype(np.float64)
    with np.errstate(invalid="ignore"):
        wrong = ~((weight >= 0) & np.isfinite(weight))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(f"{name} must be finite and not negative; row {row} has {array[row]!r}")
    if not weight.any():
        raise ValueError(f"{name} must not be all 0: no row would count")
    return weight


def _classes(target: Array, loss: Loss) -> tuple[Array, int]:
    """Class number of each row, and how many classes there are."""
    if target.ndim == 1:
        return target, int(target.max()) + 1
    if target.ndim == 3 or target.dtype.kind == "i":
        raise ValueError(
            "class_weight needs rows of one class each; here every step of a sequence has one: use "
            "sample_weight"
        )
    if loss.traits.class_numbers:
        numbers: Array = target.argmax(axis=1)
        return numbers, target.shape[1]
    if loss.traits.link is None or target.shape[1] > 1:
        what = "several outputs that are each yes or no" if loss.traits.link else "no classes"
        raise ValueError(
            f"class_weight needs rows of one class each; loss {loss.name!r} has {what} here: use "
            "sample_weight"
        )
    yes: Array = (target[:, 0] > 0.5).astype(np.int64)
    return yes, 2


def _class_factors(
    class_weight: ClassWeight, classes: Array, count: int, weight: Array | None
) -> Array:
    """The factor of each class."""
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            raise ValueError(f"class_weight must be a dict or 'balanced'; got {class_weight!r}")
        totals = np.bincount(classes, weights=weight, minlength=count).astype(np.float64)
        present = totals > 0
        # n / (classes * rows of the class), as scikit-learn's compute_class_weight.
        balanced: Array = np.divide(
            totals.sum() / present.sum(), totals, out=np.zeros(count), where=present
        )
        return balanced
    if not isinstance(class_weight, Mapping):
        raise TypeError(f"class_weight must be a dict or 'balanced'; got {describe(class_weight)}")
    factors = np.ones(count)
    for label, factor in class_weight.items():
        number = checks.integer("class_weight's classes", label, 0)
        checked = checks.real(f"class_weight[{number}]", factor, 0)
        if number < count:  # a class of which no row is given has none to weigh
            factors[number] = checked
    return factors
