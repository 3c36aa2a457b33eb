"""The recurrent oracle judged by itself: central differences in float64, the worked example.

All cells, both directions, sequences of different lengths, gradients of y and of the last states;
the 4-point stencil and its tolerance are those of tests/test_reference.py.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fastbp.reference import recurrent
from fastbp.reference.recurrent import CELLS, Cell, Recurrence, States
from test_reference import STENCIL_TOLERANCE, stencil

Array = NDArray[Any]

FIXTURES = Path(__file__).parent / "fixtures" / "worked_examples.json"
KINKED = {"rnn_relu"}


class Layer:
    """x W + b and the scan behind it: W (f, g u), b (g u,), U (u, g u) and perhaps its own bias."""

    def __init__(self, cell: Cell, W: Array, b: Array, U: Array, bias: Array) -> None:
        self.cell, self.W, self.b, self.recurrence = cell, W, b, Recurrence(U, bias)

    @classmethod
    def random(cls, rng: np.random.Generator, cell: Cell, features: int, units: int) -> "Layer":
        wide = cell.gates * units
        shapes = [(features, wide), (wide,), (units, wide), (wide if cell.two_biases else 0,)]
        return cls(cell, *(rng.normal(0, 0.5, shape) for shape in shapes))

    def parameters(self) -> list[Array]:
        return [self.W, self.b, self.recurrence.kernel, self.recurrence.bias]

    def forward(
        self, x: Array, states: States, lengths: Array, reverse: bool = False
    ) -> tuple[Array, States, recurrent.Trace]:
        a = x @ self.W + self.b
        return recurrent.scan(self.cell, a, self.recurrence, states, lengths, reverse)

    def backward(
        self, x: Array, trace: recurrent.Trace, dy: Array, dstates: States
    ) -> tuple[Array, list[Array], States]:
        da, gradient, first = recurrent.scan_backward(
            self.cell, trace, self.recurrence, dy, dstates
        )
        dW = np.einsum("ntf,ntg->fg", x, da)
        gradients = [dW, da.sum(axis=(0, 1)), gradient.kernel, gradient.bias]
        return da @ self.W.T, gradients, first


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", sorted(CELLS.keys() - KINKED))
@pytest.mark.parametrize(("n", "t", "units"), [(1, 1, 1), (3, 4, 2)])
def test_gradients_are_central_differences(
    name: str, reverse: bool, n: int, t: int, units: int
) -> None:
    rng = np.random.default_rng(n + 2 * t + reverse)
    cell = CELLS[name]
    layer = Layer.random(rng, cell, 2, units)
    x = rng.normal(size=(n, t, 2))
    states = [rng.normal(size=(n, units)) for _ in range(cell.states)]
    lengths = rng.integers(1, t + 1, n)
    dy = rng.normal(size=(n, t, units))
    dstates = [rng.normal(size=(n, units)) for _ in range(cell.states)]

    def run() -> tuple[float, recurrent.Trace]:
        y, last, trace = layer.forward(x, states, lengths, reverse)
        value = np.vdot(y, dy) + sum(np.vdot(s, d) for s, d in zip(last, dstates, strict=True))
        return float(value), trace

    dx, dparameters, dfirst = layer.backward(x, run()[1], dy, dstates)
    pairs = [(x, dx), *zip(layer.parameters(), dparameters, strict=True)]
    for value, gradient in [*pairs, *zip(states, dfirst, strict=True)]:
        expected = stencil(lambda: run()[0], value)
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=20 * STENCIL_TOLERANCE)


def test_relu_cell_away_from_its_kink() -> None:
    W, b, U = np.array([[0.5]]), np.array([0.25]), np.array([[-2.0]])
    layer = Layer(CELLS["rnn_relu"], W, b, U, np.zeros(0))
    x = np.array([[[1.0], [1.0], [4.0]]])
    y, _, trace = layer.forward(x, [np.zeros((1, 1))], np.array([3]))
    np.testing.assert_allclose(y[0, :, 0], [0.75, 0.0, 2.25])
    dx, (dW, _, dU, _), _ = layer.backward(x, trace, np.ones_like(y), [np.zeros((1, 1))])
    # The second step is cut off: only the first and the last pass anything on.
    np.testing.assert_allclose(dx[0, :, 0], [0.5, 0.0, 0.5])
    np.testing.assert_allclose(dW, [[5.0]])
    np.testing.assert_allclose(dU, [[0.0]])


@pytest.mark.parametrize("name", sorted(CELLS))
@pytest.mark.parametrize("reverse", [False, True])
def test_padded_steps_change_nothing(name: str, reverse: bool) -> None:
    rng = np.random.default_rng(5)
    cell = CELLS[name]
    layer = Layer.random(rng, cell, 3, 4)
    x = rng.normal(size=(1, 6, 3))
    states = [rng.normal(size=(1, 4)) for _ in range(cell.states)]
    dy = rng.normal(size=(1, 4, 4))
    full = layer.forward(x[:, :4], states, np.array([4]), reverse)
    padded = layer.forward(x, states, np.array([4]), reverse)
    np.testing.assert_array_equal(padded[0][:, :4], full[0])
    for a, b in zip(padded[1], full[1], strict=True):
        np.testing.assert_array_equal(a, b)
    zeros = [np.zeros((1, 4)) for _ in range(cell.states)]
    short = layer.backward(x[:, :4], full[2], dy, zeros)
    long_dy = np.concatenate([dy, np.zeros((1, 2, 4))], axis=1)
    long = layer.backward(x, padded[2], long_dy, zeros)
    np.testing.assert_array_equal(long[0][:, :4], short[0])
    assert not long[0][:, 4:].any()
    for a, b in zip(long[1], short[1], strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-14)


def test_worked_example_of_backpropagation_through_time() -> None:
    example = json.loads(FIXTURES.read_text())["proposed_rnn_bptt"]
    given = {key: np.array(value) for key, value in example.items() if key != "note"}
    layer = Layer(CELLS["rnn_tanh"], given["Wx"].T, given["bh"], given["Wh"].T, np.zeros(0))
    x = given["X"][None]
    h, _, trace = layer.forward(x, [np.zeros((1, 2))], np.array([3]))
    logits = h[0] @ given["Wy"].T + given["by"]
    p = 1 / (1 + np.exp(-logits))
    loss = -np.mean(given["Y"] * np.log(p) + (1 - given["Y"]) * np.log(1 - p))
    dlogits = (p - given["Y"]) / len(logits)
    _, (dW, db, dU, _), _ = layer.backward(
        x, trace, (dlogits @ given["Wy"])[None], [np.zeros((1, 2))]
    )
    close = {"rtol": 0, "atol": 1e-11}
    np.testing.assert_allclose(h[0], given["h"], **close)
    np.testing.assert_allclose(logits, given["logits"], **close)
    np.testing.assert_allclose(loss, given["loss"], **close)
    np.testing.assert_allclose(dW.T, given["dWx"], **close)
    np.testing.assert_allclose(dU.T, given["dWh"], **close)
    np.testing.assert_allclose(db, given["dbh"], **close)
    np.testing.assert_allclose(dlogits.T @ h[0], given["dWy"], **close)
    np.testing.assert_allclose(dlogits.sum(axis=0), given["dby"], **close)
