"""Weights that another library keeps, layer by layer, and where they belong in a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .. import arrays, network
from ..arrays import Array
from ..embedding import Embedding
from ..layers import Layer
from ..structure import leaves
from ..wrappers import TimeDistributed

if TYPE_CHECKING:
    from ..transferable import Transferable


class Block(NamedTuple):
    """One foreign layer: its name there, and its arrays by their names there."""

    name: str
    arrays: Mapping[str, Array]


class Part(NamedTuple):
    """One parameter, or array of the layer's state: its name here and there.

    transposed: whether rows and columns are swapped there.
    """

    ours: str
    theirs: str
    transposed: bool = False

    def here(self, array: Array) -> Array:
        """The array as this library lays it out."""
        return array.T if self.transposed else array


def owners(model: Transferable) -> list[tuple[str, Layer]]:
    """Name and layer of each layer with parameters or moving statistics, from input to output."""
    return [
        (name, inner(layer))
        for name, layer in leaves(model.layers)
        if layer.owns_parameters or (layer.owns_state and not layer.owns_constants)
    ]


def inner(layer: Layer) -> Layer:
    """The layer that TimeDistributed holds, which other libraries apply to every step as it is; any
    other as it is."""
    return layer.layer if isinstance(layer, TimeDistributed) else layer


def parts_of(layer: Layer, table: Mapping[str, Sequence[Part]]) -> list[Part]:
    """The parts that the layer has. Raises ValueError for a kind that is not in `table`."""
    kind = type(layer).__name__
    if kind not in table:
        raise ValueError(
            f"{kind} layers cannot be exchanged with that library; only {', '.join(table)} can"
        )
    present = {**layer.parameter_shapes(1), **layer.state_shapes(1)}
    return [part for part in table[kind] if part.ours in present]


def put(
    model: Transferable, blocks: Sequence[Block], table: Mapping[str, Sequence[Part]], source: str
) -> None:
    """Overwrites all parameters and moving statistics with the blocks, in order.

    Builds a model that is not built.

    Raises ValueError, naming layer and shapes, unless every parameter has its counterpart; the
    model is then as it was.
    """
    targets = owners(model)
    if len(blocks) != len(targets):
        raise ValueError(
            f"{source} has {len(blocks)} layers with weights "
            f"({', '.join(block.name or 'the only one' for block in blocks)}), the model has "
            f"{len(targets)}: {', '.join(f'{name} {layer.title()}' for name, layer in targets)}"
        )
    values: dict[str, Array] = {}
    for (name, layer), block in zip(targets, blocks, strict=True):
        parts = parts_of(layer, table)
        if set(block.arrays) != {part.theirs for part in parts}:
            raise ValueError(
                f"layer {name} ({layer.title()}) needs {', '.join(p.theirs for p in parts)}; "
                f"{block.name or source!r} has {', '.join(block.arrays)}"
            )
        for part in parts:
            values[f"{name}.{part.ours}"] = part.here(block.arrays[part.theirs])
    inputs = _inputs(model, values)
    _check_shapes(model, values, inputs)
    kept = {name: values.pop(name) for name in network.state_shapes(model.layers, inputs)}
    for name, array in kept.items():
        kept[name] = arrays.parameter(name, array, array.shape, model._dtype)
        if name.endswith("variance") and array.size and np.min(array) < 0:
            raise ValueError(f"{name!r} must not be negative; the smallest is {np.min(array):g}")
    model.build(inputs)
    model.set_parameters(values)
    state = model.state()
    for name, array in kept.items():
        state[name][...] = array


def _inputs(model: Transferable, values: Mapping[str, Array]) -> int:
    """Number of columns that the first layer with weights takes."""
    width = 1  # of what an Embedding makes of each column
    for name, layer in owners(model):
        if isinstance(layer, Embedding):
            width = layer.output_dim
            continue
        own = (array for key, array in values.items() if key.startswith(f"{name}."))
        return next(array.shape[0] if array.ndim else 0 for array in own) // width
    return model.inputs or 1


def _check_shapes(model: Transferable, values: Mapping[str, Array], inputs: int) -> None:
    if model.inputs is not None and inputs != model.inputs:
        raise ValueError(f"the weights are for {inputs} inputs, the model for {model.inputs}")
    parameters, state = network.parameter_shapes, network.state_shapes
    for name, shape in {**parameters(model.layers, inputs), **state(model.layers, inputs)}.items():
        if name not in values:  # an adapted layer's own numbers
            continue
        if values[name].shape != shape:
            raise ValueError(
                f"parameter {name!r} has shape {shape}; the weights for it {values[name].shape}"
            )
