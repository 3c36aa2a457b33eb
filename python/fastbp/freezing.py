"""Training a part of a model: which layers are frozen."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from . import checks, network
from .errors import describe

if TYPE_CHECKING:
    from .transferable import Transferable


def freeze(model: Transferable, upto: int | None, layers: Iterable[int] | None) -> None:
    """Sequential.freeze; see there."""
    count = len(model.layers)
    if (upto is None) == (layers is None):
        raise TypeError("freeze takes either upto=<number of layers> or layers=<their places>")
    if upto is not None:
        frozen = frozenset(range(checks.integer("upto", upto, 0, count)))
    else:
        given: object = layers
        if isinstance(given, str) or not isinstance(given, Iterable):
            raise TypeError(f"layers must be places such as [0, 2]; got {describe(given)}")
        frozen = frozenset(checks.integer("layers", place, 0, count - 1) for place in given)
    if model._engine is not None:
        network.freeze(model.layers, model._engine, frozen)
    model._frozen = frozen


def trained(model: Transferable, names: Iterable[str]) -> list[str]:
    """Those of the parameters that belong to layers that are not frozen."""
    return [name for name in names if int(name.split(".")[0]) not in model._frozen]
