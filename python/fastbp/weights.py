"""Weights of rows: sample_weight and class_weight, as factors of the rows' losses.

Row i has the weight sample_weight[i] times that of its class. A loss that averages becomes the
weighted mean sum(w l) / sum(w) over the rows of the call, as in scikit-learn: only the ratios of
weights count, equal weights change nothing, a weight of 2 counts as the row twice and one of 0 as
its absence. Where a sequence has an output at every step, each step counts as a row does here, as
far as it lies in front of the end, and may have a weight of its own.

To that end all weights are divided by their mean w' over the rows given; a batch of B of them has
the gradient of sum(w l) / (B w'), whose mean over the batches is that of the whole, also where a
rare class is missing in most of them. (Keras is the same but for the division; weights of mean 1,
as "balanced" ones are, make it equal.) half_sse, a sum, becomes sum(w l).

Weights count in the loss, in training and in evaluation, and in no metric by name, as Keras' own
`metrics`; the functions of fastbp.metrics take a sample_weight.
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
from .sequences import is_ragged, padded_as

ClassWeight = Mapping[int, float] | str | None


def rows(
    sample_weight: Any,
    class_weight: ClassWeight,
    target: Array,
    loss: Loss,
    dtype: np.dtype[Any],
    runs: Array | None = None,
    name: str = "sample_weight",
    outputs: int = 0,
) -> Array | None:
    """The factors of the losses as the engine takes them; None where all are 1.

    target is what arrays.targets returned. Where it has a loss at every step, runs (n, steps) says
    which of them count, and the factors are (n, steps); otherwise they are (n,). Class numbers may
    go up to `outputs`. Raises TypeError and ValueError for weights that are negative, not finite,
    all 0, of another shape, or of classes that there are none.
    """
    weight = None if sample_weight is None else samples(sample_weight, len(target), name, runs)
    if weight is not None and runs is not None:
        weight = weight[runs]
    if class_weight is not None:
        classes, count = _classes(target if runs is None else target[runs], loss, outputs)
        factors = _class_factors(class_weight, classes, count, weight)[classes]
        with np.errstate(over="ignore"):
            weight = factors if weight is None else weight * factors
        if not weight.any():
            raise ValueError("class_weight and sample_weight leave no row with a weight above 0")
        if not np.isfinite(weight).all():
            raise ValueError("class_weight times sample_weight is beyond the range of float64")
    if weight is None:
        return None
    if loss.name != "half_sse":
        weight = scaled(weight)
        weight = weight / (accurate_sum(weight) / len(weight))
    ready: Array = weight.astype(dtype)
    if runs is None:
        return ready
    spread: Array = np.zeros(runs.shape, dtype)
    spread[runs] = ready
    return spread


def scaled(weight: Array) -> Array:
    """The same ratios, exactly, in a range where no sum or product of two overflows."""
    found: Array = np.ldexp(weight, -_exponent(weight))
    return found


def accurate_sum(values: Array) -> float:
    """The sum of float64 (n,) of magnitudes below 2^900, as if rounded once: in any order.

    Adding and taking off a power of two n times as large as the largest cuts all numbers at one
    binary place. The upper parts have so few digits that their sum is exact (Rump, Ogita and Oishi,
    "Accurate floating-point summation", 2008); what is left of each, exact too, is at most
    n / 2^51 of the largest, so that the rounding of its sum is not seen in the whole's.
    """
    grid = math.ldexp(1.0, _exponent(values) + (len(values) + 2).bit_length())
    upper = (values + grid) - grid
    return float(upper.sum() + (values - upper).sum())


def _exponent(values: Array) -> int:
    """The least e such that all magnitudes are below 2^e."""
    return math.frexp(max(float(values.max()), -float(values.min())))[1]


def samples(value: Any, n: int, name: str = "sample_weight", runs: Array | None = None) -> Array:
    """sample_weight as float64 (n,), checked; a column (n, 1) is taken too.

    With runs (n, steps), which steps count, as float64 (n, steps), 0 where they do not: of a weight
    for each step, in an array or a list of arrays as long as the sequences, or for each sequence.
    """
    if runs is not None and is_ragged(value):
        value = padded_as(name, value, runs)
    array = as_numbers(name, value)
    if array.shape == (n, 1):
        array = array[:, 0]
    _require_shape(name, array.shape, n, runs)
    counted = array if runs is None or array.ndim == 1 else np.where(runs, array, 0)
    weight: Array = counted.astype(np.float64)
    if weight.size and not (weight.min() >= 0 and weight.max() < np.inf):  # false of NaN
        wrong = ~((weight >= 0) & np.isfinite(weight))
        place = np.unravel_index(int(np.argmax(wrong)), weight.shape)
        step = "".join(f", step {number}" for number in place[1:])
        raise ValueError(
            f"{name} must be finite and not negative; row {place[0]}{step} has {weight[place]:g}"
        )
    if runs is not None and weight.ndim == 1:
        weight = np.where(runs, weight[:, None], 0)
    if not weight.any():
        raise ValueError(f"{name} must not be all 0: no row would count")
    return weight


def _require_shape(name: str, shape: tuple[int, ...], n: int, runs: Array | None) -> None:
    """Raises ValueError unless there is one for each row, or step."""
    if shape == (n,) or (runs is not None and shape == runs.shape):
        return
    if runs is None:
        raise ValueError(f"{name} must have shape ({n},), one for each row; got {shape}")
    raise ValueError(
        f"{name} must have shape {runs.shape}, one for each step, or ({n},), one for each "
        f"sequence; got {shape}"
    )


def _classes(target: Array, loss: Loss, outputs: int) -> tuple[Array, int]:
    """Class number of each row, and how many classes there are."""
    if target.ndim == 1:
        return target, max(outputs, int(target.max()) + 1)
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
        if number >= count:
            raise ValueError(
                f"class_weight has class {number}, but the classes are 0 to {count - 1}, for "
                f"{count} outputs"
                if count > 2
                else f"class_weight has class {number}, but the classes are 0 and 1"
            )
        factors[number] = checks.real(f"class_weight[{number}]", factor, 0)
    return factors
