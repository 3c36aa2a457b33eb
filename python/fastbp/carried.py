"""The states of recurrent layers between calls: given, kept, streamed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _core, arrays
from .arrays import Array
from .embedding import check_entries
from .errors import describe, unknown_name
from .sequences import Sequences
from .structure import leaves

if TYPE_CHECKING:
    from .model import Sequential


Prediction = Any  # an array, or (array, states by name)


def predict(model: Sequential, x: Any, initial_state: Any, return_state: bool) -> Prediction:
    """Sequential.predict of a network that reads sequences."""
    rows = model._features(x, finite=False)
    stateful = is_stateful(model)
    states = None
    if initial_state is not None:
        states = _packed(model, initial_state, len(rows))
    elif stateful and len(rows):
        states = _kept(model, len(rows))
    elif stateful or return_state:
        states = _zeros(model, len(rows))
    engine = model._engine or model._build(rows.shape[-1])
    result, out = model._room_for_outputs(rows, x)
    if states is None:
        if len(out):
            engine.predict(rows, out)
        return result
    if len(out):
        engine.predict(_with_states(rows, states), out)
        if stateful:
            model._carried = states
    return (result, _named(model, states)) if return_state else result


def next_states(model: Sequential, x: Any) -> Array | None:
    """What stateful layers begin the next call, of x, with; None where there are none."""
    if not (model._reads_sequences and is_stateful(model)):
        return None
    return _kept(model, len(x))


def before_step(model: Sequential, x: Any) -> Any:
    """x with the states that stateful layers would begin a step with; the model's stay."""
    states = next_states(model, x)
    return x if states is None else _with_states(x, states)


@contextmanager
def states_of(model: Sequential, x: Any) -> Iterator[Any]:
    """x with the states that stateful layers begin with, which are kept if all goes well."""
    states = next_states(model, x)
    if states is None:
        yield x
        return
    yield _with_states(x, states)
    model._carried = states


def begin_run(model: Sequential, x: Any, batch_size: int, shuffle: bool, augmented: bool) -> Any:
    """The rows of a fit, with room for the states of its batches where layers are stateful.

    Every epoch begins with states of 0; row i of a batch goes on where row i of the one before
    ended. Raises ValueError where rows do not follow on each other so.
    """
    if not (model._reads_sequences and is_stateful(model)):
        return x
    if shuffle or augmented or len(x) % batch_size:
        raise ValueError(
            "stateful layers carry the states of a batch's rows to the next batch: give "
            f"shuffle=False, no augment, and a batch_size that divides {len(x)} rows; got "
            f"shuffle={shuffle}, batch_size={batch_size}"
        )
    return _with_states(x, _zeros(model, batch_size))


def require_rows(model: Sequential) -> None:
    """Raises ValueError for stateful layers, which iterators do not go with."""
    if is_stateful(model):
        raise ValueError("stateful layers train on arrays X and y, not on batches of an iterator")


class Stream:
    """Prediction step by step; see Sequential.stream.

    The states are the stream's own: other calls of the model neither see nor change them. New
    parameters of the model count from the next step.
    """

    def __init__(self, model: Sequential, batch: int) -> None:
        if not model._reads_sequences:
            raise ValueError("stream is about recurrent layers; the network has none")
        blind = [layer for layer in model.layers if layer.looks_ahead]
        if blind:
            raise ValueError(
                f"{blind[0].title()} needs the steps that are still to come, which a stream lacks"
            )
        self._model, self._engine = model, model._require_built()
        engine, dtype = self._engine, model._dtype
        self._x = np.zeros((batch, 1, engine.inputs), dtype)
        self._states = _zeros(model, batch)
        self._rows = (self._x, None, self._states)
        self._out = model._new_outputs(self._x)
        self._result = self._out.reshape(batch, -1)

    def step(self, x: Any) -> Array:
        """The outputs (batch, outputs) behind the next step x (batch, features).

        For one sequence x may be (features,), which gives (outputs,). Raises ValueError for NaN,
        infinity, other shapes and what an Embedding has no entry for; the states are then as
        before.
        """
        if self._model._engine is not self._engine:
            raise RuntimeError(
                "the model was compiled for another dtype or device: make a new stream"
            )
        array = x if arrays.is_ready(x, self._x.dtype) else arrays.as_numbers("x", x)
        batch, _, inputs = self._x.shape
        single = array.ndim == 1 and batch == 1
        if array.shape != ((inputs,) if single else (batch, inputs)):
            raise ValueError(f"x must have shape ({batch}, {inputs}); got shape {array.shape}")
        self._x[:, 0] = array
        if _core.all_finite(self._x) >= 0:
            raise ValueError("x has NaN or infinity, which would stay in the states")
        if self._model._embedding is not None:
            check_entries(self._x, self._model._embedding, "x")
        self._engine.predict(self._rows, self._out)
        return self._result[0].copy() if single else self._result.copy()

    @property
    def state(self) -> dict[str, Array]:
        """Copies of the states by name: {"0.h": (batch, units), ...}."""
        return _named(self._model, self._states)

    @state.setter
    def state(self, state: Mapping[str, Any]) -> None:
        self._states[...] = _packed(self._model, state, len(self._states))

    def reset(self) -> None:
        """Begins with states of 0 again."""
        self._states[...] = 0


def is_stateful(model: Sequential) -> bool:
    """Whether layers keep their states from call to call."""
    return any(layer.stateful for layer in model.layers)


def _with_states(x: Any, states: Array) -> Any:
    if isinstance(x, Sequences):
        return x.with_states(states)
    made = object.__new__(Sequences)  # of one length
    made.values, made.states, made.lengths_there = x, states, None
    made.lengths = np.full(len(x), x.shape[1], np.int64)
    return made


def _zeros(model: Sequential, rows: int) -> Array:
    """States of 0, also of a model that is not built yet."""
    width = sum(width for _, _, width in _places(model))
    return np.zeros((rows, width), model._dtype)


def _kept(model: Sequential, rows: int) -> Array:
    """A copy of what the last call of stateful layers left, 0 if there was none."""
    if model._carried is None:
        return _zeros(model, rows)
    if len(model._carried) != rows:
        raise ValueError(
            f"stateful layers hold the states of {len(model._carried)} sequences; got {rows}: call "
            "model.reset_states() to begin anew"
        )
    return model._carried.astype(model._dtype)


def _places(model: Sequential) -> Iterator[tuple[str, int, int]]:
    """Name, first column and width of each state, in the engine's order."""
    at = 0
    for name, layer in leaves(model.layers):
        for state, width in layer.carries().items():
            yield f"{name}.{state}", at, width
            at += width


def _named(model: Sequential, states: Array) -> dict[str, Array]:
    return {name: states[:, at : at + width].copy() for name, at, width in _places(model)}


def _packed(model: Sequential, given: Any, rows: int) -> Array:
    """States by name as the engine takes them.

    Raises TypeError for no dict, ValueError unless every state is there, finite and of its shape.
    """
    if not isinstance(given, Mapping):
        raise TypeError(f"states must be a dict from name to array; got {describe(given)}")
    places = list(_places(model))
    names = [name for name, _, _ in places]
    for name in given:
        if name not in names:
            raise unknown_name("state", name, names)
    states = _zeros(model, rows)
    for name, at, width in places:
        if name not in given:
            raise ValueError(f"states lack {name!r}; they are {', '.join(names)}")
        states[:, at : at + width] = arrays.parameter(
            name, given[name], (rows, width), states.dtype
        )
    return states
