"""Layers besides dense ones and activations: engine against oracle, oracle against finite
differences, and what each promises. That no bit depends on threads or instruction set is in
test_numerics_promise.py, whose networks hold every kind.

Tolerances: a gradient may be off by a few roundings for each layer, norm-wise, as in
test_gradients.py; 64 u of the largest element covers the cancellation in these small networks. For
float64 the oracle rounds as much, and a batch of two rows amplifies it: three times that.
Central differences of step h in float64 are off by h^2 and by u / h: 1e-7 of the largest element
covers both at h = 1e-5.
"""

from __future__ import annotations

import functools
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
    "layer norm": (
        7,
        [
            ("dense", 17, True),
            ("layer_norm", 1e-5, True, True),
            ("activation", "tanh", 0.0),
            ("dense", 40, True),
            ("layer_norm", 1e-3, True, False),
            ("layer_norm", 1e-3, False, True),
            ("dense", 5, True),
        ],
    ),
    "softmax": (
        7,
        [
            ("dense", 17, True),
            ("activation", "tanh", 0.0),
            ("softmax",),
            ("dense", 40, True),
            ("softmax",),
            ("activation", "sigmoid", 0.0),
            ("dense", 5, True),
        ],
    ),
    "softmax first and last": (
        33,
        [("softmax",), ("dense", 5, True), ("dropout", 0.2), ("softmax",)],
    ),
    "layer norm first and last": (
        33,
        [("layer_norm", 1e-5, False, False), ("dense", 130, True), ("layer_norm", 0.1, True, True)],
    ),
    "batch norm": (
        7,
        [
            ("dense", 40, False),
            ("batch_norm", 1e-3, True, True, 0.1),
            ("activation", "tanh", 0.0),
            ("dense", 17, True),
            ("batch_norm", 1e-2, False, False, 0.3),
            ("dense", 5, True),
        ],
    ),
    "batch norm first and last": (
        19,
        [
            ("batch_norm", 1e-2, True, False, 0.1),
            ("dense", 70, True),
            ("activation", "softplus", 0.0),
            ("dropout", 0.2),
            ("batch_norm", 0.1, False, True, 1.0),
        ],
    ),
    "residual": (
        7,
        [
            ("dense", 33, True),
            ("activation", "tanh", 0.0),  # fused, but not with what follows
            ("activation", "softplus", 0.0),
            ("dense", 20, True),
            ("dropout", 0.2),
            ("dense", 33, True),
            ("add", 4),
            ("batch_norm", 1e-3, True, True, 0.1),
            ("dense", 5, True),
        ],
    ),
    "normalize": (
        7,
        [("normalize",), ("dense", 33, True), ("activation", "gelu", 0.0), ("dense", 5, True)],
    ),
    "normalize elsewhere": (
        7,
        [
            ("activation", "tanh", 0.0),
            ("normalize",),
            ("normalize",),
            ("dense", 7, True),
            ("add", 2),
            ("normalize",),
        ],
    ),
    "normalize in residual": (
        9,
        [("normalize",), ("dense", 9, True), ("add", 2), ("dense", 3, False)],
    ),
    "residual in residual": (
        12,
        [
            ("activation", "tanh", 0.0),
            ("dense", 12, False),
            ("add", 1),
            ("activation", "silu", 0.0),
            ("add", 4),
            ("dense", 40, True),
            ("dropout", 0.3),  # idle in inference, and what it makes is added
            ("layer_norm", 1e-3, True, True),
            ("dense", 40, True),
            ("add", 2),
            ("add", 3),
        ],
    ),
}
ROWS = (2, 16, 33, 300, 1100)


def start(engine: Any) -> None:
    """Random parameters and state, the same for engine and oracle."""
    engine.state[...] = np.abs(sweeps.normal(9, "float64", engine.state.size)) + 0.1
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


