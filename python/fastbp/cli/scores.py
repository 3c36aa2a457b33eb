"""Network outputs as predictions and scores in the target's own terms."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .. import text
from .columns import Target

Array = npt.NDArray[Any]


def probabilities(target: Target, outputs: Array) -> npt.NDArray[np.float64]:
    """(rows, classes) from the logits of a binary (rows, 1) or multiclass (rows, C) network."""
    logits = outputs.astype(np.float64)
    if target.task == "binary":
        logits = np.hstack([np.zeros_like(logits), logits])  # sigmoid(z) = softmax([0, z])[1]
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: npt.NDArray[np.float64] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return shares


def predictions(target: Target, outputs: Array) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the CSV that `fastbp predict` writes."""
    if target.task == "regression":
        values = outputs[:, 0].astype(np.float64) * target.std + target.mean
        return [target.name], [[f"{value:.9g}"] for value in values]
    shares = probabilities(target, outputs)
    chosen = shares.argmax(axis=1)
    header = [target.name, *(f"p({name})" for name in target.classes)]
    rows = [
        [target.classes[number], *(f"{share:.6f}" for share in row)]
        for number, row in zip(chosen, shares, strict=True)
    ]
    return header, rows


def scores(target: Target, outputs: Array, right: Array) -> dict[str, float]:
    """Figures by name; `right` is what Target.encode gave for the same rows.

    baseline_accuracy is that of naming the commonest class always.
    """
    if target.task == "regression":
        return _regression_scores(target, outputs, right)
    numbers = right.reshape(-1).astype(np.int64)
    shares = probabilities(target, outputs)
    likelihood = np.maximum(shares[np.arange(len(numbers)), numbers], np.finfo(np.float64).tiny)
    return {
        "accuracy": float(np.mean(shares.argmax(axis=1) == numbers)),
        "loss": float(-np.log(likelihood).mean()),
        "baseline_accuracy": float(np.bincount(numbers).max() / len(numbers)),
    }


def _regression_scores(target: Target, outputs: Array, right: Array) -> dict[str, float]:
    """R2 only where the right answers differ. Squares are those of standardised values."""
    errors = outputs[:, 0].astype(np.float64) - right[:, 0]
    mse = float(np.mean(errors**2))
    measured = {
        "rmse": mse**0.5 * target.std,
        "mae": float(np.mean(np.abs(errors))) * target.std,
    }
    alike = right.min() == right.max()  # their mean may differ from them in the last digit
    spread = 0.0 if alike else float(np.mean((right - right.mean()) ** 2))
    return measured if spread == 0 else {**measured, "r2": 1 - mse / spread}


def by_class(
    target: Target, outputs: Array, right: Array
) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """precision, recall, f1 and rows of each class; and their plain means, with all rows.

    A ratio without cases is 0, as scikit-learn has it.
    """
    counts = _confusion_counts(target, outputs, right).astype(np.float64)
    hits, named, rows = np.diag(counts), counts.sum(axis=0), counts.sum(axis=1)
    precision = np.divide(hits, named, out=np.zeros_like(hits), where=named > 0)
    recall = np.divide(hits, rows, out=np.zeros_like(hits), where=rows > 0)
    both = precision + recall
    f1 = np.divide(2 * precision * recall, both, out=np.zeros_like(hits), where=both > 0)
    table = np.column_stack([precision, recall, f1, rows])
    means = [*table[:, :3].mean(axis=0), rows.sum()]
    names = ("precision", "recall", "f1", "rows")
    *each, average = (dict(zip(names, row, strict=True)) for row in [*table.tolist(), means])
    return dict(zip(target.classes, each, strict=True)), average


def class_report(target: Target, outputs: Array, right: Array) -> str:
    """`by_class` as text."""
    found, average = by_class(target, outputs, right)
    head = ["class", *average]
    body = [
        [name, *(f"{value:.4f}" for value in list(row.values())[:3]), f"{row['rows']:.0f}"]
        for name, row in (*found.items(), ("macro average", average))
    ]
    return text.table([head, *body], indent=0)


def confusion(target: Target, outputs: Array, right: Array) -> str:
    """The confusion matrix as text: one row per true class, one column per predicted class."""
    counts = _confusion_counts(target, outputs, right)
    head = ["true \\ predicted", *target.classes]
    body = [[name, *map(str, row)] for name, row in zip(target.classes, counts, strict=True)]
    return text.table([head, *body])


def _confusion_counts(target: Target, outputs: Array, right: Array) -> npt.NDArray[np.int64]:
    """Rows by true class and predicted class."""
    counts = np.zeros((len(target.classes), len(target.classes)), dtype=np.int64)
    chosen = probabilities(target, outputs).argmax(axis=1)
    np.add.at(counts, (right.reshape(-1).astype(np.int64), chosen), 1)
    return counts
