"""The numbers of a step, layer by layer, as the reference engine's pass holds them.

An array of a layer is (columns,) for one row; of a batch, and of a sequence, it has the rows or
steps in front: (rows, columns). Names as in the reference: z is what reaches an activation, a or y
what leaves a layer, and d... the loss's gradient by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..arrays import Array
from ..layers import Activation, Dense, Layer
from ..recurrent import Recurrent
from ..reference import Engine, norms, stages
from ..structure import Residual
from ..wrappers import Bidirectional, TimeDistributed


@dataclass
class Step:
    """What all kinds have: the layer's name in the model ("0", inside of others "2.0"), and what a
    summary calls it."""

    place: str
    title: str


@dataclass
class DenseStep(Step):
    """z = x W + b, and what comes back through it; W is (inputs, units).

    dkernel and dbias are sums over the rows, penalties of regularizers included.
    """

    x: Array
    kernel: Array
    bias: Array | None
    z: Array
    delta: Array  # dL/dz
    dx: Array
    dkernel: Array
    dbias: Array | None
    regularizer: str  # whose penalty is in dkernel, "" for none


@dataclass
class ActivationStep(Step):
    """a = f(z), elementwise."""

    name: str
    param: float
    z: Array
    a: Array
    da: Array
    slope: Array  # f'(z)


@dataclass
class NormalizeStep(Step):
    """a = (x - center) * factor, elementwise."""

    x: Array
    center: Array
    factor: Array
    a: Array
    da: Array


@dataclass
class SoftmaxStep(Step):
    """a = softmax(x)."""

    x: Array
    a: Array
    da: Array
    dx: Array


@dataclass
class DropoutStep(Step):
    """a = x * mask: 0 for what this step leaves out, 1 / (1 - rate) for the rest."""

    rate: float
    x: Array
    mask: Array
    a: Array
    da: Array


@dataclass
class NormStep(Step):
    """y = n gamma + beta, n = (x - mean) / sqrt(variance + epsilon).

    mean and variance are (columns,) of a BatchNorm, whose moving ones they are where it `learns`
    nothing; of a LayerNorm a number, or (rows,). gamma, beta: None where the layer has none.
    """

    batch: bool  # whether it is a BatchNorm
    learns: bool
    epsilon: float
    x: Array
    mean: Array
    variance: Array
    n: Array
    gamma: Array | None
    beta: Array | None
    y: Array
    dy: Array
    dgamma: Array | None
    dbeta: Array | None
    dx: Array


@dataclass
class EmbeddingStep(Step):
    """y = table[entries], side by side; dtable is 0 but for the entries that were read."""

    entries: Array  # integers (columns,), or (rows, columns)
    table: Array
    y: Array
    dy: Array
    dtable: Array


@dataclass
class SplitStep(Step):
    """Where a Residual begins: x goes through its layers and past them.

    dx = through + past: what came back through the layers, and from the sum at their end.
    """

    x: Array
    through: Array
    past: Array
    dx: Array


@dataclass
class AddStep(Step):
    """The end of a Residual: y = x + f, what its layers made of x."""

    x: Array
    f: Array
    y: Array
    dy: Array


@dataclass
class CellStep:
    """A recurrent cell at one step, of u units with g gates.

    States are [h], or [h, c]. a = x W + b and r = h U (+ d) are (g u,); gates are by name, each
    (u,). dafter is the loss's gradient by the states after the step, all that follows included.
    """

    number: int  # of the step, from 0
    before: list[Array]
    a: Array
    r: Array
    saved: tuple[Array, ...]  # what the cell kept; see reference/recurrent.py
    after: list[Array]
    dafter: list[Array]
    da: Array
    dr: Array


@dataclass
class Way:
    """One direction of a recurrent layer; its steps as they are taken."""

    backward: bool  # from the last step to the first
    kernel: Array  # U, (u, g u)
    bias: Array | None  # of a GRU
    dkernel: Array
    dbias: Array | None
    mask: Array | None  # of h on its way into the product, where there is recurrent_dropout
    prefix: str  # of the names of its parameters
    steps: list[CellStep] = field(default_factory=list)


@dataclass
class RecurrentStep(Step):
    """A SimpleRNN, LSTM or GRU, one way or both: a = x W + b of all steps, and the walks.

    kernel W is (inputs, g u), of both ways side by side.
    """

    layer: Recurrent
    merge: str | None  # of Bidirectional
    x: Array
    kernel: Array
    bias: Array | None
    ways: list[Way]
    y: Array  # (steps, outputs), or (outputs,) of the last step
    dy: Array
    dx: Array
    dkernel: Array
    dbias: Array | None


class _Record:
    """A pass of the reference engine, by the places of its stages."""

    def __init__(self, engine: Engine, run: stages.Pass, gradient: Array) -> None:
        self.stages, self.run, self.gradient = engine.stages, run, gradient
        self.through = dict(run.through)  # of it, what has been added up so far

    def inside(self, place: int) -> tuple[Array, Array, Array, Array]:
        """x, y, dy, dx of a stage."""
        values, gradients = self.run.values, self.run.gradients
        found = values[place], values[place + 1], gradients[place + 1], self.run.through[place]
        x, y, dy, dx = map(_plain, found)
        return x, y, dy, dx


def steps_of(
    layers: Sequence[Layer], engine: Engine, run: stages.Pass, gradient: Array
) -> list[Step]:
    """What `engine.trace` found, by layers from input to output."""
    record = _Record(engine, run, gradient)
    return list(_chain(layers, "", 0, record))


def _chain(layers: Sequence[Layer], prefix: str, at: int, record: _Record) -> Iterator[Step]:
    """The steps of layers whose stages begin at `at`."""
    for number, layer in enumerate(layers):
        name, end = f"{prefix}{number}", at + len(layer.specs())
        if isinstance(layer, Residual):
            yield from _residual(layer, name, at, end, record)
        else:
            yield from _layer(layer, name, range(at, end), record)
        at = end


def _residual(layer: Residual, name: str, begin: int, end: int, record: _Record) -> Iterator[Step]:
    inside = list(_chain(layer.layers, f"{name}.", begin, record))
    f, y, dy, _ = record.inside(end - 1)
    x, through = _plain(record.run.values[begin]), _plain(record.through[begin])
    dx = through + dy
    record.through[begin] = dx  # for a Residual around this one that begins here too
    yield SplitStep(name, short_title(layer), x, through, dy, dx)
    yield from inside
    yield AddStep(name, short_title(layer), x, f, y, dy)


def _layer(layer: Layer, name: str, places: range, record: _Record) -> Iterator[Step]:
    inner = layer.layer if isinstance(layer, TimeDistributed) else layer
    title = short_title(layer)
    for place in places:
        stage = record.stages[place]
        if isinstance(stage, stages.Dense):
            if isinstance(inner, Dense):
                yield _dense(inner, name, title, place, record)
        elif isinstance(stage, stages.Scan):
            assert isinstance(inner, (Recurrent, Bidirectional))
            yield _recurrent(inner, name, title, place, record)
        elif isinstance(stage, stages.Elementwise):
            used = inner.activation if isinstance(inner, Dense) else inner
            assert isinstance(used, Activation)
            yield _activation(used, name, title, place, record)
        else:
            yield _MAKERS[type(stage)](name, title, place, record)


def _dense(layer: Dense, name: str, title: str, place: int, record: _Record) -> DenseStep:
    stage, (x, z, delta, dx) = record.stages[place], record.inside(place)
    kernel, bias = _block(stage, record.run.parameters)
    own, gradient = layer.kernel_regularizer, _block(stage, record.gradient)
    penalty = "" if own is None else repr(own)
    return DenseStep(name, title, x, kernel, bias, z, delta, dx, *gradient, penalty)


def _activation(
    layer: Activation, name: str, title: str, place: int, record: _Record
) -> ActivationStep:
    stage: Any = record.stages[place]
    z, a, da, _ = record.inside(place)
    slope = stage.entry.derivative(record.run.values[place], stage.param)
    return ActivationStep(name, title, layer.name, layer.param, z, a, da, _plain(slope))


def _normalize(name: str, title: str, place: int, record: _Record) -> NormalizeStep:
    center, factor = record.stages[place].state(record.run.state)
    x, a, da, _ = record.inside(place)
    return NormalizeStep(name, title, x, center, factor, a, da)


def _softmax(name: str, title: str, place: int, record: _Record) -> SoftmaxStep:
    return SoftmaxStep(name, title, *record.inside(place))


def _dropout(name: str, title: str, place: int, record: _Record) -> DropoutStep:
    stage: Any = record.stages[place]
    x, a, da, _ = record.inside(place)
    mask = np.broadcast_to(stage.mask(record.run.values[place], record.run), _full(record, place))
    return DropoutStep(name, title, stage.rate, x, _plain(mask), a, da)


def _norm(name: str, title: str, place: int, record: _Record) -> NormStep:
    stage: Any = record.stages[place]
    run, value = record.run, record.run.values[place]
    batch = isinstance(stage, norms.BatchNorm)
    mean, variance = stage.statistics(value, run)
    n, _ = stage.normal(value, run)
    if batch:
        mean, variance = mean.reshape(-1), variance.reshape(-1)
    else:
        mean, variance = _plain(mean[..., 0]), _plain(variance[..., 0])
    gamma, beta = _block(stage, run.parameters)
    dgamma, dbeta = _block(stage, record.gradient)
    x, y, dy, dx = record.inside(place)
    return NormStep(
        place=name,
        title=title,
        batch=batch,
        learns=not batch or stage.learns(run),
        epsilon=stage.epsilon,
        x=x,
        mean=mean,
        variance=variance,
        n=_plain(n),
        gamma=gamma[0] if stage.rows else None,
        beta=beta,
        y=y,
        dy=dy,
        dgamma=dgamma[0] if stage.rows else None,
        dbeta=dbeta,
        dx=dx,
    )


def _embedding(name: str, title: str, place: int, record: _Record) -> EmbeddingStep:
    stage: Any = record.stages[place]
    entries, _ = stage.entries(record.run.values[place])
    table, _ = _block(stage, record.run.parameters)
    dtable, _ = _block(stage, record.gradient)
    _, y, dy, _ = record.inside(place)
    return EmbeddingStep(name, title, _plain(entries), table, y, dy, dtable)


def _recurrent(
    layer: Recurrent | Bidirectional, name: str, title: str, place: int, record: _Record
) -> RecurrentStep:
    """Of the dense stage in front of the scan, and the scan."""
    both = isinstance(layer, Bidirectional)
    stage: Any = record.stages[place]
    dense = record.stages[place - 1]
    x, _, _, dx = record.inside(place - 1)
    _, y, dy, _ = record.inside(place)
    kernel, bias = _block(dense, record.run.parameters)
    dkernel, dbias = _block(dense, record.gradient)
    return RecurrentStep(
        place=name,
        title=title,
        layer=layer.layer if isinstance(layer, Bidirectional) else layer,
        merge=layer.merge_mode if isinstance(layer, Bidirectional) else None,
        x=x,
        kernel=kernel,
        bias=bias,
        ways=[_way(stage, way, both, place, record) for way in range(stage.way_count)],
        y=y,
        dy=dy,
        dx=dx,
        dkernel=dkernel,
        dbias=dbias,
    )


def _way(stage: Any, way: int, both: bool, place: int, record: _Record) -> Way:
    run, walk = record.run, record.run.walks[record.stages[place]][way]
    own, gradient = stage.weights(run.parameters, way), stage.weights(record.gradient, way)
    has_bias = bool(own.bias.size)
    columns = slice(way * stage.cols, (way + 1) * stage.cols)
    a, da = run.values[place][0, :, columns], run.gradients[place][0, :, columns]
    made = Way(
        backward=walk.reverse,
        kernel=own.kernel,
        bias=own.bias if has_bias else None,
        dkernel=gradient.kernel,
        dbias=gradient.bias if has_bias else None,
        mask=None if isinstance(walk.mask, float) else walk.mask[0],
        prefix="backward_" if both and way else "",
    )
    last = stage.states_of(run.behind, way)
    for k, number in enumerate(walk.order):
        after = walk.states[k + 1] if k + 1 < len(walk.states) else last
        made.steps.append(
            CellStep(
                number,
                [state[0] for state in walk.states[k]],
                a[number],
                walk.inner[k][0],
                tuple(value[0] for value in walk.saved[k]),
                [state[0] for state in after],
                [state[0] for state in walk.dstates[k]],
                da[number],
                walk.dinner[k][0],
            )
        )
    return made


_MAKERS: dict[type, Any] = {
    stages.Dropout: _dropout,
    stages.Embedding: _embedding,
    stages.Softmax: _softmax,
    norms.Norm: _norm,
    norms.BatchNorm: _norm,
    norms.Normalize: _normalize,
}


def _block(stage: stages.Stage, flat: Array) -> tuple[Array, Array | None]:
    """The layer's matrix and, where it has one, its bias in a flat array."""
    matrix, bias = stage.views(flat)
    return matrix, (bias if stage.has_bias else None)


def _full(record: _Record, place: int) -> tuple[int, ...]:
    return tuple(record.run.values[place].shape)


def short_title(layer: Layer) -> str:
    """What a summary calls the layer, without its settings."""
    if isinstance(layer, Activation):
        return f"Activation {layer.name}"
    if isinstance(layer, TimeDistributed):
        return f"TimeDistributed {short_title(layer.layer)}"
    return layer.title().partition("(")[0]


def _plain(array: Array) -> Array:
    """Of one row or sequence that itself; of several rows all."""
    return array[0] if len(array) == 1 else array
