"""Regularizers: penalties on a layer's kernel that are added to the loss, with Keras' definitions.

    Dense(64, activation="relu", kernel_regularizer=L2(1e-4))

The loss that training and evaluation report includes them, but for layers that are frozen; so does
that of every step, which a loss that is a sum, half_sse, adds up over an epoch.
AdamW(weight_decay=...) is not the same as L2 with Adam: it shrinks the weights beside the adaptive
step, L2 goes through it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from . import checks
from .errors import lookup
from .spec import Spec


class Regularizer(Spec):
    """Base: l1 * sum |w| + l2 * sum w^2, whose gradient is l1 sign(w) + 2 l2 w."""

    l1: float
    l2: float

    def __call__(self, w: ArrayLike) -> float:
        """The penalty on w, of any shape, in float64."""
        flat = np.asarray(w, np.float64)
        return float(self.l1 * np.abs(flat).sum() + self.l2 * np.square(flat).sum())


class L1L2(Regularizer):
    """l1 * sum |w| + l2 * sum w^2."""

    def __init__(self, l1: float = 0.0, l2: float = 0.0) -> None:
        self._set(l1=checks.real("l1", l1, 0), l2=checks.real("l2", l2, 0))


class L1(Regularizer):
    """l1 * sum |w|: drives weights to 0."""

    def __init__(self, l1: float = 0.01) -> None:
        self._set(l1=checks.real("l1", l1, 0))

    l2 = 0.0


class L2(Regularizer):
    """l2 * sum w^2: keeps weights small."""

    def __init__(self, l2: float = 0.01) -> None:
        self._set(l2=checks.real("l2", l2, 0))

    l1 = 0.0


CLASSES: dict[str, type[Regularizer]] = {cls.__name__: cls for cls in (L1, L2, L1L2)}
_NAMED = {name.lower(): cls for name, cls in CLASSES.items()}


def get(value: Regularizer | str | None) -> Regularizer | None:
    """A regularizer from itself, its name in any case, or None."""
    if value is None or isinstance(value, Regularizer):
        return value
    given: object = value
    return lookup("regularizer", given.lower() if isinstance(given, str) else given, _NAMED)()
