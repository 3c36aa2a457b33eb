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
from .losses import softmax
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
    before: F64  # (n, carried width): their states before the first step
    behind: F64  # the same behind the last, as the forward pass finds them
    values: list[F64] = field(default_factory=list)  # x, and the output of every layer so far
    joined: dict[int, F64] = field(default_factory=dict)  # on the way back, more gradient of values
    # What the way back leaves for whoever wants to read it: the gradient of each of the values, of
    # it what came through the layer that reads the value, and the walks of recurrent layers.
    gradients: dict[int, F64] = field(default_factory=dict)
    through: dict[int, F64] = field(default_factory=dict)
    walks: "dict[Stage, list[Trace]]" = field(default_factory=dict)


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
    def streams(self) -> int:
        """Number of dropouts in the layer, each with random numbers of its own."""
        return 0

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


def dropout_mask(shape: tuple[int, int], rate: float, stream: int, run: Pass) -> F64:
    """0 with probability `rate` and else 1 / (1 - rate), by row and column.

    It follows from (seed, stream, step, row, column). An element is kept where the upper 23 bits of
    its word, as a fraction, are not below the rate.
    """
    words = dropout_words(*shape, run.seed, stream, run.step)
    keep = words >> np.uint64(9) >= int(rate * 2**23 + 0.5)
    return np.where(keep, 1 / (1 - rate), 0.0)


@dataclass(frozen=True)
class Dropout(Stage):
    """y = x m in training, m the mask of a row and, of sequences, of a step; otherwise y = x.

    per_sequence: all steps of a sequence have the same mask. It is made anew for the gradient.
    """

    rate: float = 0.0
    stream: int = 0  # counted among the network's dropouts
    per_sequence: bool = False

    @property
    def streams(self) -> int:
        return 1

    def mask(self, x: F64, run: Pass) -> F64:
        """m, to be broadcast against x."""
        if self.per_sequence and x.ndim == 3:
            return dropout_mask((len(x), self.outputs), self.rate, self.stream, run)[:, None]
        shape = x.size // self.outputs, self.outputs
        return dropout_mask(shape, self.rate, self.stream, run).reshape(x.shape)

    def forward(self, x: F64, run: Pass) -> F64:
        return x * self.mask(x, run) if run.training else x

    def backward(self, x: F64, d: F64, run: Pass, gradient: F64) -> F64:
        return d * self.mask(d, run)


@dataclass(frozen=True)
class Softmax(Stage):
    """y = softmax(x) of each row."""

    def forward(self, x: F64, run: Pass) -> F64:
        return softmax(x)

    def backward(self, x: F64, d: F64, run: Pass, gradient: F64) -> F64:
        y = softmax(x)
        return as_float64(y * (d - np.sum(y * d, axis=-1, keepdims=True)))


@dataclass(frozen=True)
class Embedding(Stage):
    """y of a row: the entries table[x_0], table[x_1], ... side by side; NaN for an x that is none.

    The table is (rows, cols). Its gradient adds up d of the places where an entry was read.
    """

    def entries(self, x: F64) -> tuple[Array, Array]:
        """The numbers of the entries, and which of them there are."""
        with np.errstate(invalid="ignore"):
            there = (x >= 0) & (x < self.rows)
        return np.where(there, x, 0).astype(np.int64), there

    def forward(self, x: F64, run: Pass) -> F64:
        table, _ = self.views(run.parameters)
        entries, there = self.entries(x)
        y = np.where(there[..., None], table[entries], np.nan)
        return as_float64(y.reshape(*x.shape[:-1], self.outputs))

    def backward(self, x: F64, d: F64, run: Pass, gradient: F64) -> F64:
        dtable, _ = self.views(gradient)
        entries, there = self.entries(x)
        np.add.at(dtable, entries[there], d.reshape(*x.shape, self.cols)[there])
        return np.zeros_like(x)


