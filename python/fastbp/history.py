"""What fit returns: the loss, the metrics and the learning rate of every epoch."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

# Reasons of a stop after which a run is complete: there is nothing to resume.
FINAL = ("epochs", "early_stopping", "converged")


class History:
    """The record of one call of fit.

    Attributes:
        history: name -> one float per epoch: "loss", the metrics, both again with "val_" before
            them when there was validation data, "learning_rate" as it was in the epoch's last step,
            "gradient_norm_0" and so on where they were asked for, and what callbacks added. The
            training loss and metrics are means over the epoch, each batch measured before its
            update.
        epoch: the number of each epoch, from 0 at every call of fit.
        params: the settings of the call: epochs, batch_size, steps (per epoch), samples.
        stop_reason: why fit came to its end: "epochs" (all done), "early_stopping", "converged",
            "not_finite" or another word of a callback, "stop_training" (set without a reason),
            "interrupted" (Ctrl-C), or "KeyError in Mine.on_epoch_end" for an exception;
            None while it runs.
    """

    def __init__(self, params: Mapping[str, Any]) -> None:
        self.history: dict[str, list[float]] = {}
        self.epoch: list[int] = []
        self.params = dict(params)
        self.stop_reason: str | None = None

    def append(self, epoch: int, logs: Mapping[str, float]) -> None:
        """Adds the values of one epoch; where a name is new or missing, NaN stands in."""
        self.epoch.append(epoch)
        if logs.keys() != self.history.keys():
            self.amend(logs)
            return
        for name, value in logs.items():
            self.history[name].append(value)

    def amend(self, logs: Mapping[str, float]) -> None:
        """Sets values of the last epoch."""
        count = len(self.epoch)
        for name, value in logs.items():
            series = self.history.setdefault(name, [])
            del series[count - 1 :]
            series += [math.nan] * (count - 1 - len(series))
            series.append(value)
        for series in self.history.values():
            series += [math.nan] * (count - len(series))

    def diverged(self) -> bool:
        """Whether the loss of any epoch so far was NaN or infinite."""
        return not all(map(math.isfinite, self.history.get("loss", [])))

    def to_dict(self) -> dict[str, list[float]]:
        """A copy as plain data: "epoch", then every series of `history`, all of one length.

        pandas.DataFrame(history.to_dict()) makes a table of it.
        """
        epochs: list[float] = list(self.epoch)
        return {"epoch": epochs, **{name: list(values) for name, values in self.history.items()}}

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Writes a table with one line per epoch. Raises OSError if the file cannot be written."""
        import csv
        from pathlib import Path

        table = self.to_dict()
        with Path(path).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(table)
            writer.writerows(zip(*table.values(), strict=True))

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Draws every series over the epochs, each beside its validation values; needs matplotlib.

        Returns the matplotlib figure, and writes it to `path` if one is given. Raises ImportError
        without matplotlib.
        """
        try:
            from matplotlib.figure import Figure
            from matplotlib.ticker import MaxNLocator
        except ImportError as error:
            raise ImportError("History.plot needs matplotlib: pip install matplotlib") from error
        names = [name for name in self.history if not name.startswith("val_")]
        names += [n for n in self.history if n.startswith("val_") and n[4:] not in names]
        columns = min(max(len(names), 1), 3)
        rows = max(-(-len(names) // columns), 1)
        figure = Figure(figsize=(4.5 * columns, 3.5 * rows), layout="constrained")
        epochs = [epoch + 1 for epoch in self.epoch]
        marker = ".-" if len(epochs) < 30 else "-"  # of a single epoch there is no line to see
        for position, name in enumerate(names):
            axes = figure.add_subplot(rows, columns, position + 1)
            for series in (name, f"val_{name}"):
                if series in self.history:
                    axes.plot(epochs, self.history[series], marker, label=series)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.set_xlabel("epoch")
            axes.legend()
        if path is not None:
            figure.savefig(path)
        return figure

    def __repr__(self) -> str:
        last = ", ".join(f"{name}={values[-1]:.4g}" for name, values in self.history.items())
        return f"History({len(self.epoch)} epochs{': ' + last if last else ''})"