@functools.cache  # the same for every instruction set and number of threads
def wanted_gradients(name: str, dtype: str, rows: int) -> tuple[float, Array, Array]:
    """The oracle's loss, gradient of the inputs and gradient of the parameters."""
    oracle, (x, y) = make(reference.Engine, name, dtype), data(name, rows, dtype)
    loss, dx = oracle.input_gradient(x, y)
    oracle.gradients(x, y)
    return loss, dx, oracle.gradients_


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_the_oracles(isa: str, name: str, dtype: str) -> None:
    """Loss, gradient of parameters and inputs, for some batch sizes, on one thread and on two."""
    for rows in ROWS:
        x, y = data(name, rows, dtype)
        wanted_loss, wanted_dx, wanted_gradient = wanted_gradients(name, dtype, rows)
        for threads in (1, 2):
            with machine.using_threads(threads):
                engine = make(_core.Engine, name, dtype)
                loss, dx = engine.input_gradient(x, y)
            limit = 64 * tolerances.unit(dtype) * (3 if dtype == "float64" else 1)
            what = f"{name}, {rows} rows, {threads} threads"
            assert abs(loss - wanted_loss) <= limit * abs(wanted_loss), what
            pairs = ((dx, wanted_dx), (engine.gradients_, wanted_gradient))
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
    assert engine.state_shapes == oracle.state_shapes
    if engine.state.size:
        assert tolerances.norm_error(engine.state, oracle.state) <= limit
    for training in (False, True):
        got, wanted = np.empty_like(y), np.empty_like(y)
        engine.predict(x, got, training)
        oracle.predict(x, wanted, training)
        assert np.abs(got - wanted).max() <= limit * np.abs(wanted).max()
    got, wanted = engine.evaluate(x, y, 16, ["mse"]), oracle.evaluate(x, y, 16, ["mse"])
    assert got[0] == pytest.approx(wanted[0], rel=limit)
    assert got[1] == pytest.approx(wanted[1], rel=limit)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NETWORKS)
def test_frozen_layers_stay_and_the_others_learn_as_the_oracles(name: str, dtype: str) -> None:
    """Every other layer frozen; then all; then none again."""
    x, y = data(name, 50, dtype)
    engine, oracle = (make(kind, name, dtype) for kind in (_core.Engine, reference.Engine))
    count = len(NETWORKS[name][1])
    limit = 256 * tolerances.unit(dtype)
    for pattern in ([k % 2 == 1 for k in range(count)], [False] * count, [True] * count):
        before = engine.parameters.copy(), engine.state.copy()
        for each in (engine, oracle):
            each.set_trainable(pattern)
            each.train(x, y, 16, 1, 0, True, 5, [])
            each.gradients(x, y)
        assert tolerances.norm_error(engine.parameters, oracle.parameters) <= limit
        difference = np.abs(engine.gradients_ - oracle.gradients_).max()
        assert difference <= limit * max(np.abs(oracle.gradients_).max(), 1e-3)
        if not any(pattern):
            sweeps.assert_same_bits(engine.parameters, before[0])
            sweeps.assert_same_bits(engine.state, before[1])
    for each in (engine, oracle):
        with pytest.raises(ValueError, match="layers"):
            each.set_trainable([True])


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


# Normalising layers


