"""Gradients of random networks against the oracle's, with respect to parameters and inputs.

Networks: 1 to 4 dense layers of 1 to 70 units, with and without bias, every activation fused behind
a dense layer or on its own, first in the network, two in a row, last; every loss and form of
target; batches of 1 to 70 rows. The oracle computes the float32 networks too in float64, from the
same parameters.

Tolerance, norm-wise: |g - oracle| <= 16 u max(|g|, S); 16 u = 1e-6 in float32, the scorecard's
figure. S is what a relative change of 1 in every input, parameter and target, with random signs,
does to the gradient to first order, measured on the oracle: |g| or less for most networks, several
|g| where a sum over batch or units cancels, which costs every algorithm that much. Roundings act
like such changes of u, a few for each layer. Over 2,000 blocks of gradients the median error is
1.4 u and the largest 6.6 u of max(|g|, S). For float64 the oracle rounds as much: 48 u = 5e-15.

Kinks (relu at 0, |y - t| at 0 ...) are excluded on purpose: where a pre-activation of the oracle
lies within 1e-4 of one, float32 may well fall on the other side, and another network is drawn.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

import machine
import sweeps
import tolerances
from fastbp import _core, reference
from sweeps import Array

isa = machine.isa

ACTIVATIONS = {entry["name"]: entry["default_param"] for entry in _core.activations()}
LOSSES = {entry["name"]: entry["default_param"] for entry in _core.losses()}
LAST = {"binary_cross_entropy": "sigmoid", "poisson": "softplus"}  # what outputs must end in
WIDTHS = (1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 24, 31, 33, 48, 63, 64, 65, 70)
BATCHES = (1, 2, 3, 7, 16, 31, 32, 33, 64, 65, 70)
NETWORKS = 120  # for each instruction set and dtype
CAMPAIGN = 2000  # the same with -m slow, on the fastest
KINK = 1e-4
ROUNDINGS = {"float32": 16, "float64": 48}
STEP = 2.0**-20  # of the changes that measure S
SIGNS = 3  # sets of random signs


@dataclass
class Case:
    """A random network with data; layers as an engine takes them."""

    seed: int
    inputs: int
    layers: list[tuple[Any, ...]]
    loss: str
    x: Array
    y: Array
    parameters: list[Array] = field(default_factory=list)

    def __str__(self) -> str:
        return f"seed {self.seed}: batch {len(self.x)}, {self.inputs} -> {self.layers}, {self.loss}"

    def engine(self, kind: Any, dtype: str, layers: int | None = None) -> Any:
        """An engine of the first `layers` layers with this case's parameters."""
        engine = kind(self.inputs, self.layers[:layers], dtype)
        for (offset, rows, cols, bias), values in zip(
            engine.parameter_shapes, self.parameters, strict=False
        ):
            engine.parameters[offset : offset + (rows + bias) * cols] = values.reshape(-1)
        engine.compile(self.loss, LOSSES[self.loss], "sgd", {"learning_rate": 0.1})
        return engine


def random_layers(rng: np.random.Generator, loss: str) -> list[tuple[Any, ...]]:
    """Dense layers, before, between and after which stand 0, 1 or 2 activations."""
    names = [*ACTIVATIONS]

    def activations(chances: tuple[float, float, float]) -> list[tuple[Any, ...]]:
        chosen = rng.choice(names, int(rng.choice(3, p=chances)))
        return [("activation", str(name), ACTIVATIONS[str(name)]) for name in chosen]

    layers = activations((0.8, 0.15, 0.05))
    for _ in range(int(rng.integers(1, 5))):
        layers.append(("dense", int(rng.choice(WIDTHS)), bool(rng.random() < 0.7)))
        layers += activations((0.25, 0.65, 0.1))
    if loss in LAST:
        layers.append(("activation", LAST[loss], 0.0))
    return layers


def draw(seed: int, dtype: str) -> Case:
    rng = np.random.default_rng(seed)
    loss = [*LOSSES][seed % len(LOSSES)]
    inputs, rows = int(rng.choice(WIDTHS)), int(rng.choice(BATCHES))
    layers = random_layers(rng, loss)
    x = rng.normal(0, 1, (rows, inputs)).astype(dtype)
    case = Case(seed, inputs, layers, loss, x, x)
    for offset, fan_in, units, bias in _core.Engine(inputs, layers, dtype).parameter_shapes:
        assert offset % 16 == 0
        kernel = rng.normal(0, 1.2 / np.sqrt(fan_in), (fan_in, units))
        case.parameters.append(
            np.concatenate([kernel, rng.normal(0, 0.3, (int(bias), units))]).astype(dtype)
        )
    outputs = next(layer[1] for layer in reversed(layers) if layer[0] == "dense")
    case.y = target(rng, loss, rows, outputs, dtype)
    return case


