"""Weights that another library keeps, layer by layer, and where they belong in a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from .. import network
from ..arrays import Array
from ..layers import Layer

if TYPE_CHECKING:
    from ..model import Sequential


class Block(NamedTuple):
    """One foreign layer: its name there, and its arrays by their names there."""

    name: str
    arrays: Mapping[str, Array]


class Part(NamedTuple):
    """One parameter: its name here, its name there, and whether rows and columns are swapped."""

    ours: str
    theirs: str
    transposed: bool = False

    def here(self, array: Array) -> Array:
        """The array as this library lays it out."""
        return array.T if self.transposed else array


def owners(model: Sequential) -> list[tuple[int, Layer]]:
    """Place and layer of each layer with parameters, from input to output."""
    return [(index, layer) for index, layer in enumerate(model.layers) if layer.owns_parameters]


def parts_of(layer: Layer, table: Mapping[str, Sequence[Part]]) -> list[Part]:
    """The parts that the layer has. Raises ValueError for a kind that is not in `table`."""
    kind = type(layer).__name__
    if kind not in table:
        raise ValueError(
            f"{kind} layers cannot be exchanged with that library; only {', '.join(table)} can"
        )
    present = layer.parameter_shapes(1)
    return [part for part in table[kind] if part.ours in present]


def put(
    model: Sequential, blocks: Sequence[Block], table: Mapping[str, Sequence[Part]], source: str
) -> None:
    """Overwrites all parameters with the blocks, in order; builds a model that is not built.

    Raises ValueError, naming layer and shapes, unless every parameter has its counterpart; the
    model is then as it was.
    """
    targets = owners(model)
    if len(blocks) != len(targets):
        raise ValueError(
            f"{source} has {len(blocks)} layers with weights "
            f"({', '.join(block.name or 'the only one' for block in blocks)}), the model has "
            f"{len(targets)}: {', '.join(f'{index} {layer.title()}' for index, layer in targets)}"
        )
    values: dict[str, Array] = {}
    for (index, layer), block in zip(targets, blocks, strict=True):
        parts = parts_of(layer, table)
        if set(block.arrays) != {part.theirs for part in parts}:
            raise ValueError(
                f"layer {index} ({layer.title()}) needs {', '.join(p.theirs for p in parts)}; "
                f"{block.name or source!r} has {', '.join(block.arrays)}"
            )
        for part in parts:
            values[f"{index}.{part.ours}"] = part.here(block.arrays[part.theirs])
    inputs = _inputs(values)
    _check_shapes(model, values, inputs)
    model.build(inputs)
    model.set_parameters(values)


def _inputs(values: Mapping[str, Array]) -> int:
    """Number of columns that the first matrix takes."""
    return next((array.shape[0] for array in values.values() if array.ndim == 2), 1)


def _check_shapes(model: Sequential, values: Mapping[str, Array], inputs: int) -> None:
    if model.inputs is not None and inputs != model.inputs:
        raise ValueError(f"the weights are for {inputs} inputs, the model for {model.inputs}")
    for name, shape in network.parameter_shapes(model.layers, inputs).items():
        if values[name].shape != shape:
            raise ValueError(
                f"parameter {name!r} has shape {shape}; the weights for it {values[name].shape}"
            )
