"""Loss and metrics over all rows of a data set, for evaluate and for fit's validation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from . import _core, devices, metrics, network
from .arrays import Array, at_hand
from .callbacks.hooks import Hooks
from .holdout import Rows
from .lazy import for_engine
from .measures import Measures
from .runs import Place
from .sequences import lengths_of, running

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


def measures_of(model: Sequential, inputs: int | None = None) -> Measures:
    """What is measured of the model, or of the model for so many inputs where it is not built."""
    compiled = model._require_compiled()
    outputs = network.outputs(model.layers, model.inputs or inputs)
    counts = not devices.is_cuda(model.device)
    steps = model._gives_sequences()
    return Measures(compiled.metrics, compiled.loss, outputs, counts=counts, steps=steps)


def _measure(
    engine: _core.Engine,
    measures: Measures,
    data: Rows,
    batch_size: int,
    place: Place,
    outputs: Array | None,
) -> Array:
    """The engine's record of the rows (measures.width,), with means; fills outputs."""
    opened, place.interrupts.open = place.interrupts.open, True
    try:
        loss, values = engine.evaluate(
            data.x, data.y, batch_size, measures.engine, outputs=outputs, weights=data.weights
        )
    finally:
        place.interrupts.open = opened
    return np.array([loss, *values])


def _whole(
    model: Sequential,
    engine: _core.Engine,
    data: Rows,
    batch_size: int,
    hooks: Hooks,
    place: Place,
) -> dict[str, float]:
    """Loss and all metrics, in one call of the engine, or for each batch between the hooks."""
    measures = measures_of(model)
    outputs = outputs_of_all(model, measures, engine.inputs, data.x)
    by_batches = hooks.has("on_test_batch_begin") or hooks.has("on_test_batch_end")
    whole = for_engine(data.x)
    if not by_batches and whole is not None:
        rows = data._replace(x=whole)
        record = _measure(engine, measures, rows, batch_size, place, outputs)
        logs = measures.named(record[None])[0]
        return all_metrics(model, measures, logs, data.y, outputs, lengths_of(data.x))
    sums, total, logs = np.zeros(measures.width), 0, {}
    for batch, first in enumerate(range(0, len(data.x), batch_size)):
        if by_batches:
            hooks.call("on_test_batch_begin", place, batch, dict(logs))
        chosen = slice(first, first + batch_size)
        kept = None if outputs is None else outputs[chosen]
        some = data.part(chosen)
        record = _measure(engine, measures, some, batch_size, place, kept)
        count = model._counted(some.x)
        total += count
        if batch and not measures.means[0]:
            record[0] -= network.penalty(model.layers, engine, model._frozen)  # once is enough
        sums += np.where(measures.means, count, 1) * record
        means = sums.copy()
        measures.divide(means, total)
        logs = measures.named(means[None])[0]
        if by_batches:
            hooks.call("on_test_batch_end", place, batch, dict(logs))
    return all_metrics(model, measures, logs, data.y, outputs, lengths_of(data.x))


def outputs_of_all(model: Sequential, measures: Measures, inputs: int, x: Any) -> Array | None:
    """Room for the outputs of checked rows x, where a metric is computed from them."""
    if not measures.computed:
        return None
    steps = x.shape[1:2] if model._gives_sequences() else ()
    return np.empty((len(x), *steps, network.outputs(model.layers, inputs)), model._dtype)


def all_metrics(
    model: Sequential,
    measures: Measures,
    logs: dict[str, float],
    y: Array,
    outputs: Array | None,
    lengths: Array | None,
) -> dict[str, float]:
    """Loss and metrics in the order of compile: those of the engine are in `logs`.

    Outputs at every step count as rows, those in front of the ends of the sequences.
    """
    if outputs is None:
        return logs
    loss = model._require_compiled().loss
    y = at_hand(y)
    if outputs.ndim == 3:
        counts = running(outputs.shape[:2], lengths)
        y, outputs = y[counts], outputs[counts]
    known = {**logs, **metrics.measure(measures.computed, y, outputs, loss)}
    return {name: known[name] for name in ("loss", *measures.names)}


def gradient_norms(model: Sequential, engine: _core.Engine, batch: Rows) -> dict[str, float]:
    """The length of each layer's gradient on one batch, by "gradient_norm_<place of the layer>"."""
    _, flat = engine.flat_gradient(*batch)
    squares: dict[str, float] = {}
    for name, view in network.views(model.layers, engine, flat).items():
        layer = f"gradient_norm_{name.split('.')[0]}"
        squares[layer] = squares.get(layer, 0.0) + float(np.sum(np.square(view, dtype=np.float64)))
    return {name: float(np.sqrt(square)) for name, square in squares.items()}