def target(rng: np.random.Generator, loss: str, rows: int, outputs: int, dtype: str) -> Array:
    if loss == "softmax_cross_entropy":
        labels = rng.integers(0, outputs, rows)
        if rng.random() < 0.5:
            return labels
        soft = rng.uniform(0.1, 1, (rows, outputs))
        return np.asarray(soft / soft.sum(axis=1, keepdims=True), dtype)
    if loss.startswith("binary_") or loss.endswith("hinge"):
        return np.round(rng.uniform(0, 1, (rows, outputs))).astype(dtype)
    if loss.startswith("poisson"):
        return rng.poisson(2, (rows, outputs)).astype(dtype)
    return rng.normal(0, 2, (rows, outputs)).astype(dtype)


def near_a_kink(case: Case) -> bool:
    """Whether a number on the way lies so close to a kink that rounding may cross it."""
    kinked = {"relu", "leaky_relu", "elu"}
    value = case.x.astype(np.float64)
    for count, layer in enumerate(case.layers, start=1):
        if layer[0] == "activation" and layer[1] in kinked and (np.abs(value) < KINK).any():
            return True
        engine = case.engine(reference.Engine, "float64", count)
        value = np.empty((len(value), engine.outputs))
        engine.predict(case.x.astype(np.float64), value)
    distance = np.abs(value - case.y) if case.y.ndim == 2 else np.array([1.0])
    if case.loss in ("mae", "quantile"):
        return bool((distance < KINK).any())
    if case.loss.endswith("hinge"):
        return bool((np.abs(1 - np.abs(value)) < KINK).any())
    # Rates so low magnify the rounding of the network's output in log y and t / y.
    if case.loss == "poisson":
        return bool((value < 0.3).any())
    # The loss divides by 1 - p, of which a rounded p near 1 knows few digits.
    return case.loss == "binary_cross_entropy" and bool((np.abs(value - 0.5) > 0.47).any())


def usable(seed: int, dtype: str) -> Case:
    """The first network from `seed` on, in steps that keep the loss, that is not near a kink and
    has a gradient to speak of.
    """
    while True:
        case = draw(seed, dtype)
        if not near_a_kink(case):
            return case
        seed += 10_000 * len(LOSSES)


Gradients = list[Array]  # of each dense layer's parameters, then of the inputs


def gradients(case: Case, kind: Any, dtype: str) -> tuple[float, Gradients]:
    """Loss and gradients; that nothing else changes is checked by the way."""
    engine = case.engine(kind, dtype)
    before = engine.parameters.copy()
    y = case.y if case.y.ndim == 1 else case.y.astype(dtype)
    x = case.x.astype(dtype)
    loss = engine.gradients(x, y)
    blocks = [
        engine.gradients_[offset : offset + (rows + bias) * cols].copy()
        for offset, rows, cols, bias in engine.parameter_shapes
    ]
    again, dx = engine.input_gradient(x, y)
    assert again == loss and engine.steps == 0
    sweeps.assert_same_bits(engine.parameters, before)
    return loss, [*blocks, dx]


def changed(case: Case, seed: int) -> Case:
    """All inputs, parameters and targets a little larger or smaller, at random."""
    rng = np.random.default_rng(seed)

    def change(a: Array) -> Array:
        return a.astype(np.float64) * (1 + STEP * rng.choice([-1, 1], a.shape))

    y = case.y if case.y.ndim == 1 else change(case.y)
    return replace(case, x=change(case.x), y=y, parameters=[change(p) for p in case.parameters])


def check(case: Case, dtype: str, what: str) -> None:
    loss, actual = gradients(case, _core.Engine, dtype)
    exact_loss, expected = gradients(case, reference.Engine, "float64")
    others = [gradients(changed(case, seed), reference.Engine, "float64") for seed in range(SIGNS)]
    u, allowed = tolerances.unit(dtype), ROUNDINGS[dtype]
    size = max(1.0, exact_loss, *(abs(other - exact_loss) / STEP for other, _ in others))
    tolerances.check(loss, exact_loss, allowed * u * size, f"{what} loss of {case}")
    for place, (got, want) in enumerate(zip(actual, expected, strict=True)):
        moves = [float(np.linalg.norm(other[place] - want)) / STEP for _, other in others]
        size = max(float(np.linalg.norm(want)), float(np.sqrt(np.mean(np.square(moves)))))
        error = float(np.linalg.norm(got.astype(np.float64) - want))
        # Where every unit behind is dead, both are nothing.
        assert error <= allowed * u * size + tolerances.tiny(dtype), (
            f"{what}, gradient {place} of {len(actual)} of {case}: error {error:.3g} is "
            f"{100 * error / (allowed * u * size):.4g} % of the allowance"
        )


@pytest.mark.parametrize("dtype", sweeps.DTYPES)
def test_random_networks(isa: str, dtype: str) -> None:
    for seed in range(NETWORKS):
        check(usable(seed, dtype), dtype, isa)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", sweeps.DTYPES)
def test_many_random_networks(dtype: str) -> None:
    for seed in range(NETWORKS, NETWORKS + CAMPAIGN):
        check(usable(seed, dtype), dtype, _core.isas()["active"])
