"""What fit trains on and what it validates on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from . import checks
from .arrays import Array

if TYPE_CHECKING:
    from .model import Sequential

Pair = tuple[Array, Array]


def split(
    model: Sequential, x: Any, y: Any, share: float, validation_data: Any, stratify: bool
) -> tuple[Array, Array, Pair | None]:
    """Training rows and validation rows, checked; see Sequential.fit."""
    compiled = model._require_compiled()
    share = checks.real("validation_split", share, 0, 1, open_high=True)
    stratify = checks.boolean("stratify", stratify)
    if validation_data is not None:
        if share:
            raise ValueError("give validation_split or validation_data, not both")
        if not isinstance(validation_data, (tuple, list)) or len(validation_data) != 2:
            raise TypeError("validation_data must be a pair (X, y)")
    if stratify and not share:
        raise ValueError("stratify=True is about validation_split, which is 0")
    x, y = model._check_rows(x, y, compiled)
    if validation_data is not None:
        names = ("validation_data[0]", "validation_data[1]")
        xv, yv = validation_data
        return x, y, model._check_rows(xv, yv, compiled, names, width=x.shape[1])
    if not share:
        return x, y, None
    kept = math.floor(len(x) * (1 - share) + 1e-9)  # 10 * (1 - 0.9) is a little below 1
    if not 0 < kept < len(x):
        raise ValueError(
            f"validation_split={share:g} of {len(x)} rows leaves {kept} to train and "
            f"{len(x) - kept} to validate; both need at least one"
        )
    if not stratify:
        return x[:kept], y[:kept], (x[kept:], y[kept:])
    held = stratified(classes_of(model, y), len(x) - kept)
    return x[~held], y[~held], (x[held], y[held])


def classes_of(model: Sequential, y: Array) -> Array:
    """The class of every row as an integer. Raises ValueError where the loss is not about one."""
    loss = model.loss
    if y.ndim == 1:
        return y
    if loss.traits.link == "softmax":
        classes: Array = np.argmax(y, axis=1)
        return classes
    if loss.traits.link is None or y.shape[1] > 1:
        raise ValueError(
            "stratify=True needs one class for each row, but the targets are "
            f"{y.shape[1]} numbers for the loss {loss.name!r}"
        )
    positive: Array = (y[:, 0] > 0.5).astype(np.int64)
    return positive


def stratified(classes: Array, count: int) -> Array:
    """Which `count` rows to hold out, as a mask: of each class its share, the last of its rows.

    Shares are rounded down; the rows still wanted come from the classes with the largest rests,
    where rests are equal from the rarest.
    """
    _, codes, sizes = np.unique(classes, return_inverse=True, return_counts=True)
    exact = sizes * (count / len(classes))
    wanted = np.floor(exact).astype(np.int64)
    rest = np.lexsort((sizes, wanted - exact))
    wanted[rest[: count - int(wanted.sum())]] += 1
    held = np.zeros(len(classes), bool)
    for code, number in enumerate(wanted.tolist()):
        if number:
            held[np.flatnonzero(codes == code)[-number:]] = True
    return held
