"""From a list of layers to an engine with parameters: the work of compile and build."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from . import _core
from .arrays import Array
from .devices import Backend
from .initializers import BIAS_STREAMS, Source
from .layers import Layer
from .losses import Loss
from .optimizers import Optimizer

Layers = Sequence[Layer]


class Compiled(NamedTuple):
    """What Sequential.compile chose. The optimizer is the model's own copy."""

    loss: Loss
    optimizer: Optimizer
    metrics: list[str]


def outputs(layers: Layers) -> int:
    """Number of output columns, whatever goes in. Raises ValueError without a Dense."""
    width = None
    for layer in layers:
        width = layer.outputs(width)
    if width is None:
        raise ValueError("a network needs at least one Dense layer; this one has none")
    return width


def last_activation(layers: Layers) -> str:
    """The name of the activation that the network ends in; "identity" if it ends in none."""
    spec = layers[-1].specs()[-1]
    return str(spec[1]) if spec[0] == "activation" else "identity"


def make_engine(
    layers: Layers, inputs: int, backend: Backend, dtype: str, seed: int
) -> _core.Engine:
    """An engine whose parameters are still 0; what its steps draw follows from the seed."""
    specs = [spec for layer in layers for spec in layer.specs()]
    engine: _core.Engine = backend.engine(inputs, specs, dtype, seed)
    return engine


def initialize(layers: Layers, engine: _core.Engine, backend: Backend, seed: int) -> None:
    """Draws the start of every parameter.

    The k-th layer with parameters has stream k, whatever stands between.
    """
    draw = (backend.random_uniform, backend.random_normal, seed)
    for ordinal, (_, layer, named) in enumerate(_blocks(layers, engine, engine.parameters)):
        sources = Source(*draw, ordinal), Source(*draw, BIAS_STREAMS + ordinal)
        layer.initialize(named, sources)


def compile_engine(engine: _core.Engine, compiled: Compiled) -> None:
    """Gives the engine its loss and optimizer; the optimizer's state starts afresh."""
    loss, optimizer = compiled.loss, compiled.optimizer
    engine.compile(loss.name, loss.param, optimizer.kernel, optimizer.hyper())
    optimizer.changed = False


def _blocks(
    layers: Layers, engine: _core.Engine, flat: Array
) -> Iterator[tuple[int, Layer, dict[str, Array]]]:
    """Place and layer of each block of parameters, with its views of `flat` by name."""
    owners = [(index, layer) for index, layer in enumerate(layers) if layer.owns_parameters]
    for (index, layer), (offset, rows, cols, has_bias) in zip(
        owners, engine.parameter_shapes, strict=True
    ):
        named, at = {}, offset
        for name, shape in layer.parameter_shapes(rows).items():
            end = at + math.prod(shape)
            named[name] = flat[at:end].reshape(shape)
            at = end
        assert at == offset + (rows + has_bias) * cols
        yield index, layer, named


def views(layers: Layers, engine: _core.Engine, flat: Array) -> dict[str, Array]:
    """Views by name ("0.kernel") of a flat array that is laid out as the engine's parameters."""
    return {
        f"{index}.{name}": view
        for index, _, named in _blocks(layers, engine, flat)
        for name, view in named.items()
    }


def parameter_shapes(layers: Layers, inputs: int) -> dict[str, tuple[int, ...]]:
    """The shape of every parameter by name, without making any."""
    return {
        f"{index}.{name}": shape
        for index, layer, width in _with_inputs(layers, inputs)
        for name, shape in layer.parameter_shapes(width).items()
    }


def _with_inputs(layers: Layers, inputs: int) -> Iterator[tuple[int, Layer, int]]:
    """Place, layer and number of its inputs."""
    width: int | None = inputs
    for index, layer in enumerate(layers):
        assert width is not None
        yield index, layer, width
        width = layer.outputs(width)
