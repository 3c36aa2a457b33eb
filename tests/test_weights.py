"""Weights of rows: sample_weight and class_weight in training, steps, gradients and evaluation.

Compared: the loss with NumPy's weighted mean; gradients with those of repeated and of missing rows,
and with central differences; the compiled engine with the oracle; bits over threads, instruction
sets, equal weights and none. Shapes around the 16 rows of a summed block and the lanes of a vector,
with several outputs, and batches worked off in parts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest

import fastbp as bp
import machine
import sweeps
import tolerances
from fastbp import _core, reference, weights
from fastbp.weights import rows as row_weights
from sweeps import DTYPES, Array

DEVICES = ["cpu", "reference"]
isa = machine.isa

ENTRIES = {entry["name"]: entry for entry in _core.losses()}


def target(name: str, rng: np.random.Generator, dtype: str, rows: int, cols: int) -> Array:
    """What any loss takes as a target of outputs in (0, 1)."""
    if reference.LOSSES[name].rows:
        return rng.integers(0, cols, rows)
    return rng.integers(0, 2, (rows, cols)).astype(dtype)


def engines(name: str, dtype: str, cols: int) -> list[Any]:
    layers = [("dense", 9, True), ("activation", "tanh", 0.0), ("dense", cols, True)]
    layers.append(("activation", "sigmoid", 0.0))
    made = [kind(4, layers, dtype) for kind in (_core.Engine, reference.Engine)]
    for engine in made:
        engine.parameters[...] = sweeps.normal(1, dtype, engine.parameters.size) / 2
        engine.compile(name, ENTRIES[name]["default_param"], "sgd", {"learning_rate": 0.1})
    return made


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ENTRIES)
@pytest.mark.parametrize("cols", [2, 17])
def test_every_loss_against_the_oracle(isa: str, dtype: str, name: str, cols: int) -> None:
    """Loss, gradients, metrics, and five epochs of training, with weights of 0 among them."""
    for rows in (1, 16, 33):
        rng = np.random.default_rng([rows, cols])
        x, y = sweeps.normal(2, dtype, rows, 4), target(name, rng, dtype, rows, cols)
        w = rng.uniform(0, 3, rows).astype(dtype)
        w[1::5] = 0
        engine, oracle = engines(name, dtype, cols)
        what = f"{isa} {name} {rows}x{cols}"
        size = 64 * tolerances.unit(dtype)
        value, wanted = (e.gradients(x, y, w) for e in (engine, oracle))
        tolerances.check(value, wanted, size * (1 + abs(wanted)), f"{what}: loss")
        scale = 1 + np.abs(oracle.gradients_)
        tolerances.check(engine.gradients_, oracle.gradients_, size * scale, f"{what}: gradient")
        names = ["accuracy", "mse", "mae"]
        got, want = (e.evaluate(x, y, 32, names, weights=w) for e in (engine, oracle))
        assert got[1] == engine.evaluate(x, y, 32, names)[1], "metrics are not weighted"
        tolerances.check(got[0], want[0], size * (1 + abs(want[0])), f"{what}: evaluate")
        runs = [e.train(x, y, 16, 5, 0, True, 3, names, weights=w) for e in (engine, oracle)]
        allowed = 4 * size * (1 + np.abs(runs[1][0]))
        tolerances.check(runs[0][0], runs[1][0], allowed, f"{what}: losses of epochs")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ENTRIES)
def test_bits_are_the_same_everywhere(dtype: str, name: str) -> None:
    """On any number of threads and every instruction set, in one batch of 600 rows and in small."""
    x = sweeps.normal(2, dtype, 600, 4)
    y = target(name, np.random.default_rng(1), dtype, 600, 3)
    w = np.random.default_rng(2).uniform(0, 3, 600).astype(dtype)

    def run() -> tuple[bytes, bytes]:
        engine, _ = engines(name, dtype, 3)
        losses = [engine.train(x, y, b, 2, 0, True, 3, ["mse"], weights=w)[0] for b in (37, 600)]
        return np.concatenate(losses).tobytes(), engine.parameters.tobytes()

    found = set()
    for threads in machine.THREADS:
        with machine.using_threads(threads):
            found |= set(machine.on_every_isa(run).values())
    assert len(found) == 1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ENTRIES)
def test_weights_of_one_change_no_bit(dtype: str, name: str) -> None:
    x, y = sweeps.normal(2, dtype, 50, 4), target(name, np.random.default_rng(1), dtype, 50, 5)
    plain, weighted = engines(name, dtype, 5)[0], engines(name, dtype, 5)[0]
    ones = np.ones(50, dtype)
    a = plain.train(x, y, 16, 3, 0, True, 1, ["mse", "mae", "accuracy"])
    b = weighted.train(x, y, 16, 3, 0, True, 1, ["mse", "mae", "accuracy"], weights=ones)
    for one, other in zip(a, b, strict=True):
        sweeps.assert_same_bits(one, other)
    sweeps.assert_same_bits(plain.parameters, weighted.parameters)


def net(loss: Any, outputs: int = 1, device: str = "cpu", **settings: Any) -> bp.Sequential:
    model = bp.Sequential([bp.Dense(6, activation="tanh"), bp.Dense(outputs)], seed=2)
    settings = {"optimizer": bp.SGD(0.1), "dtype": "float64", **settings}
    model.compile(loss=loss, device=device, **settings)
    model.build(3)
    return model


X = np.random.default_rng(0).normal(size=(40, 3))
W = np.random.default_rng(1).integers(0, 4, 40)
LABELS = np.arange(40) * 7 % 3


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("loss", ["mse", "softmax_cross_entropy", "hinge", "half_sse"])
def test_a_weight_is_a_number_of_rows(loss: str, device: str) -> None:
    """Whole weights: the loss and the gradients of the rows so often; 0 leaves a row out."""
    y: Array = LABELS if loss.startswith("softmax") else (LABELS > 0).astype(float)
    model = net(loss, 3 if loss.startswith("softmax") else 1, device)
    value, gradients = model.gradients(X, y, sample_weight=W)
    again, expected = model.gradients(np.repeat(X, W, axis=0), np.repeat(y, W))
    assert value == pytest.approx(again, rel=1e-12)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, expected[name], rtol=0, atol=1e-12 * (1 + abs(value)))
    assert model.evaluate(X, y, sample_weight=W)["loss"] == pytest.approx(value, rel=1e-12)
    assert model.evaluate(X, y, 7, sample_weight=W)["loss"] == pytest.approx(value, rel=1e-12)
    assert model.step(X, y, sample_weight=W) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("device", DEVICES)
def test_gradients_are_differences_of_the_weighted_loss(device: str) -> None:
    model = net("softmax_cross_entropy", 3, device)
    _, gradients = model.gradients(X, LABELS, sample_weight=W)
    value, dx = model.input_gradient(X, LABELS, sample_weight=W)
    assert not dx[W == 0].any()
    for name, view in model.parameters().items():
        flat, found = view.reshape(-1), gradients[name].reshape(-1)
        for i in range(0, flat.size, 4):
            old, sides = flat[i], []
            for sign in (1, -1):
                flat[i] = old + sign * 1e-5
                sides.append(model.evaluate(X, LABELS, sample_weight=W)["loss"])
            flat[i] = old
            assert found[i] == pytest.approx((sides[0] - sides[1]) / 2e-5, abs=1e-8)
    assert value == model.gradients(X, LABELS, sample_weight=W)[0]


def test_only_ratios_count_and_the_epoch_reports_the_weighted_mean() -> None:
    histories = []
    for factor in (1, 64):
        model = net("mse", optimizer=bp.SGD(0.0))
        y = X[:, 0]
        found = model.fit(X, y, epochs=1, batch_size=7, sample_weight=W * factor, verbose=0)
        histories.append(found.history["loss"][0])
        errors = (model.predict(X)[:, 0] - y) ** 2
        assert found.history["loss"][0] == pytest.approx(np.average(errors, weights=W), rel=1e-12)
    assert histories[0] == histories[1]


@pytest.mark.parametrize("device", DEVICES)
def test_class_weights_are_sample_weights(device: str) -> None:
    """By a dictionary, and balanced as scikit-learn counts it; times sample weights."""
    counts = np.bincount(LABELS)
    balanced = 40 / (3 * counts)
    cases: list[tuple[Any, Any, Array]] = [
        ({0: 2.0, 2: 0.5}, None, np.array([2, 1, 0.5])[LABELS]),
        ("balanced", None, balanced[LABELS]),
        ({1: 3}, W, W * np.array([1, 3, 1])[LABELS]),
    ]
    for class_weight, samples, equal in cases:
        for labels in (LABELS, np.eye(3)[LABELS]):
            one, other = (net("softmax_cross_entropy", 3, device) for _ in range(2))
            a = one.fit(
                X,
                labels,
                epochs=3,
                class_weight=class_weight,
                sample_weight=samples,
                verbose=0,
            )
            b = other.fit(X, labels, epochs=3, sample_weight=equal, verbose=0)
            np.testing.assert_allclose(a.history["loss"], b.history["loss"], rtol=1e-12)
    yes = (LABELS > 0).astype(float)
    one, other = (net("binary_cross_entropy_with_logits", 1, device) for _ in range(2))
    a = one.step(X, yes, class_weight={1: 5})
    assert a == pytest.approx(other.step(X, yes, sample_weight=1 + 4 * yes), rel=1e-12)


def test_balanced_classes_find_the_rare_one() -> None:
    """3 % of the rows, near the others: without weights nothing is called rare."""
    rng = np.random.default_rng(5)
    yes = np.arange(1500) < 45
    x = rng.normal(size=(1500, 3)) + 1.2 * yes[:, None]
    recalls = []
    for weight in (None, "balanced"):
        model = net("binary_cross_entropy_with_logits", optimizer=bp.Adam(0.01))
        model.fit(x, yes, epochs=15, class_weight=weight, verbose=0)
        recalls.append(model.predict_class(x)[yes].mean())
    assert recalls[0] < 0.3
    assert recalls[1] > 0.75


def test_validation_rows_keep_sample_weights_but_no_class_weights() -> None:
    w = np.linspace(0.5, 2, 40)
    model = net("softmax_cross_entropy", 3)
    history = model.fit(
        X,
        LABELS,
        validation_split=0.25,
        sample_weight=w,
        class_weight={0: 9},
        verbose=0,
    ).history
    held = model.evaluate(X[30:], LABELS[30:], sample_weight=w[30:])["loss"]
    assert history["val_loss"][0] == pytest.approx(held, rel=1e-12)
    history = model.fit(X, LABELS, validation_data=(X[:9], LABELS[:9], w[:9]), verbose=0).history
    held = model.evaluate(X[:9], LABELS[:9], sample_weight=w[:9])["loss"]
    assert history["val_loss"][0] == pytest.approx(held, rel=1e-12)


def test_bad_weights_change_nothing() -> None:
    model = net("softmax_cross_entropy", 3)
    before = {name: view.copy() for name, view in model.parameters().items()}
    bad: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (ValueError, r"shape \(40,\), one for each row", {"sample_weight": np.ones(39)}),
        (ValueError, r"shape \(40,\)", {"sample_weight": 2.0}),
        (ValueError, "row 3 has", {"sample_weight": np.where(np.arange(40) == 3, -1.0, 1)}),
        (ValueError, "row 7 has", {"sample_weight": np.where(np.arange(40) == 7, np.nan, 1)}),
        (ValueError, "row 0 has", {"sample_weight": np.full(40, np.inf)}),
        (ValueError, "must not be all 0", {"sample_weight": np.zeros(40)}),
        (TypeError, "real numbers", {"sample_weight": ["a"] * 40}),
        (ValueError, "dict or 'balanced'", {"class_weight": "even"}),
        (TypeError, "dict or 'balanced'", {"class_weight": [1, 2, 3]}),
        (TypeError, "must be an integer", {"class_weight": {"a": 1.0}}),
        (ValueError, "at least 0", {"class_weight": {0: -1.0}}),
        (ValueError, "no row with a weight", {"class_weight": {0: 0, 1: 0, 2: 0}}),
        (ValueError, "class 9, but the classes are 0 to 2", {"class_weight": {0: 1, 9: 1}}),
    ]
    calls: list[Callable[..., Any]] = [model.fit, model.step, model.gradients]
    for (error, match, arguments), call in product(bad, calls):
        with pytest.raises(error, match=match):
            call(X, LABELS, **arguments)
    for loss, outputs in (("mse", 1), ("binary_cross_entropy_with_logits", 3)):
        other = net(loss, outputs)
        with pytest.raises(ValueError, match="class_weight needs rows of one class each"):
            other.step(X, np.zeros((40, outputs)), class_weight="balanced")
    with pytest.raises(ValueError, match="class 2, but the classes are 0 and 1"):
        net("hinge", 1).step(X, np.ones(40), class_weight={2: 3})
    model.gradients(X[:2], [0, 0], class_weight={2: 3})  # a class that this batch lacks
    for name, view in model.parameters().items():
        sweeps.assert_same_bits(view, before[name])
    with pytest.raises(ValueError, match="weights: expected"):
        assert model._engine is not None
        model._engine.step(X, LABELS, np.ones(3))


def test_equal_weights_are_no_burden() -> None:
    """Mean 1 exactly, and in the model's dtype."""
    ready = row_weights(
        np.full(9, 0.3), None, np.zeros(9, np.int64), bp.Loss("mse"), np.dtype("f4")
    )
    assert ready is not None
    np.testing.assert_array_equal(ready, np.ones(9, np.float32))


