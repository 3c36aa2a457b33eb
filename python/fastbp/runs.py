"""Run: where a call of fit stands, complete between any two steps.

A run goes through its epochs by stages: "epoch_begin", then for each step (or piece of an epoch
that nobody watches) "batch_begin", "batch" and "batch_end", then "validate" and "epoch_end". The
stages named like hooks call those hooks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .arrays import Array
from .callbacks.base import Callback
from .history import History
from .interrupts import Interrupts
from .measures import Measures

STAGES = ("epoch_begin", "batch_begin", "batch", "batch_end", "validate", "epoch_end")


class Settings(NamedTuple):
    """What makes two runs the same but for how far they go."""

    samples: int | None  # rows of an epoch; None: not known before its end
    batch_size: int | None
    steps: int  # of an epoch
    shuffle: bool
    names: list[str]  # of what the engine measures batch by batch
    mean: bool  # whether the loss is a mean over rows


class Place:
    """Where callbacks are called from."""

    next_callback = 0  # of the hook in progress: those before it have had their call
    steps_done = 0

    def __init__(self, interrupts: Interrupts | None = None) -> None:
        self.interrupts = interrupts or Interrupts()

    def failed(self, place: str, error: Exception) -> None:
        """Notes on the exception where it came from; needs Python 3.11 to be seen."""
        if hasattr(error, "add_note"):
            error.add_note(f"raised by the callback {place} {self.describe()}")

    def describe(self) -> str:
        """Where that is, in words."""
        return "in an evaluation"


class Run(Place):
    """The state of a run.

    Attributes: epoch: epochs that are complete, callbacks included; batch: steps done of the next
    one; seen: its rows so far; measures: what is measured; sums: float64 (measures.width,), its
    loss and metrics summed over them, and their means when it is complete; logs: of the epoch in
    its last stages; outputs: (rows, outputs) of the epoch in its order, where a metric needs them;
    states: (batch_size, width) of stateful layers, behind the last step, which the engine writes;
    first_epoch, first_step: epochs and steps that the model had been trained before; running:
    whether fit is at work on it.
    """

    def __init__(
        self,
        settings: Settings,
        measures: Measures,
        history: History,
        callbacks: list[Callback],
        fingerprint: Callable[[], int],
    ) -> None:
        super().__init__()
        self.settings, self.measures = settings, measures
        self.first_epoch = self.first_step = 0
        self.history, self.callbacks, self.fingerprint = history, callbacks, fingerprint
        self.epoch = self.batch = self.seen = 0
        self.stage = "epoch_begin"
        self.sums = np.zeros(measures.width)
        self.logs: dict[str, float] = {}
        self.outputs: Array | None = None
        self.states: Array | None = None
        self.running = False

    @property
    def steps_done(self) -> int:  # type: ignore[override]
        """Steps since the run began."""
        return self.epoch * self.settings.steps + self.batch

    @property
    def epochs_trained(self) -> int:
        """Epochs whose steps are all done."""
        return self.epoch + (self.batch == self.settings.steps)

    def next_epoch(self) -> None:
        """Goes on to the next epoch."""
        self.epoch += 1
        self.batch = self.seen = 0
        self.sums[:] = 0
        self.stage = "epoch_begin"

    def means(self) -> dict[str, float]:
        """Loss and metrics over the rows of the epoch so far."""
        values = self.sums.copy()
        if self.batch < self.settings.steps:
            self.measures.divide(values, max(self.seen, 1))
        return self.measures.named(values[None])[0]

    def complete(self) -> None:
        """Turns the sums of an epoch that was worked off by single batches into means."""
        self.measures.divide(self.sums, self.seen)

    def describe(self) -> str:
        done = f"{self.batch} of {self.settings.steps} steps done"
        return f"in epoch {self.epoch + 1}, {done}; the model is as the last step left it"

    def failed(self, place: str, error: Exception) -> None:
        super().failed(place, error)
        self.history.stop_reason = f"{type(error).__name__} in {place}"


def log_names(metrics: Sequence[str], validation: bool, others: Sequence[str]) -> frozenset[str]:
    """The names that the logs of an epoch will have."""
    measured: list[Any] = ["loss", *metrics]
    return frozenset([*measured, *(f"val_{name}" for name in measured * validation), *others])
