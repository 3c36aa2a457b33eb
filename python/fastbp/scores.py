"""Scores of predictions, in NumPy; `fastbp.metrics` has them under one roof with the names.

y are the true values, p what was predicted. Both may be anything that numpy.asarray takes, and
frames.

Classes: y is (n,) or (n, 1), numbers or text of any kind. p is (n,) classes; or (n,) probabilities
of class 1, cut at `threshold`, if it holds fractions; or (n, K) scores of the classes 0 .. K - 1,
of which the largest counts.
Several labels: y is (n, K) of 0 and 1, p the same or probabilities, cut at `threshold`.

sample_weight (n,) makes every row count so many times: any finite numbers from 0 on that are not
all 0.

Every score equals scikit-learn's of the same name, with 0 (and no warning) where a ratio is 0 / 0,
and NaN where scikit-learn warns of an undefined area. All raise TypeError for values that are
neither numbers nor text, or one of each; ValueError for shapes that do not go together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from . import checks, weights
from .arrays import Array, as_classes, as_numbers, class_numbers
from .errors import describe

Average = Literal["auto", "binary", "micro", "macro", "weighted"] | None
AVERAGES = ("auto", "binary", "micro", "macro", "weighted", None)


def accuracy(y: Any, p: Any, threshold: float = 0.5, *, sample_weight: Any = None) -> float:
    """Share of the rows that are right; of several labels, of those with all labels right."""
    t, q = _labels(y, p, threshold)
    right = t == q
    right = right if right.ndim == 1 else right.all(axis=1)
    return float(np.average(right, weights=_weights(sample_weight, len(t))))


def top_k(y: Any, p: Any, k: int = 5, *, sample_weight: Any = None) -> float:
    """Share of the rows whose class is among the k largest scores, p being (n, K).

    y are classes 0 .. K - 1; or names of K classes, for which p has columns in order of the names.
    NaN where a score is. Raises ValueError for other classes and k below 1.
    """
    k, given, scores = checks.integer("k", k), _column(_classes("y", y)), _array("p", p)
    if scores.ndim != 2 or given.ndim != 1 or len(scores) != len(given):
        raise ValueError(f"y has shape {given.shape}, which does not go with p of {scores.shape}")
    t = _numbers(given, scores.shape[1])
    weight = _weights(sample_weight, len(t))
    if np.isnan(scores).any():
        return float("nan")
    own = scores[np.arange(len(t)), t][:, None]
    later = np.arange(scores.shape[1]) > t[:, None]  # of equal scores the last comes first
    before = (scores > own) | ((scores == own) & later)
    return float(np.average(before.sum(axis=1) < k, weights=weight))


def confusion_matrix(y: Any, p: Any, threshold: float = 0.5, *, sample_weight: Any = None) -> Array:
    """(K, K): how many rows of class i (in order of size, or of the alphabet) were taken for j.

    int64; float64 sums of weights with sample_weight.
    """
    t, q = _labels(y, p, threshold)
    if t.ndim == 2:
        raise ValueError("confusion_matrix is about one class for each row; y has several labels")
    labels, codes = np.unique(np.concatenate([t, q]), return_inverse=True)
    true, taken = codes[: len(t)], codes[len(t) :]
    cells = true * len(labels) + taken
    weight = None if sample_weight is None else weights.samples(sample_weight, len(t))
    counts = np.bincount(cells, weight, minlength=len(labels) ** 2)
    return counts.reshape(len(labels), len(labels))


def precision(
    y: Any, p: Any, average: Average = "auto", threshold: float = 0.5, *, sample_weight: Any = None
) -> Any:
    """Of what was taken for a class, the share that is; see f1 for `average`."""
    right, taken, true = _counts(y, p, average, threshold, sample_weight)
    return _averaged(right, taken, true, average)


def recall(
    y: Any, p: Any, average: Average = "auto", threshold: float = 0.5, *, sample_weight: Any = None
) -> Any:
    """Of what is of a class, the share that was taken for it; see f1 for `average`."""
    right, _, true = _counts(y, p, average, threshold, sample_weight)
    return _averaged(right, true, true, average)


def f1(
    y: Any, p: Any, average: Average = "auto", threshold: float = 0.5, *, sample_weight: Any = None
) -> Any:
    """2 * right / (taken + true): the harmonic mean of precision and recall.

    average: "binary" that of class 1; "macro" the mean over the classes, "weighted" weighted by
    their rows, "micro" from the sums over all classes; None each class's, in order; "auto" binary
    where all classes are 0 and 1, else macro. Raises ValueError for "binary" of other classes.
    """
    right, taken, true = _counts(y, p, average, threshold, sample_weight)
    return _averaged(2 * right, taken + true, true, average)


def _counts(
    y: Any, p: Any, average: Average, threshold: float, sample_weight: Any
) -> tuple[Array, Array, Array]:
    """For each class its rows that were right, that were taken for it, and that it has.

    One class, 1, where the average is binary.
    """
    if average not in AVERAGES:
        raise ValueError(f"average must be one of {AVERAGES}; got {describe(average)}")
    t, q = _labels(y, p, threshold)
    weight = _weights(sample_weight, len(t))
    if t.ndim == 2:
        if average == "binary":
            raise ValueError("average='binary' is about classes 0 and 1; y has several labels")
        return _sums(t & q, weight), _sums(q, weight), _sums(t, weight)
    labels, codes = np.unique(np.concatenate([t, q]), return_inverse=True)
    two = labels.dtype.kind in "biuf" and bool(np.isin(labels, (0, 1)).all())
    if average == "binary" and not two:
        raise ValueError(
            f"average='binary' is about classes 0 and 1; these are {_some(labels)}: compare with "
            "the class that is meant, as in f1(y == one, p == one)"
        )
    if two and average in ("binary", "auto"):
        t, q = (t == 1)[:, None], (q == 1)[:, None]
        return _sums(t & q, weight), _sums(q, weight), _sums(t, weight)
    true, taken = codes[: len(t)], codes[len(t) :]
    own = None if weight is None else weight[true == taken]
    each = ((true[true == taken], own), (taken, weight), (true, weight))
    right, named, there = (np.bincount(of, w, minlength=len(labels)) for of, w in each)
    return right, named, there


def _sums(chosen: Array, weight: Array | None) -> Array:
    """How many rows of each column of bool (n, columns), or their weight."""
    sums: Array = chosen.sum(axis=0) if weight is None else weight @ chosen
    return sums


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


def auc(y: Any, p: Any, *, sample_weight: Any = None) -> float:
    """Area under the ROC curve: the chance that a row of class 1 has a larger score than another.

    y is (n,) of 0 and 1 (of two other numbers the larger is class 1, of two names the later) with p
    (n,), (n, 1) or (n, 2) scores; or (n,) class numbers, or names in whose order p has columns,
    with p (n, K): then the mean over the classes of each against the rest; or (n, K) labels with p
    (n, K): the mean over the labels. NaN where a class has all rows or none. Raises ValueError for
    more classes than p has scores for.
    """
    return _each_against_the_rest(y, p, sample_weight, _roc_area)


def average_precision(y: Any, p: Any, *, sample_weight: Any = None) -> float:
    """The precision at every score, averaged over the rows of class 1; arguments as for auc.

    The usual summary of the precision-recall curve. 0 where a class has no row.
    """
    return _each_against_the_rest(y, p, sample_weight, _average_precision)


Area = Callable[[Array, Array, Array | None], float]


def _each_against_the_rest(y: Any, p: Any, sample_weight: Any, area: Area) -> float:
    t, scores = _column(_classes("y", y)), _column(_array("p", p))
    if scores.ndim == 2 and scores.shape[1] == 2 and t.ndim == 1:
        scores = scores[:, 1]
    if len(scores) != len(t) or t.ndim > scores.ndim or (t.ndim == 2 and t.shape != scores.shape):
        raise ValueError(f"y has shape {t.shape}, which does not go with p of {scores.shape}")
    weight = _weights(sample_weight, len(t))
    if scores.ndim == 1:
        return float(area(_class_1(t), scores, weight))
    columns = range(scores.shape[1])
    if t.ndim == 1:
        t = _numbers(t, scores.shape[1])
    positive = [t == k if t.ndim == 1 else t[:, k] > 0.5 for k in columns]
    return float(np.mean([area(positive[k], scores[:, k], weight) for k in columns]))


def _class_1(t: Array) -> Array:
    """Which rows (n,) are of class 1, the larger of two."""
    if t.dtype.kind not in "biuf":
        names, t = np.unique(t, return_inverse=True)
        if len(names) == 1:
            raise ValueError(f"y holds one class, {_some(names)}, of which nothing says what it is")
    low, high = t.min(), t.max()
    if not ((t == low) | (t == high)).all():
        raise ValueError(
            "y must hold two classes where p has one score for each row; give p (n, classes) for "
            "more"
        )
    one: Array = t > 0.5 if low == high else t == high
    return one


def _roc_area(positive: Array, scores: Array, weight: Array | None) -> float:
    """Each row of class 1 beats the others with smaller scores, and half of those with its own."""
    if np.isnan(scores).any():
        return float("nan")
    _, codes = np.unique(scores, return_inverse=True)
    every = np.ones(len(scores)) if weight is None else weight
    ones, others = np.bincount(codes, every * positive), np.bincount(codes, every * ~positive)
    pairs = ones.sum() * others.sum()
    beaten = np.cumsum(others) - others / 2
    return float((ones * beaten).sum() / pairs) if pairs else float("nan")


def _average_precision(positive: Array, scores: Array, weight: Array | None) -> float:
    if np.isnan(scores).any():
        return float("nan")
    every = np.ones(len(scores)) if weight is None else weight
    _, codes = np.unique(-scores, return_inverse=True)
    right, taken = np.bincount(codes, every * positive), np.cumsum(np.bincount(codes, every))
    if not right.any():
        return 0.0
    shares = np.divide(np.cumsum(right), taken, out=np.zeros(len(taken)), where=taken > 0)
    return float((right * shares).sum() / right.sum())


def mse(y: Any, p: Any, *, sample_weight: Any = None) -> float:
    """Mean of (y - p)^2 over all values."""
    t, q = _values(y, p)
    return float(np.mean(np.average((t - q) ** 2, axis=0, weights=_weights(sample_weight, len(t)))))


def mae(y: Any, p: Any, *, sample_weight: Any = None) -> float:
    """Mean of |y - p| over all values."""
    t, q = _values(y, p)
    return float(np.mean(np.average(abs(t - q), axis=0, weights=_weights(sample_weight, len(t)))))


def r2(y: Any, p: Any, *, sample_weight: Any = None) -> float:
    """1 - sum (y - p)^2 / sum (y - mean y)^2, averaged over the columns.

    Of a constant column 1 where it is met exactly and 0 elsewhere; NaN for fewer than two rows.
    """
    t, q = _values(y, p)
    weight = _weights(sample_weight, len(t))
    if len(t) < 2:
        return float("nan")
    each = np.ones((len(t), 1)) if weight is None else weight[:, None]
    mean = np.average(t, axis=0, weights=weight)
    error, spread = (each * (t - q) ** 2).sum(axis=0), (each * (t - mean) ** 2).sum(axis=0)
    ratio = np.divide(error, spread, out=(error > 0).astype(np.float64), where=spread != 0)
    return float(np.mean(1 - ratio))


def _weights(sample_weight: Any, n: int) -> Array | None:
    """The weights of n rows, of which only the ratios count."""
    return None if sample_weight is None else weights.scaled(weights.samples(sample_weight, n))


def _array(name: str, value: Any) -> Array:
    return _with_rows(name, as_numbers(name, value))


def _classes(name: str, value: Any) -> Array:
    """Numbers, or text."""
    return _with_rows(name, as_classes(name, value))


def _with_rows(name: str, array: Array) -> Array:
    if array.ndim not in (1, 2) or array.size == 0:
        raise ValueError(f"{name} must have rows, (n,) or (n, columns); got shape {array.shape}")
    return array


def _numbers(t: Array, classes: int) -> Array:
    """Class numbers (n,) of classes 0 .. classes - 1, or of the names of so many."""
    if t.dtype.kind in "biuf":
        return class_numbers(t, classes)
    names, numbers = np.unique(t, return_inverse=True)
    if len(names) != classes:
        raise ValueError(
            f"y has {len(names)} names, {_some(names)}, but p has {classes} columns, one for each "
            "class: give y as class numbers"
        )
    return numbers


def _some(labels: Array) -> str:
    """The first of them in words."""
    first = ", ".join(repr(label) for label in labels[:5].tolist())
    return first + (", ..." if len(labels) > 5 else "")


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
    t, q = _column(_classes("y", y)), _column(_classes("p", p))
    if len(t) != len(q) or (t.ndim == 2 and t.shape != q.shape):
        raise ValueError(f"y has shape {t.shape}, which does not go with p of shape {q.shape}")
    texts = [array.dtype.kind not in "biuf" for array in (t, q)]
    if any(texts):
        _require_names(t, q, texts)
        return t, q
    if t.ndim == 2:
        return t > 0.5, q > threshold
    if q.ndim == 2:
        return t, np.argmax(q, axis=1)
    if q.dtype.kind == "f" and not (q == np.floor(q)).all():
        q = (q > threshold).astype(np.int64)
    return t, q


def _require_names(t: Array, q: Array, texts: list[bool]) -> None:
    """Raises TypeError unless both are text, ValueError unless it is one class for each row."""
    if not all(texts):
        kinds = ["text" if text else "numbers" for text in texts]
        raise TypeError(
            f"y holds {kinds[0]}, but p holds {kinds[1]}: give both as names, or both as numbers. "
            "Of numbers and scores from sorted names: numpy.unique(names)[numbers], "
            "numpy.unique(names)[scores.argmax(axis=1)]"
        )
    if q.ndim == 2:
        raise ValueError(
            f"names must be one for each row; got shapes {t.shape} and {q.shape}. Of several "
            "labels give columns of 0 and 1"
        )