@dataclass(frozen=True)
class Scan(Stage):
    """A recurrent cell over the steps of a = x W + b; h of all steps or the last.

    A layer in front has made `a`. Backward walks forward once more, for what the cell saves. Of two
    ways each has a cell of its own, which reads its columns of `a`; the second takes the steps from
    the last to the first. The block of parameters is that of one way, then that of the other.
    """

    units: int = 0
    cell: Cell = CELLS["rnn_tanh"]
    sequence: bool = False  # whether all steps are put out
    reverse: bool = False
    ways: str = "one"  # "concat" or "sum": both ways, their outputs side by side or added
    truncate: int = 0  # see scan_backward
    rate: float = 0.0  # of dropout of h on its way into the product, one mask for all steps
    stream: int = 0
    carried: int = 0  # where its states begin among those that a sequence carries

    @property
    def way_count(self) -> int:
        """1, or 2 for both ways."""
        return 1 if self.ways == "one" else 2

    @property
    def streams(self) -> int:
        return self.way_count if self.rate else 0

    @property
    def carries(self) -> int:
        """Number of values of the states of a sequence."""
        return self.way_count * self.cell.states * self.units

    def weights(self, flat: F64, way: int) -> Recurrence:
        """The block of a way in a flat vector."""
        size = (self.units + self.has_bias) * self.cols
        block = flat[self.offset + way * size :][:size].reshape(-1, self.cols)
        return Recurrence(block[: self.units], block[self.units :].reshape(-1))

    def states_of(self, carried: F64, way: int) -> list[F64]:
        """Views of a way's states."""
        first = self.carried + way * self.cell.states * self.units
        ends = [first + (k + 1) * self.units for k in range(self.cell.states)]
        return [carried[:, end - self.units : end] for end in ends]

    def _scan(self, a: F64, run: Pass, way: int) -> tuple[F64, list[F64], Recurrence, Trace]:
        weights = self.weights(run.parameters, way)
        mask: F64 | float = 1.0
        if run.training and self.rate:
            mask = dropout_mask((len(a), self.units), self.rate, self.stream + way, run)
        own = a[..., way * self.cols : (way + 1) * self.cols]
        begin, reverse = self.states_of(run.before, way), self.reverse != (way == 1)
        y, last, trace = scan(
            self.cell, own, weights, begin, run.lengths, reverse, run.operand, mask
        )
        return (y if self.sequence else last[0]), last, weights, trace

    def forward(self, x: F64, run: Pass) -> F64:
        outputs = []
        for way in range(self.way_count):
            y, last, _, _ = self._scan(x, run, way)
            for kept, state in zip(self.states_of(run.behind, way), last, strict=True):
                kept[...] = state
            outputs.append(y)
        return outputs[0] + outputs[1] if self.ways == "sum" else np.concatenate(outputs, axis=-1)

    def backward(self, x: F64, d: F64, run: Pass, gradient: F64) -> F64:
        da = []
        for way in range(self.way_count):
            dy = d[..., way * self.units :][..., : self.units] if self.ways == "concat" else d
            _, _, weights, trace = self._scan(x, run, way)
            last = [np.zeros((len(x), self.units)) for _ in range(self.cell.states)]
            if not self.sequence:
                dy, last[0] = np.zeros((len(x), x.shape[1], self.units)), dy
            of_way, dweights, _ = scan_backward(
                self.cell, trace, weights, dy, last, run.operand, self.truncate
            )
            own = self.weights(gradient, way)
            own.kernel[...], own.bias[...] = dweights.kernel, dweights.bias
            da.append(of_way)
            run.walks.setdefault(self, []).append(trace)
        return np.concatenate(da, axis=-1)


@dataclass(frozen=True)
class Add(Stage):
    """y = x + an earlier value of the pass."""

    place: int = 0  # of that value

    def forward(self, x: F64, run: Pass) -> F64:
        return x + run.values[self.place]

    def backward(self, x: F64, d: F64, run: Pass, gradient: F64) -> F64:
        run.joined[self.place] = run.joined.get(self.place, 0.0) + d
        return d
