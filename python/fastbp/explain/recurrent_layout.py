"""A recurrent layer of an explanation: its cell step by step, forward and back through time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..arrays import Array
from .steps import CellStep, RecurrentStep, Way
from .text import SHOWN, each, ends, number, rest, row, sum_of_products

if TYPE_CHECKING:
    from . import Explanation


class _Cell(NamedTuple):
    """How a cell is written."""

    gates: tuple[tuple[str, str], ...]  # each one's name and function
    formula: str  # of the gates, of SUM = W x + b + U h + d
    states: tuple[str, ...]  # what it makes of the gates, one formula for each state
    names: tuple[str, ...] = ("h",)


_CELLS = {
    "rnn_tanh": _Cell((("h", "tanh"),), "h = tanh(SUM)", ()),
    "rnn_relu": _Cell((("h", "relu"),), "h = relu(SUM)", ()),
    "lstm": _Cell(
        (("i", "sigmoid"), ("f", "sigmoid"), ("g", "tanh"), ("o", "sigmoid")),
        "i, f, o = sigmoid and g = tanh of SUM",
        ("o * tanh(c)", "f * c before + i * g"),
        ("h", "c"),
    ),
    "gru": _Cell(
        (("z", "sigmoid"), ("r", "sigmoid"), ("n", "tanh")),
        "z, r = sigmoid of SUM, n = tanh(W x + b + r * (U h + d))",
        ("z * h before + (1 - z) * n",),
    ),
}


def _cell(step: RecurrentStep) -> _Cell:
    return _CELLS[step.layer.cell()]


def forward(e: Explanation, step: RecurrentStep) -> list[str]:
    cell = _cell(step)
    formula = cell.formula.replace("SUM", "W x + b + U h" + " + d" * step.layer.two_biases)
    if step.bias is None:
        formula = formula.replace(" + b", "").replace(" + d", "")
    states = [f"{name} = {text}" for name, text in zip(cell.names, cell.states, strict=False)]
    lines = [f"layer {step.place}, {step.title}: {'; '.join([formula, *reversed(states)])}"]
    for way in step.ways:
        if len(step.ways) > 1:
            lines.append(f"  {_direction(way)}")
        lines += _each_step(way, partial(_cell_forward, step, way))
    if step.merge is not None:
        merged = "side by side" if step.merge == "concat" else "added"
        lines.append(f"  y = h of both ways, {merged}")
        lines += each("y", step.y, "step")
    return lines


def _direction(way: Way) -> str:
    return (
        "from the last step to the first:" if way.backward else "from the first step to the last:"
    )


def _each_step(
    way: Way, lines_of: Callable[[CellStep], list[str]], turned: bool = False
) -> list[str]:
    """The lines of the steps that are shown, as the way takes them, or `turned` on the way back."""
    order = way.steps[::-1] if turned else way.steps
    text: list[str] = []
    for k in ends(len(order)):
        text += _left_out(order) if k is None else lines_of(order[k])
    return text


def _left_out(order: list[CellStep]) -> list[str]:
    first, last = sorted(step.number + 1 for step in (order[2], order[-3]))
    steps = f"step {first} is" if first == last else f"steps {first} to {last} are"
    return [f"  ... {steps} left out ..."]


def _cell_forward(step: RecurrentStep, way: Way, one: CellStep) -> list[str]:
    cell, units = _cell(step), len(way.kernel)
    begin = [f"{name} before = {row(h)}" for name, h in zip(cell.names, one.before, strict=True)]
    x = step.x[one.number]
    lines = ["   ".join([f"  step {one.number + 1}: x = {row(x)}", *begin])]
    h = one.before[0]
    if way.mask is not None:
        h = h * way.mask
        lines.append(f"    h * mask = {row(h)}: U sees what recurrent_dropout leaves")
    for place, (name, function) in enumerate(cell.gates):
        column = place * units
        of_x = _terms(_own_kernel(step, way)[:, column], x, _own_bias(step, way), column)
        of_h = _terms(way.kernel[:, column], h, way.bias, column)
        block = slice(column, column + units)
        a, r, value = one.a[block], one.r[block], _gate(step, one, place)
        if name == "n":
            lines += [
                f"    (W x + b) of unit 1 = {of_x} = {number(a[0])}",
                f"    (U h + d) of unit 1 = {of_h} = {number(r[0])}",
                f"    n = tanh(W x + b + r * (U h + d)) = {row(value)}",
            ]
            continue
        lines.append(f"    unit 1 of {name}: {of_x} + {of_h} = {number(a[0] + r[0])}")
        lines.append(f"    {name} = {function}({row(a + r)}) = {row(value)}")
    states = zip(cell.names, cell.states, one.after, strict=False)
    return lines + [f"    {name} = {text} = {row(s)}" for name, text, s in list(states)[::-1]]


def _terms(kernel: Array, values: Array, bias: Array | None, column: int) -> str:
    return sum_of_products(kernel, values, *(() if bias is None else (float(bias[column]),)))


def _own_kernel(step: RecurrentStep, way: Way, gradient: bool = False) -> Array:
    """The way's columns of W, or of its gradient."""
    wide, kernel = way.kernel.shape[1], step.dkernel if gradient else step.kernel
    at = step.ways.index(way) * wide if len(step.ways) > 1 else 0
    return kernel[:, at : at + wide]


def _own_bias(step: RecurrentStep, way: Way) -> Array | None:
    if step.bias is None:
        return None
    wide = way.kernel.shape[1]
    at = wide if len(step.ways) > 1 and way is step.ways[1] else 0
    return step.bias[at : at + wide]


