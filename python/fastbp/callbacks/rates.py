"""LearningRateScheduler: a rate for every epoch."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import describe
from .base import Callback, Logs


class LearningRateScheduler(Callback):
    """Sets the learning rate before every epoch: schedule(epoch, learning_rate) -> learning_rate.

    Raises TypeError if `schedule` is no function; a rate that the optimizer refuses raises its
    TypeError or ValueError before the epoch.
    """

    def __init__(self, schedule: Callable[[int, float], float]) -> None:
        if not callable(schedule):
            raise TypeError(f"schedule must be a function; got {describe(schedule)}")
        self.schedule = schedule

    def on_train_begin(self, logs: Logs | None = None) -> None:
        require_number(self)

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        optimizer = self.model.optimizer
        optimizer.learning_rate = self.schedule(epoch, optimizer.learning_rate)


def require_number(callback: Callback) -> None:
    """Raises TypeError unless the learning rate of the callback's model is a number to change."""
    optimizer = callback.model.optimizer
    if optimizer.by_steps and isinstance(optimizer.learning_rate, float):
        return
    has = f"{optimizer.learning_rate!r}" if optimizer.by_steps else f"none: {optimizer!r}"
    raise TypeError(
        f"{type(callback).__name__} changes a learning rate that is a number; the optimizer has "
        f"{has}: use one or the other"
    )
