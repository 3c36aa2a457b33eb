"""Callback, the base of all: objects whose methods fit calls, with Keras' names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import describe

if TYPE_CHECKING:
    from ..model import Sequential

Logs = dict[str, float]


class Callback:
    """Base class; override what is needed.

    `self.model` is the model in training: it may be read, saved, given another learning rate
    (`self.model.optimizer.learning_rate = ...`), and stopped (`self.model.stop_training = True`,
    or `self.stop("reason")`, which History.stop_reason then tells). `self.params` are the settings
    of History.params.

    Callbacks make fit return to Python once per epoch, or once per batch where a batch hook is
    overridden. A number that a callback puts into `logs` at the end of an epoch is seen by those
    after it and goes into the history, as a float. An exception ends fit with the model as the last
    step left it; History.stop_reason and a note on the exception say where it came from.

    Attributes:
        batch_interval: the batch hooks are called at every batch_interval-th step of the run.
    """

    model: Sequential
    params: Mapping[str, Any]
    batch_interval: int = 1

    def set_model(self, model: Sequential) -> None:
        """Called first, once per fit."""
        self.model = model

    def set_params(self, params: Mapping[str, Any]) -> None:
        """Called second, once per fit."""
        self.params = params

    def stop(self, reason: str) -> None:
        """Ends fit: at once in a batch hook, after the epoch in an epoch hook."""
        self.model.stop_training = True
        if self.model.history is not None:
            self.model.history.stop_reason = reason

    def check(self, names: frozenset[str]) -> None:
        """Called at the top of fit, before anything changes, with the names that `logs` will have.

        May raise ValueError; not called where a callback of the user may add names of its own.
        """

    def state(self) -> dict[str, Any]:
        """What the callback has to remember for an exact resume: JSON values and NumPy arrays.

        Saved with the model while fit has not come to its end.
        """
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes back what `state` gave; called behind on_train_begin where fit resumes."""

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Before the first epoch."""

    def on_train_end(self, logs: Logs | None = None) -> None:
        """After the last epoch; `logs` as in on_epoch_end."""

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Before epoch number `epoch`, from 0."""

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """After an epoch; `logs` has its loss, metrics, learning rate, and "val_..." values."""

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Before step number `batch` of the epoch, from 0; calls on_batch_begin."""
        self.on_batch_begin(batch, logs)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """After a step; `logs` has the means over the epoch so far. Calls on_batch_end."""
        self.on_batch_end(batch, logs)

    def on_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Another name of on_train_batch_begin."""

    def on_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Another name of on_train_batch_end."""

    def on_test_begin(self, logs: Logs | None = None) -> None:
        """Before an evaluation, also of fit's validation data."""

    def on_test_end(self, logs: Logs | None = None) -> None:
        """After an evaluation; `logs` has its loss and metrics."""

    def on_test_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Before batch number `batch` of an evaluation, from 0."""

    def on_test_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """After a batch of an evaluation; `logs` has the means so far."""


class LambdaCallback(Callback):
    """A callback made of functions: LambdaCallback(on_epoch_end=lambda epoch, logs: ...).

    Takes any hook of Callback by name. Raises TypeError for other names and what is no function.
    """

    def __init__(self, **hooks: Any) -> None:
        for name, function in hooks.items():
            if not name.startswith("on_") or not hasattr(Callback, name):
                known = ", ".join(hook for hook in vars(Callback) if hook.startswith("on_"))
                raise TypeError(f"LambdaCallback has no hook {name!r}; choose from {known}")
            if not callable(function):
                raise TypeError(f"{name} must be a function; got {describe(function)}")
            setattr(self, name, function)


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
            hint = " (write it with parentheses)" if isinstance(item, type) else ""
            raise TypeError(f"callbacks must be Callback objects; got {describe(item)}{hint}")
    return found
