"""Network outputs as predictions and scores in the target's own terms."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from . import text
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
    errors = (outputs[:, 0].astype(np.float64) - right[:, 0]) * target.std
    spread = float(np.mean((right[:, 0] - right[:, 0].mean()) ** 2)) * target.std**2
    mse = float(np.mean(errors**2))
    measured = {"rmse": mse**0.5, "mae": float(np.mean(np.abs(errors)))}
    return measured if spread == 0 else {**measured, "r2": 1 - mse / spread}


def confusion(target: Target, outputs: Array, right: Array) -> str:
    """The confusion matrix as text: one row per true class, one column per predicted class."""
    counts = np.zeros((len(target.classes), len(target.classes)), dtype=np.int64)
    chosen = probabilities(target, outputs).argmax(axis=1)
    np.add.at(counts, (right.reshape(-1).astype(np.int64), chosen), 1)
    head = ["true \\ predicted", *target.classes]
    body = [[name, *map(str, row)] for name, row in zip(target.classes, counts, strict=True)]
    return text.table([head, *body])
