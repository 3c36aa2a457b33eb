"""What happens to a gradient between the backward pass and the update.

Compared: the compiled engine with the oracle after some epochs, with every rule alone and all at
once; the definitions in NumPy (norms, penalties, averages); central differences of the penalized
loss; bits over threads, instruction sets and ways of working a batch off (alone, whole, in parts,
with the gradient kept for Ctrl-C); a run that was saved and loaded in the middle of everything.
"""

from __future__ import annotations

import copy
import operator
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastbp as bp
import machine
import sweeps
import tolerances
from fastbp import _core, reference
from sweeps import DTYPES, Array

isa = machine.isa
DEVICES = ["cpu", "reference"]
LAYERS = [("dense", 40, True), ("activation", "tanh", 0.0), ("dense", 33, True), ("dense", 3, True)]
# Ranges that end within blocks of 1024 and within vectors; the first has penalty and rate.
RANGES = [(0, 280, 0.5, 0.01, 0.02), (320, 1640, 1.0, 0.0, 0.003), (1680, 1779, 0.0, 0.001, 0.0)]
RATES = [(0, 1, 0.01, 0.1, 9.0, 1.0, 0.0), (9, 2, 0.1, 0.001, 30.0, 1.0, 0.3),
         (50, 4, 0.02, 0.0, 5.0, 0.5, 0.0)]  # fmt: skip
RULES: dict[str, dict[str, Any]] = {
    "clip norm": {"clip_norm": 0.05},
    "no clip": {"clip_norm": 1e6},
    "clip value": {"clip_value": 0.002},
    "accumulation": {"accumulation": 3},
    "average": {"average_momentum": 0.9},
    "ranges": {"ranges": RANGES},
    "columns": {
        "column_limits": [(0, 7, 40, 0.8), (320, 40, 33, 0.9), (1680, 33, 3, 0.5)],
    },
    "rates": {"rates": RATES},
    "table": {"rates": [(0, 5, 0.0, 0.0, 1.0, 1.0, 0.0)], "rate_values": [0.1, 0.05, 0.01, 0.02]},
}
RULES["all"] = {key: value for rule in [*RULES.values()][1:-1] for key, value in rule.items()}


def engine_of(kind: Any, dtype: str, rules: dict[str, Any], optimizer: str = "adam") -> Any:
    engine = kind(7, LAYERS, dtype)
    for k, (offset, rows, cols, bias) in enumerate(engine.parameter_shapes):
        values = sweeps.normal(k, dtype, (rows + bias) * cols) / np.sqrt(rows)
        engine.parameters[offset : offset + values.size] = values
    hyper = {"learning_rate": 0.01, "momentum": 0.9}
    if optimizer == "adam":
        hyper = {"learning_rate": 0.01, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-6}
    engine.compile("mse", 0.0, optimizer, hyper)
    engine.set_rules(rules)
    return engine


