"""Loss and metrics over all rows of a data set, for evaluate and for fit's validation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from . import _core, metrics, network
from .arrays import Array
from .callbacks.hooks import Hooks
from .holdout import Rows
from .lazy import LazyRows
from .runs import Place

if TYPE_CHECKING:
    from .model import Sequential


def evaluate(
    model: Sequential,
    engine: _core.Engine,
    data: Rows,
    batch_size: int,
    hooks: Hooks,
    place: Place,
) -> dict[str, float]:
    """{"loss": ..., metric: ...} over checked rows; calls the test hooks."""
    hooks.call("on_test_begin", place, {})
    logs = _whole(model, engine, data, batch_size, hooks, place)
    hooks.call("on_test_end", place, logs)
    return logs


def _measure(
    model: Sequential,
    engine: _core.Engine,
    data: Rows,
    batch_size: int,
    place: Place,
    outputs: Array | None,
) -> tuple[float, list[float]]:
    """Loss and the summed metrics; fills outputs."""
    names = metrics.summed(model._require_compiled().metrics)
    opened, place.interrupts.open = place.interrupts.open, True
    try:
        return engine.evaluate(
            data.x, data.y, batch_size, names, outputs=outputs, weights=data.weights
        )
    finally:
        place.interrupts.open = opened


def _whole(
    model: Sequential,
    engine: _core.Engine,
    data: Rows,
    batch_size: int,
    hooks: Hooks,
    place: Place,
) -> dict[str, float]:
    """Loss and all metrics, in one call of the engine, or for each batch between the hooks."""
    compiled = model._require_compiled()
    summed = metrics.summed(compiled.metrics)
    outputs = outputs_of_all(model, len(data.x))
    by_batches = hooks.has("on_test_batch_begin") or hooks.has("on_test_batch_end")
    in_parts = by_batches or isinstance(data.x, LazyRows)
    chunk = batch_size if in_parts else len(data.x)
    sums, logs = np.zeros(1 + len(summed)), dict.fromkeys(("loss", *summed), 0.0)
    total = 0
    for batch, first in enumerate(range(0, len(data.x), chunk)):
        if by_batches:
            hooks.call("on_test_batch_begin", place, batch, dict(logs) if batch else {})
        rows = slice(first, first + chunk)
        kept = None if outputs is None else outputs[rows]
        some = data.part(rows)
        loss, values = _measure(model, engine, some, batch_size, place, kept)
        if not in_parts:
            logs = dict(zip(logs, (loss, *values), strict=True))
            break
        count = model._counted(some.x)
        total += count
        if batch and compiled.loss.traits.sums:
            loss -= network.penalty(model.layers, engine, model._frozen)  # once is enough
        weights = np.full(len(sums), count)
        weights[0] = 1 if compiled.loss.traits.sums else count
        sums += weights * np.array([loss, *values])
        means = sums / total
        means[0] = sums[0] if compiled.loss.traits.sums else means[0]
        logs = dict(zip(logs, means.tolist(), strict=True))
        if by_batches:
            hooks.call("on_test_batch_end", place, batch, dict(logs))
    return all_metrics(model, logs, data.y, outputs)


def outputs_of_all(model: Sequential, rows: int) -> Array | None:
    """Room for the outputs of so many rows, where a metric is computed from them."""
    names = model._require_compiled().metrics
    if len(metrics.summed(names)) == len(names):
        return None
    if model._gives_sequences():
        raise ValueError(
            "metrics of outputs at every step are 'accuracy', 'mse' and 'mae'; got "
            f"{', '.join(map(repr, names))}"
        )
    return np.empty((rows, model.outputs), model._dtype)


def all_metrics(
    model: Sequential, logs: dict[str, float], y: Array, outputs: Array | None
) -> dict[str, float]:
    """Loss and metrics in the order of compile: those summed are in `logs`."""
    compiled = model._require_compiled()
    if outputs is None:
        return logs
    computed = metrics.measure(compiled.metrics, y, outputs, compiled.loss)
    known = {**logs, **computed}
    return {name: known[name] for name in ("loss", *compiled.metrics)}


def gradient_norms(model: Sequential, engine: _core.Engine, batch: Rows) -> dict[str, float]:
    """The length of each layer's gradient on one batch, by "gradient_norm_<place of the layer>"."""
    engine.gradients(*batch)
    squares: dict[str, float] = {}
    for name, view in network.views(model.layers, engine, engine.gradients_).items():
        layer = f"gradient_norm_{name.split('.')[0]}"
        squares[layer] = squares.get(layer, 0.0) + float(np.sum(np.square(view, dtype=np.float64)))
    return {name: float(np.sqrt(square)) for name, square in squares.items()}