def test_norms_are_what_their_definition_says() -> None:
    """By hand on a few numbers: means, variances divided by n, gamma, beta, moving statistics."""
    x = np.array([[1.0, 2.0, 6.0], [3.0, -2.0, 2.0]])
    for kind, axis in (("layer_norm", 1), ("batch_norm", 0)):
        entry = (kind, 0.5, True, True) + ((0.25,) if kind == "batch_norm" else ())
        for engine in (
            kind_of(3, [entry], "float64") for kind_of in (_core.Engine, reference.Engine)
        ):
            gamma, beta = np.array([2.0, -1.0, 0.5]), np.array([0.0, 1.0, -3.0])
            engine.parameters[:6] = np.concatenate([gamma, beta])
            engine.state[...] = 0
            if kind == "batch_norm":
                engine.state[3:6] = 1
            out = np.empty_like(x)
            engine.predict(x, out, training=True)
            mean = x.mean(axis, keepdims=True)
            wanted = (x - mean) / np.sqrt(x.var(axis, keepdims=True) + 0.5) * gamma + beta
            assert np.abs(out - wanted).max() < 1e-14
            if kind == "layer_norm":
                continue
            engine.predict(x, out)
            assert np.abs(out - (x / np.sqrt(1.5) * gamma + beta)).max() < 1e-14
            engine.compile("mse", 0.0, "sgd", {"learning_rate": 0.0})
            engine.gradients(x, x)
            assert not engine.state[:3].any()  # nothing changes but by a step
            engine.step(x, x)
            assert np.abs(engine.state[:3] - 0.25 * mean).max() < 1e-14
            assert np.abs(engine.state[3:6] - (0.75 + 0.25 * x.var(0, ddof=1))).max() < 1e-14


@pytest.mark.parametrize("dtype", DTYPES)
def test_norms_of_large_means_and_constant_columns(isa: str, dtype: str) -> None:
    """Nothing cancels: columns of 1000 +- 1 come out as those of +-1, constants as beta."""
    rows = 333
    spread = np.sign(sweeps.normal(1, "float64", rows, 20))
    for entry in (("batch_norm", 1e-5, False, False, 0.1), ("layer_norm", 1e-5, False, False)):
        x = spread if entry[0] == "batch_norm" else spread.T.copy()
        engine = _core.Engine(x.shape[1], [entry], dtype)
        moved, out = (x + 1000).astype(dtype), np.empty(x.shape, dtype)
        engine.predict(moved, out, training=True)
        axis = 0 if entry[0] == "batch_norm" else 1
        wanted = (x - x.mean(axis, keepdims=True)) / np.sqrt(x.var(axis, keepdims=True) + 1e-5)
        assert np.abs(out - wanted).max() < 3000 * tolerances.unit(dtype)
        engine.predict(np.full_like(moved, 7), out, training=True)
        assert not out.any()


@pytest.mark.parametrize("layer", [bp.BatchNorm(), bp.LayerNorm(), bp.BatchNorm(scale=False)])
@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_a_model_with_norms(device: str, layer: bp.layers.Layer, tmp_path: Path) -> None:
    """Names, start, state, summary; training goes on after save and load as if never stopped; a row
    of a prediction does not depend on the others.
    """
    x, y = sweeps.normal(1, "float32", 100, 5) * 3 + 2, sweeps.normal(2, "float32", 100, 2)

    def model() -> bp.Sequential:
        made = bp.Sequential([bp.Dense(12), layer, bp.ReLU(), bp.Dense(2)], seed=3)
        made.compile(optimizer="adam", loss="mse", device=device)
        return made

    whole, halves = model(), model()
    halves.build(5)
    names = ["1.gamma", "1.beta"] if layer.scale else ["1.beta"]
    assert list(halves.parameters()) == ["0.kernel", "0.bias", *names, "3.kernel", "3.bias"]
    assert (halves.parameters()["1.beta"] == 0).all()
    assert not layer.scale or (halves.parameters()["1.gamma"] == 1).all()
    moving = [] if isinstance(layer, bp.LayerNorm) else ["1.moving_mean", "1.moving_variance"]
    assert list(halves.state()) == moving
    assert not moving or (halves.state()["1.moving_variance"] == 1).all()
    whole.fit(x, y, epochs=4, verbose=0, batch_size=33)
    halves.fit(x, y, epochs=2, verbose=0, batch_size=33)
    halves.save(tmp_path / "half.safetensors")
    loaded = bp.load(tmp_path / "half.safetensors", device=device)
    assert loaded.layers[1] == layer
    sweeps.assert_same_bits(loaded.predict(x), halves.predict(x))
    loaded.fit(x, y, epochs=2, verbose=0, batch_size=33)
    for ours, theirs in (
        (loaded.parameters(), whole.parameters()),
        (loaded.state(), whole.state()),
    ):
        for name, value in theirs.items():
            sweeps.assert_same_bits(ours[name], value)
    _, gradient = loaded.gradients(x, y)
    assert list(gradient) == list(loaded.parameters())
    lines: list[str] = []
    loaded.summary(lines.append)
    assert f"{12 * len(names)}" in next(line for line in lines if type(layer).__name__ in line)
    if device == "cpu":
        sweeps.assert_same_bits(loaded.predict(x[3:4]), loaded.predict(x)[3:4])
        moved = loaded.predict(x)
        loaded.compile(optimizer="adam", loss="mse", device="reference", dtype="float64")
        assert np.abs(loaded.predict(x) - moved).max() < 1e-5  # its state moves with it
        assert loaded.device == "reference"
        loaded.compile(optimizer="adam", loss="mse", device="cpu", dtype="float32")
        assert loaded.device == "cpu"
        loaded.append(bp.Dense(2))
        assert loaded.predict(x).shape == (100, 2)


