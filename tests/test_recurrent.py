"""Recurrent layers: the engine against its twin, its bits, and what a user does with a Sequential.

The twin itself is judged by tests/test_recurrent_reference.py.
"""

import hashlib
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fastbp as bp
import machine
from fastbp import _core, reference
from fastbp.layers import Layer
from fastbp.reference.recurrent import CELLS

Array = NDArray[Any]
ADAM = {
    "learning_rate": 0.01,
    "beta_1": 0.9,
    "beta_2": 0.999,
    "epsilon": 1e-7,
    "weight_decay": 0.0,
}


# The last two: a part of so many sequences walks in pieces; weights that lie by panels.
SHAPES = [(1, 1, 1), (3, 5, 7), (40, 4, 2), (100, 3, 17), (60, 3, 24), (9, 7, 67)]


def stack(cell: str, units: int, sequence: bool, reverse: bool, two: bool) -> list[Any]:
    """A recurrent layer, perhaps a GELU and an LSTM in the other direction, and a dense one."""
    layers: list[Any] = [("dense", CELLS[cell].gates * units, True)]
    layers.append(("scan", cell, units, True, sequence or two, reverse))
    if two:
        layers += [("activation", "gelu", 0.0), ("dense", 20, False)]
        layers.append(("scan", "lstm", 5, True, sequence, not reverse))
    return [*layers, ("dense", 3, True)]


def fill(engine: Any, seed: int, scale: float = 0.5) -> Array:
    """Random parameters; the places that are parameters."""
    used = np.zeros(engine.parameters.shape, bool)
    for offset, rows, cols, has_bias in engine.parameter_shapes:
        used[offset : offset + (rows + has_bias) * cols] = True
    values = np.random.default_rng(seed).normal(0, scale, used.shape)
    engine.parameters[used] = values[used]
    return used


