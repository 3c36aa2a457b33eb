"""Scores of predictions, in NumPy; `fastbp.metrics` has them under one roof with the names.

y are the true values, p what was predicted. Both may be anything that numpy.asarray takes.

Classes: y is (n,) or (n, 1), numbers of any kind. p is (n,) classes; or (n,) probabilities of
class 1, cut at `threshold`, if it holds fractions; or (n, K) scores, of which the largest counts.
Several labels: y is (n, K) of 0 and 1, p the same or probabilities, cut at `threshold`.

Every score equals scikit-learn's of the same name, with 0 (and no warning) where a ratio is 0 / 0,
and NaN where scikit-learn warns of an undefined area.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from . import checks
from .arrays import Array, as_numbers, class_numbers
from .errors import describe

Average = Literal["auto", "binary", "micro", "macro", "weighted"] | None
AVERAGES = ("auto", "binary", "micro", "macro", "weighted", None)


def accuracy(y: Any, p: Any, threshold: float = 0.5) -> float:
    """Share of the rows that are right; of several labels, of those with all labels right."""
    t, q = _labels(y, p, threshold)
    right = t == q
    return float(np.mean(right if right.ndim == 1 else right.all(axis=1)))


def top_k(y: Any, p: Any, k: int = 5) -> float:
    """Share of the rows whose class 0 .. K - 1 is among the k largest scores, p being (n, K).

    NaN where a score is. Raises ValueError for other classes and k below 1.
    """
    k, given, scores = checks.integer("k", k), _column(_array("y", y)), _array("p", p)
    if scores.ndim != 2 or given.ndim != 1 or len(scores) != len(given):
        raise ValueError(f"y has shape {given.shape}, which does not go with p of {scores.shape}")
    t = class_numbers(given, scores.shape[1])
    if np.isnan(scores).any():
        return float("nan")
    own = scores[np.arange(len(t)), t][:, None]
    later = np.arange(scores.shape[1]) > t[:, None]  # of equal scores the last comes first
    before = (scores > own) | ((scores == own) & later)
    return float(np.mean(before.sum(axis=1) < k))


def confusion_matrix(y: Any, p: Any, threshold: float = 0.5) -> Array:
    """int64 (K, K): how many rows of class i (in order of size) were taken for class j."""
    t, q = _labels(y, p, threshold)
    if t.ndim == 2:
        raise ValueError("confusion_matrix is about one class for each row; y has several labels")
    labels, codes = np.unique(np.concatenate([t, q]), return_inverse=True)
    true, taken = codes[: len(t)], codes[len(t) :]
    counts = np.bincount(true * len(labels) + taken, minlength=len(labels) ** 2)
    return counts.reshape(len(labels), len(labels))


def precision(y: Any, p: Any, average: Average = "auto", threshold: float = 0.5) -> Any:
    """Of what was taken for a class, the share that is; see f1 for `average`."""
    right, taken, true = _counts(y, p, average, threshold)
    return _averaged(right, taken, true, average)


def recall(y: Any, p: Any, average: Average = "auto", threshold: float = 0.5) -> Any:
    """Of what is of a class, the share that was taken for it; see f1 for `average`."""
    right, _, true = _counts(y, p, average, threshold)
    return _averaged(right, true, true, average)


def f1(y: Any, p: Any, average: Average = "auto", threshold: float = 0.5) -> Any:
    """2 * right / (taken + true): the harmonic mean of precision and recall.

    average: "binary" that of class 1; "macro" the mean over the classes, "weighted" weighted by
    their rows, "micro" from the sums over all classes; None each class's, in order; "auto" binary
    where all classes are 0 and 1, else macro. Raises ValueError for "binary" of other classes.
    """
    right, taken, true = _counts(y, p, average, threshold)
    return _averaged(2 * right, taken + true, true, average)


def _counts(y: Any, p: Any, average: Average, threshold: float) -> tuple[Array, Array, Array]:
    """For each class its rows that were right, that were taken for it, and that it has.

    One class, 1, where the average is binary.
    """
    if average not in AVERAGES:
        raise ValueError(f"average must be one of {AVERAGES}; got {describe(average)}")
    t, q = _labels(y, p, threshold)
    if t.ndim == 2:
        if average == "binary":
            raise ValueError("average='binary' is about classes 0 and 1; y has several labels")
        return (t & q).sum(axis=0), q.sum(axis=0), t.sum(axis=0)
    labels, codes = np.unique(np.concatenate([t, q]), return_inverse=True)
    two = bool(np.isin(labels, (0, 1)).all())
    if average == "binary" and not two:
        raise ValueError(f"average='binary' is about classes 0 and 1; these are {labels.tolist()}")
    if two and average in ("binary", "auto"):
        t, q = t == 1, q == 1
        return np.array([(t & q).sum()]), np.array([q.sum()]), np.array([t.sum()])
    true, taken, size = codes[: len(t)], codes[len(t) :], len(labels)
    right = np.bincount(true[true == taken], minlength=size)
    return right, np.bincount(taken, minlength=size), np.bincount(true, minlength=size)


def class_counts(t: Array, q: Array, classes: int) -> Array:
    """(3, classes): for each class its rows that were right, taken for it, and that it has.

    t and q are class numbers (n,), or labels, bool (n, classes).
    """
    if t.ndim == 2:
        return np.array([(t & q).sum(axis=0), q.sum(axis=0), t.sum(axis=0)])
    parts = (t[t == q], q, t)
    return np.array([np.bincount(part, minlength=classes) for part in parts])


def scores_of_counts(
    names: Sequence[str], counts: Array, binary: bool, labels: bool
) -> dict[str, Array]:
    """Metrics by name, each (E,), of E counts (E, 3, classes) as class_counts gives them.

    binary: whether a name without an average is about class 1; labels: whether each row has
    several labels, all of which are there. Otherwise what does not occur is no class.
    """
    right, taken, true = counts[:, 0], counts[:, 1], counts[:, 2]
    there = np.ones_like(true, np.bool_) if labels else (taken > 0) | (true > 0)
    found = {}
    for name in names:
        stem, _, average = name.partition("_")
        if name == "accuracy":
            found[name] = right.sum(axis=1) / true.sum(axis=1)
            continue
        parts, wholes = {
            "precision": (right, taken),
            "recall": (right, true),
            "f1": (2 * right, taken + true),
        }[stem]
        average = average or ("binary" if binary else "macro")
        found[name] = _averages(parts, wholes, true, there, average)
    return found


def _averages(parts: Array, wholes: Array, true: Array, there: Array, average: str) -> Array:
    """parts / wholes of the classes (E, classes), averaged (E,); 0 / 0 is 0."""
    if average == "binary":
        return _ratio(parts[:, 1], wholes[:, 1])
    if average == "micro":
        return _ratio(parts.sum(axis=1), wholes.sum(axis=1))
    weights = true if average == "weighted" else there
    return _ratio((_ratio(parts, wholes) * weights).sum(axis=1), weights.sum(axis=1))


def _ratio(parts: Array, wholes: Array) -> Array:
    ratio: Array = np.divide(parts, wholes, out=np.zeros(parts.shape), where=wholes != 0)
    return ratio


def _averaged(parts: Array, wholes: Array, true: Array, average: Average) -> Any:
    """parts / wholes of the classes, averaged; 0 / 0 is 0."""
    if average == "micro":
        parts, wholes = parts.sum(keepdims=True), wholes.sum(keepdims=True)
    ratios = np.divide(parts, wholes, out=np.zeros(len(parts)), where=wholes != 0)
    if average is None:
        return ratios
    if average == "weighted":
        return float(np.average(ratios, weights=true)) if true.any() else 0.0
    return float(ratios.mean())


def auc(y: Any, p: Any) -> float:
    """Area under the ROC curve: the chance that a row of class 1 has a larger score than another.

    y is (n,) of 0 and 1 (of two other numbers the larger is class 1) with p (n,), (n, 1) or (n, 2)
    scores; or (n,) class numbers with p (n, K): then the mean over the classes of each against the
    rest; or (n, K) labels with p (n, K): the mean over the labels. NaN where a class has all rows
    or none. Raises ValueError for more classes than p has scores for.
    """
    return _each_against_the_rest(y, p, _roc_area)


def average_precision(y: Any, p: Any) -> float:
    """The precision at every score, averaged over the rows of class 1; arguments as for auc.

    The usual summary of the precision-recall curve. 0 where a class has no row.
    """
    return _each_against_the_rest(y, p, _average_precision)


def _each_against_the_rest(y: Any, p: Any, area: Any) -> float:
    t, scores = _array("y", y), _array("p", p)
    if scores.ndim == 2 and scores.shape[1] == 1:
        scores = scores[:, 0]
    if t.ndim == 2 and t.shape[1] == 1:
        t = t[:, 0]
    if scores.ndim == 2 and scores.shape[1] == 2 and t.ndim == 1:
        scores = scores[:, 1]
    if len(scores) != len(t) or t.ndim > scores.ndim or (t.ndim == 2 and t.shape != scores.shape):
        raise ValueError(f"y has shape {t.shape}, which does not go with p of {scores.shape}")
    if scores.ndim == 1:
        return float(area(_class_1(t), scores))
    if t.ndim == 1:
        t = class_numbers(t, scores.shape[1])
    columns = range(scores.shape[1])
    positive = [t == k if t.ndim == 1 else t[:, k] > 0.5 for k in columns]
    return float(np.mean([area(positive[k], scores[:, k]) for k in columns]))


def _class_1(t: Array) -> Array:
    """Which rows (n,) are of class 1, the larger of two."""
    low, high = t.min(), t.max()
    if not ((t == low) | (t == high)).all():
        raise ValueError(
            "y must hold two classes where p has one score for each row; give p (n, classes) for "
            "more"
        )
    one: Array = t > 0.5 if low == high else t == high
    return one


def _roc_area(positive: Array, scores: Array) -> float:
    """By the sum of ranks; equal scores share theirs."""
    ones = int(positive.sum())
    if ones == 0 or ones == len(positive) or np.isnan(scores).any():
        return float("nan")
    _, codes, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    excess = ranks[codes[positive]].sum() - ones * (ones + 1) / 2
    return float(excess / (ones * (len(positive) - ones)))


def _average_precision(positive: Array, scores: Array) -> float:
    if np.isnan(scores).any():
        return float("nan")
    ones = int(positive.sum())
    if ones == 0:
        return 0.0
    _, codes, counts = np.unique(-scores, return_inverse=True, return_counts=True)
    right = np.bincount(codes, weights=positive)
    return float((right * np.cumsum(right) / np.cumsum(counts)).sum() / ones)


def mse(y: Any, p: Any) -> float:
    """Mean of (y - p)^2 over all values."""
    t, q = _values(y, p)
    return float(np.mean((t - q) ** 2))


def mae(y: Any, p: Any) -> float:
    """Mean of |y - p| over all values."""
    t, q = _values(y, p)
    return float(np.mean(np.abs(t - q)))


def r2(y: Any, p: Any) -> float:
    """1 - sum (y - p)^2 / sum (y - mean y)^2, averaged over the columns.

    Of a constant column 1 where it is met exactly and 0 elsewhere; NaN for fewer than two rows.
    """
    t, q = _values(y, p)
    if len(t) < 2:
        return float("nan")
    error, spread = ((t - q) ** 2).sum(axis=0), ((t - t.mean(axis=0)) ** 2).sum(axis=0)
    ratio = np.divide(error, spread, out=(error > 0).astype(np.float64), where=spread != 0)
    return float(np.mean(1 - ratio))


def _array(name: str, value: Any) -> Array:
    array = as_numbers(name, value)
    if array.ndim not in (1, 2) or array.size == 0:
        raise ValueError(f"{name} must have rows, (n,) or (n, columns); got shape {array.shape}")
    return array


def _column(array: Array) -> Array:
    """(n, 1) as (n,)."""
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array


def _values(y: Any, p: Any) -> tuple[Array, Array]:
    """Both as float64 (n, columns)."""
    t, q = _column(_array("y", y)), _column(_array("p", p))
    if t.shape != q.shape:
        raise ValueError(f"y has shape {t.shape}, but p has shape {q.shape}")
    wide = (len(t), -1)
    return t.astype(np.float64).reshape(wide), q.astype(np.float64).reshape(wide)


def _labels(y: Any, p: Any, threshold: float) -> tuple[Array, Array]:
    """True and predicted classes (n,), or labels as bool (n, K)."""
    t, q = _column(_array("y", y)), _column(_array("p", p))
    if len(t) != len(q) or (t.ndim == 2 and t.shape != q.shape):
        raise ValueError(f"y has shape {t.shape}, which does not go with p of shape {q.shape}")
    if t.ndim == 2:
        return t > 0.5, q > threshold
    if q.ndim == 2:
        return t, np.argmax(q, axis=1)
    if q.dtype.kind == "f" and not (q == np.floor(q)).all():
        q = (q > threshold).astype(np.int64)
    return t, q
