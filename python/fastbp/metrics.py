"""Metrics: by name in compile(metrics=[...]), and as functions of (y, p) (see fastbp.scores).

The engine adds these up batch by batch, each a mean over the rows:

accuracy: share of right answers; softmax_cross_entropy compares the largest output with the class;
    the binary and the hinge losses compare each output with its target, cut at probability 0.5
    (logit or margin 0), so that of several labels the share of right ones counts; the others
    compare the largest output and target, or cut a single output at 0.5.
mse, mae: mean of (y - t)^2 and |y - t| over a row; y is the network's output, or softmax of it
    where the loss is softmax_cross_entropy.

top_5 (any number): share of the rows whose class is among the five largest outputs.

For these it counts the rows that were right, taken for a class and of it (integers), and the ratios
are made once an epoch:

precision, recall, f1: of class 1 for one output, else the mean over the classes; f1_macro,
    f1_micro, f1_weighted and so on for another mean.

Of training all these are of the outputs that its steps made, each before its update. So are those
that are computed once an epoch, from the outputs of all its rows, which takes memory for them and
time for sorting (device="cuda": top_5, precision, recall and F1 too):

auc (ROC), pr_auc (average precision), r2.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from .arrays import Array, first_non_finite
from .errors import describe, unknown_name
from .losses import Loss
from .registry import METRICS
from .scores import (
    accuracy,
    auc,
    average_precision,
    class_counts,
    confusion_matrix,
    f1,
    mae,
    mse,
    precision,
    r2,
    recall,
    scores_of_counts,
    top_k,
)

__all__ = [
    "accuracy",
    "auc",
    "average_precision",
    "confusion_matrix",
    "f1",
    "get",
    "larger_is_better",
    "mae",
    "measure",
    "mse",
    "precision",
    "r2",
    "recall",
    "top_k",
]

_HINTS = {
    "acc": "use 'accuracy'",
    "categorical_accuracy": "use 'accuracy'",
    "binary_accuracy": "use 'accuracy'",
    "sparse_categorical_accuracy": "use 'accuracy'",
    "mean_squared_error": "use 'mse'",
    "mean_absolute_error": "use 'mae'",
    "f1_score": "use 'f1'",
    "roc_auc": "use 'auc'",
    "average_precision": "use 'pr_auc'",
    "r2_score": "use 'r2'",
    "top_k": "use 'top_5' or another number",
    "confusion_matrix": "it is no single number: use fastbp.metrics.confusion_matrix(y, p)",
}
_BY_CLASS: dict[str, Callable[..., Any]] = {"precision": precision, "recall": recall, "f1": f1}
_OF_SCORES = {"auc": auc, "pr_auc": average_precision}
_AVERAGES = ("macro", "micro", "weighted")
_COMPUTED = (
    *_BY_CLASS,
    *(f"{name}_{average}" for name in _BY_CLASS for average in _AVERAGES),
    *_OF_SCORES,
    "r2",
    "top_5",
)
_TOP = re.compile(r"top_([1-9][0-9]{0,5})")


def larger_is_better(name: str) -> bool:
    """Whether a larger value of the metric of that name is a better one; of a loss it is not."""
    return name == "accuracy" or name in _COMPUTED or _TOP.fullmatch(name) is not None


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
        given: object = name
        if not isinstance(given, str) or not (name in METRICS or larger_is_better(name)):
            raise unknown_name("metric", name, [*METRICS, *_COMPUTED], _HINTS)
        if name in names[:position]:
            raise ValueError(f"metric {name!r} is listed twice")
    return names


def top(name: str) -> int:
    """5 of "top_5"; 0 of another name."""
    found = _TOP.fullmatch(name)
    return int(found[1]) if found else 0


def is_of_counts(name: str) -> bool:
    """Whether the metric follows from how often each class was right, taken and there."""
    return name.partition("_")[0] in _BY_CLASS


def by_class(loss: Loss, outputs: int) -> bool:
    """Whether each row has one class of several, and not outputs that are each yes or no."""
    link = loss.traits.link
    return link == "softmax" or (link is None and outputs > 1)


def measure(wanted: Sequence[str], y: Array, outputs: Array, loss: Loss) -> dict[str, float]:
    """Metrics that are computed from all outputs, of the targets y; NaN if an output is."""
    if not wanted:
        return {}
    if first_non_finite(np.ascontiguousarray(outputs)) >= 0:
        return dict.fromkeys(wanted, float("nan"))
    return {**_by_class(wanted, y, outputs, loss), **_others(wanted, y, outputs, loss)}


def _by_class(names: Sequence[str], y: Array, outputs: Array, loss: Loss) -> dict[str, float]:
    """Precision, recall and F1, from one count of the classes."""
    wanted = [name for name in names if name.partition("_")[0] in _BY_CLASS]
    if not wanted:
        return {}
    t, q = _classes(y, outputs, loss)
    counts = class_counts(t, q, max(2, outputs.shape[1]))[None]
    found = scores_of_counts(wanted, counts, outputs.shape[1] == 1, t.ndim == 2)
    return {name: float(values[0]) for name, values in found.items()}


def _others(names: Sequence[str], y: Array, outputs: Array, loss: Loss) -> dict[str, float]:
    own = [name for name in names if name.partition("_")[0] not in _BY_CLASS]
    return {name: float(_one(name, y, outputs, loss)) for name in own}


def _one(name: str, y: Array, outputs: Array, loss: Loss) -> Any:
    if top(name):
        return top_k(_true_classes(y, outputs, loss), outputs, top(name))
    if name == "r2":
        return _r2(y, outputs, loss)
    return _of_scores(_OF_SCORES[name], y, outputs, loss)


def _classes(y: Array, outputs: Array, loss: Loss) -> tuple[Array, Array]:
    """True and chosen classes (n,), or labels (n, K), as predict_class has them."""
    link, several = loss.traits.link, outputs.shape[1] > 1
    if by_class(loss, outputs.shape[1]):
        return _true_classes(y, outputs, loss), np.argmax(outputs, axis=1)
    chosen = (outputs > (0 if link in ("sigmoid", "sign") else 0.5)).astype(np.int64)
    true = (y > (0 if link == "sign" else 0.5)).astype(np.int64)
    return (true, chosen) if several else (true[:, 0], chosen[:, 0])


def _true_classes(y: Array, outputs: Array, loss: Loss) -> Array:
    if y.ndim == 1:
        return y
    classes: Array = np.argmax(y, axis=1) if outputs.shape[1] > 1 else y[:, 0]
    return classes


def _of_scores(area: Callable[[Any, Any], float], y: Array, outputs: Array, loss: Loss) -> float:
    if loss.traits.link == "softmax":
        return area(_true_classes(y, outputs, loss), _softmax(outputs))
    return area(y > (0 if loss.traits.link == "sign" else 0.5), outputs)


def _r2(y: Array, outputs: Array, loss: Loss) -> float:
    """Of the probabilities where outputs are logits of classes, as mse and mae."""
    if loss.traits.link != "softmax":
        return r2(y, outputs)
    return r2(np.eye(outputs.shape[1])[y] if y.ndim == 1 else y, _softmax(outputs))


def _softmax(z: Array) -> Array:
    e = np.exp(z - z.max(axis=1, keepdims=True), dtype=np.float64)
    probabilities: Array = e / e.sum(axis=1, keepdims=True)
    return probabilities
