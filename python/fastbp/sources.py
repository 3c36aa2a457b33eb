"""Sources: where the batches of fit come from."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np

from . import _core
from .arrays import Array, at_hand
from .holdout import Rows
from .lazy import for_engine
from .sequences import lengths_of

if TYPE_CHECKING:
    from .runs import Run


class ArraySource:
    """Rows in memory, as the engine takes them: it gathers the batches itself.

    native: whether it does, so that whole epochs go by in one call.
    """

    native = True

    def __init__(self, data: Rows, batch_size: int, shuffle: bool, seed: int) -> None:
        self.data = data
        self.batch_size, self.shuffle, self.seed = batch_size, shuffle, seed
        self.rows = len(data.x)
        self.steps = -(-self.rows // batch_size)

    def train(self, engine: _core.Engine, run: Run, steps: int) -> None:
        """The next steps of the present epoch, at most to its end; the run is right also when this
        raises."""
        position = np.array([0, run.batch * self.batch_size])
        try:
            self._call(engine, run, 1, position, run.sums[None], steps)
        finally:
            complete = position[0] == 1
            run.batch = self.steps if complete else int(position[1]) // self.batch_size
            run.seen = self.rows if complete else int(position[1])

    def train_epochs(
        self, engine: _core.Engine, run: Run, epochs: int, completed: list[Array]
    ) -> None:
        """Whole epochs in one call; appends loss and metrics of each that is complete.

        That, and the place of the run in the next epoch, are right also when this raises; counting
        the epochs is left to the caller.
        """
        position, record = np.zeros(2, np.int64), np.zeros((epochs, len(run.sums)))
        try:
            self._call(engine, run, epochs, position, record, -1)
        finally:
            done, at = position.tolist()
            completed.extend(record[:done])
            run.batch, run.seen = at // self.batch_size, at
            if at:
                run.sums[:] = record[done]
                run.stage = "batch_begin"

    def _call(
        self,
        engine: _core.Engine,
        run: Run,
        epochs: int,
        position: Array,
        record: Array,
        steps: int,
    ) -> None:
        run.interrupts.open = True
        try:
            engine.train(
                for_engine(self.data.x),
                self.data.y,
                self.batch_size,
                epochs,
                run.first_epoch + run.epoch,
                self.shuffle,
                self.seed,
                run.settings.names,
                position=position,
                record=record,
                steps=steps,
                outputs=run.outputs,
                weights=self.data.weights,
            )
        finally:
            run.interrupts.open = False

    def fingerprint(self) -> int:
        """A checksum of some rows, by which other data is noticed."""
        rows = np.unique(np.linspace(0, self.rows - 1, 64).astype(np.int64))
        checksum = 0
        for array in self.data.part(rows):
            if array is not None:
                checksum = zlib.crc32(array.tobytes(), checksum)
        return checksum

    def last_batch(self, run: Run) -> Rows:
        """The last batch of the present epoch."""
        rows = self._order(run)[(self.steps - 1) * self.batch_size :]
        return self.data.part(rows)

    def targets(self, run: Run) -> Array:
        """The targets of the present epoch in its order."""
        return self._ordered(run, at_hand(self.data.y))

    def lengths(self, run: Run) -> Array | None:
        """The lengths of its sequences; None where they have none."""
        lengths = lengths_of(self.data.x)
        return None if lengths is None else self._ordered(run, lengths)

    def _ordered(self, run: Run, values: Array) -> Array:
        ordered: Array = values[self._order(run)] if self.shuffle else values
        return ordered

    def _order(self, run: Run) -> Array:
        if not self.shuffle:
            return np.arange(self.rows)
        return _core.permutation(self.rows, self.seed, run.first_epoch + run.epoch)
