"""What fit trains on and what it validates on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from . import arrays, checks
from .arrays import Array
from .lazy import LazyRows, part

if TYPE_CHECKING:
    from .model import Sequential

Pair = tuple[Any, Array]  # X may be LazyRows


def split(
    model: Sequential, x: Any, y: Any, share: float, validation_data: Any, stratify: bool
) -> tuple[Any, Array, Pair | None]:
    """Training rows and validation rows, checked; see Sequential.fit."""
    share = checks.real("validation_split", share, 0, 1, open_high=True)
    stratify = checks.boolean("stratify", stratify)
    if validation_data is not None and share:
        raise ValueError("give validation_split or validation_data, not both")
    if stratify and not share:
        raise ValueError("stratify=True is about validation_split, which is 0")
    _require_pair(validation_data)
    x, y = rows(model, x, y)
    if validation_data is not None:
        return x, y, validation(model, validation_data, x.shape[-1])
    if not share:
        return x, y, None
    kept = math.floor(len(x) * (1 - share) + 1e-9)  # 10 * (1 - 0.9) is a little below 1
    if not 0 < kept < len(x):
        raise ValueError(
            f"validation_split={share:g} of {len(x)} rows leaves {kept} to train and "
            f"{len(x) - kept} to validate; both need at least one"
        )
    if not stratify:
        return part(x, slice(kept)), y[:kept], (part(x, slice(kept, None)), y[kept:])
    held = stratified(classes_of(model, y), len(x) - kept)
    return part(x, ~held), y[~held], (part(x, held), y[held])


def validation(model: Sequential, data: Any, inputs: int) -> Pair | None:
    """The checked pair (X, y) of validation_data, None for None."""
    _require_pair(data)
    if data is None:
        return None
    xv, yv = data
    return rows(model, xv, yv, ("validation_data[0]", "validation_data[1]"), inputs)


def _require_pair(data: Any) -> None:
    if data is not None and (not isinstance(data, (tuple, list)) or len(data) != 2):
        raise TypeError("validation_data must be a pair (X, y)")


def rows(
    model: Sequential,
    x: Any,
    y: Any,
    names: tuple[str, str] = ("X", "y"),
    width: int | None = None,
) -> tuple[Any, Array]:
    """Checked rows: arrays, or X as LazyRows where it is better not converted as a whole."""
    compiled = model._require_compiled()
    if not model._is_lazy(x):
        return model._check_rows(x, y, compiled, names, width)
    lazy = LazyRows(x, model._inputs or width, model._dtype, names[0])
    dtype, loss = model._dtype, compiled.loss
    return lazy, arrays.targets(y, len(lazy), model.outputs, loss, dtype, names)


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
