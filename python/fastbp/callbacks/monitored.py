"""Callbacks that watch one value of the logs: EarlyStopping, ReduceLROnPlateau, TerminateOnNaN."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from .. import checks
from ..errors import describe
from ..history import FINAL
from ..metrics import larger_is_better
from .base import Callback, Logs
from .rates import require_number

MODES = ("auto", "min", "max")


class Monitor(Callback):
    """Base of the callbacks that watch a value for getting better.

    Args:
        monitor: its name in the logs, such as "val_loss", "loss", "val_accuracy".
        mode: "min" if smaller is better, "max", or "auto", which goes by the name.
        min_delta: a change counts as better if it is larger than this.

    Attributes:
        best: the best value so far; infinitely bad at the start.

    Raises TypeError and ValueError for wrong arguments; ValueError at the top of fit, or at the end
    of the first epoch, if the logs have no such name.
    """

    def __init__(self, monitor: str, mode: str, min_delta: float) -> None:
        if not isinstance(monitor, str):
            raise TypeError(f"monitor must be a name such as 'val_loss'; got {describe(monitor)}")
        if mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(map(repr, MODES))}; got {mode!r}")
        self.monitor = monitor
        self.min_delta = checks.real("min_delta", min_delta, 0)
        largest = mode == "max" or (
            mode == "auto" and larger_is_better(monitor.removeprefix("val_"))
        )
        self._sign = 1.0 if largest else -1.0
        self.best = -self._sign * math.inf

    def check(self, names: frozenset[str]) -> None:
        if self.monitor not in names:
            raise ValueError(self._missing(names))

    def _missing(self, names: frozenset[str] | Logs) -> str:
        title = f"{type(self).__name__} watches {self.monitor!r}, but the logs have "
        hint = ""
        if self.monitor.startswith("val_") and not any(name.startswith("val_") for name in names):
            hint = ". Give fit validation_split or validation_data"
        return title + ", ".join(map(repr, sorted(names))) + hint

    def read(self, logs: Logs | None) -> float:
        """The monitored value. Raises ValueError if the logs do not have it."""
        if logs is None or self.monitor not in logs:
            raise ValueError(self._missing(logs or {}))
        return float(logs[self.monitor])

    def better(self, value: float, than: float) -> bool:
        """Whether `value` is better by more than min_delta; NaN never is."""
        return self._sign * (value - than) > self.min_delta

    def reset(self) -> None:
        """Forgets the best value."""
        self.best = -self._sign * math.inf

    def state(self) -> dict[str, Any]:
        return {"best": self.best}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.best = float(state["best"])


class EarlyStopping(Monitor):
    """Ends fit when a value has not become better for `patience` epochs.

    Args:
        monitor, mode, min_delta: see Monitor.
        patience: how many epochs without improvement are let pass. 0: the first one ends fit. One
            whose value is NaN has none, even if it is the first (which never ends fit in Keras).
        restore_best_weights: whether the model has the parameters of the best epoch when fit has
            come to its end, by this callback or after all epochs. (Keras' default is False.) The
            optimizer's state stays that of the last step. Where something else stops fit the model
            stays as the last step left it, so that the run can be resumed; `restore()` brings the
            best parameters back.
        baseline: a value that has to be bettered within `patience` epochs.
        start_from_epoch: epochs, from 0, before this one are not looked at.

    Attributes: best_epoch: the epoch of `best`, from 0, -1 for none; stopped_epoch: the epoch
    after which fit was ended, 0 if it was not; wait: epochs since the best.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0.0,
        patience: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = True,
        start_from_epoch: int = 0,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        self.patience = checks.integer("patience", patience, 0)
        self.baseline = None if baseline is None else checks.real("baseline", baseline)
        self.restore_best_weights = checks.boolean("restore_best_weights", restore_best_weights)
        self.start_from_epoch = checks.integer("start_from_epoch", start_from_epoch, 0)
        self.reset()

    def reset(self) -> None:
        super().reset()
        self.wait = self.stopped_epoch = 0
        self.best_epoch = -1
        self._weights: dict[str, Any] | None = None

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.reset()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        value = self.read(logs)
        if epoch < self.start_from_epoch:
            return
        self.wait += 1
        if self.better(value, self.best):
            self.best, self.best_epoch = value, epoch
            if self.restore_best_weights:
                self._weights = self.model._snapshot()
            if self.baseline is None or self.better(value, self.baseline):
                self.wait = 0
        if self.wait >= self.patience and self.wait > 0:
            self.stopped_epoch = epoch
            self.stop("early_stopping")

    def on_train_end(self, logs: Logs | None = None) -> None:
        history = self.model.history
        if history is not None and history.stop_reason in FINAL:
            self.restore()

    def restore(self) -> None:
        """Gives the model the parameters of the best epoch, if they were kept."""
        if self._weights is not None:
            self.model._restore(self._weights)

    def state(self) -> dict[str, Any]:
        weights = {f"best.{name}": array for name, array in (self._weights or {}).items()}
        return {**super().state(), "wait": self.wait, "best_epoch": self.best_epoch, **weights}

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        self.wait, self.best_epoch = int(state["wait"]), int(state["best_epoch"])
        weights = {
            name.removeprefix("best."): state[name] for name in state if name.startswith("best.")
        }
        if weights:
            self.model._require_snapshot(weights)
        self._weights = weights or None


class Convergence(Monitor):
    """Ends fit when training has converged: what fit(tol=..., patience=...) makes.

    That is after `patience` epochs in a row whose loss was not below the smallest before by more
    than `tol` (scikit-learn's rule). History.stop_reason is then "converged".
    """

    def __init__(self, tol: float, patience: int = 10) -> None:
        super().__init__("loss", "min", checks.real("tol", tol, 0))
        self.patience = checks.integer("patience", patience)
        self.reset()

    def reset(self) -> None:
        super().reset()
        self.wait = 0

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.reset()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        value = self.read(logs)
        self.wait = 0 if self.better(value, self.best) else self.wait + 1
        if value < self.best:
            self.best = value
        if self.wait >= self.patience:
            self.stop("converged")

    def state(self) -> dict[str, Any]:
        return {**super().state(), "wait": self.wait}

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        self.wait = int(state["wait"])


class ReduceLROnPlateau(Monitor):
    """Multiplies the learning rate by `factor` when a value has stopped becoming better.

    Args:
        monitor, mode, min_delta: see Monitor.
        factor: in (0, 1).
        patience: epochs without improvement after which the rate is reduced.
        cooldown: epochs after a reduction that are not counted.
        min_lr: the rate does not go below this.

    fit raises TypeError at its beginning where the learning rate is a schedule, which it could not
    change.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        self.factor = checks.real("factor", factor, 0, 1, open_low=True, open_high=True)
        self.patience = checks.integer("patience", patience, 0)
        self.cooldown = checks.integer("cooldown", cooldown, 0)
        self.min_lr = checks.real("min_lr", min_lr, 0)
        self.reset()

    def reset(self) -> None:
        super().reset()
        self.wait = self.cooling = 0

    def on_train_begin(self, logs: Logs | None = None) -> None:
        require_number(self)
        self.reset()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        value = self.read(logs)
        if self.cooling > 0:
            self.cooling -= 1
            self.wait = 0
        if self.better(value, self.best):
            self.best, self.wait = value, 0
        elif self.cooling == 0:
            self.wait += 1
            if self.wait >= self.patience:
                self._reduce()

    def _reduce(self) -> None:
        optimizer = self.model.optimizer
        if optimizer.learning_rate > self.min_lr:
            optimizer.learning_rate = max(optimizer.learning_rate * self.factor, self.min_lr)
            self.cooling, self.wait = self.cooldown, 0

    def state(self) -> dict[str, Any]:
        return {**super().state(), "wait": self.wait, "cooling": self.cooling}

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        self.wait, self.cooling = int(state["wait"]), int(state["cooling"])


class TerminateOnNaN(Callback):
    """Ends fit after an epoch whose loss is NaN or infinite."""

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if logs is not None and not math.isfinite(logs["loss"]):
            self.stop("not_finite")
