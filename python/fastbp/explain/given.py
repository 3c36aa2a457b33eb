"""What explain is given: a row, a batch of rows, or one sequence, as the reference reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import carried
from ..arrays import Array
from ..sequences import Sequences
from ..structure import Reshape

if TYPE_CHECKING:
    from ..model import Sequential


def checked(model: Sequential, x: Any, y: Any) -> tuple[Any, Array]:
    """Both with an axis of rows, in float64 (class numbers in int64), checked as step checks them.

    Builds the model; takes along the states that stateful layers begin with. Raises ValueError for
    more than one sequence.
    """
    rows = _sequence(model, x) if model._reads_sequences else _rows(model, x)
    target = _targets(model, y, rows)
    ready, target = model._check_rows(rows, target, model._require_compiled())
    if model._reads_sequences and len(ready) != 1:
        raise ValueError(
            f"explain takes one sequence, X (steps, features); got {len(ready)} of them"
        )
    if isinstance(ready, Sequences):  # behind Masking: the one, without its padding
        ready = ready.values
    states = carried.next_states(model, ready)
    if model._engine is None:
        model._build(ready.shape[-1])
    x64 = ready.astype(np.float64)
    y64 = target if target.dtype.kind == "i" else target.astype(np.float64)
    return (x64 if states is None else (x64, None, states.astype(np.float64))), y64


def _rows(model: Sequential, x: Any) -> Any:
    """A row (inputs,) as (1, inputs); behind Flatten a row of any shape, or several."""
    if not model._flattens:
        return np.atleast_2d(x)
    array = np.asarray(x)
    several = array.ndim > 1 and array.size != model.inputs and array[0].size == model.inputs
    return array if several else array.reshape(1, -1)


def _sequence(model: Sequential, x: Any) -> Any:
    """One sequence as (1, steps, features), or in front of an Embedding as (1, steps)."""
    if model._masking is not None and not isinstance(x, Sequences):
        array = np.asarray(x)
        x = model._masking.sequences(array[None] if array.ndim == 2 else array, "X")
    if isinstance(x, Sequences):
        return x.values[:, : int(x.lengths[0])] if len(x) == 1 else x
    array, embeds = np.asarray(x), model._embedding is not None
    if isinstance(model.layers[0], Reshape):
        return array[None] if array.ndim == 1 else array
    if array.ndim == 1:
        return array[None] if embeds else array[None, :, None]
    return array[None] if array.ndim == 2 and not (embeds and len(array) == 1) else array


def _targets(model: Sequential, y: Any, x: Any) -> Any:
    """Targets of those rows: one may come as a number, a class number or a row."""
    target = np.asarray(y)
    if model._gives_sequences():
        steps = x.shape[1]
        whole = target.ndim > 2 or (target.ndim == 2 and len(target) == 1 and steps != 1)
        return (target if whole else target[None])[:, :steps]
    if target.ndim == 0:
        return target.reshape(1)
    single = len(x) == 1 and target.ndim == 1 and len(target) == model.outputs
    return target[None] if single else target
