"""From a list of layers to an engine with parameters: the work of compile and build."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from . import _core, loss_scale
from .arrays import Array
from .devices import Backend
from .initializers import BIAS_STREAMS, Source
from .layers import Layer
from .losses import Loss
from .optimizers import Optimizer
from .structure import leaves, sequences_behind

Layers = Sequence[Layer]
Frozen = frozenset[int]  # places of the layers that are not trained


class Compiled(NamedTuple):
    """What Sequential.compile chose. The optimizer is the model's own copy."""

    loss: Loss
    optimizer: Optimizer
    metrics: list[str]


def outputs(layers: Layers, inputs: int | None = None) -> int:
    """Number of output columns, for that many inputs if they are known.

    Raises ValueError without a Dense, and where widths do not fit.
    """
    width = inputs
    for layer in layers:
        width = layer.outputs(width)
    if not any(layer.draws for _, layer in leaves(layers)) or width is None:
        raise ValueError("a network needs at least one Dense layer; this one has none")
    return width


def reads_sequences(layers: Layers) -> bool:
    """Whether data are (rows, steps, columns)."""
    return any(layer.reads_sequences for layer in layers)


def gives_sequences(layers: Layers) -> bool:
    """Whether outputs are (rows, steps, outputs).

    Raises ValueError where a layer needs sequences and the one before puts out the last step only,
    and for layers that do not work on sequences.
    """
    if not reads_sequences(layers):
        return False
    for name, layer in leaves(layers):
        if layer.couples_rows:
            raise ValueError(
                f"layer {name}, {layer.title()}, takes its statistics from the whole batch, which "
                "networks with recurrent layers work off in parts: use LayerNorm"
            )
    return sequences_behind(layers, True)


def last_activation(layers: Layers) -> str:
    """The name of the activation that the network ends in; "identity" if it ends in none."""
    kind, *arguments = layers[-1].specs()[-1]
    if kind == "softmax":
        return "softmax"
    return str(arguments[0]) if kind == "activation" else "identity"


def make_engine(
    layers: Layers,
    inputs: int,
    backend: Backend,
    dtype: str,
    seed: int,
    frozen: Frozen,
) -> _core.Engine:
    """An engine whose parameters are still 0; what its steps draw follows from the seed."""
    specs = [spec for layer in layers for spec in layer.specs()]
    gives_sequences(layers)  # raises where layers do not fit
    engine: _core.Engine = backend.engine(inputs, specs, dtype, seed, reads_sequences(layers))
    freeze(layers, engine, frozen)
    write_constants(layers, engine)
    return engine


def write_constants(layers: Layers, engine: _core.Engine) -> None:
    """Gives the engine the numbers that layers bring."""
    for offset, numbers in _constants(layers, engine):
        engine.state[offset : offset + numbers.size] = numbers


def check_constants(layers: Layers, engine: _core.Engine) -> None:
    """Raises ValueError unless the numbers that layers bring fit the engine."""
    list(_constants(layers, engine))


def _constants(layers: Layers, engine: _core.Engine) -> Iterator[tuple[int, Array]]:
    """Where they stand in the flat state, and they."""
    for name, layer, width, offset in _state_owners(layers, engine):
        if layer.owns_constants:
            own = layer.constants(width)
            for kind, numbers in own.items():
                _require_held(f"layer {name}, {layer.title()}", kind, numbers, engine.state.dtype)
            yield offset, np.concatenate([*own.values()])


def _require_held(what: str, kind: str, numbers: Array, dtype: np.dtype[Any]) -> None:
    """Raises ValueError for a number that is beyond the dtype, which would make NaN of rows."""
    with np.errstate(over="ignore"):
        wrong = np.flatnonzero(~np.isfinite(numbers.astype(dtype)))
    if wrong.size:
        raise ValueError(
            f"{what}, has the {kind} {numbers[wrong[0]]:g} in column {wrong[0]}, which {dtype} "
            "cannot hold: scale the column, or compile with dtype='float64'"
        )


def freeze(layers: Layers, engine: _core.Engine, frozen: Frozen) -> None:
    """Tells the engine which layers are not trained, by their places."""
    engine.set_trainable(
        [index not in frozen for index, layer in enumerate(layers) for _ in layer.specs()]
    )


