"""An explanation as lines of text, layer by layer: forward, backward, update."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays import Array
from . import recurrent_layout
from .steps import (
    ActivationStep,
    AddStep,
    DenseStep,
    DropoutStep,
    EmbeddingStep,
    NormalizeStep,
    NormStep,
    RecurrentStep,
    SoftmaxStep,
    SplitStep,
    Step,
)
from .text import (
    SHOWN,
    each,
    ends,
    number,
    products,
    rest,
    row,
    sum_of_products,
    total,
    wrapped,
)

if TYPE_CHECKING:
    from . import Explanation


# What shows dL/dx itself, or has none: numbers of entries have no gradient.
_WITH_DX = (NormStep, SplitStep, RecurrentStep, EmbeddingStep, SoftmaxStep)


def lines(e: Explanation) -> list[str]:
    """All of it."""
    forward = [line for step in e.steps for line in _FORWARD[type(step)](e, step)]
    backward = [line for step in reversed(e.steps) for line in _BACKWARD[type(step)](e, step)]
    several = f", summed over the {e.rows}s" if np.ndim(e.x) > 1 else ""
    text = [
        f"{e.title}; loss {e.loss_name}; {e.optimizer}",
        *_given(e),
        "",
        "FORWARD",
        *forward,
        *_loss(e),
        "",
        f"BACKWARD   delta is dL/dz; dW is delta times the layer's input, db is delta{several}",
        *backward,
        *([] if isinstance(e.steps[0], _WITH_DX) else ["input", *each("dL/dx", e.dx, e.rows)]),
        "",
        "UPDATE",
        *_update(e),
    ]
    return list(wrapped(text))


def _given(e: Explanation) -> list[str]:
    if np.ndim(e.x) < 2:
        return [f"x = {row(e.x)}   y = {row(np.atleast_1d(e.y))}"]
    own = len(e.y) == len(e.x)
    of_each = [line.strip() for line in each("x", e.x, e.rows)]
    if not own:
        return [*of_each, f"y = {row(e.y)}"]
    shown = ends(len(e.x))
    return [
        line if k is None else f"{line}   y = {row(np.atleast_1d(e.y[k]))}"
        for k, line in zip(shown, of_each, strict=True)
    ]


def _loss(e: Explanation) -> list[str]:
    p = e.probabilities
    link = [] if p is None else each(f"p = {e.link}(z)", p, e.rows)
    penalty = f", of which penalties {number(e.penalty)}" if e.penalty else ""
    return [*link, f"loss = {number(e.loss)}{penalty}"]


def _head(step: Step, what: str = "") -> str:
    return f"layer {step.place}, {step.title}" + (f": {what}" if what else "")


def _dense_forward(e: Explanation, step: DenseStep) -> list[str]:
    lines = [_head(step, "z = W x" + (" + b" if step.bias is not None else ""))]
    several = np.ndim(step.z) > 1
    x, z = (step.x[0], step.z[0]) if several else (step.x, step.z)
    which = f"{e.rows} 1: " if several else ""
    for unit in range(min(len(z), SHOWN)):
        bias = () if step.bias is None else (float(step.bias[unit]),)
        formula = sum_of_products(step.kernel[:, unit], x, *bias)
        lines.append(f"  {which}z{unit + 1} = {formula} = {number(z[unit])}")
    lines += rest(len(z), "units")
    return lines + (each("z", step.z, e.rows)[1:] if several else [])


def _dense_backward(e: Explanation, step: DenseStep) -> list[str]:
    lines = [_head(step)]
    lines += each("delta", step.delta, e.rows)
    several = np.ndim(step.delta) > 1
    if _is_frozen(e, step):
        lines.append("  frozen: W and b stay as they are")
    else:
        penalty = f" + (gradient of {step.regularizer})" if step.regularizer else ""
        if several:
            formula = sum_of_products(step.x[:, 0], step.delta[:, 0])
            result = number(step.dkernel[0, 0])
            lines.append(f"  dW1 of input 1 = {formula}{penalty} = {result}")
        elif penalty:
            lines.append(f"  dW = delta * x{penalty}")
        lines += [f"  dW{line}" for line in matrix(step.dkernel)]
        if step.dbias is not None:
            lines.append(f"  db = {row(step.dbias)}")
    delta, dx = (step.delta[0], step.dx[0]) if several else (step.delta, step.dx)
    which = f"{e.rows} 1: " if several else ""
    for column in range(min(len(dx), SHOWN)):
        formula = sum_of_products(step.kernel[column], delta)
        what = f"  {which}dL/d(input {column + 1})"
        lines.append(f"{what} = {formula} = {number(dx[column])}")
    lines += rest(len(dx), "inputs")
    return lines + (each("dL/d(input)", step.dx, e.rows)[1:] if several else [])


def _activation_forward(e: Explanation, step: ActivationStep) -> list[str]:
    param = f", {number(step.param)}" if step.param else ""
    return [*_alone(step), *each(f"a = {step.name}(z{param})", step.a, e.rows)]


def _activation_backward(e: Explanation, step: ActivationStep) -> list[str]:
    slope = each(f"{step.name}'(z)", step.slope, e.rows)
    return [*_alone(step), *each("dL/da", step.da, e.rows), *slope]


def _alone(step: Step) -> list[str]:
    """A heading for what is no part of a Dense layer."""
    return [] if step.title.startswith(("Dense", "TimeDistributed Dense")) else [_head(step)]


def _normalize_forward(e: Explanation, step: NormalizeStep) -> list[str]:
    return [
        _head(step, "a = (x - center) / scale"),
        f"  center = {row(step.center)}   scale = {row(1 / step.factor)}",
        *each("a = (x - center) / scale", step.a, e.rows),
    ]


def _normalize_backward(e: Explanation, step: NormalizeStep) -> list[str]:
    return [
        _head(step, "dL/dx = dL/da / scale"),
        *each("dL/da", step.da, e.rows),
    ]


def _softmax_forward(e: Explanation, step: SoftmaxStep) -> list[str]:
    return [
        _head(step, "a = exp(x) / (sum of exp(x) over the row)"),
        *each("a = softmax(x)", step.a, e.rows),
    ]


def _softmax_backward(e: Explanation, step: SoftmaxStep) -> list[str]:
    return [
        _head(step, "dL/dx = a * (dL/da - sum of a * dL/da)"),
        *each("dL/da", step.da, e.rows),
        *each("dL/dx", step.dx, e.rows),
    ]


def _dropout_forward(e: Explanation, step: DropoutStep) -> list[str]:
    kept = f"mask: 0 for {number(step.rate)} of them, 1 / (1 - {number(step.rate)}) for the rest"
    return [
        _head(step, f"a = x * mask, as the next step draws it; {kept}"),
        *each("mask", step.mask, e.rows),
        *each("a", step.a, e.rows),
    ]


def _dropout_backward(e: Explanation, step: DropoutStep) -> list[str]:
    return [_head(step, "dL/dx = dL/da * mask"), *each("dL/da", step.da, e.rows)]


def _norm_forward(e: Explanation, step: NormStep) -> list[str]:
    shift = " + beta" if step.beta is not None else ""
    y = f"y = n{' * gamma' if step.gamma is not None else ''}{shift}"
    own = [f"{name} = {row(value)}" for name, value in _gamma_beta(step) if value is not None]
    return [
        _head(step, f"n = (x - mean) / sqrt(variance + {number(step.epsilon)}), {y}"),
        *(_of_columns(e, step) if step.batch else _of_rows(e, step)),
        *each("n", step.n, e.rows),
        *([f"  {'   '.join(own)}"] if own else []),
        *each(y, step.y, e.rows),
    ]


def _gamma_beta(step: NormStep) -> list[tuple[str, Array | None]]:
    return [("gamma", step.gamma), ("beta", step.beta)]


def _of_columns(e: Explanation, step: NormStep) -> list[str]:
    """Mean and variance of a BatchNorm."""
    if not step.learns:
        why = "frozen: mean and variance are the moving ones"
        return [f"  {why}", f"  mean = {row(step.mean)}", f"  variance = {row(step.variance)}"]
    x = np.atleast_2d(step.x)
    if len(x) == 1:
        why = "one row is its own mean: give explain a batch of rows to see more"
        return [f"  mean = {row(step.mean)}   variance = {row(step.variance)}   ({why})"]
    return [
        f"  mean of column 1 = {_mean(x[:, 0])} = {number(step.mean[0])}",
        f"  variance of column 1 = {_squares(x[:, 0], step.mean[0])} = {number(step.variance[0])}",
        f"  mean = {row(step.mean)}",
        f"  variance = {row(step.variance)}",
    ]


def _of_rows(e: Explanation, step: NormStep) -> list[str]:
    """Mean and variance of a LayerNorm."""
    several = np.ndim(step.x) > 1
    x = step.x[0] if several else step.x
    mean, variance = np.ravel(step.mean), np.ravel(step.variance)
    which = f"{e.rows} 1: " if several else ""
    lines = [
        f"  {which}mean = {_mean(x)} = {number(mean[0])}",
        f"  {which}variance = {_squares(x, mean[0])} = {number(variance[0])}",
    ]
    if several:
        lines += [f"  mean of each {e.rows} = {row(mean)}", f"  variance = {row(variance)}"]
    return lines


def _mean(x: Array) -> str:
    terms = " + ".join(_cut([number(value) for value in x]))
    return f"({terms}) / {len(x)}"


def _squares(x: Array, mean: float) -> str:
    terms = " + ".join(_cut([f"({number(value)} - {number(mean)})^2" for value in x]))
    return f"({terms}) / {len(x)}"


def _cut(terms: list[str]) -> list[str]:
    return terms if len(terms) <= SHOWN else [*terms[:SHOWN], f"({len(terms) - SHOWN} more)"]


def _norm_backward(e: Explanation, step: NormStep) -> list[str]:
    lines = [_head(step, "with g = dL/dn = dL/dy" + (" * gamma" if step.gamma is not None else ""))]
    lines += each("dL/dy", step.dy, e.rows)
    dy, n = np.atleast_2d(step.dy), np.atleast_2d(step.n)
    sums = [("dgamma", step.dgamma, n[:, 0]), ("dbeta", step.dbeta, np.ones(len(n)))]
    if _is_frozen(e, step):
        lines.append("  frozen: gamma and beta stay as they are")
        sums = []
    for name, gradient, factors in sums:
        if gradient is not None:
            if len(n) > 1:
                one = name == "dbeta"
                terms = [number(d) for d in dy[:SHOWN, 0]] if one else products(dy[:, 0], factors)
                formula = total(terms, len(n), "terms" if one else "products")
                lines.append(f"  {name} of column 1 = {formula} = {number(gradient[0])}")
            lines.append(f"  {name} = {row(gradient)}")
    return [*lines, f"  {_dx_of_norm(step)}", *each("dL/dx", step.dx, e.rows)]


def _dx_of_norm(step: NormStep) -> str:
    root = f"sqrt(variance + {number(step.epsilon)})"
    if not step.learns:
        return f"dL/dx = g / {root}: mean and variance do not depend on x"
    over = "rows" if step.batch else "columns"
    return f"dL/dx = (g - mean of g - n * mean of g*n) / {root}, means over the {over}"


def _embedding_forward(e: Explanation, step: EmbeddingStep) -> list[str]:
    lines = [_head(step, f"y = the entries that x names, of {len(step.table)}, side by side")]
    lines += [f"  entry {entry} = {row(step.table[entry])}" for entry in _read(step)[:SHOWN]]
    lines += rest(len(_read(step)), "entries that are read")
    return lines + each("y", step.y, e.rows)


def _read(step: EmbeddingStep) -> list[int]:
    """The entries that are read, in order of their first time."""
    return list(dict.fromkeys(int(entry) for entry in np.ravel(step.entries)))


def _embedding_backward(e: Explanation, step: EmbeddingStep) -> list[str]:
    lines = [_head(step, "an entry's gradient is the sum of dL/dy where it was read, else 0")]
    lines += each("dL/dy", step.dy, e.rows)
    if _is_frozen(e, step):
        return [*lines, "  frozen: the entries stay as they are"]
    times = [int(entry) for entry in np.ravel(step.entries)]
    for entry in _read(step)[:SHOWN]:
        count = times.count(entry)
        read = f"   (read {count} times)" if count > 1 else ""
        lines.append(f"  d(entry {entry}) = {row(step.dtable[entry])}{read}")
    return lines + rest(len(_read(step)), "entries that are read")


def _split_forward(e: Explanation, step: SplitStep) -> list[str]:
    return [_head(step, "x goes through its layers, and past them"), *each("x", step.x, e.rows)]


def _split_backward(e: Explanation, step: SplitStep) -> list[str]:
    return [
        _head(step, "dL/dx = what came through its layers + what went past them"),
        *each("through", step.through, e.rows),
        *each("past", step.past, e.rows),
        *each("dL/dx", step.dx, e.rows),
    ]


def _add_forward(e: Explanation, step: AddStep) -> list[str]:
    return [
        _head(step, "y = x + f, what its layers made of x"),
        *each("f", step.f, e.rows),
        *each("y", step.y, e.rows),
    ]


def _add_backward(e: Explanation, step: AddStep) -> list[str]:
    head = _head(step, "y = x + f: dL/dy goes into its layers, and past them")
    return [head, *each("dL/dy", step.dy, e.rows)]


_FORWARD: dict[type, Callable[[Any, Any], list[str]]] = {
    DenseStep: _dense_forward,
    ActivationStep: _activation_forward,
    NormalizeStep: _normalize_forward,
    SoftmaxStep: _softmax_forward,
    DropoutStep: _dropout_forward,
    NormStep: _norm_forward,
    EmbeddingStep: _embedding_forward,
    SplitStep: _split_forward,
    AddStep: _add_forward,
    RecurrentStep: recurrent_layout.forward,
}
_BACKWARD: dict[type, Callable[[Any, Any], list[str]]] = {
    DenseStep: _dense_backward,
    ActivationStep: _activation_backward,
    NormalizeStep: _normalize_backward,
    SoftmaxStep: _softmax_backward,
    DropoutStep: _dropout_backward,
    NormStep: _norm_backward,
    EmbeddingStep: _embedding_backward,
    SplitStep: _split_backward,
    AddStep: _add_backward,
    RecurrentStep: recurrent_layout.backward,
}


def _is_frozen(e: Explanation, step: Step) -> bool:
    return any(name.startswith(f"{step.place}.") for name in e.frozen)


_SYMBOLS = {"kernel": "W", "bias": "b", "recurrent_kernel": "U", "recurrent_bias": "d"}


def _update(e: Explanation) -> list[str]:
    """The parameters and the state of each layer afterwards."""
    text: list[str] = []
    for step in e.steps:
        own = {n: a for n, a in e.after.items() if n.rpartition(".")[0] == step.place}
        if not own or isinstance(step, (ActivationStep, DropoutStep, SplitStep, AddStep)):
            continue
        frozen = _is_frozen(e, step)
        text.append(f"layer {step.place}, {step.title}" + (": frozen" if frozen else ""))
        if not frozen:
            for name, array in own.items():
                text += _after(step, name.rpartition(".")[2], array)
    return text or ["none: the optimizer makes no single steps, but looks at all rows for each"]


def _after(step: Step, name: str, array: Array) -> list[str]:
    if isinstance(step, EmbeddingStep):
        read = _read(step)
        return [f"  entry {k} = {row(array[k])}" for k in read[:SHOWN]] + rest(
            len(read), "entries that were read"
        )
    if isinstance(step, RecurrentStep):
        return recurrent_layout.gates(step, _symbol(name), array)
    if array.ndim == 2:
        return [f"  {_symbol(name)}{line}" for line in matrix(array)]
    return [f"  {_symbol(name)} = {row(array)}"]


def _symbol(name: str) -> str:
    """W of kernel; of the way back the same with a word."""
    back = "backward_"
    own = name.removeprefix(back)
    return _SYMBOLS.get(own, own) + (" (backward)" if name.startswith(back) else "")


def matrix(kernel: Array) -> list[str]:
    """One line per unit: what leads into it."""
    units = kernel.shape[1]
    rows = [f"{u + 1} = {row(kernel[:, u])}" for u in range(min(units, SHOWN))]
    return rows + [line.strip() for line in rest(units, "units")]
