"""Sequential.profile: where the time of a training step goes, part by part.

On a processor the first thread looks at a clock between two parts. On a GPU events stand between
them, in the graph that a step is replayed as, and the host waits for each such step; what lies
between two steps is what steps take beside their parts where nobody looks.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from . import carried, checks, files, network, structure, summary, text
from .arrays import Array

if TYPE_CHECKING:
    from .model import Sequential

WARM_EPOCHS = 2  # plans, caches, the number of threads
# In the order of a step; those of single layers, and whether they go down from the last one.
OF_LAYERS = {"forward": False, "delta": True, "gradient": False}
ORDER = ("gather", "forward", "loss", "delta", "gradient", "update", "wait", "whole", "between")
NOT_OF_ONE = (*OF_LAYERS, "whole")


class Part(NamedTuple):
    """One line of a profile.

    part: "gather" rows of the batch and targets; "forward"; "loss" with the metrics; "delta" the
    gradient of a layer's input; "gradient" of its parameters, with their update where that is made
    at once; "update" where it is not; "wait" for other threads in front of the gradients and the
    update; "whole" steps by one kernel, which trains narrow networks on a GPU; "between" two steps.
    layer: its name, "all layers" where one call takes a batch through all, "" for what is of no
    layer. flop: multiplications and additions of products for one step,
    None where they are not known.
    """

    part: str
    layer: str
    seconds: float
    flop: int | None


class Profile(NamedTuple):
    """Times of a training step by part; print it for a table.

    Attributes:
        parts: list of Part: part, layer, seconds per step, flop per step.
        steps: how many were measured.
        rows: of each step.
    """

    parts: list[Part]
    steps: int
    rows: int

    @property
    def seconds(self) -> float:
        """Of one step."""
        return sum(part.seconds for part in self.parts)

    def __str__(self) -> str:
        cells = [["part", "layer", "us/step", "share", "GFLOP/s"]]
        for part in self.parts:
            rate = "" if not part.flop else f"{part.flop / part.seconds / 1e9:.1f}"
            share = f"{100 * part.seconds / self.seconds:.1f} %"
            cells.append([part.part, part.layer, f"{part.seconds * 1e6:.2f}", share, rate])
        cells.append(["step", "", f"{self.seconds * 1e6:.2f}", "", ""])
        table = text.table(cells, indent=0, left=2)
        return f"{table}\n{self.steps:,} steps on {self.rows:,} rows each"


def profile(model: Sequential, x: Any, y: Any, batch_size: int, seconds: float) -> Profile:
    """Sequential.profile; see there."""
    rows = checks.batch_size(batch_size)
    seconds = checks.real("seconds", seconds, 0, open_low=True)
    if model.device == "reference":
        raise ValueError(
            "profile measures an engine on a processor or on CUDA; this model's device is "
            "'reference', which is NumPy: cProfile shows its functions"
        )
    if not model.optimizer.by_steps:
        raise ValueError(
            f"profile measures steps, and {type(model.optimizer).__name__} makes none: compile "
            "with another optimizer"
        )
    copy = files.from_bytes(files.to_bytes(model), model.device)
    shuffle = not carried.is_stateful(model)  # whose batches follow on each other

    def train(epochs: int) -> float:
        began = time.perf_counter()
        copy.fit(x, y, epochs=epochs, batch_size=rows, shuffle=shuffle, verbose=0)
        return time.perf_counter() - began

    epochs = max(1, int(seconds * WARM_EPOCHS / train(WARM_EPOCHS)))
    engine = copy._require_built()
    before = engine.steps
    engine.start_clock()
    train(epochs)
    times = engine.stop_clock()
    steps = engine.steps - before
    if model.device != "cpu":
        # Less what a call of fit takes, such as copying the rows to the GPU.
        unseen = train(1 + epochs) - train(1) - sum(spent.sum() for spent in times.values())
        times["between"][-1] = max(0.0, unseen)
    return Profile(list(_parts(copy, times, steps, _rows_of_layers(copy, x, rows))), steps, rows)


def _rows_of_layers(model: Sequential, x: Any, rows: int) -> list[int]:
    """Rows that each layer takes through its products in a step: of sequences one for each step."""
    layers = model.layers
    if not network.reads_sequences(layers):
        return [rows] * len(layers)
    features = model._features(x, finite=False)
    steps = getattr(features, "values", features).shape[1]
    behind = [structure.sequences_behind(layers[:place], True) for place in range(len(layers))]
    return [rows * steps if sequences else rows for sequences in behind]


def _parts(
    model: Sequential, times: dict[str, Array], steps: int, rows: list[int]
) -> Iterator[Part]:
    """What took any time, in the order of a step."""
    layers = model.layers
    specs = [place for place, layer in enumerate(layers) for _ in layer.specs()]
    flop = [0] * len(layers)
    for row in summary.rows(layers, model.inputs):
        flop[row.place] += rows[row.place] * (row.flop or 0)
    for part in ORDER:
        spent = times[part] / steps
        by_layer = [0.0] * len(layers)
        for spec, place in enumerate(specs):
            by_layer[place] += spent[spec]
        places = range(len(layers))
        for place in reversed(places) if OF_LAYERS.get(part) else places:
            if by_layer[place] > 0:
                name = f"{place} {layers[place].title().partition('(')[0]}"
                yield Part(part, name, by_layer[place], flop[place] or None)
        if spent[-1] > 0:
            yield Part(part, "all layers" if part in NOT_OF_ONE else "", float(spent[-1]), None)
