"""One training step of one row, laid out as it would be calculated by hand.

The numbers are those of the reference engine in float64: forward z and a, the loss, backward
delta = dL/dz, dW, db, and the update that the model's optimizer makes of them. The model itself is
not changed. Dropout leaves nothing out here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from . import custom, devices, network
from .arrays import Array
from .layers import Activation, Dense, Dropout, Layer
from .normalization import Normalize
from .reference.activations import ACTIVATIONS
from .reference.losses import LOSSES
from .structure import Flatten

if TYPE_CHECKING:
    from .model import Sequential

KNOWN = (Dense, Activation, Dropout, Flatten, Normalize)
SHOWN = 6  # terms of a sum and rows of a matrix that are written out; the rest is counted


@dataclass
class DenseStep:
    """z = x W + b of one row, and what comes back through it; W is (inputs, units)."""

    place: int  # of the layer in the model
    x: Array
    kernel: Array
    bias: Array | None
    z: Array
    delta: Array = field(default_factory=lambda: np.empty(0))  # dL/dz
    dx: Array = field(default_factory=lambda: np.empty(0))

    @property
    def dkernel(self) -> Array:
        """dL/dW, (inputs, units)."""
        gradient: Array = np.outer(self.x, self.delta)
        return gradient


@dataclass
class ActivationStep:
    """a = f(z), elementwise."""

    place: int
    name: str
    param: float
    z: Array
    a: Array
    da: Array = field(default_factory=lambda: np.empty(0))  # dL/da

    @property
    def slope(self) -> Array:
        """f'(z)."""
        derivative: Array = ACTIVATIONS[self.name].derivative(self.z, self.param)
        return derivative


@dataclass
class NormalizeStep:
    """a = (x - center) * factor, elementwise."""

    place: int
    x: Array
    center: Array
    factor: Array
    a: Array
    da: Array = field(default_factory=lambda: np.empty(0))  # dL/da


Step = DenseStep | ActivationStep | NormalizeStep


@dataclass
class Explanation:
    """All numbers of a step; `str` lays them out.

    Attributes:
        x, y: the row and its target, float64.
        steps: DenseStep, ActivationStep and NormalizeStep objects from input to output.
        loss, dx: the loss, and its gradient by x.
        after: the parameters after the update by name, float64.
        title, loss_name, optimizer: texts for the layout.
    """

    x: Array
    y: Array
    steps: list[Step]
    loss: float
    dx: Array
    after: dict[str, Array]
    title: str
    loss_name: str
    optimizer: str

    @property
    def dense(self) -> list[DenseStep]:
        """The steps with parameters."""
        return [step for step in self.steps if isinstance(step, DenseStep)]

    def __str__(self) -> str:
        return "\n".join(_Layout(self).lines())


def explain(model: Sequential, x: Any, y: Any) -> Explanation:
    """Sequential.explain; see there."""
    compiled = model._require_compiled()
    rows, targets = model._check_rows(_one_row(model, x), _one_target(model, y), compiled)
    if len(rows) != 1:
        raise ValueError(f"explain takes one row; got {len(rows)}")
    _refuse_others(model.layers)
    custom.refuse(model.layers, compiled.loss, "explain")
    model._engine or model._build(rows.shape[1])
    x64 = rows.astype(np.float64)
    y64 = targets if targets.dtype.kind == "i" else targets.astype(np.float64)
    steps = _forward(model, x64[0])
    output = steps[-1].z if isinstance(steps[-1], DenseStep) else steps[-1].a
    loss, dy = LOSSES[compiled.loss.name].value_and_gradient(
        output[None], y64, compiled.loss.param, np.dtype(np.float64)
    )
    dx = _backward(steps, dy[0])
    after = _update(model, x64, y64)
    title = f"{model.inputs} inputs, " + ", ".join(layer.title() for layer in model.layers)
    names = compiled.loss.name, repr(compiled.optimizer)
    return Explanation(x64[0], y64[0], steps, loss, dx, after, title, *names)


