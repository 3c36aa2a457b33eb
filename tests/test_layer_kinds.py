"""Layers besides dense ones and activations: engine against oracle, oracle against finite
differences, and what each promises. That no bit depends on threads or instruction set is in
test_numerics_promise.py, whose networks hold every kind.

Tolerances: a gradient may be off by a few roundings for each layer, norm-wise, as in
test_gradients.py; 64 u of the largest element covers the cancellation in these small networks.
Central differences of step h in float64 are off by h^2 and by u / h: 1e-7 of the largest element
covers both at h = 1e-5.
"""

from __future__ import annotations

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
SEED = 2**40 + 7

# Inputs, and layers as an engine takes them.
NETWORKS: dict[str, tuple[int, list[tuple[Any, ...]]]] = {
    "dropout": (
        7,
        [("dense", 17, True), ("activation", "tanh", 0.0), ("dropout", 0.3), ("dense", 5, True)],
    ),
    "dropout at both ends": (
        70,
        [("dropout", 0.5), ("dense", 131, False), ("activation", "silu", 0.0), ("dropout", 0.125)],
    ),
    "dropout between activations": (
        9,
        [
            ("dense", 64, True),
            ("dropout", 0.2),
            ("activation", "gelu", 0.0),
            ("dropout", 0.9),
            ("activation", "softplus", 0.0),
            ("dense", 3, True),
        ],
    ),
}
ROWS = (1, 16, 33, 300)


def start(engine: Any) -> None:
    """Random parameters, the same for engine and oracle."""
    for k, (offset, rows, cols, bias) in enumerate(engine.parameter_shapes):
        block = engine.parameters[offset : offset + (rows + bias) * cols]
        block[...] = sweeps.normal(k, "float64", block.size) / np.sqrt(max(rows, 1))


def make(kind: Any, name: str, dtype: str) -> Any:
    inputs, layers = NETWORKS[name]
    engine = kind(inputs, layers, dtype, SEED)
    start(engine)
    engine.compile("mse", 0.0, "sgd", {"learning_rate": 0.01})
    return engine


def data(name: str, rows: int, dtype: str) -> tuple[Array, Array]:
    inputs, layers = NETWORKS[name]
    outputs = next(layer[1] for layer in reversed(layers) if layer[0] == "dense")
    return sweeps.normal(1, dtype, rows, inputs), sweeps.normal(2, dtype, rows, outputs)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_the_oracles(isa: str, name: str, dtype: str) -> None:
    """Loss, gradient of parameters and inputs, for some batch sizes, on one thread and on two."""
    for rows in ROWS:
        x, y = data(name, rows, dtype)
        for threads in (1, 2):
            with machine.using_threads(threads):
                engine, oracle = (
                    make(kind, name, dtype) for kind in (_core.Engine, reference.Engine)
                )
                (loss, dx), (wanted_loss, wanted_dx) = (
                    engine.input_gradient(x, y),
                    oracle.input_gradient(x, y),
                )
            limit = 64 * tolerances.unit(dtype)
            what = f"{name}, {rows} rows, {threads} threads"
            assert abs(loss - wanted_loss) <= limit * abs(wanted_loss), what
            oracle.gradients(x, y)
            pairs = ((dx, wanted_dx), (engine.gradients_, oracle.gradients_))
            for got, wanted in pairs:
                error = np.abs(got - wanted).max()
                assert error <= limit * np.abs(wanted).max(), f"{what}: off by {error:.3g}"


@pytest.mark.parametrize("name", NETWORKS)
def test_the_oracles_gradients_are_finite_differences(name: str) -> None:
    """Of a few parameters of each block and a few inputs; all at one step, so one draw of masks."""
    engine = make(reference.Engine, name, "float64")
    x, y = data(name, 6, "float64")
    _, dx = engine.input_gradient(x, y)
    engine.gradients(x, y)
    gradient = engine.gradients_.copy()
    rng, h = np.random.default_rng(3), 1e-5

    def check(array: Array, analytic: Array, indices: Array) -> None:
        for i in indices:
            kept, losses = array[i], []
            for moved in (kept + h, kept - h):
                array[i] = moved
                losses.append(engine.gradients(x, y))
            array[i] = kept
            wanted = (losses[0] - losses[1]) / (2 * h)
            assert abs(analytic[i] - wanted) <= 1e-7 * max(1.0, np.abs(analytic).max())

    for offset, rows, cols, bias in engine.parameter_shapes:
        size = (rows + bias) * cols
        check(engine.parameters, gradient, offset + rng.choice(size, min(size, 12), replace=False))
    check(x.reshape(-1), dx.reshape(-1), rng.choice(x.size, 12, replace=False))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NETWORKS)
def test_training_prediction_and_evaluation_follow_the_oracle(name: str, dtype: str) -> None:
    x, y = data(name, 50, dtype)
    engine, oracle = (make(kind, name, dtype) for kind in (_core.Engine, reference.Engine))
    limit = 256 * tolerances.unit(dtype)
    arguments = (x, y, 16, 3, 0, True, 5, ["mse"])
    for got, wanted in zip(engine.train(*arguments), oracle.train(*arguments), strict=True):
        tolerances.check(got, wanted, limit * np.abs(wanted), f"{name}: losses and metrics")
    assert tolerances.norm_error(engine.parameters, oracle.parameters) <= limit
    for training in (False, True):
        got, wanted = np.empty_like(y), np.empty_like(y)
        engine.predict(x, got, training)
        oracle.predict(x, wanted, training)
        assert np.abs(got - wanted).max() <= limit * np.abs(wanted).max()
    got, wanted = engine.evaluate(x, y, 16, ["mse"]), oracle.evaluate(x, y, 16, ["mse"])
    assert got[0] == pytest.approx(wanted[0], rel=limit)
    assert got[1] == pytest.approx(wanted[1], rel=limit)