def test_freezing_layers_of_a_model(tmp_path: Path) -> None:
    """Frozen parameters and statistics keep their bits through fit; the head learns; the choice is
    saved.
    """
    x, y = sweeps.normal(1, "float32", 96, 5), sweeps.normal(2, "float32", 96, 2)
    model = bp.Sequential([bp.Dense(12, "relu"), bp.BatchNorm(), bp.Dense(2)], seed=1)
    model.compile(optimizer="adamw", loss="mse")
    model.freeze(upto=2)
    model.fit(x, y, epochs=1, verbose=0)
    before = {name: value.copy() for name, value in (model.parameters() | model.state()).items()}
    assert list(model.gradients(x, y)[1]) == ["2.kernel", "2.bias"]
    model.fit(x, y, epochs=2, verbose=0)
    after = model.parameters() | model.state()
    for name, value in before.items():
        assert np.array_equal(after[name], value) == (not name.startswith("2.")), name
    model.save(tmp_path / "frozen.safetensors")
    assert bp.load(tmp_path / "frozen.safetensors").frozen == (0, 1)
    model.freeze(layers=[2])
    model.fit(x, y, epochs=1, verbose=0)
    assert not np.array_equal(model.parameters()["0.kernel"], before["0.kernel"])
    assert not np.array_equal(model.state()["1.moving_mean"], before["1.moving_mean"])
    model.freeze(0)
    assert model.frozen == ()
    for wrong in (-1, 4):
        with pytest.raises(ValueError, match="upto"):
            model.freeze(wrong)
    with pytest.raises(ValueError, match="layers"):
        model.freeze(layers=[3])
    with pytest.raises(TypeError, match="either"):
        model.freeze()


def test_wrong_arguments_of_norms() -> None:
    for make_layer in (bp.LayerNorm, bp.BatchNorm):
        with pytest.raises(ValueError, match="epsilon"):
            make_layer(epsilon=-1.0)
        with pytest.raises(TypeError, match="center"):
            make_layer(center=1)
    for momentum in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match="momentum"):
            bp.BatchNorm(momentum=momentum)
    norm = bp.BatchNorm()
    with pytest.raises(ValueError, match="twice"):
        bp.Sequential([bp.Dense(2), norm, norm])
    for engine in (_core.Engine, reference.Engine):
        for entry in (("layer_norm", -1.0, True, True), ("batch_norm", 1e-5, True, True, 2.0)):
            with pytest.raises(ValueError, match="epsilon"):
                engine(2, [entry], "float32")


# Residual, Flatten


