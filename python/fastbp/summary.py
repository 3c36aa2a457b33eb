"""What model.summary prints: layers, parameters, arithmetic and memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from . import network, optimizers, text
from .layers import Layer
from .network import Compiled


class Row(NamedTuple):
    """One layer; None where it depends on a number of inputs that is not known yet."""

    title: str
    outputs: int | None
    parameters: int | None
    flop: int | None  # multiplications and additions of matrix products, for one row or step
    place: int  # in the network, of the layer or of the one that holds it


def rows(layers: Sequence[Layer], inputs: int | None) -> list[Row]:
    """The layers from input to output."""
    found = []
    for name, layer, width in network.widths(layers, inputs):
        parameters = flop = None if layer.owns_parameters else 0
        if width is not None:
            shapes = layer.parameter_shapes(width)
            parameters = sum(map(math.prod, shapes.values()))
            products = (shape for key, shape in shapes.items() if key.endswith("kernel"))
            flop = 2 * sum(map(math.prod, products))
        title, place = f"{name} {layer.title()}", int(name.partition(".")[0])
        found.append(Row(title, layer.outputs(width), parameters, flop, place))
    return found


def lines(
    layers: Sequence[Layer],
    inputs: int | None,
    compiled: Compiled | None,
    dtype: str,
    device: str,
    batch_size: int,
) -> list[str]:
    """A table of the layers, and what a training step on so many rows takes."""
    found = rows(layers, inputs)
    cells = [["layer", "outputs", "parameters", "flop/row"]]
    cells += [[row.title, *map(_count, row[1:4])] for row in found]
    table = text.table(cells, indent=0).splitlines()
    where = f"{dtype} on {device}"
    if inputs is None:
        return [*table, f"not built; {where}"]
    total = sum(row.parameters or 0 for row in found)
    of = "sequences of one step" if any(layer.reads_sequences for layer in layers) else "rows"
    return [
        *table,
        f"{inputs:,} inputs, {total:,} parameters; {where}",
        *_costs(found, inputs, total, compiled, 8 if dtype == "float64" else 4, batch_size, of),
    ]


def _costs(
    found: list[Row],
    inputs: int,
    total: int,
    compiled: Compiled | None,
    size: int,
    batch: int,
    of: str,
) -> list[str]:
    """Arithmetic and memory, padding and the buffers of the threads apart."""
    forward = batch * sum(row.flop or 0 for row in found)
    slots = 0 if compiled is None else optimizers.slots(compiled.optimizer)
    kept = batch * (inputs + sum(row.outputs or 0 for row in found))  # x and every layer's output
    deltas = batch * sum(row.outputs or 0 for row in found)
    memory = {
        "parameters": total * size,
        "gradient": total * size,
        f"optimizer ({slots} per parameter)": slots * total * size,
        "activations": kept * size,
        "deltas": deltas * size,
    }
    parts = ", ".join(f"{name} {_bytes(count)}" for name, count in memory.items())
    return [
        f"a step on {batch:,} {of}: {_flop(3 * forward)} ({_flop(forward)} forward, twice that "
        "backward)",
        f"memory at most: {parts}; in all {_bytes(sum(memory.values()))}",
    ]


def _count(value: int | None) -> str:
    return "?" if value is None else f"{value:,}"


def _flop(count: int) -> str:
    return _scaled(count, 1000, ("flop", "kflop", "Mflop", "Gflop", "Tflop"))


def _bytes(count: int) -> str:
    return _scaled(count, 1024, ("B", "KiB", "MiB", "GiB", "TiB"))


def _scaled(count: float, base: int, units: Sequence[str]) -> str:
    """Three digits and the unit that fits."""
    for unit in units[:-1]:
        if count < base:
            return f"{count:.3g} {unit}" if count < 1000 else f"{count:.0f} {unit}"
        count /= base
    return f"{count:,.3g} {units[-1]}"
