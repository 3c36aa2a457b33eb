"""The layers of the engine in NumPy: what each makes of its input, and of a gradient.

x is a layer's input (n, inputs), y its output (n, outputs), d the gradient of the loss with respect
to y. Everything is float64; parameters and gradients are flat vectors, of which a layer knows its
own block.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .activations import Activation
from .arrays import F64, Array
from .ops import find_activation
from .random import dropout_words

_BLOCK = 16  # each layer's parameters start at a multiple of this: 64 bytes of float32


@dataclass(frozen=True)
class Pass:
    """What the layers are told of the pass that they are part of."""

    parameters: F64  # flat
    operand: Callable[[Array], F64]  # what a matrix product makes of its operands
    training: bool
    seed: int
    step: int  # number of the training step, from 1


@dataclass(frozen=True)
class Stage:
    """A layer. Its block of parameters is (rows, outputs), then (outputs,) where it has a bias."""

    inputs: int
    outputs: int
    offset: int = 0
    rows: int = 0
    has_bias: bool = False

    @property
    def size(self) -> int:
        """Number of parameters."""
        return (self.rows + self.has_bias) * self.outputs

    def views(self, flat: F64) -> tuple[F64, F64]:
        """The block in a flat vector: (rows, outputs) and (outputs,) or (0,)."""
        main_end = self.offset + self.rows * self.outputs
        main = flat[self.offset : main_end].reshape(self.rows, self.outputs)
        return main, flat[main_end : self.offset + self.size]

    def forward(self, x: F64, run: Pass) -> F64:
        """y."""
        raise NotImplementedError

    def backward(self, x: F64, d: F64, run: Pass, gradient: F64) -> F64:
        """The gradient with respect to x; that of the parameters goes into the flat `gradient`."""
        raise NotImplementedError


@dataclass(frozen=True)
class Dense(Stage):
    """y = x kernel + bias. db is a row of the product (x, 1)^T d: of d as that rounds it."""

    def forward(self, x: F64, run: Pass) -> F64:
        kernel, bias = self.views(run.parameters)
        z = run.operand(x) @ run.operand(kernel)
        return z + bias if self.has_bias else z

    def backward(self, x: F64, d: F64, run: Pass, gradient: F64) -> F64:
        kernel, _ = self.views(run.parameters)
        dkernel, dbias = self.views(gradient)
        d = run.operand(d)
        dkernel[...] = run.operand(x).T @ d
        if self.has_bias:
            dbias[...] = d.sum(axis=0)
        return d @ run.operand(kernel).T


@dataclass(frozen=True)
class Elementwise(Stage):
    """y = f(x)."""

    entry: Activation | None = None
    param: float = 0.0

    def forward(self, x: F64, run: Pass) -> F64:
        assert self.entry is not None
        return self.entry.forward(x, self.param)

    def backward(self, x: F64, d: F64, run: Pass, gradient: F64) -> F64:
        assert self.entry is not None
        return d * self.entry.derivative(x, self.param)


@dataclass(frozen=True)
class Dropout(Stage):
    """y = x m in training, where m is 0 with probability `rate` and else 1 / (1 - rate).

    Otherwise y = x.

    m follows from (seed, layer, step, row, column) and is made anew for the gradient. An element is
    kept where the upper 23 bits of its word, as a fraction, are not below the rate.
    """

    rate: float = 0.0
    layer: int = 0  # counted among the network's dropouts

    def mask(self, rows: int, run: Pass) -> F64:
        """m of a batch of so many rows."""
        words = dropout_words(rows, self.outputs, run.seed, self.layer, run.step)
        keep = words >> np.uint64(9) >= int(self.rate * 2**23 + 0.5)
        return np.where(keep, 1 / (1 - self.rate), 0.0)

    def forward(self, x: F64, run: Pass) -> F64:
        return x * self.mask(len(x), run) if run.training else x

    def backward(self, x: F64, d: F64, run: Pass, gradient: F64) -> F64:
        return d * self.mask(len(x), run)


class Builder:
    """Makes the stages of a network one after the other, and lays out their parameters."""

    def __init__(self, inputs: int) -> None:
        self.width, self.end = inputs, 0
        self.stages: list[Stage] = []
        self._makers: dict[str, Callable[..., Stage]] = {
            "dense": self._dense,
            "activation": self._activation,
            "dropout": self._dropout,
        }

    def add(self, entry: Sequence[Any]) -> None:
        """Appends the stage of one of the tuples that Engine takes."""
        kind, *arguments = entry
        if kind not in self._makers:
            *names, last = map(repr, self._makers)
            raise ValueError(f"layers: expected {', '.join(names)} or {last}, got {kind!r}")
        stage = self._makers[kind](*arguments)
        self.stages.append(stage)
        self.width, self.end = stage.outputs, max(self.end, stage.offset + stage.size)

    def padded(self, elements: int) -> int:
        """That many elements in whole blocks."""
        return -(-elements // _BLOCK) * _BLOCK

    def _dense(self, units: int, use_bias: bool) -> Stage:
        if units < 1:
            raise ValueError(f"units: expected at least 1, got {units}")
        return Dense(self.width, int(units), self.padded(self.end), self.width, bool(use_bias))

    def _activation(self, name: str, param: float) -> Stage:
        entry = find_activation(name)
        return Elementwise(self.width, self.width, entry=entry, param=float(param))

    def _dropout(self, rate: float) -> Stage:
        if not 0 <= rate < 1:
            raise ValueError(f"rate: expected 0 <= rate < 1, got {rate}")
        layer = sum(isinstance(stage, Dropout) for stage in self.stages)
        return Dropout(self.width, self.width, rate=float(rate), layer=layer)
