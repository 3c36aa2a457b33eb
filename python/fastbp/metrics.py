"""Metrics by name, computed by the engine beside the loss, each a mean over the rows.

accuracy: share of right answers; softmax_cross_entropy compares the largest output with the class;
    the binary and the hinge losses compare each output with its target, cut at probability 0.5
    (logit or margin 0), so that of several labels the share of right ones counts; the others
    compare the largest output and target, or cut a single output at 0.5.
mse, mae: mean of (y - t)^2 and |y - t| over a row; y is the network's output, or softmax of it
    where the loss is softmax_cross_entropy.
"""

from __future__ import annotations

from collections.abc import Iterable

from .errors import describe, lookup
from .registry import METRICS

_HINTS = {
    "acc": "use 'accuracy'",
    "categorical_accuracy": "use 'accuracy'",
    "binary_accuracy": "use 'accuracy'",
    "sparse_categorical_accuracy": "use 'accuracy'",
    "mean_squared_error": "use 'mse'",
    "mean_absolute_error": "use 'mae'",
}


_LARGER_IS_BETTER = ("accuracy",)


def larger_is_better(name: str) -> bool:
    """Whether a larger value of the metric of that name is a better one; of a loss it is not."""
    return name in _LARGER_IS_BETTER


def get(metrics: str | Iterable[str] | None) -> list[str]:
    """The names as a list. Raises ValueError for unknown or repeated ones, TypeError for others."""
    if metrics is None:
        return []
    if isinstance(metrics, str):
        raise TypeError(f"metrics must be a list of names: write metrics=[{metrics!r}]")
    try:
        names = list(metrics)
    except TypeError:
        raise TypeError(f"metrics must be a list of names; got {describe(metrics)}") from None
    for position, name in enumerate(names):
        lookup("metric", name, METRICS, _HINTS)
        if name in names[:position]:
            raise ValueError(f"metric {name!r} is listed twice")
    return names