def initialize(layers: Layers, engine: _core.Engine, backend: Backend, seed: int) -> None:
    """Writes the start of all parameters and state.

    The k-th layer that draws its parameters has stream k, whatever stands between.
    """
    draw, ordinal = (backend.random_uniform, backend.random_normal, seed), 0
    for _, layer, named in _blocks(layers, engine, engine.parameters):
        layer.initialize(named, (Source(*draw, ordinal), Source(*draw, BIAS_STREAMS + ordinal)))
        ordinal += layer.draws
    for _, layer, named in _state_blocks(layers, engine):
        layer.initialize_state(named)


def compile_engine(layers: Layers, engine: _core.Engine, compiled: Compiled) -> None:
    """Gives the engine its loss and optimizer; the optimizer's state starts afresh."""
    loss, optimizer = compiled.loss, compiled.optimizer
    engine.compile(loss.kernel, loss.param, optimizer.kernel, optimizer.hyper())
    apply_rules(layers, engine, optimizer)
    optimizer.changed = optimizer.asks_python


def apply_rules(layers: Layers, engine: _core.Engine, optimizer: Optimizer, ahead: int = 1) -> None:
    """Tells the engine what happens to gradients; where nothing does, it is as after compile.

    ahead: for how many updates a learning rate that is a Python function is asked.
    """
    scale = loss_scale.of(engine)
    skipped = 0 if scale is None else scale.skipped_updates
    updates = engine.steps // optimizer.gradient_accumulation_steps - skipped
    rules = dict(optimizer.rules(updates, ahead))
    own = {
        "ranges": parameter_ranges(layers, engine, optimizer),
        "column_limits": column_limits(layers, engine),
    }
    engine.set_rules(rules | {name: found for name, found in own.items() if found})


def check_layer_rates(layers: Layers, optimizer: Optimizer) -> dict[int, float]:
    """The optimizer's factors by place from the front. Raises ValueError for other places."""
    rates: dict[int, float] = {}
    for place, rate in (optimizer.layer_rates or {}).items():
        if not -len(layers) <= place < len(layers) or not _own_any(layers[place]):
            own = [index for index, layer in enumerate(layers) if _own_any(layer)]
            raise ValueError(
                f"layer_rates has place {place}; the layers with parameters have "
                f"{', '.join(map(str, own))}"
            )
        if place % len(layers) in rates:
            raise ValueError(f"layer_rates has layer {place % len(layers)} twice, from either end")
        rates[place % len(layers)] = rate
    return rates


def _own_any(layer: Layer) -> bool:
    return any(inner.owns_parameters for _, inner in leaves([layer]))


def parameter_ranges(
    layers: Layers, engine: _core.Engine, optimizer: Optimizer
) -> list[tuple[int, int, float, float, float]]:
    """(begin, end, factor of the learning rate, l1, l2) of parameters with rules of their own."""
    rates = check_layer_rates(layers, optimizer)
    flat = engine.parameters
    ranges = []
    for place, layer, named in _blocks(layers, engine, flat):
        rate = rates.get(int(place.split(".")[0]), 1.0)
        for name, view in named.items():
            penalty = layer.regularizer(name)
            l1, l2 = (penalty.l1, penalty.l2) if penalty else (0.0, 0.0)
            if (rate, l1, l2) != (1, 0, 0):
                begin = _place(view, flat)
                ranges.append((begin, begin + view.size, rate, l1, l2))
    return ranges


def column_limits(layers: Layers, engine: _core.Engine) -> list[tuple[int, int, int, float]]:
    """(begin, rows, cols, limit) of matrices of parameters whose columns have a largest norm."""
    flat, found = engine.parameters, []
    for _, layer, named in _blocks(layers, engine, flat):
        for name, view in named.items():
            limit = layer.column_limit(name)
            if limit is not None:
                found.append((_place(view, flat), *view.shape, limit))
    return found