def data(dtype: str, rows: int = 90) -> tuple[Array, Array]:
    return sweeps.normal(8, dtype, rows, 7), sweeps.normal(9, dtype, rows, 3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
@pytest.mark.parametrize("name", RULES)
def test_the_engine_follows_the_oracle(isa: str, name: str, optimizer: str, dtype: str) -> None:
    """Twenty steps and their losses, in the norm of each array; the last batch is ragged."""
    x, y = data(dtype)
    engine, oracle = (
        engine_of(kind, dtype, RULES[name], optimizer) for kind in (_core.Engine, reference.Engine)
    )
    runs = [e.train(x, y, 20, 4, 0, True, 5, []) for e in (engine, oracle)]
    limit = 200 * tolerances.unit(dtype)
    tolerances.check(runs[0][0], runs[1][0], limit * np.abs(runs[1][0]), f"{isa} {name}")
    assert len(engine.optimizer_state) == len(oracle.optimizer_state)
    states = zip(engine.optimizer_state, oracle.optimizer_state, strict=True)
    for place, (got, want) in enumerate([(engine.parameters, oracle.parameters), *states]):
        error = tolerances.norm_error(got, want)
        assert error <= limit, f"{isa} {name}: array {place} is off by {error:.3g}"
    got, want = (e.evaluate(x, y, 32, []) for e in (engine, oracle))
    tolerances.check(got[0], want[0], limit * abs(want[0]))
    assert engine.steps == oracle.steps == 20


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["clip norm", "all"])
@pytest.mark.parametrize("batch", [20, 600])
def test_threads_and_instruction_sets_change_no_bit(name: str, dtype: str, batch: int) -> None:
    """Batches worked off whole and, of 600 rows, in parts."""
    x, y = data(dtype, 640)

    def run() -> tuple[bytes, ...]:
        engine = engine_of(_core.Engine, dtype, RULES[name])
        losses, _ = engine.train(x, y, batch, 3, 0, True, 5, [])
        engine.gradients(x[:50], y[:50])
        arrays = [losses, engine.parameters, engine.gradients_, *engine.optimizer_state]
        return tuple(a.tobytes() for a in arrays)

    found = set()
    for threads in machine.THREADS:
        with machine.using_threads(threads):
            found |= set(machine.on_every_isa(run).values())
    assert len(found) == 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_steps_equal_a_run(dtype: str) -> None:
    """A run may keep its gradients to be given up; a single step does not."""
    x, y = data(dtype, 60)
    run, steps = (engine_of(_core.Engine, dtype, RULES["all"]) for _ in range(2))
    run.train(x, y, 20, 4, 0, False, 0, [])
    for _ in range(4):
        for first in range(0, 60, 20):
            steps.step(x[first : first + 20], y[first : first + 20])
    sweeps.assert_same_bits(run.parameters, steps.parameters)
    for one, other in zip(run.optimizer_state, steps.optimizer_state, strict=True):
        sweeps.assert_same_bits(one, other)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rules_that_do_nothing_change_no_bit(dtype: str) -> None:
    x, y = data(dtype, 600)
    results = []
    for rules in ({}, {"clip_norm": 1e9, "clip_value": 1e9, "average_momentum": 0.5}):
        for batch in (30, 600):
            engine = engine_of(_core.Engine, dtype, rules)
            engine.train(x, y, batch, 2, 0, True, 5, [])
            results.append(engine.parameters.copy())
    sweeps.assert_same_bits(results[0], results[2])
    sweeps.assert_same_bits(results[1], results[3])


def model_of(optimizer: Any, device: str = "cpu", **dense: Any) -> bp.Sequential:
    layers = [bp.Dense(6, activation="tanh", **dense), bp.Dense(2)]
    model = bp.Sequential(layers, seed=1)
    model.compile(optimizer, "mse", device=device, dtype="float64")
    model.build(4)
    return model


X, Y = np.random.default_rng(3).normal(size=(30, 4)), np.random.default_rng(4).normal(size=(30, 2))


@pytest.mark.parametrize("device", DEVICES)
def test_the_clipped_gradient_has_the_norm(device: str) -> None:
    """With plain descent at rate 1 the step is the gradient."""
    for limit in (0.01, 0.1, 100.0):
        model = model_of(bp.SGD(1.0, clip_norm=limit), device)
        before = {name: view.copy() for name, view in model.parameters().items()}
        _, gradients = model.gradients(X, Y)
        norm = np.sqrt(sum((g**2).sum() for g in gradients.values()))
        model.step(X, Y)
        factor = min(1, limit / (norm + 1e-6))
        for name, view in model.parameters().items():
            np.testing.assert_allclose(before[name] - view, factor * gradients[name], atol=1e-15)


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_finite_gradient_is_too_large_to_clip(dtype: str) -> None:
    """Squares that overflow make an infinite norm: the step is 0, not NaN; NaN goes on."""
    x, y = data(dtype, 20)
    engine = engine_of(_core.Engine, dtype, {"clip_norm": 1.0}, "momentum")
    engine.compile("half_sse", 0.0, "sgd", {"learning_rate": 1.0})
    engine.set_rules({"clip_norm": 1.0})
    before = engine.parameters.copy()
    engine.step(x, y * y.dtype.type(1e25 if dtype == "float32" else 1e200))
    assert np.isfinite(engine.parameters).all()
    sweeps.assert_same_bits(engine.parameters, before)
    engine.parameters[5] = np.nan
    engine.step(x, y)
    assert np.isnan(engine.parameters[:10]).all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("penalty", [bp.L1(0.01), bp.L2(0.02), bp.L1L2(0.01, 0.02)])
