"""The layers of the engine in NumPy: what each makes of its input, and of a gradient.

x is a layer's input (n, inputs), y its output (n, outputs), d the gradient of the loss with respect
to y; of sequences all three have an axis of steps behind the first. Everything is float64;
parameters and gradients are flat vectors, of which a layer knows its own block.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from .activations import Activation
from .arrays import F64, Array, as_float64
from .random import dropout_words
from .recurrent import CELLS, Cell, Recurrence, Trace, scan, scan_backward


@dataclass(frozen=True)
class Pass:
    """What the layers are told of the pass that they are part of."""

    parameters: F64  # flat
    state: F64  # flat: what steps change besides parameters
    frozen: "frozenset[Stage]"  # whose parameters and state stay as they are
    operand: Callable[[Array], F64]  # what a matrix product makes of its operands
    training: bool
    seed: int
    step: int  # number of the training step, from 1
    lengths: Array  # (n,), of sequences
    values: list[F64] = field(default_factory=list)  # x, and the output of every layer so far
    joined: dict[int, F64] = field(default_factory=dict)  # on the way back, more gradient of values


@dataclass(frozen=True)
class Stage:
    """A layer. Its block of parameters is (rows, cols), then (cols,) where it has a bias.

    Its part of the flat state is (state_rows, outputs).
    """

    inputs: int
    outputs: int
    offset: int = 0
    rows: int = 0
    cols: int = 0
    has_bias: bool = False
    state_offset: int = 0
    state_rows: int = 0

    @property
    def size(self) -> int:
        """Number of parameters."""
        return (self.rows + self.has_bias) * self.cols

    def views(self, flat: F64) -> tuple[F64, F64]:
        """The block in a flat vector: (rows, cols) and (cols,) or (0,)."""
        main_end = self.offset + self.rows * self.cols
        main = flat[self.offset : main_end].reshape(self.rows, self.cols)
        return main, flat[main_end : self.offset + self.size]

    def state(self, flat: F64) -> F64:
        """The layer's part (state_rows, outputs) of the flat state."""
        size = self.state_rows * self.outputs
        return flat[self.state_offset :][:size].reshape(self.state_rows, self.outputs)

    def forward(self, x: F64, run: Pass) -> F64:
        """y."""
        raise NotImplementedError

    def backward(self, x: F64, d: F64, run: Pass, gradient: F64) -> F64:
        """The gradient with respect to x; that of the parameters goes into the flat `gradient`."""
        raise NotImplementedError

    def update_state(self, x: F64, run: Pass, state: F64) -> None:
        """Puts into the flat `state` what it is after the step."""


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
        rows = d.reshape(-1, self.outputs)
        dkernel[...] = run.operand(x).reshape(-1, self.inputs).T @ rows
        if self.has_bias:
            dbias[...] = rows.sum(axis=0)
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
        return x * self.mask(x.size // self.outputs, run).reshape(x.shape) if run.training else x

    def backward(self, x: F64, d: F64, run: Pass, gradient: F64) -> F64:
        return d * self.mask(d.size // self.outputs, run).reshape(d.shape)


@dataclass(frozen=True)
class Embedding(Stage):
    """y of a row: the entries table[x_0], table[x_1], ... side by side; NaN for an x that is none.

    The table is (rows, cols). Its gradient adds up d of the places where an entry was read.
    """

    def _entries(self, x: F64) -> tuple[Array, Array]:
        """The numbers of the entries, and which of them there are."""
        with np.errstate(invalid="ignore"):
            there = (x >= 0) & (x < self.rows)
        return np.where(there, x, 0).astype(np.int64), there

    def forward(self, x: F64, run: Pass) -> F64:
        table, _ = self.views(run.parameters)
        entries, there = self._entries(x)
        y = np.where(there[..., None], table[entries], np.nan)
        return as_float64(y.reshape(*x.shape[:-1], self.outputs))

    def backward(self, x: F64, d: F64, run: Pass, gradient: F64) -> F64:
        dtable, _ = self.views(gradient)
        entries, there = self._entries(x)
        np.add.at(dtable, entries[there], d.reshape(*x.shape, self.cols)[there])
        return np.zeros_like(x)


@dataclass(frozen=True)
class Scan(Stage):
    """A recurrent cell over the steps of a = x W + b, from states of 0; h of all steps or the last.

    A layer in front has made `a`. Backward walks forward once more, for what the cell saves.
    """

    cell: Cell = CELLS["rnn_tanh"]
    sequence: bool = False  # whether all steps are put out
    reverse: bool = False

    def _scan(self, a: F64, run: Pass) -> tuple[F64, Recurrence, Trace]:
        weights = Recurrence(*self.views(run.parameters))
        states = [np.zeros((len(a), self.outputs)) for _ in range(self.cell.states)]
        y, last, trace = scan(self.cell, a, weights, states, run.lengths, self.reverse, run.operand)
        return (y if self.sequence else last[0]), weights, trace

    def forward(self, x: F64, run: Pass) -> F64:
        return self._scan(x, run)[0]

    def backward(self, x: F64, d: F64, run: Pass, gradient: F64) -> F64:
        _, weights, trace = self._scan(x, run)
        last = [np.zeros((len(x), self.outputs)) for _ in range(self.cell.states)]
        dy = d
        if not self.sequence:
            dy, last[0] = np.zeros((len(x), x.shape[1], self.outputs)), d
        da, dweights, _ = scan_backward(self.cell, trace, weights, dy, last, run.operand)
        for part, dpart in zip(self.views(gradient), vars(dweights).values(), strict=True):
            part[...] = dpart
        return da


@dataclass(frozen=True)
class Add(Stage):
    """y = x + an earlier value of the pass."""

    place: int = 0  # of that value

    def forward(self, x: F64, run: Pass) -> F64:
        return x + run.values[self.place]

    def backward(self, x: F64, d: F64, run: Pass, gradient: F64) -> F64:
        run.joined[self.place] = run.joined.get(self.place, 0.0) + d
        return d