def _place(view: Array, flat: Array) -> int:
    """Where a view of the flat parameters begins."""
    return int((view.ctypes.data - flat.ctypes.data) // flat.itemsize)


def penalty(layers: Layers, engine: _core.Engine, frozen: Frozen) -> float:
    """What the regularizers of layers that are trained add to the loss."""
    total = 0.0
    for place, layer, named in _blocks(layers, engine, engine.parameters):
        for name, view in named.items():
            own = layer.regularizer(name)
            if own is not None and int(place.split(".")[0]) not in frozen:
                total += own(view)
    return total


def _blocks(
    layers: Layers, engine: _core.Engine, flat: Array
) -> Iterator[tuple[str, Layer, dict[str, Array]]]:
    """Name and layer of what has parameters, with its views of `flat` by name.

    A layer's parameters fill one block of the engine after the other.
    """
    blocks = iter(engine.parameter_shapes)
    for name, layer, width in _with_inputs(layers, engine.inputs):
        named, at, last = {}, 0, 0
        for array, shape in layer.parameter_shapes(width).items():
            if at == last:
                at, rows, cols, has_bias = next(blocks)
                last = at + (rows + has_bias) * cols
            named[array] = flat[at : at + math.prod(shape)].reshape(shape)
            at += math.prod(shape)
        assert at == last
        if named:
            yield name, layer, named
    assert next(blocks, None) is None


def _state_blocks(
    layers: Layers, engine: _core.Engine
) -> Iterator[tuple[str, Layer, dict[str, Array]]]:
    """The same of the state, but for what are constants."""
    for name, layer, width, offset in _state_owners(layers, engine):
        if not layer.owns_constants:
            yield name, layer, _views(engine.state, offset, layer.state_shapes(width))


def _state_owners(layers: Layers, engine: _core.Engine) -> Iterator[tuple[str, Layer, int, int]]:
    """Name, layer, number of inputs, and where the layer's part of the flat state begins."""
    offsets = iter(entry[0] for entry in engine.state_shapes)
    for name, layer, width in _with_inputs(layers, engine.inputs):
        if layer.owns_state:
            yield name, layer, width, next(offsets)


def _views(flat: Array, at: int, shapes: dict[str, tuple[int, ...]]) -> dict[str, Array]:
    """Arrays of those shapes, one after the other in `flat` from `at`."""
    named = {}
    for name, shape in shapes.items():
        end = at + math.prod(shape)
        named[name] = flat[at:end].reshape(shape)
        at = end
    return named


def views(layers: Layers, engine: _core.Engine, flat: Array) -> dict[str, Array]:
    """Views by name ("0.kernel") of a flat array that is laid out as the engine's parameters."""
    return _named(_blocks(layers, engine, flat))


def state(layers: Layers, engine: _core.Engine) -> dict[str, Array]:
    """Live views by name ("1.moving_mean") of what steps change besides parameters."""
    return _named(_state_blocks(layers, engine))


def _named(blocks: Iterator[tuple[str, Layer, dict[str, Array]]]) -> dict[str, Array]:
    return {f"{name}.{array}": view for name, _, named in blocks for array, view in named.items()}


def parameter_shapes(layers: Layers, inputs: int) -> dict[str, tuple[int, ...]]:
    """The shape of every parameter by name, without making any."""
    return {
        f"{name}.{array}": shape
        for name, layer, width in _with_inputs(layers, inputs)
        for array, shape in layer.parameter_shapes(width).items()
    }


def state_shapes(layers: Layers, inputs: int) -> dict[str, tuple[int, ...]]:
    """The same of the state."""
    return {
        f"{name}.{array}": shape
        for name, layer, width in _with_inputs(layers, inputs)
        for array, shape in layer.state_shapes(width).items()
    }


def widths(layers: Layers, inputs: int | None) -> Iterator[tuple[str, Layer, int | None]]:
    """Name ("0", inside of others "2.0"), layer and number of its inputs, None if not known."""
    columns = {"": inputs}  # of each chain so far, by the name of the layer that holds it
    for name, layer in leaves(layers):
        chain = name.rpartition(".")[0]
        yield name, layer, columns[chain]
        columns[name] = columns[chain]
        columns[chain] = layer.outputs(columns[chain])


def _with_inputs(layers: Layers, inputs: int) -> Iterator[tuple[str, Layer, int]]:
    """The same for a known number of inputs."""
    for name, layer, width in widths(layers, inputs):
        assert width is not None
        yield name, layer, width
