"""Losses, limits, averages and schedules beside PyTorch's, step by step in float64.

Compared: losses before each of six steps and the parameters after them, on the processor and on
the oracle, with numbers that PyTorch 2.13 gave (fixtures/make_torch_training.py has the program);
learning rates of the schedules. Tolerance: both sides round a few hundred times, 1e-12 relative is
4500 roundings.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastbp as bp
from sweeps import Array

STORED = json.loads((Path(__file__).parent / "fixtures" / "torch_training.json").read_text())
ROWS, INPUTS, UNITS, OUTPUTS = 12, 3, 5, 4
DEVICES = ["cpu", "reference"]


def waves(*shape: int, start: float) -> Array:
    return np.sin(start + 1.7 * np.arange(np.prod(shape))).reshape(shape)


X, NUMBERS = waves(ROWS, INPUTS, start=0.1), waves(ROWS, OUTPUTS, start=0.4)
LABELS = np.arange(ROWS) * 5 % OUTPUTS
MOMENTUM = {"learning_rate": 0.1, "momentum": 0.9}
CASES: dict[str, tuple[Any, Any, Array]] = {
    "label smoothing": (
        bp.Adam(0.02),
        bp.Loss("softmax_cross_entropy", label_smoothing=0.1),
        LABELS,
    ),
    "log rates": (bp.Adam(0.02), "poisson_with_log_rate", np.round(np.abs(2 * NUMBERS))),
    "clip norm": (bp.SGD(**MOMENTUM, clip_norm=0.1), "mse", NUMBERS),
    "clip value": (bp.SGD(**MOMENTUM, clip_value=0.02), "mse", NUMBERS),
    "accumulation": (bp.Adam(0.02, gradient_accumulation_steps=2), "mse", NUMBERS),
    "layer rates": (bp.Adam(0.02, layer_rates={0: 0.1}), "mse", NUMBERS),
}


def trained(name: str, device: str, **more: Any) -> tuple[list[float], Any]:
    optimizer, loss, target = CASES[name]
    optimizer = type(optimizer)(**{**optimizer.config(), **more})
    layers = [bp.Dense(UNITS, activation="tanh"), bp.Dense(OUTPUTS)]
    model = bp.Sequential(layers, seed=0)
    model.compile(optimizer, loss, device=device, dtype="float64")
    model.build(INPUTS)
    for k in range(2):
        for which, start in (("kernel", k), ("bias", 0.5 + k)):
            view = model.parameters()[f"{k}.{which}"]
            view[...] = waves(*view.shape, start=start)
    losses = []
    for step in range(6):
        half = slice(ROWS // 2 * (step % 2), ROWS // 2 * (step % 2 + 1))
        losses.append(model.step(X[half], target[half]))
    return losses, model


def check(parameters: dict[str, Array], stored: dict[str, Any]) -> None:
    for name, view in parameters.items():
        np.testing.assert_allclose(view, stored[name], rtol=0, atol=1e-12)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", CASES)
def test_steps(name: str, device: str) -> None:
    losses, model = trained(name, device)
    np.testing.assert_allclose(losses, STORED[name]["losses"], rtol=1e-12)
    check(model.parameters(), STORED[name]["parameters"])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["clip norm", "accumulation", "layer rates"])
def test_moving_averages(name: str, device: str) -> None:
    _, model = trained(name, device, use_ema=True, ema_momentum=0.8)
    check(model.parameters(), STORED[name]["parameters"])
    check(model.averaged().parameters(), STORED[name]["average"])


@pytest.mark.parametrize(
    ("name", "schedule"),
    [
        ("step rates", bp.StepDecay(0.1, 7, 0.5)),
        ("exponential rates", bp.ExponentialDecay(0.1, 1, 0.9)),
        ("cosine rates", bp.CosineDecay(0.1, 20, alpha=0.1)),
        ("one cycle rates", bp.OneCycle(0.4, 20)),
        ("linear rates", bp.LinearDecay(0.1, 10, 0.025)),
    ],
)
def test_schedules(name: str, schedule: Any) -> None:
    found = [schedule(step) for step in range(len(STORED[name]))]
    np.testing.assert_allclose(found, STORED[name], rtol=1e-12)