@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_a_model_with_residual_blocks(device: str, tmp_path: Path) -> None:
    """Names, a prediction by hand, summary, save and load, training goes on."""
    x, y = sweeps.normal(1, "float32", 100, 6), sweeps.normal(2, "float32", 100, 2)
    block = bp.Residual([bp.Dense(9, "tanh"), bp.Residual([bp.BatchNorm()]), bp.Dense(6)])
    model = bp.Sequential([block, bp.ReLU(), bp.Dense(2)], seed=4)
    model.compile(optimizer="adam", loss="mse", device=device)
    model.fit(x, y, epochs=1, verbose=0)
    p, state = model.parameters(), model.state()
    assert [name for name in p if name.endswith(("kernel", "gamma"))] == [
        "0.0.kernel",
        "0.1.0.gamma",
        "0.2.kernel",
        "2.kernel",
    ]
    assert list(state) == ["0.1.0.moving_mean", "0.1.0.moving_variance"]
    inner = np.tanh(x @ p["0.0.kernel"] + p["0.0.bias"])
    normal = (inner - state["0.1.0.moving_mean"]) / np.sqrt(state["0.1.0.moving_variance"] + 1e-5)
    inner = inner + normal * p["0.1.0.gamma"] + p["0.1.0.beta"]
    hidden = np.maximum(x + inner @ p["0.2.kernel"] + p["0.2.bias"], 0)
    wanted = hidden @ p["2.kernel"] + p["2.bias"]
    assert np.abs(model.predict(x) - wanted).max() < 1e-5
    model.save(tmp_path / "residual.safetensors")
    loaded = bp.load(tmp_path / "residual.safetensors", device=device)
    assert loaded.layers == model.layers
    for each in (model, loaded):
        each.freeze(upto=1)
        assert list(each.gradients(x, y)[1]) == ["2.kernel", "2.bias"]
        each.freeze(0)
        each.fit(x, y, epochs=1, verbose=0)
    for name, value in model.parameters().items():
        sweeps.assert_same_bits(loaded.parameters()[name], value)
    lines: list[str] = []
    model.summary(lines.append)
    assert any(line.startswith("0.1.0 BatchNorm") for line in lines)
    total = f"6 inputs, {sum(v.size for v in p.values()):,} parameters"
    assert any(line.startswith(total) for line in lines)


def test_wrong_residual_blocks() -> None:
    with pytest.raises(ValueError, match="at least one"):
        bp.Residual([])
    with pytest.raises(TypeError, match="list"):
        bp.Residual(bp.Dense(2))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="layer objects"):
        bp.Residual([3])  # type: ignore[list-item]
    dense = bp.Dense(3)
    with pytest.raises(ValueError, match="twice"):
        bp.Residual([dense, bp.Residual([dense])])
    with pytest.raises(ValueError, match="twice"):
        bp.Sequential([dense, bp.Residual([dense])])
    with pytest.raises(ValueError, match=r"end it in Dense\(4\)"):
        bp.Sequential([bp.Dense(4), bp.Residual([bp.Dense(3)])])
    model = bp.Sequential([bp.Residual([bp.Dense(3)]), bp.Dense(1)])
    with pytest.raises(ValueError, match=r"end it in Dense\(4\)"):
        model.build(4)
    assert model.inputs is None
    for engine in (_core.Engine, reference.Engine):
        with pytest.raises(ValueError, match="span"):
            engine(4, [("dense", 4, True), ("add", 2)], "float32")
        with pytest.raises(ValueError, match="as many outputs"):
            engine(4, [("dense", 3, True), ("add", 1)], "float32")


