"""What fit returns: the loss and the metrics of every epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class History:
    """The record of one call of fit.

    Attributes:
        history: name -> one float per epoch: "loss", the metrics, and both again with "val_" before
            them when there was validation data. Training values are means over the epoch, each
            batch measured before its update.
        epoch: the number of each epoch, from 0 at every call of fit.
        params: the settings of the call: epochs, batch_size, steps (per epoch), samples.
    """

    def __init__(self, params: Mapping[str, Any]) -> None:
        self.history: dict[str, list[float]] = {}
        self.epoch: list[int] = []
        self.params = dict(params)

    def append(self, epoch: int, logs: Mapping[str, float]) -> None:
        """Adds the values of one epoch."""
        self.epoch.append(epoch)
        for name, value in logs.items():
            self.history.setdefault(name, []).append(value)

    def plot(self, path: str | None = None) -> Any:
        """Draws every series over the epochs, losses apart from metrics; needs matplotlib.

        Returns the matplotlib figure, and writes it to `path` if one is given. Raises ImportError
        without matplotlib.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ImportError("History.plot needs matplotlib: pip install matplotlib") from error
        names = [name for name in self.history if not name.startswith("val_")]
        figure = Figure(figsize=(4.5 * max(len(names), 1), 3.5), layout="constrained")
        for position, name in enumerate(names):
            axes = figure.add_subplot(1, len(names), position + 1)
            for series in (name, f"val_{name}"):
                if series in self.history:
                    axes.plot(
                        [epoch + 1 for epoch in self.epoch], self.history[series], label=series
                    )
            axes.set_xlabel("epoch")
            axes.legend()
        if path is not None:
            figure.savefig(path)
        return figure

    def __repr__(self) -> str:
        last = ", ".join(f"{name}={values[-1]:.4g}" for name, values in self.history.items())
        return f"History({len(self.epoch)} epochs{': ' + last if last else ''})"
