"""Sequential.profile: every part of a step has its time, and measuring changes nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastbp as bp

LAYERS: dict[str, tuple[list[Any], set[tuple[str, str]]]] = {
    "small": (
        [bp.Dense(8, activation="relu"), bp.Dense(3)],
        {("forward", "all layers"), ("gradient", "all layers"), ("update", "")},
    ),
    "dense": (
        [bp.Dense(300, activation="tanh"), bp.Dense(200, activation="relu"), bp.Dense(3)],
        {("forward", "0 Dense tanh"), ("delta", "1 Dense relu"), ("gradient", "2 Dense")},
    ),
    "residual": (
        [bp.Residual([bp.Dense(20, activation="relu")]), bp.LayerNorm(), bp.Dense(3)],
        {("forward", "0 Residual"), ("delta", "1 LayerNorm"), ("gradient", "2 Dense")},
    ),
}


def compiled(layers: list[Any], **settings: Any) -> bp.Sequential:
    model = bp.Sequential(layers, seed=1)
    model.compile("adam", "softmax_cross_entropy", **settings)
    return model


def data() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(90, 20)), rng.integers(0, 3, 90)


@pytest.mark.parametrize("name", LAYERS)
def test_parts_of_a_step(name: str) -> None:
    layers, expected = LAYERS[name]
    model = compiled(layers)
    model.build(20)
    before = {key: value.copy() for key, value in model.parameters().items()}
    found = model.profile(*data(), batch_size=30, seconds=0.01)
    assert expected <= {(part.part, part.layer) for part in found.parts}
    assert {"gather", "loss", "between"} <= {part.part for part in found.parts}
    assert all(part.seconds > 0 for part in found.parts)
    assert found.steps >= 3 and found.steps % 3 == 0 and found.rows == 30
    assert f"{found.seconds * 1e6:.2f}" in str(found)
    for key, value in model.parameters().items():
        np.testing.assert_array_equal(value, before[key])


def test_sequences_have_parts_too() -> None:
    model = compiled([bp.LSTM(9), bp.Dense(3)])
    x = np.random.default_rng(0).normal(size=(40, 6, 4))
    model.build(4)
    parts = model.profile(x, np.arange(40) % 3, seconds=0.01).parts
    assert {("forward", "0 LSTM"), ("gradient", "0 LSTM")} <= {(p.part, p.layer) for p in parts}


def test_stateful_layers_are_profiled_in_their_order() -> None:
    model = compiled([bp.LSTM(9, stateful=True), bp.Dense(3)])
    x = np.random.default_rng(0).normal(size=(40, 6, 4))
    model.build(4)
    assert model.profile(x, np.arange(40) % 3, batch_size=20, seconds=0.01).steps > 0


def test_arithmetic_of_every_step_of_sequences() -> None:
    """The layers up to the last output that is a sequence work on all steps, the rest on one."""
    lstm, dense = 2 * 4 * 9 * (4 + 9), 2 * 9 * 7
    x = np.random.default_rng(0).normal(size=(40, 6, 4))
    sequences = bp.Sequences([x[i, : 1 + i % 6] for i in range(40)])
    for values in (x, sequences):
        model = compiled([bp.LSTM(9, return_sequences=True), bp.Dense(7), bp.GRU(5), bp.Dense(3)])
        model.build(4)
        parts = model.profile(values, np.arange(40) % 3, batch_size=20, seconds=0.01).parts
        flop = {part.layer: part.flop for part in parts if part.part == "forward"}
        expected = [120 * lstm, 120 * dense, 120 * 2 * 15 * (7 + 5), 20 * 2 * 5 * 3]
        assert list(flop.values()) == expected, flop


def test_a_clock_changes_no_bit() -> None:
    x, y = data()
    models = [compiled(LAYERS["dense"][0]) for _ in range(2)]
    for timed, model in enumerate(models):
        model.build(20)
        engine: Any = model._require_built()
        if timed:
            engine.start_clock()
        model.fit(x, y, epochs=2, batch_size=30, verbose=0)
        if timed:
            assert sum(times.sum() for times in engine.stop_clock().values()) > 0
    for key, value in models[0].parameters().items():
        np.testing.assert_array_equal(value, models[1].parameters()[key])


def test_what_cannot_be_profiled_says_so() -> None:
    x, y = data()
    with pytest.raises(ValueError, match="this model's device is 'reference'"):
        on_reference = compiled([bp.Dense(3)], device="reference")
        on_reference.build(20)
        on_reference.profile(x, y)
    model = compiled([bp.Dense(3)])
    with pytest.raises(RuntimeError, match="build"):
        model.profile(x, y)
    model.build(20)
    other = compiled([bp.Dense(3)])
    other.compile(bp.LBFGS(), "softmax_cross_entropy")
    other.build(20)
    with pytest.raises(ValueError, match="measures steps, and LBFGS makes none"):
        other.profile(x, y)
    with pytest.raises(ValueError, match="seconds must be finite and above 0; got 0"):
        model.profile(x, y, seconds=0)
    with pytest.raises(RuntimeError, match=r"call start_clock\(\) first"):
        model._require_built().stop_clock()
