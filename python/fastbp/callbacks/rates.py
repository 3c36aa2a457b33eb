"""LearningRateScheduler: a rate for every epoch."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import describe
from .base import Callback, Logs


class LearningRateScheduler(Callback):
    """Sets the learning rate before every epoch: schedule(epoch, learning_rate) -> learning_rate.

    A function of one argument gets the epoch alone; epochs count from 0. Raises TypeError if
    `schedule` is no function; a rate that the optimizer refuses raises its TypeError or ValueError
    before the epoch.
    """

    def __init__(self, schedule: Callable[..., float]) -> None:
        if not callable(schedule):
            raise TypeError(f"schedule must be a function; got {describe(schedule)}")
        self.schedule = schedule

    def on_train_begin(self, logs: Logs | None = None) -> None:
        require_number(self)

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        optimizer = self.model.optimizer
        known = (epoch, optimizer.learning_rate)
        optimizer.learning_rate = self.schedule(*known[: _arguments(self.schedule)])


def _arguments(schedule: Callable[..., float]) -> int:
    """2, or 1 of a function that takes no more."""
    import inspect

    try:
        inspect.signature(schedule).bind(0, 0.0)
    except TypeError:
        return 1
    except ValueError:  # compiled functions need not say what they take
        pass
    return 2


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
