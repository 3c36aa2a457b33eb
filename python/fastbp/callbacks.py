"""Callbacks: objects whose methods fit calls, with Keras' names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from .errors import describe

if TYPE_CHECKING:
    from .model import Sequential


class Callback:
    """Base class; override what is needed.

    `self.model` is the model in training: it may be read, saved, given another learning rate
    (`self.model.optimizer.learning_rate = ...`), and stopped (`self.model.stop_training = True`).
    `self.params` are the settings of History.params. Callbacks make fit return to Python once per
    epoch; an exception ends fit with the model as the last epoch left it.
    """

    model: Sequential
    params: Mapping[str, Any]

    def set_model(self, model: Sequential) -> None:
        """Called first, once per fit."""
        self.model = model

    def set_params(self, params: Mapping[str, Any]) -> None:
        """Called second, once per fit."""
        self.params = params

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Before the first epoch."""

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """After the last epoch; `logs` as in on_epoch_end."""

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Before epoch number `epoch`, from 0."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """After an epoch; `logs` has its loss, metrics and, as "val_...", validation results."""


def get(callbacks: Iterable[Callback] | Callback | None) -> list[Callback]:
    """The callbacks as a list. Raises TypeError for anything that is not a Callback object."""
    if callbacks is None:
        return []
    if isinstance(callbacks, Callback):
        return [callbacks]
    try:
        found = list(callbacks)
    except TypeError:
        raise TypeError(
            f"callbacks must be a list of Callback objects; got {describe(callbacks)}"
        ) from None
    for item in found:
        if not isinstance(item, Callback):
            raise TypeError(f"callbacks must be Callback objects; got {describe(item)}")
    return found
