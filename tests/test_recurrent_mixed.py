"""Recurrent layers among the others: dropout, normalisation, residual blocks, frozen layers.

The engine against its twin, the twin against central differences; what is refused, in words.
"""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fastbp as bp
from fastbp import _core, reference
from fastbp.layers import Layer

Array = NDArray[Any]
SGD = {"learning_rate": 0.1, "weight_decay": 0.0}

# Layers as an engine of three inputs takes them.
NETWORKS: dict[str, list[tuple[Any, ...]]] = {
    "normalisation and dropout": [
        ("normalize",),
        ("dense", 20, True),
        ("scan", "lstm", 5, True, True, False),
        ("layer_norm", 1e-3, True, True),
        ("dropout", 0.3),
        ("dense", 12, True),
        ("scan", "gru", 4, True, False, True),
        ("layer_norm", 1e-3, True, True),
        ("dense", 2, True),
    ],
    "dropout first, normalisation last": [
        ("dropout", 0.2),
        ("layer_norm", 1e-2, False, True),
        ("dense", 6, True),
        ("scan", "rnn_tanh", 6, True, True, False),
        ("dense", 2, False),
        ("layer_norm", 1e-2, True, False),
    ],
    "residual": [
        ("dense", 4, True),
        ("activation", "tanh", 0.0),
        ("dense", 16, True),
        ("scan", "lstm", 4, True, True, True),
        ("dropout", 0.25),
        ("add", 3),
        ("dense", 12, False),
        ("scan", "gru", 4, False, True, False),
        ("add", 2),
        ("layer_norm", 1e-3, True, True),
        ("dense", 2, True),
    ],
    "residual of the input": [
        ("normalize",),
        ("dense", 9, True),
        ("scan", "gru", 3, True, True, False),
        ("add", 3),
        ("dense", 4, True),
        ("scan", "rnn_relu", 4, True, False, False),
        ("dense", 2, True),
    ],
}
FROZEN = {
    name: [[], [1], [1, 2], list(range(len(layers) - 1))] for name, layers in NETWORKS.items()
}


def engine_of(make: Any, name: str, dtype: str, frozen: list[int] = []) -> Any:  # noqa: B006
    layers = NETWORKS[name]
    engine = make(3, layers, dtype, 11, True)
    rng = np.random.default_rng(5)
    for offset, rows, cols, has_bias in engine.parameter_shapes:
        size = (rows + has_bias) * cols
        engine.parameters[offset : offset + size] = rng.normal(0, 0.5, size)
    engine.state[...] = rng.uniform(0.5, 1.5, engine.state.shape)
    engine.set_trainable([place not in frozen for place in range(len(layers))])
    engine.compile("mse", 0.0, "sgd", SGD)
    return engine


def data(name: str, n: int, steps: int, dtype: str) -> tuple[Array, Array]:
    rng = np.random.default_rng(n)
    sequence = all(entry[4] for entry in NETWORKS[name] if entry[0] == "scan")
    shape = (n, steps, 2) if sequence else (n, 2)
    return rng.normal(size=(n, steps, 3)).astype(dtype), rng.normal(size=shape).astype(dtype)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("n", "steps"), [(1, 1), (7, 5), (70, 3)])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_engine_is_the_twin(name: str, dtype: str, n: int, steps: int) -> None:
    x, y = data(name, n, steps, dtype)
    for frozen in FROZEN[name]:
        results = []
        for make in (_core.Engine, reference.Engine):
            engine = engine_of(make, name, dtype, frozen)
            out, dropped = np.empty_like(y), np.empty_like(y)
            engine.predict(x, out)
            engine.predict(x, dropped, training=True)
            loss = engine.gradients(x, y)
            gradient = engine.gradients_.copy()
            dx = engine.input_gradient(x, y)[1]
            engine.train(x, y, 32, 1, 0, True, 5, [])
            results.append([out, dropped, loss, gradient, dx, engine.parameters.copy()])
        for ours, theirs in zip(*results, strict=True):
            tolerance = 1e-11 if dtype == "float64" else 2e-5
            np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", NETWORKS)
