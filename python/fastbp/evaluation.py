"""Loss and metrics over all rows of a data set, for evaluate and for fit's validation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from . import _core
from .arrays import Array
from .callbacks.hooks import Hooks
from .runs import Place

if TYPE_CHECKING:
    from .model import Sequential

# Rows at a time where nothing is trained: bounds the memory for activations.
EVALUATION_BATCH = 1024


def evaluate(
    model: Sequential,
    engine: _core.Engine,
    data: tuple[Array, Array],
    batch_size: int,
    hooks: Hooks,
    place: Place,
) -> dict[str, float]:
    """{"loss": ..., metric: ...} over the rows of the checked pair (x, y); calls the test hooks."""
    hooks.call("on_test_begin", place, {})
    by_batches = hooks.has("on_test_batch_begin") or hooks.has("on_test_batch_end")
    if by_batches:
        logs = _by_batches(model, engine, data, batch_size, hooks, place)
    else:
        logs = _measure(model, engine, data, batch_size, place)
    hooks.call("on_test_end", place, logs)
    return logs


def _measure(
    model: Sequential,
    engine: _core.Engine,
    data: tuple[Array, Array],
    batch_size: int,
    place: Place,
) -> dict[str, float]:
    names = model._require_compiled().metrics
    opened, place.interrupts.open = place.interrupts.open, True
    try:
        loss, values = engine.evaluate(*data, batch_size, names)
    finally:
        place.interrupts.open = opened
    return {"loss": loss, **dict(zip(names, values, strict=True))}


def _by_batches(
    model: Sequential,
    engine: _core.Engine,
    data: tuple[Array, Array],
    batch_size: int,
    hooks: Hooks,
    place: Place,
) -> dict[str, float]:
    """The same in one call of the engine for each batch, between the hooks."""
    x, y = data
    sums: dict[str, float] = {}
    logs: dict[str, float] = {}
    loss_sums = model.loss.traits.sums
    for batch, first in enumerate(range(0, len(x), batch_size)):
        rows = slice(first, first + batch_size)
        hooks.call("on_test_batch_begin", place, batch, dict(logs))
        measured = _measure(model, engine, (x[rows], y[rows]), batch_size, place)
        count = len(x[rows])
        for name, value in measured.items():
            whole = name == "loss" and loss_sums
            sums[name] = sums.get(name, 0.0) + (value if whole else value * count)
            logs[name] = sums[name] if whole else sums[name] / (first + count)
        hooks.call("on_test_batch_end", place, batch, dict(logs))
    return logs


def gradient_norms(model: Sequential, engine: _core.Engine, x: Array, y: Array) -> dict[str, float]:
    """The length of each layer's gradient on one batch, by "gradient_norm_<place of the layer>"."""
    from . import network

    engine.gradients(x, y)
    squares: dict[str, float] = {}
    for name, view in network.views(model.layers, engine, engine.gradients_).items():
        layer = f"gradient_norm_{name.split('.')[0]}"
        squares[layer] = squares.get(layer, 0.0) + float(np.sum(np.square(view, dtype=np.float64)))
    return {name: float(np.sqrt(square)) for name, square in squares.items()}
