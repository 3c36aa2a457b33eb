"""What the engine is given as x: rows, or sequences of steps that may end early."""

from typing import Any

import numpy as np

from .arrays import F64, Array, as_float64

Rows = Any  # an array (n, inputs); sequences (n, steps, inputs); or a pair (sequences, lengths)


class Samples:
    """Rows (n, inputs), or sequences (n, steps, inputs) of which `lengths` (n,) steps count."""

    def __init__(self, x: Rows) -> None:
        self.x, given = x if isinstance(x, tuple) else (x, None)
        self.has_lengths = given is not None
        steps = self.x.shape[1] if self.x.ndim == 3 else 1
        self.lengths: Array = np.full(len(self.x), steps) if given is None else given

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: Any) -> "Samples":
        return Samples((self.x[rows], self.lengths[rows]))

    def values(self) -> F64:
        """x in float64; what lies behind the end of a sequence counts as 0."""
        x = as_float64(self.x)
        if x.ndim == 2:
            return x
        running = np.arange(x.shape[1]) < self.lengths[:, None]
        return np.where(running[:, :, None], x, 0.0)

    def check_lengths(self, gives_sequences: bool) -> None:
        """Raises ValueError for lengths outside 1 .. steps, and where they are not supported."""
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
        if gives_sequences:
            raise ValueError("lengths: not supported for a network with an output at every step")


def by_rows(output: F64, y: Array) -> tuple[F64, Array]:
    """Outputs and targets of every step as rows: (n, O) and (n, O), or labels (n,).

    A target of another shape is handed on as it is, for the loss to refuse.
    """
    if output.ndim == 2 or y.shape[:2] != output.shape[:2]:
        return output.reshape(-1, output.shape[-1]), y
    rows = output.reshape(-1, output.shape[-1])
    return rows, y.reshape(len(rows), *y.shape[2:])
