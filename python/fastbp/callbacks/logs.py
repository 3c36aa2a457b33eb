"""Callbacks that write the logs down: CSVLogger, TensorBoard."""

from __future__ import annotations

import csv
import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import checks
from ..errors import describe
from .base import Callback, Logs


class CSVLogger(Callback):
    """Writes a line of the logs to a CSV file after every epoch: epoch (from 0), then their names.

    Each line is complete in the file before the next epoch begins.

    Args:
        filename: the file.
        separator: one character.
        append: whether to go on in a file that is there; else it is written anew.

    Raises ValueError for a separator that is a quote or ends lines. Out of fit, before the first
    step, FileNotFoundError if the folder is not there, IsADirectoryError if the file is one, and
    ValueError if the file to go on in is no text; OSError if the file cannot be written.
    """

    def __init__(
        self, filename: str | os.PathLike[str], separator: str = ",", append: bool = False
    ) -> None:
        self.filename = Path(filename)
        given: object = separator
        if not isinstance(given, str) or len(given) != 1 or given in '"\r\n':
            raise ValueError(
                f"separator must be one character, no quote or end of a line; got {describe(given)}"
            )
        self.separator = given
        self.append = checks.boolean("append", append)
        self._names: list[str] = []
        self._end = 0  # bytes of the file that are this run's, and those before it

    def on_train_begin(self, logs: Logs | None = None) -> None:
        from ..durable import require_folder

        require_folder(self.filename.resolve())
        self._names, self._end = [], 0
        if self.filename.is_dir():
            raise IsADirectoryError(errno.EISDIR, "this is a folder", str(self.filename))
        if self.append and self.filename.exists():
            self._names, self._end = self._names_there(), self.filename.stat().st_size

    def _names_there(self) -> list[str]:
        """The names in the first line of the file to go on in."""
        try:
            with self.filename.open(newline="", encoding="utf-8") as file:
                return next(csv.reader(file, delimiter=self.separator), ["epoch"])[1:]
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(
                f"{str(self.filename)!r} is no text, so that there is nothing to append to: {error}"
            ) from error

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        values = logs or {}
        with self.filename.open("r+b" if self._end else "wb") as file:
            file.truncate(self._end)  # what a run that was cut short wrote beyond its checkpoint
            file.seek(max(self._end - 1, 0))
            if self._end and file.read() != b"\n":  # a line that somebody left open
                file.write(b"\n")
            if not self._end:
                self._names = list(values)
                file.write(self._line("epoch", *self._names))
            file.write(self._line(epoch, *(values.get(name, "") for name in self._names)))
            self._end = file.tell()

    def _line(self, *values: Any) -> bytes:
        import io

        text = io.StringIO()
        csv.writer(text, delimiter=self.separator, lineterminator="\n").writerow(values)
        return text.getvalue().encode()

    def state(self) -> dict[str, Any]:
        return {"names": self._names, "end": self._end}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._names, self._end = list(state["names"]), int(state["end"])
        if not self.filename.exists() or self.filename.stat().st_size < self._end:
            self._names, self._end = [], 0  # the file of the run before is gone: a new one


class TensorBoard(Callback):
    """Writes the logs as event files for TensorBoard; needs tensorboardX.

    Training values go to the folder "train" below log_dir, validation values to "validation", both
    under the name of the value, so that TensorBoard draws the two in one plot; the step is the
    epoch.

    Args:
        log_dir: the folder; made where it is missing.
        update_freq: "epoch", or a number of steps after which loss and metrics so far are written
            too, as "batch_loss" and so on, by the number of the step.

    Raises ImportError without tensorboardX; OSError out of fit, before the first step, if there can
    be no such folder.
    """

    def __init__(
        self, log_dir: str | os.PathLike[str] = "logs", update_freq: str | int = "epoch"
    ) -> None:
        try:
            import tensorboardX
        except ImportError as error:
            raise ImportError(
                "the TensorBoard callback needs tensorboardX: pip install tensorboardX"
            ) from error
        self._writer = tensorboardX.SummaryWriter
        self.log_dir = Path(log_dir)
        self._writers: dict[str, Any] = {}
        self._step = 0
        if update_freq != "epoch":
            if isinstance(update_freq, str):
                raise ValueError(f"update_freq must be 'epoch' or a number; got {update_freq!r}")
            self.batch_interval = checks.integer("update_freq", update_freq)
            self.on_train_batch_end = self._write_batch  # type: ignore[method-assign]

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._step = 0
        self.log_dir.mkdir(parents=True, exist_ok=True)

    def _write_batch(self, batch: int, logs: Logs | None = None) -> None:
        self._step += self.batch_interval
        for name, value in (logs or {}).items():
            self._add("train", f"batch_{name}", value, self._step)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        for name, value in (logs or {}).items():
            part = "validation" if name.startswith("val_") else "train"
            self._add(part, name.removeprefix("val_"), value, epoch)
        for writer in self._writers.values():
            writer.flush()

    def _add(self, part: str, name: str, value: float, step: int) -> None:
        if part not in self._writers:
            self._writers[part] = self._writer(str(self.log_dir / part))
        self._writers[part].add_scalar(name, value, step)

    def on_train_end(self, logs: Logs | None = None) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers = {}

    def state(self) -> dict[str, Any]:
        return {"step": self._step}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._step = int(state["step"])
