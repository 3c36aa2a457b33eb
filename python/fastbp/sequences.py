"""Sequences that end at different steps: how they are given, checked and cut into rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import arrays
from .arrays import Array
from .errors import describe


class Sequences:
    """Sequences of different lengths, for X of fit, evaluate, predict and the others.

        Sequences([a, b, c])              # arrays (steps, features), each of its own length
        Sequences(values, lengths)        # padded: values (n, steps, features), lengths (n,)

    What lies behind the end of a sequence touches neither a result nor a gradient, whatever it is.
    The states of a recurrent layer stay there as they are behind the last step, so that its outputs
    repeat the last one; the losses and metrics of outputs at every step are means over the steps
    that count.

    Attributes:
        values: (n, steps, features); in front of an Embedding also (n, steps).
        lengths: (n,) int64, from 1 to steps, in any order.
        states: (n, width), for the engine: those before the first step; None for 0.
        lengths_there: the lengths on a device, where the values are on one.

    Raises ValueError for lengths out of range and arrays that do not fit each other; TypeError for
    other kinds.
    """

    def __init__(self, values: Any, lengths: Any = None) -> None:
        self.states: Array | None = None
        self.lengths_there: Any = None
        if lengths is None and isinstance(values, (list, tuple)):
            self.values, self.lengths = padded("values", values)
            return
        there = arrays.is_on_device(values)
        self.values = values if there else arrays.as_numbers("values", values)
        if len(self.values.shape) not in (2, 3):
            raise ValueError(
                "values must have shape (sequences, steps, features), or (sequences, steps) of an "
                f"Embedding; got shape {self.values.shape}"
            )
        rows, steps = self.values.shape[:2]
        given = np.full(rows, steps) if lengths is None else lengths
        self.lengths = checked_lengths(given, rows, steps)

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the values."""
        return tuple(self.values.shape)

    @property
    def ndim(self) -> int:
        """3, or 2 of entries of an Embedding."""
        return len(self.values.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """That of the values."""
        return self.values.dtype

    def __len__(self) -> int:
        return int(self.values.shape[0])

    def __getitem__(self, rows: Any) -> Sequences:
        """Those sequences, by a slice, a mask, an array of numbers or one number."""
        if isinstance(rows, (int, np.integer)):
            rows = [rows]
        there = None if self.lengths_there is None else self.lengths_there[rows]
        return self.like(self.values[rows], np.ascontiguousarray(self.lengths[rows]), there)

    def like(self, values: Any, lengths: Array | None = None, there: Any = None) -> Sequences:
        """Others with these values, which have been checked; `there`: their lengths on a device."""
        made = object.__new__(Sequences)
        made.values, made.states, made.lengths_there = values, None, there
        made.lengths = self.lengths if lengths is None else lengths
        return made

    def at_hand(self) -> Sequences:
        """The same on the host, copied if they are on a device."""
        return self.like(arrays.at_hand(self.values))

    def with_states(self, states: Array) -> Sequences:
        """The same that begin with these states, which the engine overwrites."""
        made = self.like(self.values, there=self.lengths_there)
        made.states = states
        return made

    def running(self) -> Array:
        """(n, steps): which steps are in front of the end."""
        return running(self.values.shape[:2], self.lengths)

    def cleared(self, values: Array | None = None) -> Array:
        """A copy of the values, or of others (n, steps, ...), with zeros behind the ends."""
        copy = np.array(self.values if values is None else values)
        copy[~self.running()] = 0
        return copy

    def tobytes(self) -> bytes:
        """All that there is, for a checksum."""
        return self.values.tobytes() + self.lengths.tobytes()

    def __repr__(self) -> str:
        n, steps, *features = self.values.shape
        of = f" of {features[0]} values" if features else ""
        return f"Sequences({n} of up to {steps} steps{of})"


def padded(name: str, items: Sequence[Any]) -> tuple[Array, Array]:
    """Arrays (steps, ...) with zeros behind the ends as one (n, longest, ...), and their lengths.

    Raises ValueError for none, for one without a step, and where they differ but in steps.
    """
    if not items:
        raise ValueError(f"{name} has no sequences")
    parts = [arrays.as_numbers(f"{name}[{i}]", item) for i, item in enumerate(items)]
    for i, part in enumerate(parts):
        if part.ndim == 0 or part.ndim != parts[0].ndim or part.shape[1:] != parts[0].shape[1:]:
            raise ValueError(
                f"{name} must be arrays (steps, features) with the same features; {name}[0] has "
                f"shape {parts[0].shape}, {name}[{i}] has {part.shape}"
            )
        if len(part) == 0:
            raise ValueError(f"{name}[{i}] is a sequence without a step")
    lengths = np.array([len(part) for part in parts], np.int64)
    whole = np.zeros((len(parts), int(lengths.max()), *parts[0].shape[1:]), np.result_type(*parts))
    for to, part in zip(whole, parts, strict=True):
        to[: len(part)] = part
    return whole, lengths


def is_ragged(value: Any) -> bool:
    """Whether numbers are given as a list of one array for each sequence."""
    return isinstance(value, (list, tuple)) and len(value) > 0 and np.ndim(value[0]) > 0


def regular_shape(value: Any) -> tuple[int, ...] | None:
    """The shape of an array, or of nested lists of equal length; None of others."""
    try:
        shape: tuple[int, ...] = np.shape(value)
    except ValueError:
        return None
    return shape


def padded_as(name: str, items: Sequence[Any], runs: Array) -> Array:
    """Arrays (steps, ...) as one (n, steps, ...) with zeros behind the ends, as `runs` has them.

    Raises ValueError where a sequence has another number of steps: neither its own nor all.
    """
    whole, lengths = padded(name, items)
    expected = runs.sum(axis=1)
    if len(lengths) != len(expected):
        raise ValueError(f"{name} has {len(lengths)} sequences, X has {len(expected)}")
    wrong = np.flatnonzero((lengths != expected) & (lengths != runs.shape[1]))
    if wrong.size:
        i = int(wrong[0])
        raise ValueError(f"{name}[{i}] has {lengths[i]} steps, that of X has {expected[i]}")
    room = np.zeros((*runs.shape, *whole.shape[2:]), whole.dtype)
    room[:, : whole.shape[1]] = whole
    return room


def running(shape: tuple[int, ...], lengths: Array | None) -> Array:
    """(n, steps): which steps are in front of the ends; lengths None: all."""
    mask: Array = np.ones(shape, np.bool_)
    if lengths is not None:
        mask &= np.arange(shape[1]) < lengths[:, None]
    return mask


def lengths_of(x: Any) -> Array | None:
    """The lengths of Sequences; None for other rows."""
    return x.lengths if isinstance(x, Sequences) else None


def checked_lengths(lengths: Any, rows: int, steps: int) -> Array:
    """int64 (rows,), each from 1 to steps. Raises ValueError or TypeError otherwise."""
    given = np.asarray(lengths)
    if given.dtype.kind not in "iu" and given.size > 0:
        raise TypeError(f"lengths must be integers; got dtype {given.dtype}")
    if given.shape != (rows,):
        raise ValueError(
            f"lengths must hold one number for each of {rows} sequences; got shape {given.shape}"
        )
    ready: Array = given.astype(np.int64)
    wrong = np.flatnonzero((ready < 1) | (ready > steps))
    if wrong.size:
        raise ValueError(
            f"lengths[{wrong[0]}] = {given[wrong[0]]} is not a length from 1 to {steps}"
        )
    return ready


def with_lengths(x: Any, lengths: Any) -> Any:
    """x, as Sequences where lengths are given."""
    if lengths is None:
        return x
    if isinstance(x, Sequences):
        raise ValueError("X has lengths of its own: leave out lengths=")
    if hasattr(x, "ndim") and x.ndim not in (2, 3):
        raise ValueError(
            f"lengths are about sequences (sequences, steps, features); X has shape {x.shape}"
        )
    return Sequences(x if arrays.is_on_device(x) else arrays.as_numbers("X", x), lengths)


def require_no_sequences(x: Any, name: str) -> None:
    """Raises ValueError for Sequences, for a network without recurrent layers."""
    if isinstance(x, Sequences):
        raise ValueError(
            f"{name} is {describe(x)} with lengths, but no layer of the network reads sequences"
        )
