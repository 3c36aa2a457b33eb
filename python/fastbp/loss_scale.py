"""What models with dtype="float16" tell of the scale of their loss (reference/float16.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from .arrays import Array


class LossScale(NamedTuple):
    """The scale of the loss in training.

    scale: what the loss is multiplied by before the backward pass. good_updates: updates since it
    changed last. skipped_updates: updates that were left out since compile, because the gradient
    was not finite.
    """

    scale: float
    good_updates: int
    skipped_updates: int


def array_of(engine: Any) -> Array | None:
    """The scale in the engine, live and writable; None where its loss is not scaled."""
    scale: Array | None = getattr(engine, "loss_scale", None)
    return scale


def of(engine: Any) -> LossScale | None:
    """The scale as it stands; None where the loss is not scaled."""
    array = array_of(engine)
    if array is None:
        return None
    scale, good, skipped = array.tolist()
    return LossScale(scale, int(good), int(skipped))


def is_valid(array: Array) -> bool:
    """Whether training may leave the scale so: a power of two, and two counts."""
    scale, good, skipped = array.astype(np.float64)
    counts = [good, skipped]
    return bool(
        np.isfinite(array).all()
        and np.frexp(scale)[0] == 0.5
        and all(count >= 0 and count == int(count) for count in counts)
    )