def test_flatten_takes_rows_of_any_shape(tmp_path: Path) -> None:
    """As if X had been reshaped, in every method; saved with the model; refused elsewhere."""
    images = sweeps.normal(1, "float32", 30, 4 * 3 * 2).reshape(30, 4, 3, 2)
    flat, y = images.reshape(30, 24), np.arange(30) % 3
    layers = [bp.Dense(8, "relu"), bp.Dense(3)]
    shaped, plain = bp.Sequential([bp.Flatten(), *layers], seed=1), bp.Sequential(layers, seed=1)
    for model, x in ((shaped, images), (plain, flat)):
        model.compile(loss="softmax_cross_entropy", metrics=["accuracy"])
        model.fit(x, y, epochs=2, validation_split=0.2, verbose=0)
        model.step(x, y)
    sweeps.assert_same_bits(shaped.predict(images), plain.predict(flat))
    sweeps.assert_same_bits(shaped.predict(flat), plain.predict(flat))
    sweeps.assert_same_bits(shaped.forward(images, training=True), plain.predict(flat))
    assert shaped.evaluate(images, y) == plain.evaluate(flat, y)
    assert next(iter(shaped.parameters())) == "1.kernel"
    shaped.save(tmp_path / "flat.safetensors")
    sweeps.assert_same_bits(
        bp.load(tmp_path / "flat.safetensors").predict(images), plain.predict(flat)
    )
    with pytest.raises(ValueError, match="24"):
        shaped.predict(images[:, :3])
    with pytest.raises(ValueError, match="Flatten"):
        plain.predict(images)
    with pytest.raises(ValueError, match="first"):
        bp.Sequential([bp.Dense(2), bp.Flatten()])
    with pytest.raises(ValueError, match="first"):
        bp.Residual([bp.Flatten()])


def test_the_best_weights_come_back_with_their_statistics() -> None:
    x, y = sweeps.normal(1, "float32", 64, 4), sweeps.normal(2, "float32", 64, 1)
    model = bp.Sequential([bp.Dense(8), bp.BatchNorm(), bp.Dense(1)], seed=2)
    model.compile(optimizer=bp.SGD(0.5), loss="mse")
    stopping = bp.EarlyStopping(monitor="val_loss", patience=2)
    history = model.fit(
        x, y, epochs=20, validation_data=(x[:20], y[:20]), callbacks=stopping, verbose=0
    )
    best = min(history.history["val_loss"])
    assert model.evaluate(x[:20], y[:20])["loss"] == pytest.approx(best, rel=1e-6)


# Normalize


@pytest.mark.parametrize("method", ["standard", "minmax"])
@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_a_model_that_normalizes_its_inputs(device: str, method: str, tmp_path: Path) -> None:
    """As if X had been normalised before; saved with the model; the input gradient is of the raw X;
    training changes nothing of it.
    """
    x = sweeps.normal(1, "float64", 90, 6) * [1, 10, 100, 0.1, 3, 0] + [5, -3, 0, 2, 100, 7]
    y = sweeps.normal(2, "float64", 90, 2)
    norm = bp.Normalize(method).adapt(x)
    low, spread = x.min(0), np.ptp(x, 0)
    center, scale = (x.mean(0), x.std(0)) if method == "standard" else (low, spread)
    scale = np.where(scale < 1e-12, 1, scale)
    assert np.allclose(norm.center, center) and np.allclose(norm.scale, scale)
    assert np.allclose(norm.inverse((x - center) / scale), x)

    def trained(layers: list[bp.layers.Layer], data: Array) -> bp.Sequential:
        model = bp.Sequential([*layers, bp.Dense(16, "tanh"), bp.Dense(2)], seed=5)
        model.compile(optimizer="sgd", loss="mse", device=device, dtype="float64")
        model.fit(data, y, epochs=3, verbose=0)
        return model

    raw, prepared = trained([norm], x), trained([], (x - center) / scale)
    assert np.abs(raw.predict(x) - prepared.predict((x - center) / scale)).max() < 1e-12
    _, dx = raw.input_gradient(x, y)
    _, dprepared = prepared.input_gradient((x - center) / scale, y)
    assert np.abs(dx - dprepared / scale).max() < 1e-12
    assert next(iter(raw.parameters())) == "1.kernel" and raw.state() == {}
    raw.save(tmp_path / "norm.safetensors")
    loaded = bp.load(tmp_path / "norm.safetensors", device=device)
    assert loaded.layers[0] == norm
    sweeps.assert_same_bits(loaded.predict(x), raw.predict(x))
    loaded.compile(loss="mse", device=device, dtype="float32")
    assert np.abs(loaded.predict(x) - raw.predict(x)).max() < 1e-4