# Dropout


def mask(rows: int, columns: int, rate: float, step: int, dtype: str = "float32") -> Array:
    """What dropout alone makes of ones in that step."""
    engine = _core.Engine(columns, [("dropout", rate)], dtype, SEED)
    engine.steps = step - 1
    out = np.empty((rows, columns), dtype)
    engine.predict(np.ones((rows, columns), dtype), out, training=True)
    return out


@pytest.mark.parametrize("dtype", DTYPES)
def test_dropout_draws_the_words_of_the_generator(isa: str, dtype: str) -> None:
    """By hand, word by word: column 16 w + l of group g is word w of block 16 g + l."""
    rows, columns, rate, step = 3, 130, 0.3, 2**33 + 5
    got = mask(rows, columns, rate, step, dtype)
    assert set(np.unique(got)) == {0, np.dtype(dtype).type(1 / 0.7)}
    groups = 3
    for i in range(rows):
        for j in range(columns):
            group, inside = divmod(j, 64)
            block = (i * groups + group) * 16 + inside % 16
            counter = (block, step % 2**32, 0, 3 + (2 << 8))
            words = reference.random.philox4x32(counter, (SEED % 2**32, SEED >> 32))
            keeps = int(words[inside // 16][0]) / 2**32 >= rate
            assert (got[i, j] != 0) == keeps, (i, j)


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.5, 0.99])
def test_dropout_leaves_out_the_share_that_it_should(rate: float) -> None:
    """Within 3 standard deviations, in the whole and in each column; elements independent."""
    rows, columns = 2000, 200
    kept = mask(rows, columns, rate, 1) != 0
    deviation = np.sqrt(rate * (1 - rate) / kept.size)
    assert abs(kept.mean() - (1 - rate)) <= 3 * deviation
    spread = np.sqrt(rate * (1 - rate) / rows)
    assert np.abs(kept.mean(axis=0) - (1 - rate)).max() <= 5 * spread
    if rate == 0.5:
        signs = 2.0 * kept - 1
        for other in (
            np.roll(signs, 1, 0),
            np.roll(signs, 1, 1),
            2.0 * (mask(rows, columns, 0.5, 2) != 0) - 1,
        ):
            assert abs((signs * other).mean()) <= 4 / np.sqrt(kept.size)


def test_dropout_is_another_in_each_step_layer_and_seed() -> None:
    first = mask(40, 40, 0.5, 1)
    sweeps.assert_same_bits(first, mask(40, 40, 0.5, 1))
    assert (first != mask(40, 40, 0.5, 2)).mean() > 0.4
    two = _core.Engine(40, [("dropout", 0.5), ("dropout", 0.5)], "float32", SEED)
    other = _core.Engine(40, [("dropout", 0.5)], "float32", SEED + 1)
    out = np.empty((40, 40), np.float32)
    two.predict(np.ones_like(out), out, training=True)
    assert 0.2 < (out != 0).mean() < 0.3
    other.predict(np.ones_like(out), out, training=True)
    assert (first != out).mean() > 0.4


def test_dropout_lets_nan_through_and_is_off_in_inference() -> None:
    x = np.array([[np.nan, np.inf, 1.0]] * 8, np.float32)
    engine = _core.Engine(3, [("dropout", 0.5)], "float32", SEED)
    out = np.empty_like(x)
    engine.predict(x, out, training=True)
    assert np.isnan(out[:, 0]).all() and not np.isnan(out[:, 2]).any()
    engine.predict(x, out)
    sweeps.assert_same_bits(out, x)


@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_a_model_with_dropout(device: str, tmp_path: Path) -> None:
    """fit, predict, evaluate, forward, gradients, save and load; training goes on as if never
    interrupted.
    """
    x, y = sweeps.normal(1, "float32", 96, 5), sweeps.normal(2, "float32", 96, 2)

    def model() -> bp.Sequential:
        made = bp.Sequential([bp.Dense(40, "relu"), bp.Dropout(0.5), bp.Dense(2)], seed=3)
        made.compile(optimizer="adam", loss="mse", device=device)
        return made

    whole, halves = model(), model()
    whole.fit(x, y, epochs=4, verbose=0)
    halves.fit(x, y, epochs=2, verbose=0)
    assert list(halves.parameters()) == ["0.kernel", "0.bias", "2.kernel", "2.bias"]
    sweeps.assert_same_bits(halves.forward(x), halves.predict(x))
    dropped = halves.forward(x, training=True)
    assert not np.allclose(dropped, halves.predict(x))
    loss, gradient = halves.gradients(x, y)
    assert loss == pytest.approx(((dropped - y) ** 2).mean(), rel=1e-5)
    assert set(gradient) == set(halves.parameters())
    assert halves.evaluate(x, y)["loss"] == pytest.approx(((halves.predict(x) - y) ** 2).mean())
    halves.save(tmp_path / "half.safetensors")
    loaded = bp.load(tmp_path / "half.safetensors", device=device)
    assert loaded.layers[1] == bp.Dropout(0.5)
    loaded.fit(x, y, epochs=2, verbose=0)
    for name, value in whole.parameters().items():
        sweeps.assert_same_bits(loaded.parameters()[name], value)


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, np.nan, np.inf])
def test_a_rate_out_of_range_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="rate"):
        bp.Dropout(rate)
    for engine in (_core.Engine, reference.Engine):
        with pytest.raises(ValueError, match="rate"):
            engine(2, [("dropout", rate)], "float32")


def test_a_rate_of_another_kind_is_refused() -> None:
    for wrong in ("half", None, [0.5], True):
        with pytest.raises(TypeError, match="rate"):
            bp.Dropout(wrong)  # type: ignore[arg-type]