def test_twin_against_central_differences(name: str) -> None:
    x, y = data(name, 4, 3, "float64")
    engine = engine_of(reference.Engine, name, "float64")
    engine.gradients(x, y)
    gradient, dx = engine.gradients_.copy(), engine.input_gradient(x, y)[1]
    h = 1e-5
    for array, slopes in ((engine.parameters, gradient), (x, dx)):
        flat, expected = array.reshape(-1), slopes.reshape(-1)
        for place in np.random.default_rng(0).permutation(flat.size)[:40]:
            kept, ends = flat[place], []
            for moved in (kept + h, kept - h):
                flat[place] = moved
                ends.append(engine.gradients(x, y))
            flat[place] = kept
            slope = (ends[0] - ends[1]) / (2 * h)
            assert abs(slope - expected[place]) < 1e-7 * max(1.0, abs(slopes).max()), place


def test_frozen_recurrent_layers_stay() -> None:
    x, y = data("residual of the input", 40, 6, "float32")
    layers: list[Layer] = [bp.LSTM(6, return_sequences=True), bp.GRU(5), bp.Dense(2)]
    model = bp.Sequential(layers, seed=1)
    model.compile(optimizer="adam", loss="mse")
    model.build(3)
    model.freeze(1)
    before = {name: value.copy() for name, value in model.parameters().items()}
    model.fit(x, y, epochs=2, verbose=0)
    for name, value in model.parameters().items():
        assert (value == before[name]).all() == name.startswith("0."), name


def test_batch_norm_is_refused() -> None:
    model = bp.Sequential([bp.LSTM(4), bp.Residual([bp.BatchNorm()]), bp.Dense(1)], seed=0)
    model.compile(loss="mse")
    with pytest.raises(ValueError, match=r"layer 1\.0, .*BatchNorm.* use LayerNorm"):
        model.build(2)
    for make in (_core.Engine, reference.Engine):
        with pytest.raises(ValueError, match="no 'batch_norm' in a network of sequences"):
            make(2, [("batch_norm", 1e-3, True, True, 0.1), ("dense", 1, True)], "float32", 0, True)


def test_residual_of_the_last_step_is_refused() -> None:
    model = bp.Sequential([bp.Residual([bp.LSTM(2)]), bp.Dense(1)], seed=0)
    model.compile(loss="mse")
    with pytest.raises(ValueError, match="give the recurrent layer in it return_sequences=True"):
        model.build(2)
    layers = [("dense", 2, True), ("scan", "rnn_tanh", 2, True, False, False), ("add", 2)]
    for make in (_core.Engine, reference.Engine):
        with pytest.raises(ValueError, match="an output for every step"):
            make(2, layers, "float32", 0, True)


def test_flatten_is_refused() -> None:
    model = bp.Sequential([bp.Flatten(), bp.LSTM(2), bp.Dense(1)], seed=0)
    model.compile(loss="mse")
    with pytest.raises(ValueError, match="Flatten makes one row"):
        model.build(2)


def test_a_residual_of_recurrent_layers_is_saved(tmp_path: Any) -> None:
    x, y = data("residual", 20, 4, "float32")
    block = bp.Residual([bp.LSTM(3, return_sequences=True), bp.Dropout(0.1), bp.LayerNorm()])
    model = bp.Sequential([block, bp.Dense(2)], seed=1)
    model.compile(loss="mse")
    model.fit(x, y, verbose=0)
    assert "0.0.recurrent_kernel" in model.parameters()
    model.save(tmp_path / "model.safetensors")
    again = bp.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(again.predict(x), model.predict(x))
    model.fit(x, y, verbose=0)
    again.fit(x, y, verbose=0)
    np.testing.assert_array_equal(again.predict(x), model.predict(x))


def test_a_network_of_a_recurrent_layer_alone() -> None:
    model = bp.Sequential([bp.GRU(2)], seed=0)
    model.compile(loss="mse")
    model.fit(np.zeros((4, 3, 2)), np.zeros((4, 2)), verbose=0)
    assert model.predict(np.zeros((4, 3, 2))).shape == (4, 2)