def test_penalties_are_in_loss_and_gradient(device: str, penalty: Any) -> None:
    plain = model_of(bp.SGD(0.1), device)
    model = model_of(bp.SGD(0.1), device, kernel_regularizer=penalty)
    kernel = model.parameters()["0.kernel"]
    added = penalty.l1 * np.abs(kernel).sum() + penalty.l2 * (kernel**2).sum()
    for method in ("evaluate", "gradients", "input_gradient"):
        found, wanted = (getattr(m, method)(X, Y) for m in (model, plain))
        found, wanted = (r["loss"] if method == "evaluate" else r[0] for r in (found, wanted))
        assert found == pytest.approx(wanted + added, rel=1e-13)
    _, gradients = model.gradients(X, Y)
    _, without = plain.gradients(X, Y)
    expected = without["0.kernel"] + penalty.l1 * np.sign(kernel) + 2 * penalty.l2 * kernel
    np.testing.assert_allclose(gradients["0.kernel"], expected, rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(gradients["0.bias"], without["0.bias"])
    for i in range(0, kernel.size, 3):
        flat, sides = kernel.reshape(-1), []
        old = flat[i]
        for sign in (1, -1):
            flat[i] = old + sign * 1e-5
            sides.append(model.evaluate(X, Y)["loss"])
        flat[i] = old
        slope = (sides[0] - sides[1]) / 2e-5
        assert gradients["0.kernel"].reshape(-1)[i] == pytest.approx(slope, abs=1e-8)
    first = model.fit(X, Y, epochs=1, batch_size=30, verbose=0).history["loss"][0]
    assert first == pytest.approx(plain.evaluate(X, Y)["loss"] + added, rel=1e-13)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_columns_of_weights_are_no_longer_than_max_norm(device: str, dtype: str) -> None:
    """Against one step of the same model without; wide, narrow and long matrices."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 700)), rng.normal(size=(20, 3))
    steps = []
    for limit in (None, 1.28):
        layers = [bp.Dense(150, "tanh", max_norm=limit), bp.Dense(3, max_norm=limit)]
        model = bp.Sequential(layers, seed=1)
        model.compile(bp.SGD(0.5, use_ema=True), "mse", device=device, dtype=dtype)
        model.step(x, y)
        steps.append({k: v.astype(np.float64) for k, v in model.parameters().items()})
        if limit:
            for name, view in model.averaged().parameters().items():
                np.testing.assert_array_equal(view, model.parameters()[name])  # after one update
    limited = 0
    for name, plain in steps[0].items():
        norms = np.linalg.norm(plain, axis=0) if name.endswith("kernel") else np.zeros(1)
        factors = np.where(norms > 1.28, 1.28 / (norms + 1e-7), 1.0)
        limited += int((factors < 1).sum())
        np.testing.assert_allclose(
            steps[1][name], plain * factors, rtol=1e-5 if dtype == "float32" else 1e-12
        )
    assert 20 < limited < 140


def test_max_norm_with_frozen_layers_and_files(tmp_path: Path) -> None:
    model = model_of(bp.SGD(0.1), max_norm=0.5)
    start = model.parameters()["0.kernel"].copy()
    assert np.linalg.norm(start, axis=0).max() > 0.5
    model.freeze(1)
    model.step(X, Y)
    sweeps.assert_same_bits(model.parameters()["0.kernel"], start)
    model.freeze(0)
    model.step(X, Y)
    assert np.linalg.norm(model.parameters()["0.kernel"], axis=0).max() <= 0.5
    model.save(tmp_path / "net")
    loaded = bp.load(tmp_path / "net")
    assert loaded.layers == model.layers
    for each in (model, loaded):
        each.fit(X, Y, epochs=3, batch_size=7, verbose=0)
    sweeps.assert_same_bits(model.predict(X), loaded.predict(X))


def test_layers_inside_of_others_keep_their_rules() -> None:
    inner = bp.Dense(5, max_norm=0.1, kernel_regularizer=bp.L2(0.5))
    layers = [bp.TimeDistributed(inner), bp.LSTM(5), bp.Residual([bp.Dense(5, max_norm=0.1)])]
    model = bp.Sequential([*layers, bp.Dense(1)], seed=0)
    model.compile("sgd", "mse", dtype="float64")
    x, y = np.random.default_rng(0).normal(size=(6, 3, 2)), np.zeros((6, 1))
    added = 0.5 * (bp.Sequential, model.build(2), model.parameters()["0.kernel"])[2] ** 2
    error = (model.predict(x) ** 2).mean()
    assert model.evaluate(x, y)["loss"] == pytest.approx(error + added.sum(), rel=1e-12)
    model.step(x, y)
    for name in ("0.kernel", "2.0.kernel"):
        assert np.linalg.norm(model.parameters()[name], axis=0).max() <= 0.1


def test_adamw_is_not_adam_with_l2() -> None:
    """Weight decay beside the step, a penalty through it; SGD knows no difference."""
    weights = []
    for optimizer, dense in (
        (bp.AdamW(0.01, weight_decay=0.1), {}),
        (bp.Adam(0.01), {"kernel_regularizer": bp.L2(0.05)}),
        (bp.SGD(0.01, weight_decay=0.1), {"use_bias": False}),
        (bp.SGD(0.01), {"kernel_regularizer": bp.L2(0.05), "use_bias": False}),
    ):
        layers = [bp.Dense(2, **dense)]
        model = bp.Sequential(layers, seed=1)
        model.compile(optimizer, "mse", dtype="float64")
        model.fit(X, Y, epochs=5, verbose=0)
        weights.append(model.parameters()["0.kernel"].copy())
    assert np.abs(weights[0] - weights[1]).max() > 1e-3
    np.testing.assert_allclose(weights[2], weights[3], rtol=1e-12)


@pytest.mark.parametrize("device", DEVICES)
def test_accumulation_equals_the_large_batch(device: str) -> None:
    one = model_of(bp.Adam(0.01), device)
    model = model_of(bp.Adam(0.01, gradient_accumulation_steps=3), device)
    one.fit(X, Y, epochs=4, batch_size=30, shuffle=False, verbose=0)
    model.fit(X, Y, epochs=4, batch_size=10, shuffle=False, verbose=0)
    for name, view in model.parameters().items():
        np.testing.assert_allclose(view, one.parameters()[name], rtol=0, atol=1e-12)


@pytest.mark.parametrize("device", DEVICES)
def test_the_average_follows_the_parameters(device: str) -> None:
    model = model_of(bp.SGD(0.1, use_ema=True, ema_momentum=0.75), device)
    with pytest.raises(RuntimeError, match="no average yet"):
        model.averaged()
    model.step(X, Y)
    for name, view in model.averaged().parameters().items():
        np.testing.assert_array_equal(view, model.parameters()[name])
    average = {name: view.copy() for name, view in model.parameters().items()}
    for _ in range(6):
        model.step(X, Y)
        for name, view in model.parameters().items():
            average[name] = 0.75 * average[name] + 0.25 * view
    smooth = model.averaged()
    for name, view in smooth.parameters().items():
        np.testing.assert_allclose(view, average[name], rtol=1e-13, atol=1e-16)
    assert smooth.evaluate(X, Y) != model.evaluate(X, Y)
    smooth.step(X, Y)  # a model of its own
    assert model.averaged().parameters()["0.kernel"][0, 0] == pytest.approx(
        average["0.kernel"][0, 0], rel=1e-13
    )
    with pytest.raises(ValueError, match="use_ema=True"):
        model_of(bp.SGD(0.1)).averaged()


@pytest.mark.parametrize("device", DEVICES)
def test_layer_rates(device: str) -> None:
    """Rate 0 stands still; a factor is that of the learning rate; places count from both ends."""
    start = {name: view.copy() for name, view in model_of(bp.SGD(0.1), device).parameters().items()}
    model = model_of(bp.SGD(0.1, layer_rates={0: 0.0, -1: 0.5}), device)
    half = model_of(bp.SGD(0.05), device)
    for each in (model, half):
        each.step(X, Y)
    for name, view in model.parameters().items():
        expected = start[name] if name.startswith("0") else half.parameters()[name]
        np.testing.assert_allclose(view, expected, rtol=1e-14)
    rates = copy.deepcopy(model.optimizer).layer_rates
    for change in (lambda r: r.update({0: 1.0}), lambda r: operator.setitem(r, 0, 1.0)):
        with pytest.raises(TypeError, match=r"assign all of them, for example"):
            change(rates)
    assert pickle.loads(pickle.dumps(rates)) == rates == {0: 0.0, -1: 0.5}
    model.optimizer.layer_rates = None
    model.step(X, Y)
    assert (model.parameters()["0.kernel"] != start["0.kernel"]).all()


def test_training_goes_on_from_a_file_bit_for_bit(tmp_path: Path) -> None:
    """In the middle of an accumulation, of a schedule and of an average."""
    settings: dict[str, Any] = {
        "clip_norm": 0.5,
        "clip_value": 0.4,
        "gradient_accumulation_steps": 4,
        "use_ema": True,
        "ema_momentum": 0.9,
        "layer_rates": {0: 0.25},
    }
    rate = bp.WarmUp(bp.CosineDecay(0.05, 20), 5)
    dense = {"kernel_regularizer": bp.L1L2(1e-3, 1e-2)}
    one, two = (model_of(bp.Adam(rate, **settings), **dense) for _ in range(2))
    for model, epochs in ((one, 7), (two, 3)):
        model.fit(X, Y, epochs=epochs, batch_size=7, sample_weight=np.arange(30), verbose=0)
    two.save(tmp_path / "net")
    loaded = bp.load(tmp_path / "net")
    assert loaded.optimizer == two.optimizer
    assert loaded.layers == two.layers
    loaded.fit(X, Y, epochs=4, batch_size=7, sample_weight=np.arange(30), verbose=0)
    for name, view in loaded.parameters().items():
        sweeps.assert_same_bits(view, one.parameters()[name])
    for name, view in loaded.averaged().parameters().items():
        sweeps.assert_same_bits(view, one.averaged().parameters()[name])


def test_settings_change_between_steps() -> None:
    """Limits, rates and momentum of the average do; what needs other state asks for compile."""
    model = model_of(bp.SGD(0.1, clip_norm=0.1, use_ema=True))
    model.step(X, Y)
    model.optimizer.clip_norm = None
    model.optimizer.clip_value = 1e-9
    before = model.parameters()["0.kernel"].copy()
    model.step(X, Y)
    moved = np.abs(model.parameters()["0.kernel"] - before)
    assert 0 < moved.max() <= 1.1e-10
    for name, value in (("use_ema", False), ("gradient_accumulation_steps", 2)):
        with pytest.raises(ValueError, match=r"call model\.compile again"):
            setattr(model.optimizer, name, value)
        assert getattr(model.optimizer, name) != value
    model.compile(bp.SGD(0.1), "mse", dtype="float64")
    assert model._engine is not None
    assert len(model._engine.optimizer_state) == 0
    model.step(X, Y)
    assert np.abs(model.parameters()["0.kernel"] - before).max() > 1e-6


def test_bad_settings() -> None:
    bad: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (ValueError, "clip_norm must be", {"clip_norm": 0.0}),
        (ValueError, "clip_value must be", {"clip_value": -1.0}),
        (TypeError, "clip_norm must be a number", {"clip_norm": "1"}),
        (ValueError, "gradient_accumulation_steps must be", {"gradient_accumulation_steps": 0}),
        (TypeError, "use_ema must be", {"use_ema": 1}),
        (ValueError, "ema_momentum must be", {"ema_momentum": 1.0}),
        (TypeError, "layer_rates must be a dict", {"layer_rates": [1.0]}),
        (TypeError, "must be an integer", {"layer_rates": {"first": 1.0}}),
        (ValueError, r"layer_rates\[0\] must be", {"layer_rates": {0: -1.0}}),
    ]
    for error, match, arguments in bad:
        with pytest.raises(error, match=match):
            bp.Adam(**arguments)
    with pytest.raises(ValueError, match="place 2; the layers with parameters have 0, 1"):
        model_of(bp.Adam(layer_rates={2: 1.0}))
    with pytest.raises(ValueError, match="layer 0 twice"):
        model_of(bp.Adam(layer_rates={0: 1.0, -2: 0.5}))
    for wrong in (0.0, -1.0, np.inf):
        with pytest.raises(ValueError, match="max_norm must be"):
            bp.Dense(3, max_norm=wrong)
    with pytest.raises(TypeError, match="max_norm must be a number"):
        bp.Dense(3, max_norm="1")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="layer 0 has max_norm"):
        model_of(bp.LBFGS(), max_norm=1.0).fit(X, Y, verbose=0)
    with pytest.raises(ValueError, match="l2 must be"):
        bp.L2(-1.0)
    with pytest.raises(ValueError, match="unknown regularizer"):
        bp.Dense(3, kernel_regularizer="l3")
    assert bp.Dense(3, kernel_regularizer="l2").kernel_regularizer == bp.L2()
    engine = engine_of(_core.Engine, "float32", {})
    for match, rules in (
        ("ranges must follow", {"ranges": [(5, 9, 1.0, 0.0, 0.0), (8, 12, 1.0, 0.0, 0.0)]}),
        ("ranges must follow", {"ranges": [(0, 10**9, 1.0, 0.0, 0.0)]}),
        ("column_limits must lie", {"column_limits": [(0, 10**9, 10**10, 1.0)]}),
        ("column_limits must lie", {"column_limits": [(1000, 100, 10, 1.0)]}),
        ("limit of a column's norm", {"column_limits": [(0, 7, 40, 0.0)]}),
        ("must begin at 0", {"rates": [(3, 0, 0.1, 0.0, 1.0, 1.0, 0.0)]}),
        ("unknown form", {"rates": [(0, 9, 0.1, 0.0, 1.0, 1.0, 0.0)]}),
        ("above 0", {"rates": [(0, 1, 0.1, 0.0, 0.0, 1.0, 0.0)]}),
        ("needs rate_values", {"rates": [(0, 5, 0.1, 0.0, 1.0, 1.0, 0.0)]}),
        ("accumulation at least 1", {"accumulation": 0}),
    ):
        with pytest.raises(ValueError, match=match):
            engine.set_rules(rules)


# Kernels that narrow tiles update by blocks of rows (blocking.h): few values of k; rows in more
# than one piece; more values of k and parameters that are far.
BY_ROWS = [(149, 230, 7), (97, 3600, 3), (719, 530, 100)]
HYPER = {
    "adam": {"learning_rate": 0.01, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-6},
    "sgd": {"learning_rate": 0.01},
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("optimizer", HYPER)
@pytest.mark.parametrize(("inputs", "outputs", "batch"), BY_ROWS)
def test_updates_of_large_kernels_are_those_of_their_whole_gradient(
    inputs: int, outputs: int, batch: int, optimizer: str, dtype: str
) -> None:
    """A limit that nothing reaches has the gradient of the whole network made first."""
    x, y = sweeps.normal(1, dtype, batch, inputs), sweeps.normal(2, dtype, batch, outputs)

    def trained(rules: dict[str, Any]) -> bytes:
        engine = _core.Engine(inputs, [("dense", outputs, True)], dtype)
        engine.parameters[...] = sweeps.normal(3, dtype, engine.parameters.size)
        engine.compile("mse", 0.0, optimizer, HYPER[optimizer])
        engine.set_rules(rules)
        engine.step(x, y)
        assert np.isfinite(engine.parameters).all()
        return bytes(engine.parameters)

    expected = trained({"clip_norm": 1e30})
    for threads in (1, 3):
        with machine.using_threads(threads):
            found = machine.on_every_isa(lambda: trained({}))
        assert set(found.values()) == {expected}, threads
