"""Learning-rate schedules.

Compared: values with their definitions at hand-made points (test_against_torch.py has PyTorch's);
the rates that the compiled engine takes, read off a parameter whose gradient is always 1/2, with
the twin's; assignment, Python functions, files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastbp as bp

DEVICES = ["cpu", "reference"]
SCHEDULES = [
    bp.ExponentialDecay(0.1, 10, 0.5),
    bp.ExponentialDecay(0.1, 10, 0.5, staircase=True),
    bp.StepDecay(0.1, 4, 0.3),
    bp.CosineDecay(0.1, 30),
    bp.CosineDecay(0.2, 20, alpha=0.05, warmup_steps=7),
    bp.LinearDecay(0.3, 12, 0.01),
    bp.PiecewiseConstant([3, 9], [0.1, 0.01, 0.5]),
    bp.OneCycle(0.2, 40, warmup=0.25),
    bp.OneCycle(0.2, 41, warmup=0.31),
    bp.OneCycle(0.2, 5, warmup=0.1),
    bp.WarmUp(0.1, 6),
    bp.WarmUp(bp.ExponentialDecay(0.1, 5, 0.9), 6, start=0.02),
    bp.WarmUp(bp.PiecewiseConstant([3], [0.1, 0.2]), 2),
]


def model_of(rate: Any, device: str = "cpu", **more: Any) -> bp.Sequential:
    """One weight, whose gradient is -1/2 below 1000: the quantile loss of a target far away."""
    model = bp.Sequential([bp.Dense(1, use_bias=False, kernel_initializer="zeros")], seed=0)
    model.compile(bp.SGD(rate, **more), "quantile", device=device, dtype="float64")
    model.build(1)
    return model


def rates(model: bp.Sequential, steps: int) -> list[float]:
    weight, found = model.parameters()["0.kernel"], []
    for _ in range(steps):
        before = weight[0, 0]
        model.step([[1.0]], [[1000.0]])
        found.append(2 * (weight[0, 0] - before))
    return found


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_the_engine_takes_the_rates(schedule: Any, device: str) -> None:
    """Beyond the end too; on the way a sum of rates up to 10 rounds by 1e-15."""
    wanted = [schedule(step) for step in range(60)]
    np.testing.assert_allclose(rates(model_of(schedule, device), 60), wanted, rtol=0, atol=4e-15)
    whole, steps = (model_of(schedule, device) for _ in range(2))
    whole.fit(np.ones((6, 1)), np.full(6, 1e3), batch_size=1, epochs=4, verbose=0)
    rates(steps, 24)
    assert whole.parameters()["0.kernel"] == pytest.approx(steps.parameters()["0.kernel"])


@pytest.mark.parametrize("warmup", [0.01, 0.25, 0.3, 0.9])
@pytest.mark.parametrize("total", [4, 7, 20, 25, 64])
def test_one_cycle_is_pytorchs(total: int, warmup: float) -> None:
    """As its source has it: the rise may end between two updates, or in front of the first one."""
    rise, last, found = warmup * total - 1, total - 1, bp.OneCycle(0.5, total, warmup)

    def between(start: float, end: float, share: float) -> float:
        return end + (start - end) / 2 * (1 + np.cos(np.pi * share))

    for step in range(total):
        low, up = 0.5 / 25, step <= rise and rise > 0
        down = low / 1e4, (step - rise) / (last - rise)
        wanted = between(low, 0.5, step / rise) if up else between(0.5, *down)
        assert found(step) == pytest.approx(wanted, rel=1e-12)


def test_values() -> None:
    """By hand."""
    cases: list[tuple[Any, dict[int, float]]] = [
        (bp.ExponentialDecay(0.1, 10, 0.5), {0: 0.1, 5: 0.1 * 0.5**0.5, 10: 0.05, 30: 0.0125}),
        (bp.ExponentialDecay(0.1, 10, 0.5, True), {0: 0.1, 9: 0.1, 10: 0.05, 29: 0.025}),
        (bp.StepDecay(1.0, 3), {2: 1.0, 3: 0.1, 6: 0.01}),
        (bp.CosineDecay(1.0, 10, alpha=0.2), {0: 1.0, 5: 0.6, 10: 0.2, 99: 0.2}),
        (bp.CosineDecay(1.0, 10, warmup_steps=4), {0: 0.0, 2: 0.5, 4: 1.0, 9: 0.5, 14: 0.0}),
        (bp.LinearDecay(1.0, 4, 0.5), {0: 1.0, 2: 0.75, 4: 0.5, 9: 0.5}),
        (bp.PiecewiseConstant([2, 5], [3, 2, 1]), {0: 3, 1: 3, 2: 2, 4: 2, 5: 1, 50: 1}),
        (bp.OneCycle(1.0, 10), {0: 0.04, 2: 1.0, 9: 0.04e-4}),
        (bp.WarmUp(0.5, 5), {0: 0.0, 1: 0.1, 5: 0.5, 99: 0.5}),
        (bp.WarmUp(bp.StepDecay(1.0, 2), 4, start=0.2), {0: 0.2, 2: 0.6, 4: 1.0, 5: 1.0, 6: 0.1}),
    ]
    for schedule, points in cases:
        for step, value in points.items():
            assert schedule(step) == pytest.approx(value, abs=1e-15), (schedule, step)


@pytest.mark.parametrize("device", DEVICES)
def test_assignment_replaces_the_schedule_and_back(device: str) -> None:
    model = model_of(bp.StepDecay(0.1, 2), device)
    assert rates(model, 3) == pytest.approx([0.1, 0.1, 0.01])
    model.optimizer.learning_rate = 0.5
    assert rates(model, 2) == pytest.approx([0.5, 0.5])
    model.optimizer.learning_rate = bp.LinearDecay(1.0, 10)
    assert rates(model, 2) == pytest.approx([0.5, 0.4])
    assert model.optimizer.rate(2) == 0.8


@pytest.mark.parametrize("device", DEVICES)
def test_a_python_function_is_a_schedule(device: str) -> None:
    """Asked once for each update, in order, by step and by fit."""
    asked: list[int] = []

    def rate(updates: int) -> float:
        asked.append(updates)
        return 0.1 / (1 + updates)

    model = model_of(rate, device)
    asked.clear()
    assert rates(model, 3) == pytest.approx([0.1, 0.05, 0.1 / 3])
    assert set(asked) == {0, 1, 2}
    model.fit(np.ones((4, 1)), np.full(4, 1e3), batch_size=2, epochs=3, verbose=0)
    total = sum(0.1 / (1 + t) for t in range(9)) / 2
    assert model.parameters()["0.kernel"][0, 0] == pytest.approx(total, rel=1e-13)
    with pytest.raises(ValueError, match="Python function cannot be saved"):
        model.save("nowhere")
    model.optimizer.learning_rate = lambda _: -1.0
    with pytest.raises(ValueError, match=r"learning_rate\(9\) must be"):
        model.step([[1.0]], [[0.0]])


def test_a_schedule_counts_updates_not_batches() -> None:
    model = model_of(bp.PiecewiseConstant([1], [0.1, 0.3]), gradient_accumulation_steps=2)
    assert rates(model, 6) == pytest.approx([0, 0.1, 0, 0.3, 0, 0.3])


def test_schedules_in_files(tmp_path: Path) -> None:
    for schedule in SCHEDULES:
        model = model_of(schedule)
        rates(model, 3)
        model.save(tmp_path / "net")
        loaded = bp.load(tmp_path / "net")
        assert loaded.optimizer.learning_rate == schedule
        assert rates(loaded, 3) == rates(model, 3)


def test_bad_schedules() -> None:
    bad: list[tuple[type[Exception], str, Any]] = [
        (ValueError, "decay_steps must be", lambda: bp.CosineDecay(0.1, 0)),
        (ValueError, "alpha must be", lambda: bp.CosineDecay(0.1, 5, alpha=2)),
        (ValueError, "initial_learning_rate must be", lambda: bp.StepDecay(-0.1, 5)),
        (ValueError, "factor must be", lambda: bp.StepDecay(0.1, 5, 0.0)),
        (ValueError, "boundaries must rise", lambda: bp.PiecewiseConstant([5, 5], [1, 2, 3])),
        (
            ValueError,
            "one more than boundaries, 3; got 2",
            lambda: bp.PiecewiseConstant([1, 2], [1, 2]),
        ),
        (ValueError, "warmup must be", lambda: bp.OneCycle(0.1, 10, warmup=1.0)),
        (TypeError, "steps must be an integer", lambda: bp.WarmUp(0.1, 2.5)),
        (ValueError, "learning_rate must be", lambda: bp.WarmUp(-1.0, 2)),
        (TypeError, "must be a number", lambda: bp.Adam("0.1")),
        (TypeError, r"write CosineDecay\(\.\.\.\)", lambda: bp.Adam(bp.CosineDecay)),
        (ValueError, "step must be", lambda: bp.StepDecay(0.1, 5)(-1)),
    ]
    for error, match, make in bad:
        with pytest.raises(error, match=match):
            make()
