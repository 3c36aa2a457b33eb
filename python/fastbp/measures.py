"""How the metrics of a model come about: summed or counted by the engine, or from all outputs.

The engine keeps one value for each mean (accuracy, mse, mae, top_5) and, for what follows from how
often each class was right, taken and there (precision, recall, F1), "class_counts": integers, from
which any average is made once an epoch. Areas under curves and R2 need the outputs of all rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import metrics
from .arrays import Array
from .losses import Loss
from .registry import METRICS
from .scores import scores_of_counts

COUNTS = "class_counts"


class Measures:
    """What is measured of a network with so many outputs.

    Attributes:
        names: the metrics as compile has them.
        engine: what the engine is to measure, by its names.
        computed: those that are computed from the outputs of all rows.
        width: values of a record: the loss, then those of the engine.
        means: bool (width,): which of them are means, or sums to be divided by rows.
    """

    def __init__(
        self, names: Sequence[str], loss: Loss, outputs: int, *, counts: bool, steps: bool = False
    ) -> None:
        """counts: whether the engine can count classes; steps: whether outputs are of every step,
        the number of which the engine alone knows."""
        self.names, self._outputs = list(names), outputs
        several = outputs > 1
        self._labels = several and not metrics.by_class(loss, outputs)
        counted = [name for name in names if metrics.is_of_counts(name)] if counts else []
        own = [name for name in names if name in METRICS]
        own += [n for n in names if counts and metrics.by_class(loss, outputs) and metrics.top(n)]
        if counted and "accuracy" in own and not self._labels and not steps:
            own.remove("accuracy")  # it follows from the counts
            counted.append("accuracy")
        self._own, self._counted = own, counted
        self.engine = [*own, *([COUNTS] if counted else [])]
        known = {*own, *counted}
        self.computed = [name for name in names if name not in known]
        self._classes = outputs if several else 2
        self.width = 1 + len(own) + (3 * self._classes if counted else 0)
        self.means = np.zeros(self.width, np.bool_)
        self.means[0] = not loss.traits.sums
        self.means[1 : 1 + len(own)] = True

    def divide(self, values: Array, rows: int) -> None:
        """Makes means of sums over so many rows."""
        values[self.means] /= rows

    def named(self, record: Array) -> list[dict[str, float]]:
        """Loss and the engine's metrics by name, of each row of a record (epochs, width)."""
        table = {"loss": record[:, 0], **dict(zip(self._own, record.T[1:], strict=False))}
        table.update(self._of_counts(record))
        diverged = ~np.isfinite(record[:, 0])
        if diverged.any():
            for name in table:
                if name != "loss" and name not in METRICS:
                    table[name] = np.where(diverged, np.nan, table[name])
        order = ["loss", *(name for name in self.names if name in table)]
        columns = [table[name].tolist() for name in order]
        return [dict(zip(order, row, strict=True)) for row in zip(*columns, strict=True)]

    def _of_counts(self, record: Array) -> dict[str, Any]:
        if not self._counted:
            return {}
        counts = record[:, 1 + len(self._own) :].reshape(len(record), 3, self._classes)
        return scores_of_counts(self._counted, counts, self._outputs == 1, self._labels)
