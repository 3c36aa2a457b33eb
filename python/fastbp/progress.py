"""What fit shows while it runs: nothing, a bar on stderr, or lines on stdout.

verbose: 0 nothing; 1 a bar where stderr is a terminal, else about ten lines; 2 a line per epoch;
N > 2 a line every N epochs; "auto" a bar where stderr is a terminal, else nothing.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import IO, Any

from . import checks

Logs = Mapping[str, float]


def shown(logs: Logs) -> Logs:
    """What is of interest at every epoch: loss, metrics and their validation values."""
    hidden = ("learning_rate", "gradient_norm_")
    return {name: value for name, value in logs.items() if not name.startswith(hidden)}


class Progress:
    """Shows nothing; base of the others.

    live: whether it wants to hear of an epoch in progress, about twenty times a second.
    """

    live = False

    def update(self, done: int, logs: Logs) -> None:
        """Called once per epoch: `done` are complete, `logs` has the values of the last one."""

    def advance(self, done: int, share: float, logs: Logs) -> None:
        """Of the epoch behind the `done` complete ones this share of the steps has been taken."""

    def close(self) -> None:
        """Leaves the terminal in order; called also when fit is interrupted."""


class Lines(Progress):
    """Epoch [10/100], Loss: 0.6931, accuracy: 0.5000 -- every `every` epochs and at the end."""

    def __init__(
        self, epochs: int, every: int, stream: IO[str] | None = None, unit: str = "epoch"
    ) -> None:
        self._epochs, self._every, self._unit = epochs, every, unit
        self._stream = stream if stream is not None else sys.stdout

    def update(self, done: int, logs: Logs) -> None:
        if done % self._every == 0 or done == self._epochs:
            values = ", ".join(
                f"{'Loss' if name == 'loss' else name}: {value:.4f}" for name, value in logs.items()
            )
            print(
                f"{self._unit.capitalize()} [{done}/{self._epochs}], {values}",
                file=self._stream,
                flush=True,
            )


class PlainBar(Progress):
    """One line on a terminal, rewritten at most ten times a second; needs nothing installed."""

    INTERVAL = 0.1  # seconds between two drawings
    WIDTH = 24  # characters of the bar

    def __init__(self, epochs: int, stream: IO[str] | None = None, unit: str = "epoch") -> None:
        self._epochs, self._unit = epochs, unit
        self._stream = stream if stream is not None else sys.stderr
        self._start = self._drawn = time.perf_counter()
        self._length = 0

    live = True

    def update(self, done: int, logs: Logs) -> None:
        self._draw(done, float(done), logs)

    def advance(self, done: int, share: float, logs: Logs) -> None:
        self._draw(done, done + share, logs)

    def _draw(self, done: int, complete: float, logs: Logs) -> None:
        now = time.perf_counter()
        if done < self._epochs and now - self._drawn < self.INTERVAL:
            return
        self._drawn = now
        filled = int(self.WIDTH * complete / self._epochs)
        line = (
            f"{self._unit} {done}/{self._epochs} [{'=' * filled}{' ' * (self.WIDTH - filled)}] "
            f"{now - self._start:.1f} s {_values(logs)}"
        )
        self._write(line)

    def _write(self, line: str) -> None:
        self._stream.write("\r" + line.ljust(self._length))
        self._stream.flush()
        self._length = len(line)

    def close(self) -> None:
        if self._length:
            self._stream.write("\n")
            self._stream.flush()


class NotebookBar(PlainBar):
    """The same in a notebook's cell, as one output that is replaced."""

    INTERVAL = 0.25

    def __init__(self, epochs: int, unit: str = "epoch") -> None:
        from IPython.display import display

        super().__init__(epochs, unit=unit)
        self._handle: Any = display({"text/plain": ""}, raw=True, display_id=True)

    def _write(self, line: str) -> None:
        self._handle.update({"text/plain": line}, raw=True)


class RichBar(Progress):
    """The bar of the `rich` package."""

    live = True

    def __init__(self, epochs: int, unit: str = "epoch") -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Display

        self._display = Display(
            TextColumn(unit),
            TaskProgressColumn("{task.completed:.0f}/{task.total}"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[values]}"),
            console=Console(stderr=True),
            refresh_per_second=4,
        )
        self._task = self._display.add_task("fit", total=epochs, values="")
        self._display.start()

    def update(self, done: int, logs: Logs) -> None:
        self._display.update(self._task, completed=done, values=_values(logs))

    def advance(self, done: int, share: float, logs: Logs) -> None:
        self._display.update(self._task, completed=done + share, values=_values(logs))

    def close(self) -> None:
        self._display.stop()


class TqdmBar(Progress):
    """The bar of the `tqdm` package."""

    def __init__(self, epochs: int, unit: str = "epoch") -> None:
        from tqdm import tqdm

        self._bar: Any = tqdm(total=epochs, unit=unit, file=sys.stderr)

    def update(self, done: int, logs: Logs) -> None:
        self._bar.set_postfix_str(_values(logs), refresh=False)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        self._bar.close()


def check_verbose(verbose: str | int) -> str | int:
    """`verbose` as fit takes it. Raises TypeError or ValueError that lists the choices."""
    if verbose == "auto":
        return "auto"
    if isinstance(verbose, str):
        raise ValueError(
            "verbose must be 'auto', 0 (silent), 1 (bar) or N (a line every N epochs); got "
            f"{verbose!r}"
        )
    return checks.integer("verbose", int(verbose) if isinstance(verbose, bool) else verbose, 0)


def make(verbose: str | int, epochs: int, unit: str = "epoch") -> Progress:
    """The display for one call of fit; `verbose` has passed `check_verbose`.

    Of an ensemble the unit is a member, and `epochs` their number.
    """
    terminal = sys.stderr is not None and sys.stderr.isatty()
    if verbose in ("auto", 1) and epochs > 0 and in_notebook():
        return NotebookBar(epochs, unit=unit)
    if verbose == 0 or epochs == 0 or (verbose == "auto" and not terminal):
        return Progress()
    if verbose in ("auto", 1):
        return bar(epochs, unit=unit) if terminal else Lines(epochs, -(-epochs // 10), unit=unit)
    return Lines(epochs, 1 if verbose == 2 else int(verbose), unit=unit)


def in_notebook() -> bool:
    """Whether this is a cell of a Jupyter notebook, by what its kernel has imported."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return type(shell).__name__ == "ZMQInteractiveShell"


def bar(epochs: int, unit: str = "epoch") -> Progress:
    """The best bar that is installed: rich, tqdm, or the plain one."""
    for kind in (RichBar, TqdmBar):
        try:
            return kind(epochs, unit=unit)
        except ImportError:
            continue
    return PlainBar(epochs, unit=unit)


def _values(logs: Logs) -> str:
    return " ".join(f"{name} {value:.4f}" for name, value in logs.items())
