"""Recurrent cells, the walk of one over sequences, and backpropagation through time.

CELLS is the one list; the engine, the layers and the tests derive from it. Dimensions: n sequences,
t steps at most, u units, g gates of the cell. Everything is float64.

At every step a = x W + b, made by a dense layer of g u columns for all steps at once, and r = h U
(+ a bias of its own, of a cell with two) meet in the cell; the gates are blocks of u columns.
States are lists: [h], or [h, c] of a cell with a memory.

Sequences may end early: from step lengths[i] on, sequence i keeps its states, its output repeats
the last one, and nothing flows back into its inputs (Keras' masking).
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from .activations import ACTIVATIONS
from .arrays import F64, Array

States = list[F64]
Saved = tuple[F64, ...]  # of a step, as its backward pass wants it


@dataclass(frozen=True)
class Cell:
    """One recurrent cell.

    forward(a, r, states) returns the new states and what backward reads; a and r (n, g u).
    backward(saved, states, dstates), of the states before the step and the gradients of those
    after it, returns da, dr and the gradients of the states before, but for what comes through r.
    """

    gates: int
    states: int
    forward: Callable[[F64, F64, States], tuple[States, Saved]]
    backward: Callable[[Saved, States, States], tuple[F64, F64, States]]
    two_biases: bool = False


def _sigmoid(z: F64) -> F64:
    return ACTIVATIONS["sigmoid"].forward(z, 0.0)


def _blocks(z: F64, gates: int) -> list[F64]:
    return np.split(z, gates, axis=1)


def _simple(name: str) -> Cell:
    """h = f(a + r). Elman 1990."""
    activation = ACTIVATIONS[name]

    def forward(a: F64, r: F64, states: States) -> tuple[States, Saved]:
        z = a + r
        return [activation.forward(z, 0.0)], (z,)

    def backward(saved: Saved, states: States, dstates: States) -> tuple[F64, F64, States]:
        dz = dstates[0] * activation.derivative(saved[0], 0.0)
        return dz, dz, [np.zeros_like(dz)]

    return Cell(1, 1, forward, backward)


def _lstm_forward(a: F64, r: F64, states: States) -> tuple[States, Saved]:
    """i, f, o = sigmoid, g = tanh of the blocks i f g o of a + r;  c = f c + i g;  h = o tanh(c).

    Hochreiter and Schmidhuber 1997, with the forget gate of Gers, Schmidhuber and Cummins 1999.
    """
    zi, zf, zg, zo = _blocks(a + r, 4)
    i, f, g, o = _sigmoid(zi), _sigmoid(zf), np.tanh(zg), _sigmoid(zo)
    c = f * states[1] + i * g
    tanh_c = np.tanh(c)
    return [o * tanh_c, c], (i, f, g, o, tanh_c)


def _lstm_backward(saved: Saved, states: States, dstates: States) -> tuple[F64, F64, States]:
    i, f, g, o, tanh_c = saved
    dh, dc = dstates
    dc = dc + dh * o * (1 - tanh_c**2)
    dz = np.hstack(
        [
            dc * g * i * (1 - i),
            dc * states[1] * f * (1 - f),
            dc * i * (1 - g**2),
            dh * tanh_c * o * (1 - o),
        ]
    )
    return dz, dz, [np.zeros_like(dh), dc * f]


def _gru_forward(a: F64, r: F64, states: States) -> tuple[States, Saved]:
    """z, s = sigmoid of the first blocks of a + r;  n = tanh(a_n + s r_n);  h = z h + (1 - z) n.

    s is the reset gate. Cho et al. 2014, with the reset after the product, as cuDNN and PyTorch
    have it.
    """
    (az, as_, an), (rz, rs, rn) = _blocks(a, 3), _blocks(r, 3)
    z, s = _sigmoid(az + rz), _sigmoid(as_ + rs)
    n = np.tanh(an + s * rn)
    return [z * states[0] + (1 - z) * n], (z, s, n, rn)


def _gru_backward(saved: Saved, states: States, dstates: States) -> tuple[F64, F64, States]:
    z, s, n, rn = saved
    dh = dstates[0]
    dan = dh * (1 - z) * (1 - n**2)
    dz = dh * (states[0] - n) * z * (1 - z)
    ds = dan * rn * s * (1 - s)
    return np.hstack([dz, ds, dan]), np.hstack([dz, ds, dan * s]), [dh * z]


CELLS = {
    "rnn_tanh": _simple("tanh"),
    "rnn_relu": _simple("relu"),
    "lstm": Cell(4, 2, _lstm_forward, _lstm_backward),
    "gru": Cell(3, 1, _gru_forward, _gru_backward, two_biases=True),
}


def find_cell(name: str) -> Cell:
    """The entry of that name; ValueError lists the choices."""
    if name not in CELLS:
        raise ValueError(f"unknown cell {name!r}; choose one of: {', '.join(CELLS)}")
    return CELLS[name]


Operand = Callable[[F64], F64]  # what a matrix product makes of its operands


@dataclass(frozen=True)
class Recurrence:
    """The parameters of a scan, or their gradients: U (u, g u) and a bias (g u,), empty if none."""

    kernel: F64
    bias: F64


@dataclass
class Trace:
    """What backward reads of a scan: every step's states before it, and what the cell saved.

    Lists are by steps as they are taken. inner is r; backward adds the gradients of the states
    after each step and of its r, for whoever wants to read them.
    """

    lengths: Array
    reverse: bool
    mask: F64 | float
    states: list[States] = field(default_factory=list)
    saved: list[Saved] = field(default_factory=list)
    inner: list[F64] = field(default_factory=list)
    dstates: list[States] = field(default_factory=list)
    dinner: list[F64] = field(default_factory=list)

    @property
    def order(self) -> list[int]:
        """The numbers of the steps as they are taken."""
        return _order(len(self.states), self.reverse)


def _order(t: int, reverse: bool) -> list[int]:
    return list(range(t))[:: -1 if reverse else 1]


def _keep(running: Array, new: F64, old: F64) -> F64:
    """`new` where the sequence is still running, `old` behind its end."""
    return np.where(running[:, None], new, old)


def _as_is(a: F64) -> F64:
    return a


def scan(
    cell: Cell,
    a: F64,
    weights: Recurrence,
    states: States,
    lengths: Array,
    reverse: bool = False,
    operand: Operand = _as_is,
    mask: F64 | float = 1.0,
) -> tuple[F64, States, Trace]:
    """y (n, t, u), h after every step; the last states; and the trace.

    a (n, t, g u); states, each (n, u), are those before the first step; lengths (n,) are 1 to t.
    reverse: the steps are taken from the last to the first. mask (n, u) is a factor of h on its way
    into the product.
    """
    n, t, _ = a.shape
    y = np.zeros((n, t, len(weights.kernel)))
    trace = Trace(lengths, reverse, mask)
    for step in _order(t, reverse):
        r = operand(states[0] * mask) @ operand(weights.kernel)
        r = r + weights.bias if weights.bias.size else r
        after, saved = cell.forward(a[:, step], r, states)
        trace.states.append(states)
        trace.saved.append(saved)
        trace.inner.append(r)
        states = [_keep(step < lengths, new, old) for new, old in zip(after, states, strict=True)]
        y[:, step] = states[0]
    return y, states, trace


def scan_backward(
    cell: Cell,
    trace: Trace,
    weights: Recurrence,
    dy: F64,
    dstates: States,
    operand: Operand = _as_is,
    truncate: int = 0,
) -> tuple[F64, Recurrence, States]:
    """da (n, t, g u), the gradients of the weights, and those of the states before the first step.

    dy (n, t, u) belongs to y; dstates to the last states, besides what they contribute to y. With
    `truncate` no gradient crosses from a step whose number, as they are taken, is a multiple of it
    to the one before.
    """
    n, t, _ = dy.shape
    da = np.zeros((n, t, weights.kernel.shape[1]))
    gradient = Recurrence(np.zeros_like(weights.kernel), np.zeros_like(weights.bias))
    steps = zip(trace.order, trace.states, trace.saved, strict=True)
    for number, (step, states, saved) in reversed(list(enumerate(steps))):
        running = step < trace.lengths
        dstates = [dstates[0] + dy[:, step], *dstates[1:]]
        da_here, dr, before = cell.backward(saved, states, dstates)
        da[:, step] = da_here * running[:, None]
        dr = operand(dr * running[:, None])
        trace.dstates.insert(0, dstates)
        trace.dinner.insert(0, dr)
        gradient.kernel[...] += operand(states[0] * trace.mask).T @ dr
        gradient.bias[...] += dr.sum(axis=0) if weights.bias.size else 0
        before[0] = before[0] + dr @ operand(weights.kernel).T * trace.mask
        if truncate and number and number % truncate == 0:
            before = [np.zeros_like(state) for state in before]
        dstates = [_keep(running, b, d) for b, d in zip(before, dstates, strict=True)]
    return da, gradient, dstates
