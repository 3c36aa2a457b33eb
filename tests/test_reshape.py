"""Reshape and Flatten: rows of one shape taken as rows of another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastbp as bp

RNG = np.random.default_rng(2)


@pytest.mark.parametrize("device", ["cpu", "reference"])
@pytest.mark.parametrize("shape", [(4, 3), (-1, 3), (4, -1)])
def test_rows_as_sequences(shape: tuple[int, ...], device: str, tmp_path: Path) -> None:
    """The bits of a network that gets (n, 4, 3), in everything that takes rows."""
    flat = RNG.normal(size=(40, 12)).astype(np.float32)
    y = RNG.integers(0, 2, 40)
    models = [
        bp.Sequential([*first, bp.LSTM(5), bp.Dense(2)], seed=3)
        for first in ([bp.Reshape(shape)], [])
    ]
    results = []
    for model, x in zip(models, (flat, flat.reshape(40, 4, 3)), strict=True):
        model.compile("adam", "softmax_cross_entropy", ["accuracy"], device=device)
        history = model.fit(x, y, epochs=2, validation_split=0.2, verbose=0)
        loss = model.step(x[:5], y[:5])
        results.append([history.to_dict(), loss, model.evaluate(x, y), model.predict(x).tolist()])
    assert results[0] == results[1]
    models[0].save(tmp_path / "m")
    loaded = bp.load(tmp_path / "m", device=device)
    assert (loaded.predict(flat) == models[0].predict(flat)).all()


@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_input_gradients_have_the_shape_of_x(device: str) -> None:
    flat = RNG.normal(size=(5, 12)).astype(np.float32)
    y = RNG.normal(size=(5, 2))
    for shape, layers in (
        ((5, 2, 6), [bp.Flatten(), bp.Dense(2)]),
        ((5, 3, 2, 2), [bp.Reshape((12,)), bp.Dense(2)]),
        ((5, 12), [bp.Reshape((4, 3)), bp.LSTM(2)]),
        ((5, 4, 3), [bp.LSTM(2)]),
    ):
        model = bp.Sequential(layers, seed=0)
        model.compile("sgd", "mse", device=device, dtype="float64")
        x = flat.reshape(shape).astype(np.float64)
        loss, dx = model.input_gradient(x, y)
        assert dx.shape == shape
        index = tuple(size - 1 for size in shape)
        x[index] += 1e-6
        assert (model.gradients(x, y)[0] - loss) / 1e-6 == pytest.approx(dx[index], abs=1e-5)


def test_rows_as_columns() -> None:
    images = RNG.normal(size=(10, 2, 3))
    model = bp.Sequential([bp.Reshape((6,)), bp.Dense(2)], seed=0)
    model.build(6)
    assert (model.predict(images) == model.predict(images.reshape(10, 6))).all()


def test_flatten_behind_an_embedding_changes_nothing(tmp_path: Path) -> None:
    X, y = RNG.integers(0, 7, (30, 3)), RNG.normal(size=30)
    models = [
        bp.Sequential([bp.Embedding(7, 2), *more, bp.Dense(1)], seed=1)
        for more in ([bp.Flatten()], [])
    ]
    for model in models:
        model.compile("adam", "mse")
        model.fit(X, y, epochs=2, verbose=0)
    assert (models[0].predict(X) == models[1].predict(X)).all()
    models[0].save(tmp_path / "m")
    assert (bp.load(tmp_path / "m").predict(X) == models[0].predict(X)).all()


@pytest.mark.parametrize(
    "make, error, said",
    [
        (lambda: bp.Reshape("12"), TypeError, "must be integers"),
        (lambda: bp.Reshape(()), ValueError, "may be -1"),
        (lambda: bp.Reshape((2, 3, 4)), ValueError, "may be -1"),
        (lambda: bp.Reshape((-1, -1)), ValueError, "may be -1"),
        (lambda: bp.Reshape((0,)), ValueError, "may be -1"),
        (lambda: bp.Sequential([bp.Dense(2), bp.Reshape((2,))]), ValueError, "stands first"),
        (lambda: bp.Residual([bp.Reshape((2,))]), ValueError, "Reshape stands first"),
        (lambda: bp.Sequential([bp.Dense(2), bp.Flatten()]), ValueError, "or behind an Embedding"),
        (
            lambda: built([bp.Reshape((4, 3)), bp.Dense(2)]),
            ValueError,
            r"read rows of \(columns,\)",
        ),
        (lambda: built([bp.Reshape((12,)), bp.LSTM(2)]), ValueError, r"read rows of \(steps, feat"),
        (lambda: built([bp.Reshape((5, -1)), bp.LSTM(2)]), ValueError, "cannot make rows"),
    ],
)
def test_wrong_shapes(make: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        make()


def built(layers: list[Any]) -> Any:
    return bp.Sequential(layers, seed=0).predict(np.zeros((2, 12)))
