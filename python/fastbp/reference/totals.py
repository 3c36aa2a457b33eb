"""What a run of the NumPy engine reports: sums of its batches, and their means."""

from collections.abc import Sequence

import numpy as np

from .arrays import F64, Array, as_float64, rounded
from .losses import LOSSES
from .metrics import metric, width
from .sequences import Samples, by_rows


class Total:
    """Loss and metrics over the rows of an epoch, summed batch by batch.

    loss is the name of the loss, dtype the engine's.
    """

    def __init__(self, loss: str, dtype: str, outputs: int, metrics: Sequence[str]) -> None:
        self._loss, self._dtype, self._names = loss, dtype, metrics
        self._widths = [width(name, outputs) for name in metrics]
        self._mean = not LOSSES[loss].sums

    def add(
        self,
        loss: float,
        output: F64,
        y: Array,
        sums: F64,
        batch: Samples,
        weight: int | None = None,
    ) -> None:
        """One batch, which counts by its rows, or by `weight`.

        Metrics see the output as predict gives it, rounded to the engine's dtype.
        """
        weight = len(output) if weight is None else weight
        sums[0] += loss * weight if self._mean else loss
        seen, target = by_rows(as_float64(rounded(output, self._dtype)), y)
        counts = batch.counts(output)
        share = weight / int(counts.sum())
        at = 1
        for name, wide in zip(self._names, self._widths, strict=True):
            values = metric(name)(seen[counts], target[counts], self._loss)
            sums[at : at + wide] += values.sum(axis=0) * (share if wide == 1 else 1)
            at += wide

    def means(self, sums: F64, rows: int) -> F64:
        """What the sums over so many rows come to: means, but for a loss that sums, and counts."""
        mean = np.repeat([self._mean, *(w == 1 for w in self._widths)], [1, *self._widths])
        return np.where(mean, sums / rows, sums)