def _one_row(model: Sequential, x: Any) -> Any:
    """A row (inputs,) as (1, inputs); behind Flatten a row of any shape."""
    return np.reshape(x, (1, -1)) if model._flattens else np.atleast_2d(x)


def _one_target(model: Sequential, y: Any) -> Any:
    """One row of targets: a number, a class number or a row."""
    target = np.asarray(y)
    if target.ndim == 0:
        return target.reshape(1)
    return target[None] if target.ndim == 1 and len(target) == model.outputs else target


def _refuse_others(layers: Sequence[Layer]) -> None:
    for index, layer in enumerate(layers):
        if not isinstance(layer, KNOWN):
            raise ValueError(
                f"explain knows {', '.join(kind.__name__ for kind in KNOWN)}; layer {index} is "
                f"{type(layer).__name__}"
            )


def _forward(model: Sequential, a: Array) -> list[Step]:
    parameters = {name: array.astype(np.float64) for name, array in model.parameters().items()}
    steps: list[Step] = []
    for place, layer in enumerate(model.layers):
        activation = layer if isinstance(layer, Activation) else None
        if isinstance(layer, Normalize):
            center, factor = layer.constants(len(a)).values()
            x, a = a, (a - center) * factor
            steps.append(NormalizeStep(place, x, center, factor, a))
        if isinstance(layer, Dense):
            kernel, bias = parameters[f"{place}.kernel"], parameters.get(f"{place}.bias")
            z = a @ kernel + (0.0 if bias is None else bias)
            steps.append(DenseStep(place, a, kernel, bias, z))
            a, activation = z, layer.activation
        if activation is not None:
            z, formula = a, ACTIVATIONS[activation.name].forward
            a = formula(z, activation.param)
            steps.append(ActivationStep(place, activation.name, activation.param, z, a))
    return steps


def _backward(steps: list[Step], d: Array) -> Array:
    """Fills in the gradients; d comes as dL/dy of the network's output and leaves as dL/dx."""
    for step in reversed(steps):
        if isinstance(step, ActivationStep):
            step.da = d
            d = d * step.slope
        elif isinstance(step, NormalizeStep):
            step.da = d
            d = d * step.factor
        else:
            step.delta = d
            step.dx = d = step.kernel @ d
    return d


def _update(model: Sequential, x: Array, y: Array) -> dict[str, Array]:
    """The parameters after one step of the model's optimizer, from its present state."""
    engine, compiled = model._require_built(), model._require_compiled()
    # In its place, so that the places of the others stay: a Dropout that leaves nothing out.
    layers = [Dropout(0.0) if isinstance(layer, Dropout) else layer for layer in model.layers]
    backend = devices.backend("reference")
    twin = network.make_engine(layers, x.shape[1], backend, "float64", model.seed, model._frozen)
    changed = compiled.optimizer.changed
    network.compile_engine(model.layers, twin, compiled)
    twin.parameters[...] = engine.parameters
    for mine, theirs in zip(twin.optimizer_state, engine.optimizer_state, strict=True):
        mine[...] = theirs
    twin.steps = engine.steps
    network.apply_rules(model.layers, twin, compiled.optimizer)
    compiled.optimizer.changed = changed  # what the twin was told, the engine may not know yet
    twin.step(x, y)
    return network.views(model.layers, twin, twin.parameters)


