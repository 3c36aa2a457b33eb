"""From a list of layers to an engine with parameters: the work of compile and build."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from . import _core
from .arrays import Array
from .devices import Backend
from .initializers import BIAS_STREAMS, Source
from .layers import Dense, Layer
from .losses import Loss
from .optimizers import Optimizer

Layers = Sequence[Layer]


class Compiled(NamedTuple):
    """What Sequential.compile chose. The optimizer is the model's own copy."""

    loss: Loss
    optimizer: Optimizer
    metrics: list[str]


def outputs(layers: Layers) -> int:
    """Number of output columns: the units of the last Dense. Raises ValueError without a Dense."""
    for layer in reversed(layers):
        if isinstance(layer, Dense):
            return layer.units
    raise ValueError("a network needs at least one Dense layer; this one has none")


def last_activation(layers: Layers) -> str:
    """The name of the activation that the network ends in; "identity" if it ends in none."""
    spec = layers[-1].specs()[-1]
    return str(spec[1]) if spec[0] == "activation" else "identity"


def make_engine(layers: Layers, inputs: int, backend: Backend, dtype: str) -> _core.Engine:
    """An engine whose parameters are still 0."""
    specs = [spec for layer in layers for spec in layer.specs()]
    engine: _core.Engine = backend.engine(inputs, specs, dtype)
    return engine


def initialize(layers: Layers, engine: _core.Engine, backend: Backend, seed: int) -> None:
    """Draws the start of every parameter. The k-th Dense has stream k, whatever stands between."""
    named = views(layers, engine, engine.parameters)
    dense = [(index, layer) for index, layer in enumerate(layers) if isinstance(layer, Dense)]
    for ordinal, (index, layer) in enumerate(dense):
        kernel = named[f"{index}.kernel"]
        fans = (kernel.shape[0], kernel.shape[1])
        draw = (backend.random_uniform, backend.random_normal, seed)
        layer.kernel_initializer.fill(kernel, *fans, Source(*draw, ordinal))
        if layer.use_bias:
            source = Source(*draw, BIAS_STREAMS + ordinal)
            layer.bias_initializer.fill(named[f"{index}.bias"], *fans, source)


def compile_engine(engine: _core.Engine, compiled: Compiled) -> None:
    """Gives the engine its loss and optimizer; the optimizer's state starts afresh."""
    loss, optimizer = compiled.loss, compiled.optimizer
    engine.compile(loss.name, loss.param, optimizer.kernel, optimizer.hyper())
    optimizer.changed = False


def views(layers: Layers, engine: _core.Engine, flat: Array) -> dict[str, Array]:
    """Views by name ("0.kernel") of a flat array that is laid out as the engine's parameters."""
    named: dict[str, Array] = {}
    places = [index for index, layer in enumerate(layers) if isinstance(layer, Dense)]
    for index, (offset, rows, cols, has_bias) in zip(places, engine.parameter_shapes, strict=True):
        end = offset + rows * cols
        named[f"{index}.kernel"] = flat[offset:end].reshape(rows, cols)
        if has_bias:
            named[f"{index}.bias"] = flat[end : end + cols]
    return named


def parameter_shapes(layers: Layers, inputs: int) -> dict[str, tuple[int, ...]]:
    """The shape of every parameter by name, without making any."""
    shapes: dict[str, tuple[int, ...]] = {}
    width = inputs
    for index, layer in enumerate(layers):
        if isinstance(layer, Dense):
            shapes[f"{index}.kernel"] = (width, layer.units)
            if layer.use_bias:
                shapes[f"{index}.bias"] = (layer.units,)
            width = layer.units
    return shapes


def summary(layers: Layers, inputs: int | None) -> list[str]:
    """A table of the layers, their outputs and their parameters, and a line with the sums."""
    rows = [("layer", "outputs", "parameters")]
    width, total = inputs, 0
    for index, layer in enumerate(layers):
        title, count = str(layer), "0"
        if isinstance(layer, Dense):
            title = "Dense" + (f" {layer.activation.name}" if layer.activation else "")
            number = layer.units * ((width or 0) + layer.use_bias)
            total += number
            count = "?" if width is None else f"{number:,}"
            width = layer.units
        rows.append((f"{index} {title}", "?" if width is None else f"{width:,}", count))
    sizes = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        f"{name.ljust(sizes[0])}  {out.rjust(sizes[1])}  {count.rjust(sizes[2])}"
        for name, out, count in rows
    ]
    return [*lines, "not built" if inputs is None else f"{inputs:,} inputs, {total:,} parameters"]
