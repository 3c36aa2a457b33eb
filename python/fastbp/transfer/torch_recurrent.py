"""PyTorch's nn.RNN, nn.LSTM and nn.GRU, in and out.

They keep matrices as (columns, inputs), the gates of a GRU as r z n instead of z r n, and two
biases where one does: those of RNN and LSTM are added up on the way in, and the second is 0 on the
way out. Names end in the number of the layer of a stack, and in "_reverse" for the way back.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from ..arrays import Array
from ..layers import Layer
from ..recurrent import GRU, Recurrent
from ..wrappers import Bidirectional
from .foreign import Block, Part

_NAME = re.compile(r"(weight|bias)_(ih|hh)_l(\d+)(_reverse)?")
_OURS = ("kernel", "bias", "recurrent_kernel", "recurrent_bias")
_BOTH = (*_OURS, "backward_recurrent_kernel", "backward_recurrent_bias")
PARTS = {
    **{kind: tuple(Part(name, name) for name in _OURS) for kind in ("SimpleRNN", "LSTM", "GRU")},
    "Bidirectional": tuple(Part(name, name) for name in _BOTH),
}


def layers_of(block: Block) -> list[Block]:
    """The layers of a stack, each with names that lack its number; any other block as it is."""
    found: dict[int, dict[str, Array]] = {}
    for name, array in block.arrays.items():
        match = _NAME.fullmatch(name)
        if match is None:
            return [block]
        what, which, number, reverse = match.groups()
        found.setdefault(int(number), {})[f"{what}_{which}{reverse or ''}"] = array
    return [Block(f"{block.name} layer {n}", found[n]) for n in sorted(found)]


def is_recurrent(layer: Layer) -> bool:
    """Whether its weights are those of a PyTorch layer that is translated here."""
    return isinstance(layer, (Recurrent, Bidirectional))


def to_ours(place: str, layer: Layer, block: Block) -> Block:
    """A PyTorch layer's arrays under the names, and in the form, of `layer`.

    Raises ValueError, naming the layer, where arrays are missing or too many, or gates do not fit.
    """
    cell, ways = _cell(layer)
    names = [f"weight_ih{way}" for way in ways] + [f"weight_hh{way}" for way in ways]
    if cell.use_bias:
        names += [f"bias_{which}{way}" for which in ("ih", "hh") for way in ways]
    if set(block.arrays) != set(names):
        raise ValueError(
            f"layer {place} ({layer.title()}) needs {', '.join(names)}; {block.name!r} has "
            f"{', '.join(block.arrays)}"
        )
    for name in names:
        if block.arrays[name].shape[0] != cell.gates * cell.units:
            raise ValueError(
                f"layer {place} ({layer.title()}) has {cell.gates * cell.units} columns; {name} of "
                f"{block.name!r} has shape {block.arrays[name].shape}"
            )
    given = {name: _swapped(cell, block.arrays[name]) for name in names}
    ours = {"kernel": np.concatenate([given[f"weight_ih{way}"].T for way in ways], axis=1)}
    for way, prefix in zip(ways, ("", "backward_"), strict=False):
        ours[f"{prefix}recurrent_kernel"] = given[f"weight_hh{way}"].T
    if cell.use_bias:
        second = 0 if cell.two_biases else 1
        ours["bias"] = np.concatenate(
            [given[f"bias_ih{way}"] + second * given[f"bias_hh{way}"] for way in ways]
        )
        for way, prefix in zip(ways, ("", "backward_"), strict=False):
            if cell.two_biases:
                ours[f"{prefix}recurrent_bias"] = given[f"bias_hh{way}"]
    return Block(block.name, ours)


def to_torch(layer: Layer, parameters: Mapping[str, Array]) -> dict[str, Array]:
    """The arrays of the PyTorch layer of one layer, by their names there."""
    cell, ways = _cell(layer)
    wide, theirs = cell.gates * cell.units, {}
    for number, (way, prefix) in enumerate(zip(ways, ("", "backward_"), strict=False)):
        columns = slice(number * wide, (number + 1) * wide)
        theirs[f"weight_ih_l0{way}"] = parameters["kernel"][:, columns].T
        theirs[f"weight_hh_l0{way}"] = parameters[f"{prefix}recurrent_kernel"].T
        if cell.use_bias:
            bias = parameters["bias"][columns]
            theirs[f"bias_ih_l0{way}"] = bias
            second = parameters.get(f"{prefix}recurrent_bias")
            theirs[f"bias_hh_l0{way}"] = np.zeros_like(bias) if second is None else second
    return {name: _swapped(cell, array) for name, array in theirs.items()}


def _cell(layer: Layer) -> tuple[Recurrent, tuple[str, ...]]:
    """The layer of one way, and the ends of the names of its ways."""
    if isinstance(layer, Bidirectional):
        return layer.layer, ("", "_reverse")
    assert isinstance(layer, Recurrent)
    return layer, ("",)


def _swapped(cell: Recurrent, array: Array) -> Array:
    """Rows (gates, units) with the first two gates of a GRU in the other order."""
    if not isinstance(cell, GRU):
        return array
    update, reset, new = np.split(array, 3)
    return np.concatenate([reset, update, new])