def _gate(step: RecurrentStep, one: CellStep, place: int) -> Array:
    """What a gate put out; of a simple cell, h itself."""
    return one.saved[place] if len(_cell(step).gates) > 1 else one.after[0]


_BACK = {
    "rnn_tanh": ["delta = dL/dh * (1 - h^2); dL/dh of the step before has U delta in it"],
    "rnn_relu": ["delta = dL/dh * (0 or 1); dL/dh of the step before has U delta in it"],
    "lstm": [
        "dc = dL/dc + dL/dh * o * (1 - tanh(c)^2)",
        "delta_i = dc * g * i * (1 - i)   delta_f = dc * c before * f * (1 - f)",
        "delta_g = dc * i * (1 - g^2)   delta_o = dL/dh * tanh(c) * o * (1 - o)",
        "to the step before: dL/dh has U delta in it, and dL/dc = dc * f",
    ],
    "gru": [
        "delta_n = dL/dh * (1 - z) * (1 - n^2)   delta_z = dL/dh * (h before - n) * z * (1 - z)",
        "delta_r = delta_n * (U h + d)_n * r * (1 - r)   through U_n goes delta_n * r",
        "to the step before: dL/dh has U delta + dL/dh * z in it",
    ],
}


def backward(e: Explanation, step: RecurrentStep) -> list[str]:
    lines = [f"layer {step.place}, {step.title}: back through time"]
    lines += [f"  {line}" for line in _BACK[step.layer.cell()]]
    if step.layer.truncate:
        lines.append(
            f"  truncated: nothing flows back across a step whose number is a multiple of "
            f"{step.layer.truncate}"
        )
    lines += each("dL/dy", step.dy, "step")
    for way in step.ways:
        if len(step.ways) > 1:
            lines.append(f"  {_direction(way)[:-1]}, back:")
        lines += _each_step(way, partial(_cell_backward, step, way), turned=True)
    frozen = any(name.startswith(f"{step.place}.") for name in e.frozen)
    lines += ["  frozen: its parameters stay as they are"] if frozen else _gradients(step)
    return lines + each("dL/dx", step.dx, "step")


def _cell_backward(step: RecurrentStep, way: Way, one: CellStep) -> list[str]:
    cell, units = _cell(step), len(way.kernel)
    of = [f"dL/d{name} = {row(d)}" for name, d in zip(cell.names, one.dafter, strict=True)]
    lines = ["   ".join([f"  step {one.number + 1}: {of[0]}", *of[1:]])]
    for place, (name, _) in enumerate(cell.gates):
        block = slice(place * units, (place + 1) * units)
        label = f"delta_{name}" if len(cell.gates) > 1 else "delta"
        through = f"   through U_n = {row(one.dr[block])}" if name == "n" else ""
        lines.append(f"    {label} = {row(one.da[block])}{through}")
    return lines


def _gradients(step: RecurrentStep) -> list[str]:
    """Sums over the steps; the first element of each is written out."""
    lines = []
    for way in step.ways:
        numbers = [one.number for one in way.steps]
        back = f" ({_side(way)})" if len(step.ways) > 1 else ""
        first = f"of {_gate_names(step)[0]}unit 1,"
        deltas = np.array([one.da[0] for one in way.steps])
        formula = sum_of_products(step.x[numbers, 0], deltas)
        result = number(_own_kernel(step, way, gradient=True)[0, 0])
        lines.append(f"  dW{back} {first} input 1 = sum of x * delta = {formula} = {result}")
        before = np.array([one.before[0][0] for one in way.steps])
        if way.mask is not None:
            before = before * way.mask[0]
        inner = np.array([one.dr[0] for one in way.steps])
        formula, result = sum_of_products(before, inner), number(way.dkernel[0, 0])
        lines.append(f"  dU{back} {first} from h1 = sum of h before * delta = {formula} = {result}")
    lines += gates(step, "dW", step.dkernel)
    lines += [] if step.dbias is None else gates(step, "db", step.dbias)
    for way in step.ways:
        back = f" ({_side(way)})" if len(step.ways) > 1 else ""
        lines += gates(step, f"dU{back}", way.dkernel)
        lines += [] if way.dbias is None else gates(step, f"dd{back}", way.dbias)
    return lines


def _side(way: Way) -> str:
    return "backward" if way.backward else "forward"


def _gate_names(step: RecurrentStep) -> list[str]:
    """As they stand in front of a unit; none where there is one gate only."""
    names = [f"{name}, " for name, _ in _cell(step).gates]
    return names if len(names) > 1 else [""]


def gates(step: RecurrentStep, symbol: str, array: Array) -> list[str]:
    """A matrix by gates: what leads into the first units of each; a bias as a row for each gate."""
    units = step.layer.units
    names = _gate_names(step)
    shown = min(units, max(1, SHOWN // len(names)))
    if array.shape[-1] > len(names) * units:  # both ways side by side
        names = [f"{side} {name}" for side in ("forward", "backward") for name in names]
    lines = []
    for place, name in enumerate(names):
        block = array[..., place * units : (place + 1) * units]
        if array.ndim == 1:
            of = f" of {name.rstrip(', ')}" if name else ""
            lines.append(f"  {symbol}{of} = {row(block)}")
            continue
        lines += [f"  {symbol} of {name}unit {u + 1} = {row(block[:, u])}" for u in range(shown)]
    return lines + (rest(units, "units of each", shown) if array.ndim > 1 else [])