@pytest.mark.parametrize("cell", sorted(CELLS))
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("n", "steps", "units"), SHAPES)
def test_engine_is_the_twin(cell: str, dtype: str, n: int, steps: int, units: int) -> None:
    rng = np.random.default_rng(n)
    tolerance = {"rtol": 0, "atol": 1e-11 if dtype == "float64" else 1e-5}
    for sequence, reverse, two in product((False, True), repeat=3):
        layers = stack(cell, units, sequence, reverse, two)
        engines = [make(2, layers, dtype, 3, True) for make in (_core.Engine, reference.Engine)]
        x: Any = rng.normal(size=(n, steps, 2)).astype(dtype)
        y = rng.integers(0, 3, (n, steps) if sequence else n)
        if not sequence and n > 3:
            x = (x, rng.integers(1, steps + 1, n))
        results = []
        for engine in engines:
            used = fill(engine, 7, min(0.5, 4 / units))  # a wide ReLU's states would grow
            engine.compile("softmax_cross_entropy", 0.0, "adam", ADAM)
            out = np.empty((*y.shape, 3), dtype)
            engine.predict(x, out)
            loss = engine.gradients(x, y)
            gradient = engine.gradients_[used].copy()
            dx = engine.input_gradient(x, y)[1]
            measured = engine.evaluate(x, y, max(16, n // 2 - 1), ["mse"])  # the last has a few
            losses, _ = engine.train(x, y, 32, 1, 1, True, 5, ["mse"])  # the run's second epoch
            results.append([out, loss, gradient, dx, measured[0], measured[1][0], losses])
        for ours, theirs in zip(*results, strict=True):
            np.testing.assert_allclose(ours, theirs, **tolerance)


def test_equal_lengths_are_no_lengths() -> None:
    x = np.random.default_rng(0).normal(size=(20, 6, 2))
    outputs = []
    for given in (x, (x, np.full(20, 6))):
        engine = _core.Engine(2, stack("gru", 4, False, False, False), "float64", 0, True)
        fill(engine, 1)
        out = np.empty((20, 3))
        engine.predict(given, out)
        outputs.append(out)
    np.testing.assert_array_equal(outputs[0], outputs[1])


def test_what_lies_behind_the_end_does_not_count() -> None:
    rng = np.random.default_rng(0)
    x, lengths = rng.normal(size=(20, 6, 2)), rng.integers(1, 7, 20)
    spoiled = x.copy()
    spoiled[np.arange(6) >= lengths[:, None]] = np.nan
    engine = _core.Engine(2, stack("lstm", 4, False, True, False), "float64", 0, True)
    fill(engine, 1)
    engine.compile("softmax_cross_entropy", 0.0, "sgd", {"learning_rate": 0.1})
    seen = []
    for values in (x, spoiled):
        engine.gradients((values, lengths), np.zeros(20, np.int64))
        seen.append(engine.gradients_.copy())
    assert np.isfinite(seen[0]).all()
    np.testing.assert_array_equal(seen[0], seen[1])


@pytest.mark.parametrize("value", [np.inf, np.nan, -0.0])
@pytest.mark.parametrize("cell", sorted(CELLS))
def test_states_of_zero_go_through_the_product(cell: str, value: float) -> None:
    """Nothing given and zeros given are the same bits, whatever the recurrent kernel and its bias;
    and 0 times infinity is no number, as the twin has it."""
    n, units = 11, 5
    x = np.random.default_rng(0).normal(size=(n, 2, 2))
    for steps, reverse in product((1, 2), (False, True)):
        layers = stack(cell, units, False, reverse, False)
        outputs = []
        for make, given in product((_core.Engine, reference.Engine), (False, True)):
            engine = make(2, layers, "float64", 0, True)
            fill(engine, 1)
            offset, rows, cols, has_bias = engine.parameter_shapes[1]
            if value == 0.0:
                engine.parameters[offset + rows * cols : offset + (rows + has_bias) * cols] = value
            else:
                engine.parameters[offset + 1] = value
            states = np.zeros((n, engine.carried_width)) if given else None
            out = np.empty((n, 3))
            engine.predict((np.ascontiguousarray(x[:, :steps]), None, states), out)
            outputs.append(out)
        none, zeros, *twins = outputs
        assert none.tobytes() == zeros.tobytes()
        assert np.isnan(none).all() == (value != 0.0)
        for twin in twins:
            np.testing.assert_allclose(none, twin, rtol=0, atol=1e-11)


def trained(layer: type[Layer], dtype: str) -> str:
    """A digest of what training leaves and predicts."""
    x = np.random.default_rng(0).normal(size=(150, 7, 3)).astype(dtype)
    # Weights that lie by panels; a layer in whose parts sequences walk in pieces.
    layers = [layer(67, return_sequences=True), bp.Dropout(0.2), layer(24), bp.Dense(1)]
    model = bp.Sequential(layers, seed=3)
    model.compile(optimizer="adam", loss="mse", dtype=dtype)
    model.fit(x, x.sum(axis=(1, 2))[:, None], epochs=2, batch_size=64, verbose=0)
    whole = model.predict(x)
    np.testing.assert_array_equal(model.predict(x[31:32]), whole[31:32])
    values = [whole, *model.parameters().values()]
    return hashlib.sha256(b"".join(value.tobytes() for value in values)).hexdigest()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layer", [bp.SimpleRNN, bp.LSTM, bp.GRU])
def test_bits_do_not_depend_on_threads_or_isa(layer: type[Layer], dtype: str) -> None:
    results = set()
    for threads in machine.THREADS:
        with machine.using_threads(threads):
            results |= set(machine.on_every_isa(lambda: trained(layer, dtype)).values())
    assert len(results) == 1


def parity(n: int, steps: int) -> tuple[Array, Array]:
    bits = np.random.default_rng(0).integers(0, 2, (n, steps, 1))
    return bits.astype(np.float32), bits.sum(axis=(1, 2)) % 2


def test_lstm_learns_the_parity_of_eight_bits(tmp_path: Path) -> None:
    x, y = parity(512, 8)
    model = bp.Sequential([bp.LSTM(16), bp.Dense(1)], seed=1)
    model.compile(
        optimizer=bp.Adam(0.02), loss="binary_cross_entropy_with_logits", metrics=["accuracy"]
    )
    history = model.fit(x, y[:, None], epochs=100, verbose=0)
    assert history.history["accuracy"][-1] == 1
    model.save(tmp_path / "parity.safetensors")
    again = bp.load(tmp_path / "parity.safetensors")
    np.testing.assert_array_equal(again.predict(x), model.predict(x))


@pytest.mark.parametrize("layer", [bp.SimpleRNN(32, return_sequences=True), bp.GRU(8, True)])
def test_delayed_echo(layer: Layer, device: str) -> None:
    """An output at every step: the bit of two steps before."""
    x, _ = parity(256, 8)
    echo = np.zeros((256, 8), np.int64)
    echo[:, 2:] = x[:, :-2, 0]
    model = bp.Sequential([layer, bp.Dense(2)], seed=1)
    loss = "softmax_cross_entropy"
    model.compile(optimizer=bp.Adam(0.01), loss=loss, metrics=["accuracy"], device=device)
    model.fit(x, echo, epochs=40, validation_split=0.25, verbose=0)
    assert model.evaluate(x, echo)["accuracy"] > 0.98
    assert model.predict(x).shape == (256, 8, 2)
    np.testing.assert_allclose(model.predict_proba(x).sum(axis=-1), 1, rtol=1e-5)
    assert (model.predict_class(x) == echo).mean() > 0.98


def test_parameters_and_their_start() -> None:
    model = bp.Sequential([bp.LSTM(4, return_sequences=True), bp.GRU(3), bp.Dense(1)], seed=0)
    model.compile(optimizer="adam", loss="mse")
    model.build(2)
    shapes = {name: value.shape for name, value in model.parameters().items()}
    assert shapes == {
        "0.kernel": (2, 16),
        "0.bias": (16,),
        "0.recurrent_kernel": (4, 16),
        "1.kernel": (4, 9),
        "1.bias": (9,),
        "1.recurrent_kernel": (3, 9),
        "1.recurrent_bias": (9,),
        "2.kernel": (3, 1),
        "2.bias": (1,),
    }
    recurrent = model.parameters()["0.recurrent_kernel"]
    np.testing.assert_allclose(recurrent @ recurrent.T, np.eye(4), atol=1e-6)
    assert model.parameters()["0.bias"].tolist() == [0] * 4 + [1] * 4 + [0] * 8


BAD = [
    ((4, 2), ValueError, r"X must have shape \(sequences, steps, 2\); got shape \(4, 2\)"),
    ((4, 0, 2), ValueError, "without a step"),
    ((4, 5, 3), ValueError, "X has 3 columns, but the network takes 2"),
]


@pytest.mark.parametrize(("shape", "error", "message"), BAD)
def test_wrong_shapes(shape: tuple[int, ...], error: type[Exception], message: str) -> None:
    model = bp.Sequential([bp.LSTM(4), bp.Dense(1)], seed=0)
    model.compile(optimizer="adam", loss="mse")
    model.build(2)
    before = [value.copy() for value in model.parameters().values()]
    with pytest.raises(error, match=message):
        model.fit(np.zeros(shape), np.zeros((4, 1)), verbose=0)
    for old, new in zip(before, model.parameters().values(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_nan_is_named_by_row_step_and_column() -> None:
    x = np.zeros((3, 4, 2))
    x[2, 1, 0] = np.nan
    model = bp.Sequential([bp.GRU(4), bp.Dense(1)], seed=0)
    model.compile(optimizer="adam", loss="mse")
    with pytest.raises(ValueError, match="X has NaN at row 2, step 1, column 0"):
        model.fit(x, np.zeros((3, 1)), verbose=0)


def test_a_recurrent_layer_behind_the_last_step() -> None:
    model = bp.Sequential([bp.LSTM(4), bp.GRU(3), bp.Dense(1)], seed=0)
    model.compile(optimizer="adam", loss="mse")
    with pytest.raises(ValueError, match="give the recurrent layer before it return_sequences"):
        model.fit(np.zeros((3, 4, 2)), np.zeros((3, 1)), verbose=0)


@pytest.mark.parametrize("make", [_core.Engine, reference.Engine])
def test_lengths_are_checked(make: Any) -> None:
    engine = make(2, stack("lstm", 4, False, False, False), "float64", 0, True)
    x, out = np.zeros((3, 5, 2)), np.empty((3, 3))
    for lengths, message in [
        (np.array([1, 6, 2]), r"lengths\[1\] = 6 is not a length from 1 to 5"),
        (np.array([0, 5, 2]), r"lengths\[0\] = 0 is not a length from 1 to 5"),
        (np.array([5, 5]), r"lengths: expected shape \(3,\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            engine.predict((x, lengths), out)
