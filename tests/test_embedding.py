"""Embedding: the engine against the oracle, and against one-hot rows times a table.

The latter, a Dense layer without bias, is the same function, and its gradient that of the table.
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
DEVICES = ["cpu", "reference"]
ENTRIES, COLUMNS = 19, 3
# Entries narrower and wider than a vector and than a worker's share of columns.
WIDTHS = (1, 5, 16, 70)


def engine_of(kind: Any, dtype: str, width: int, optimizer: str = "adam") -> Any:
    layers = [("embedding", ENTRIES, width), ("activation", "tanh", 0.0), ("dense", 4, True)]
    engine = kind(COLUMNS, layers, dtype)
    for k, (offset, rows, cols, bias) in enumerate(engine.parameter_shapes):
        block = engine.parameters[offset : offset + (rows + bias) * cols]
        block[...] = sweeps.normal(k, dtype, block.size) / 3
    hyper = {"learning_rate": 0.02, "momentum": 0.9}
    if optimizer == "adam":
        hyper = {"learning_rate": 0.02, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-6}
    engine.compile("mse", 0.0, optimizer, hyper)
    return engine


def data(dtype: str, rows: int) -> tuple[Array, Array]:
    """Some entries are read often, some never."""
    numbers = np.random.default_rng(3).integers(0, ENTRIES - 2, (rows, COLUMNS)) // 2 * 2
    return numbers.astype(dtype), sweeps.normal(2, dtype, rows, 4)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("rows", [1, 17, 700])
def test_the_engine_follows_the_oracle(isa: str, rows: int, width: int, dtype: str) -> None:
    x, y = data(dtype, rows)
    engine, oracle = (engine_of(k, dtype, width) for k in (_core.Engine, reference.Engine))
    limit = 300 * tolerances.unit(dtype)
    losses = [e.gradients(x, y) for e in (engine, oracle)]
    assert losses[0] == pytest.approx(losses[1], rel=limit)
    assert tolerances.norm_error(engine.gradients_, oracle.gradients_) <= limit
    for e in (engine, oracle):
        e.train(x, y, 32, 3, 0, True, 5, [])
        _, dx = e.input_gradient(x, y)
        assert not dx.any()
    assert tolerances.norm_error(engine.parameters, oracle.parameters) <= limit
    out = [np.empty((rows, 4), dtype) for _ in range(2)]
    for e, o in zip((engine, oracle), out, strict=True):
        e.predict(x, o)
    assert tolerances.norm_error(out[0], out[1]) <= limit


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rules", [{}, {"clip_norm": 0.1, "accumulation": 2}])
def test_threads_and_instruction_sets_change_no_bit(rules: dict[str, Any], dtype: str) -> None:
    x, y = data(dtype, 600)

    def run() -> tuple[bytes, ...]:
        engine = engine_of(_core.Engine, dtype, 70)
        engine.set_rules(rules)
        losses, _ = engine.train(x, y, 250, 3, 0, True, 5, [])
        return losses.tobytes(), engine.parameters.tobytes()

    found = set()
    for threads in machine.THREADS:
        with machine.using_threads(threads):
            found |= set(machine.on_every_isa(run).values())
    assert len(found) == 1


@pytest.mark.parametrize("device", DEVICES)
def test_one_hot_rows_and_a_dense_layer_are_the_same(device: str) -> None:
    """Every step, with momentum and weight decay, which move entries that were not read too."""
    numbers = np.random.default_rng(0).integers(0, 7, 60)
    y = np.random.default_rng(1).normal(size=(60, 2))
    optimizer = bp.SGD(0.1, momentum=0.9, weight_decay=0.01)
    table = bp.Sequential([bp.Embedding(9, 5), bp.Dense(2)], seed=0)
    dense = bp.Sequential([bp.Dense(5, use_bias=False), bp.Dense(2)], seed=0)
    for model in (table, dense):
        model.compile(optimizer, "mse", device=device, dtype="float64")
    table.build(1)
    dense.build(9)
    names = {"0.embeddings": "0.kernel", "1.kernel": "1.kernel", "1.bias": "1.bias"}
    dense.set_parameters({names[name]: view for name, view in table.parameters().items()})
    table.fit(numbers[:, None], y, epochs=3, batch_size=16, verbose=0)
    dense.fit(np.eye(9)[numbers], y, epochs=3, batch_size=16, verbose=0)
    for name, view in table.parameters().items():
        np.testing.assert_allclose(view, dense.parameters()[names[name]], rtol=1e-9, atol=1e-12)
    loss, gradients = table.gradients(numbers[:, None], y)
    assert loss == pytest.approx(dense.gradients(np.eye(9)[numbers], y)[0])
    assert not gradients["0.embeddings"][7:].any()


@pytest.mark.parametrize("dtype", ["int64", "uint8", "int32", "float32", "float64"])
def test_integers_of_any_kind(dtype: str) -> None:
    words = np.random.default_rng(0).integers(0, 50, (30, 6)).astype(dtype)
    model = bp.Sequential([bp.Embedding(50, 8, bp.RandomNormal(stddev=1.0)), bp.Dense(3)], seed=0)
    model.compile(bp.Adam(0.05), "softmax_cross_entropy", metrics=["accuracy"])
    history = model.fit(words, np.arange(30) % 3, epochs=40, verbose=0)
    assert history.history["accuracy"][-1] == 1.0
    table = model.parameters()["0.embeddings"]
    assert table.shape == (50, 8)
    kernel, bias = model.parameters()["1.kernel"], model.parameters()["1.bias"]
    flat = table[words.astype(int)].reshape(30, 48)
    np.testing.assert_allclose(model.predict(words), flat @ kernel + bias, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("device", DEVICES)
def test_words_for_recurrent_layers(device: str, tmp_path: Path) -> None:
    """The class is in the only odd word; runs equal over threads, files and freezing."""
    rng = np.random.default_rng(0)
    words, y = rng.integers(0, 6, (120, 5)) * 2, rng.integers(0, 3, 120)
    words[np.arange(120), rng.integers(0, 5, 120)] = y * 2 + 1
    model = bp.Sequential([bp.Embedding(12, 6), bp.GRU(8), bp.Dense(3)], seed=1)
    model.compile(bp.Adam(0.02), "softmax_cross_entropy", ["accuracy"], device=device)
    epochs = 25 if device == "cpu" else 3
    losses = model.fit(words[:, :, None], y, epochs=epochs, batch_size=20, verbose=0).history
    assert losses["loss"][-1] < losses["loss"][0]
    if device == "cpu":
        assert losses["accuracy"][-1] > 0.95
    model.save(tmp_path / "net")
    again = bp.load(tmp_path / "net", device)
    assert again.predict(words[:, :, None]).tobytes() == model.predict(words[:, :, None]).tobytes()
    model.freeze(upto=1)
    table = model.parameters()["0.embeddings"].copy()
    model.fit(words[:, :, None], y, epochs=1, verbose=0)
    np.testing.assert_array_equal(model.parameters()["0.embeddings"], table)


BAD: list[tuple[Any, str]] = [
    ([[0, 3], [1, 10]], r"X has 10\.0 at row 1, column 1; Embedding\(.*integers 0 to 9"),
    ([[0, -1]], r"X has -1\.0 at row 0, column 1"),
    ([[0.5, 1]], r"X has 0\.5 at row 0, column 0"),
    ([[np.nan, 1]], "X has NaN at row 0"),
    ([[2**40, 1]], "at row 0, column 0"),
]


@pytest.mark.parametrize(("x", "said"), BAD)
def test_what_is_no_entry_is_refused_and_changes_nothing(x: Any, said: str) -> None:
    model = bp.Sequential([bp.Embedding(10, 3), bp.Dense(1)], seed=0)
    model.compile("sgd", "mse")
    model.build(2)
    before = model._require_built().parameters.tobytes()
    x, y = np.asarray(x), np.zeros((len(x), 1))
    exact = x.astype(np.float32)  # what is ready for the engine takes no other way
    for value in (x, exact):
        for call in (model.fit, model.step, model.gradients, model.evaluate):
            with pytest.raises(ValueError, match=said):
                call(value, y)
    with pytest.raises(ValueError, match=r"row 0|row 1"):
        model.predict(exact)
    assert model._require_built().parameters.tobytes() == before


def test_wrong_uses() -> None:
    for layers in ([bp.Dense(3), bp.Embedding(5, 2)], [bp.Residual([bp.Embedding(5, 1)])]):
        with pytest.raises(ValueError, match="Embedding stands first"):
            bp.Sequential(layers)
    model = bp.Sequential([bp.Flatten(), bp.Embedding(5, 2), bp.Dense(1)])
    with pytest.raises(ValueError, match="Embedding stands first"):
        model.append(bp.Embedding(5, 2))
    for arguments in ((0, 2), (5, 0), (2**24 + 1, 2)):
        with pytest.raises(ValueError, match="_dim must be"):
            bp.Embedding(*arguments)
    with pytest.raises(TypeError, match="input_dim must be"):
        bp.Embedding(2.5, 2)  # type: ignore[arg-type]
    engine = engine_of(_core.Engine, "float32", 5)
    out = np.empty((1, 4), np.float32)
    engine.predict(np.array([[0, 99, np.nan]], np.float32), out)  # reads nothing beyond the table
    assert np.isnan(out).all()


def test_numbers_of_each_step_may_end_early() -> None:
    """(n, steps) with lengths is (n, steps, 1) with lengths, and Sequences of 1-D arrays."""
    rng = np.random.default_rng(0)
    x, lengths = rng.integers(0, 9, (12, 6)), rng.integers(1, 7, 12)
    y = rng.random((12, 1))
    parts = [row[:length] for row, length in zip(x, lengths, strict=True)]
    found = []
    for data, ends in ((x, lengths), (x[:, :, None], lengths), (bp.Sequences(x, lengths), None),
                       (bp.Sequences(parts), None)):  # fmt: skip
        model = bp.Sequential([bp.Embedding(9, 4), bp.GRU(5), bp.Dense(1)], seed=2)
        model.compile(loss="mse")
        model.fit(data, y, lengths=ends, epochs=2, batch_size=4, verbose=0)
        found.append(model.predict(data, lengths=ends).tobytes())
    assert len(set(found)) == 1


def test_ragged_lists_say_how_sequences_are_given() -> None:
    model = bp.Sequential([bp.Embedding(9, 4), bp.GRU(5), bp.Dense(1)])
    model.compile(loss="mse")
    with pytest.raises(ValueError, match=r"X is not a regular array.*fastbp\.Sequences\(X\)"):
        model.fit([[1, 2], [3]], np.zeros((2, 1)), verbose=0)
