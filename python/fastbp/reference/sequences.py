"""What the engine is given as x: rows, or sequences of steps that may end early."""

from typing import Any

import numpy as np

from .arrays import F64, Array, as_float64

# An array (n, inputs); sequences (n, steps, inputs); or a tuple (sequences, lengths) or (sequences,
# lengths, states), where lengths may be None; or an object with values, lengths and states.
Rows = Any


class Samples:
    """Rows (n, inputs), or sequences (n, steps, inputs) of which `lengths` (n,) steps count.

    states: (n, carried width), those before the first step, overwritten by those behind the last;
    None for 0.
    """

    def __init__(self, x: Rows) -> None:
        self.x, given, self.states = parts(x)
        self.has_lengths = given is not None
        steps = self.x.shape[1] if self.x.ndim == 3 else 1
        self.lengths: Array = np.full(len(self.x), steps) if given is None else given

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: Any) -> "Samples":
        states = None if self.states is None else self.states[rows]
        return Samples((self.x[rows], self.lengths[rows], states))

    def with_states(self, states: Array | None) -> "Samples":
        """The same with other states."""
        return Samples((self.x, self.lengths, states))

    def values(self) -> F64:
        """x in float64; what lies behind the end of a sequence counts as 0."""
        x = as_float64(self.x)
        if x.ndim == 2:
            return x
        return np.where(self._running()[:, :, None], x, 0.0)

    def _running(self) -> Array:
        running: Array = np.arange(self.x.shape[1]) < self.lengths[:, None]
        return running

    def counts(self, output: F64) -> Array:
        """Which of the output's rows count, every step of every sequence a row."""
        return self._running().reshape(-1) if output.ndim == 3 else np.ones(len(output), bool)

    def check_lengths(self) -> None:
        """Raises ValueError for lengths outside 1 .. steps."""
        if not self.has_lengths:
            return
        if self.x.ndim != 3:
            raise ValueError("lengths: the network takes no sequences")
        if self.lengths.shape != (len(self.x),):
            raise ValueError(f"lengths: expected shape ({len(self.x)},), got {self.lengths.shape}")
        wrong = np.flatnonzero((self.lengths < 1) | (self.lengths > self.x.shape[1]))
        if wrong.size:
            raise ValueError(
                f"lengths[{wrong[0]}] = {self.lengths[wrong[0]]} is not a length from 1 to "
                f"{self.x.shape[1]}"
            )

    def check_states(self, dtype: str, shape: tuple[int, int]) -> None:
        """Raises TypeError or ValueError unless the states, if any, have that dtype and shape."""
        if self.states is None:
            return
        if self.states.dtype != dtype:
            raise TypeError(f"states: expected dtype {dtype}, got {self.states.dtype}")
        if self.states.shape != shape:
            raise ValueError(f"states: expected shape {shape}, got {self.states.shape}")


def parts(x: Rows) -> tuple[Array, Array | None, Array | None]:
    """The sequences or rows, lengths and states."""
    if isinstance(x, tuple):
        values, lengths, *states = x
        return values, lengths, states[0] if states else None
    if hasattr(x, "lengths"):
        return x.values, x.lengths, x.states
    return x, None, None


def by_rows(output: F64, y: Array) -> tuple[F64, Array]:
    """Outputs and targets of every step as rows: (n, O) and (n, O), or labels (n,).

    A target of another shape is handed on as it is, for the loss to refuse.
    """
    if output.ndim == 2 or y.shape[:2] != output.shape[:2]:
        return output.reshape(-1, output.shape[-1]), y
    rows = output.reshape(-1, output.shape[-1])
    return rows, y.reshape(len(rows), *y.shape[2:])