class _Layout:
    """An explanation as lines of text; sums are written out up to SHOWN terms."""

    def __init__(self, explanation: Explanation) -> None:
        self.e = explanation
        self.numbers = {id(step): n for n, step in enumerate(explanation.dense, start=1)}

    def lines(self) -> list[str]:
        e = self.e
        return [
            f"{e.title}; loss {e.loss_name}; {e.optimizer}",
            f"x = {_row(e.x)}   y = {_row(np.atleast_1d(e.y))}",
            "",
            "FORWARD",
            *(line for step in e.steps for line in self._forward(step)),
            f"loss = {_number(e.loss)}",
            "",
            "BACKWARD   delta is dL/dz; dW is delta times the layer's input, db is delta",
            *(line for step in reversed(e.steps) for line in self._backward(step)),
            f"  dL/dx = {_row(e.dx)}",
            "",
            "UPDATE",
            *(line for step in e.dense for line in self._update(step)),
        ]

    def _forward(self, step: Step) -> list[str]:
        if isinstance(step, ActivationStep):
            param = f", {_number(step.param)}" if step.param else ""
            return [f"  a = {step.name}(z{param}) = {_row(step.a)}"]
        if isinstance(step, NormalizeStep):
            return [
                f"  center = {_row(step.center)}   scale = {_row(1 / step.factor)}",
                f"  a = (x - center) / scale = {_row(step.a)}",
            ]
        lines = [f"layer {self.numbers[id(step)]}: z = W x + b"]
        for unit in range(min(len(step.z), SHOWN)):
            bias = [] if step.bias is None else [_number(step.bias[unit])]
            terms = [*_products(step.kernel[:, unit], step.x), *bias]
            lines.append(f"  z{unit + 1} = {_sum(terms, len(step.x))} = {_number(step.z[unit])}")
        return [*lines, *_rest(len(step.z), "units")]

    def _backward(self, step: Step) -> list[str]:
        if isinstance(step, ActivationStep):
            return [f"  dL/da = {_row(step.da)}", f"  {step.name}'(z) = {_row(step.slope)}"]
        if isinstance(step, NormalizeStep):
            return [f"  dL/da = {_row(step.da)}, to be divided by scale"]
        name = self.numbers[id(step)]
        lines = [f"layer {name}: delta = {_row(step.delta)}"]
        lines += [f"  dW{row}" for row in self._matrix(step.dkernel)]
        if step.bias is not None:
            lines.append(f"  db = {_row(step.delta)}")
        for column in range(min(len(step.dx), SHOWN)):
            terms = _products(step.kernel[column], step.delta)
            what = f"dL/d(input {column + 1})"
            total = _number(step.dx[column])
            lines.append(f"  {what} = {_sum(terms, len(step.delta))} = {total}")
        return [*lines, *_rest(len(step.dx), "inputs")]

    def _update(self, step: DenseStep) -> list[str]:
        kernel = self.e.after[f"{step.place}.kernel"]
        lines = [f"layer {self.numbers[id(step)]}"]
        lines += [f"  W{row}" for row in self._matrix(kernel)]
        bias = self.e.after.get(f"{step.place}.bias")
        return lines if bias is None else [*lines, f"  b = {_row(bias)}"]

    @staticmethod
    def _matrix(kernel: Array) -> list[str]:
        """One line per unit: what leads into it."""
        units = kernel.shape[1]
        rows = [f"{u + 1} = {_row(kernel[:, u])}" for u in range(min(units, SHOWN))]
        return rows + [line.strip() for line in _rest(units, "units")]


def _number(value: float) -> str:
    return f"{value:.7g}"


def _row(values: Array) -> str:
    shown = ", ".join(_number(value) for value in values[:SHOWN])
    return f"[{shown}{', ...' if len(values) > SHOWN else ''}]"


def _products(left: Array, right: Array) -> list[str]:
    pairs = zip(left[:SHOWN], right[:SHOWN], strict=True)
    return [f"{_number(a)}*{_number(b)}" for a, b in pairs]


def _sum(terms: list[str], count: int) -> str:
    """Terms with plus signs; says how many of `count` products are left out."""
    left_out = [f"({count - SHOWN} more products)"] if count > SHOWN else []
    return " + ".join([*terms[:SHOWN], *left_out, *terms[SHOWN:]])


def _rest(count: int, what: str) -> list[str]:
    return [f"  ... and {count - SHOWN} more {what}"] if count > SHOWN else []