def test_normalize_learns_from_integers_without_overflow() -> None:
    x = np.random.default_rng(0).integers(0, 256, (9000, 3)).astype(np.uint8)
    wide = x.astype(np.float64)
    standard, minmax = bp.Normalize().adapt(x), bp.Normalize("minmax").adapt(x)
    assert np.allclose(standard.center, wide.mean(0)) and np.allclose(standard.scale, wide.std(0))
    assert minmax.center == (0, 0, 0) and minmax.scale == (255, 255, 255)
    signed = np.array([[-128], [127]], np.int8)
    assert bp.Normalize("minmax").adapt(signed).scale == (255,)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("rows", [1, 3, 10, 1000, 9001])
def test_a_constant_column_has_scale_1(rows: int, dtype: str) -> None:
    """Exactly: a rounded mean would leave deviations of 1e-17, and make 1 of noise and 1e16 of the
    first other value.
    """
    values = np.array([0.1, 1 / 3, 1e10 / 3, 123456.789, -1e-30, 1e30 / 3]).astype(dtype)
    x = np.tile(values, (rows, 1))
    norm = bp.Normalize().adapt(x)
    assert norm.scale == (1.0,) * 6 and norm.center == tuple(x[0].astype(float))


def test_normalize_of_very_large_and_small_numbers() -> None:
    x = np.array([[1e200, 2e-200, 1.7e308], [-1e200, 4e-200, -1.7e308]])
    norm = bp.Normalize().adapt(x)
    assert np.allclose(norm.scale, [1e200, 1e-200, 1.7e308], rtol=1e-12)
    assert np.allclose(norm.center, [0, 3e-200, 0], rtol=1e-12)
    with pytest.raises(ValueError, match="column 2 spans more than float64 holds"):
        bp.Normalize("minmax").adapt(x)


@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_normalize_with_numbers_beyond_the_dtype_is_refused(device: str) -> None:
    """1 / scale would be infinite, and every row at the center NaN."""
    model = bp.Sequential([bp.Normalize(center=[0, 0], scale=[1, 1e-40]), bp.Dense(1)], seed=0)
    model.compile(loss="mse", device=device, dtype="float32")
    with pytest.raises(ValueError, match="factor 1e\\+40 in column 1, which float32"):
        model.build(2)
    model.compile(loss="mse", device=device, dtype="float64")
    model.build(2)
    before = model.predict([[3, 2e-40]])
    with pytest.raises(ValueError, match="float32 cannot hold"):
        model.compile(loss="mse", device=device, dtype="float32")
    assert model.dtype == "float64"
    sweeps.assert_same_bits(model.predict([[3, 2e-40]]), before)


def test_wrong_uses_of_normalize() -> None:
    with pytest.raises(ValueError, match="method"):
        bp.Normalize("robust")
    with pytest.raises(ValueError, match="both"):
        bp.Normalize(center=[1.0])
    for scale in ([0.0], [1.0, 2.0]):
        with pytest.raises(ValueError, match="scale"):
            bp.Normalize(center=[1.0], scale=scale)
    with pytest.raises(TypeError, match="center"):
        bp.Normalize(center=3, scale=[1.0])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="column 1"):
        bp.Normalize().adapt([[1.0, np.nan], [2.0, 3.0]])
    for shape in ((3,), (0, 2), (2, 2, 2)):
        with pytest.raises(ValueError, match="shape"):
            bp.Normalize().adapt(np.zeros(shape))
    model = bp.Sequential([bp.Normalize(), bp.Dense(1)])
    with pytest.raises(ValueError, match="adapt"):
        model.build(2)
    with pytest.raises(ValueError, match="adapt"):
        bp.Normalize().inverse([1.0])
    adapted = bp.Sequential([bp.Normalize().adapt(np.eye(3)), bp.Dense(1)])
    with pytest.raises(ValueError, match="3 columns"):
        adapted.build(2)
