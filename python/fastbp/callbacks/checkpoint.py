"""ModelCheckpoint: the model in a file, from which it predicts and from which fit resumes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Any

from .. import checks
from .base import Logs
from .monitored import Monitor

if TYPE_CHECKING:
    from ..durable import Background


class ModelCheckpoint(Monitor):
    """Saves the model after every epoch, after every so many steps, or when it is the best so far.

    The file is what model.save writes: complete or not there, and with all that
    `fit(..., resume=path)` needs to go on bit for bit.

    Args:
        filepath: where to; {epoch} (from 1), {batch} and the names of the logs are filled in:
            "net-{epoch:02d}-{val_loss:.3f}.safetensors".
        monitor, mode: what save_best_only goes by; see Monitor.
        save_best_only: save only when the monitored value is better than ever before.
        save_freq: "epoch", or a number of steps.
        initial_value_threshold: with save_best_only, save only below (above) this value.
        background: a thread writes the file, from a copy, while fit goes on; fit returns when the
            last one is on the disk. Until a file is complete, what was there before stays.

    Raises ValueError for save_best_only by steps and for braces that are no fields; out of fit
    FileNotFoundError, before the first step, if the folder is not there; ValueError for fields that
    the logs do not have; OSError if a file cannot be written, in the background when the next one
    is to be, or at the end.
    """

    def __init__(
        self,
        filepath: str | os.PathLike[str],
        monitor: str = "val_loss",
        save_best_only: bool = False,
        mode: str = "auto",
        save_freq: str | int = "epoch",
        initial_value_threshold: float | None = None,
        background: bool = False,
    ) -> None:
        super().__init__(monitor, mode, 0.0)
        self.filepath = os.fspath(filepath)
        try:
            list(Formatter().parse(self.filepath))
        except ValueError as error:
            raise ValueError(
                f"filepath {self.filepath!r} has braces that are no fields such as {{epoch}} "
                f"({error}); write {{{{ and }}}} for braces of the name"
            ) from None
        self.save_best_only = checks.boolean("save_best_only", save_best_only)
        self.save_freq = save_freq
        self.background = checks.boolean("background", background)
        self._writer: Background | None = None
        if save_freq != "epoch":
            if isinstance(save_freq, str):
                raise ValueError(f"save_freq must be 'epoch' or a number; got {save_freq!r}")
            self.batch_interval = checks.integer("save_freq", save_freq)
            if save_best_only:
                raise ValueError("save_best_only needs save_freq='epoch'")
            self.on_train_batch_end = self._save_batch  # type: ignore[method-assign]
        if initial_value_threshold is not None:
            self.best = checks.real("initial_value_threshold", initial_value_threshold)

    def check(self, names: frozenset[str]) -> None:
        if self.save_best_only:
            super().check(names)

    def on_train_begin(self, logs: Logs | None = None) -> None:
        from ..durable import require_folder

        super().on_train_begin(logs)
        target = Path(self.filepath).resolve()
        if "{" not in str(target.parent):  # else its name is known at the first save
            require_folder(target)

    def _save_batch(self, batch: int, logs: Logs | None = None) -> None:
        history = self.model.history
        epoch = len(history.epoch) if history is not None else 0
        self._save(self._path(epoch, {"batch": batch + 1, **(logs or {})}))

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if self.save_freq != "epoch":
            return
        if self.save_best_only:
            value = self.read(logs)
            if not self.better(value, self.best):
                return
            self.best = value
        self._save(self._path(epoch, {"batch": self.params["steps"], **(logs or {})}))

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self._writer is not None:
            self._writer.finish()

    def _save(self, path: str) -> None:
        if not self.background:
            self.model.save(path)
            return
        from ..durable import Background
        from ..files import save_in_background

        if self._writer is None:
            self._writer = Background()
        save_in_background(self.model, path, self._writer)

    def _path(self, epoch: int, values: Mapping[str, Any]) -> str:
        try:
            return self.filepath.format(**{**values, "epoch": epoch + 1})
        except (KeyError, IndexError) as error:
            raise ValueError(
                f"filepath {self.filepath!r} names {error}, which the logs do not have: they have "
                f"epoch, {', '.join(values)}"
            ) from None
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"filepath {self.filepath!r} cannot be filled in: {error}") from None