@pytest.mark.parametrize("n", [1, 2, 17, 1000])
def test_weights_are_summed_as_if_rounded_once(n: int) -> None:
    """Over 600 binary orders of magnitude, zeros among them, as math.fsum has it."""
    random = np.random.default_rng(n)
    for spread in (0, 20, 300):
        values = random.random(n) * 2.0 ** random.integers(-spread, spread + 1, n)
        values[random.random(n) < 0.2] = 0
        assert weights.accurate_sum(values) == math.fsum(values.tolist())


def test_weights_near_the_end_of_the_range() -> None:
    """Only ratios count: weights whose sum is beyond float64 are no others than small ones."""
    found = []
    for scale in (1.0, 1e308, 1e-300):
        model = bp.Sequential([bp.Dense(3)], seed=0)
        model.compile("sgd", "softmax_cross_entropy")
        x, y = np.eye(4), np.array([0, 1, 2, 0])
        model.fit(x, y, sample_weight=np.array([1, 0.5, 0.25, 0]) * scale, epochs=2, verbose=0)
        found.append(model.predict(x))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-6)
    np.testing.assert_allclose(found[2], found[0], rtol=1e-6)
    with pytest.raises(ValueError, match="class_weight times sample_weight is beyond"):
        model.fit(x, y, sample_weight=[1, 1, 1e308, 1], class_weight={2: 100}, verbose=0)
