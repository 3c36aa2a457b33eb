"""What fit trains on and what it validates on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import arrays, checks
from .arrays import Array
from .lazy import part
from .sequences import Sequences
from .weights import ClassWeight

if TYPE_CHECKING:
    from .model import Sequential


class Given(NamedTuple):
    """Rows and weights as the caller of fit gives them."""

    x: Any
    y: Any
    sample_weight: Any
    class_weight: ClassWeight


class Rows(NamedTuple):
    """Rows as the engine takes them; weights of their losses, or None where all are alike."""

    x: Any  # an array, or LazyRows
    y: Array
    weights: Array | None

    def part(self, rows: Any) -> Rows:
        """Some of the rows, by index or slice."""
        weights = None if self.weights is None else self.weights[rows]
        return Rows(self.x[rows], self.y[rows], weights)

    def at_hand(self) -> Rows:
        """The same on the host, copied if they are on a device."""
        x = self.x.at_hand() if isinstance(self.x, Sequences) else arrays.at_hand(self.x)
        return Rows(x, arrays.at_hand(self.y), arrays.at_hand(self.weights))


def split(
    model: Sequential, given: Given, share: float, validation_data: Any, stratify: bool
) -> tuple[Rows, Rows | None]:
    """Training rows and validation rows, checked; see Sequential.fit."""
    share = checks.real("validation_split", share, 0, 1, open_high=True)
    stratify = checks.boolean("stratify", stratify)
    if validation_data is not None and share:
        raise ValueError("give validation_split or validation_data, not both")
    if stratify and not share:
        raise ValueError("stratify=True is about validation_split, which is 0")
    _require_rows(validation_data)
    x, y = pair(model, given.x, given.y)
    samples = given.sample_weight
    if not share:
        rows = Rows(x, y, model._weights(x, y, samples, given.class_weight))
        return rows, validation(model, validation_data, x.shape[-1])
    kept = math.floor(len(x) * (1 - share) + 1e-9)  # 10 * (1 - 0.9) is a little below 1
    if not 0 < kept < len(x):
        raise ValueError(
            f"validation_split={share:g} of {len(x)} rows leaves {kept} to train and "
            f"{len(x) - kept} to validate; both need at least one"
        )
    train: Any = slice(kept)
    held: Any = slice(kept, None)
    if stratify:
        held = stratified(classes_of(model, arrays.at_hand(y)), len(x) - kept)
        train = ~held
    samples = None if samples is None else model._samples(samples, x, y)
    parts = []
    for chosen, class_weight in ((train, given.class_weight), (held, None)):
        own = None if samples is None else samples[chosen]
        rows = Rows(part(x, chosen), y[chosen], None)
        factors = model._weights(rows.x, rows.y, own, class_weight)
        parts.append(rows._replace(weights=factors))
    return parts[0], parts[1]


def validation(model: Sequential, data: Any, inputs: int) -> Rows | None:
    """The rows of validation_data, checked; None for None."""
    _require_rows(data)
    if data is None:
        return None
    x, y, *samples = data
    x, y = pair(model, x, y, ("validation_data[0]", "validation_data[1]"), inputs)
    return Rows(x, y, model._weights(x, y, samples[0] if samples else None))


def _require_rows(data: Any) -> None:
    if data is not None and (not isinstance(data, (tuple, list)) or len(data) not in (2, 3)):
        raise TypeError("validation_data must be (X, y) or (X, y, sample_weight)")


def pair(
    model: Sequential,
    x: Any,
    y: Any,
    names: tuple[str, str] = ("X", "y"),
    width: int | None = None,
) -> tuple[Any, Array]:
    """Checked rows: arrays, or X as LazyRows where it is better not converted as a whole."""
    compiled = model._require_compiled()
    x = model._in_rows(x)
    if not model._is_lazy(x):
        return model._check_rows(x, y, compiled, names, width)
    lazy = model._lazy(x, width, names[0])
    dtype, loss = model._dtype, compiled.loss
    return lazy, arrays.targets(y, len(lazy), model.outputs, loss, dtype, names)


def classes_of(model: Sequential, y: Array) -> Array:
    """The class of every row as an integer. Raises ValueError where the loss is not about one."""
    loss = model.loss
    if model._gives_sequences():
        raise ValueError("stratify=True needs one class for each row, but every step has a target")
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
