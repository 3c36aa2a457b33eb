"""Models in copy and pickle: what comes out predicts and trains as the original, bit for bit."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastbp as bp

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(40, 5)), RNG.normal(size=(40, 2))


def cube(z: Any) -> Any:
    return z**3


def slope(z: Any) -> Any:
    return 3 * z**2


def squares(y: Any, t: Any) -> Any:
    return (y - t) ** 2, 2 * (y - t)


def dense() -> bp.Sequential:
    layers = [bp.Dense(4), bp.BatchNorm(), bp.ReLU(), bp.Dropout(0.3), bp.Dense(2)]
    model = bp.Sequential(layers, seed=1)
    rules = {"use_ema": True, "gradient_accumulation_steps": 3}
    model.compile(bp.AdamW(bp.CosineDecay(0.01, 50), **rules), "mse", metrics=["mae"])
    model.freeze(layers=[0])
    return model


def of_own_functions() -> bp.Sequential:
    activation = bp.CustomActivation(cube, slope)
    model = bp.Sequential([bp.Dense(3, activation=activation), bp.Dense(2)], seed=1)
    model.compile("adam", bp.CustomLoss(squares))
    return model


def recurrent() -> bp.Sequential:
    model = bp.Sequential([bp.Reshape((5, 1)), bp.LSTM(3), bp.Dense(2)], seed=1)
    model.compile("adam", "mse", dtype="float64")
    return model


def of_the_reference() -> bp.Sequential:
    model = bp.Sequential([bp.Dense(2)], seed=1)
    model.compile("adam", "mse", device="reference")
    return model


WAYS: list[Callable[[Any], Any]] = [
    copy.copy,
    copy.deepcopy,
    lambda model: pickle.loads(pickle.dumps(model)),
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("make", [dense, of_own_functions, recurrent, of_the_reference])
def test_copies_go_on_as_the_original(make: Callable[[], bp.Sequential], way: Any) -> None:
    model = make()
    untrained = way(model)
    for each in (model, untrained):
        each.fit(X, Y, epochs=2, verbose=0)
    made = way(model)
    for each in (untrained, made):
        np.testing.assert_array_equal(each.predict(X), model.predict(X))
        assert each.frozen == model.frozen and each.device == model.device
    before = model.predict(X)
    made.fit(X, Y, epochs=2, verbose=0)
    np.testing.assert_array_equal(model.predict(X), before)  # nothing is shared
    model.fit(X, Y, epochs=2, verbose=0)
    np.testing.assert_array_equal(made.predict(X), model.predict(X))
    assert made.history.history == model.history.history


@pytest.mark.parametrize("way", WAYS)
def test_copies_share_no_settings(way: Any) -> None:
    model = dense()
    model.optimizer.learning_rate = 0.002
    made = way(model)
    assert made.optimizer.learning_rate == 0.002
    made.optimizer.learning_rate, made.metadata["of"] = 0.5, "the copy"
    made.append(bp.Dense(2))
    assert model.optimizer.learning_rate == 0.002 and "of" not in model.metadata
    assert len(model.layers) + 1 == len(made.layers)
    twin = dense()
    twin.optimizer.learning_rate = 0.002
    assert model.step(X, Y) == twin.step(X, Y)
    np.testing.assert_array_equal(model.predict(X), twin.predict(X))


class Keep(bp.Callback):
    """Pickles the model in the middle of an epoch."""

    def __init__(self) -> None:
        self.kept: bytes | None = None

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.kept is None and batch == 2:
            self.kept = pickle.dumps(self.model)


def test_a_copy_has_the_run_that_was_going_on() -> None:
    model, keep = dense(), Keep()
    model.fit(X, Y, epochs=3, batch_size=8, verbose=0, callbacks=[keep])
    assert keep.kept is not None
    made = pickle.loads(keep.kept)
    made.fit(X, Y, epochs=3, batch_size=8, verbose=0, callbacks=[Keep()], resume=True)
    np.testing.assert_array_equal(made.predict(X), model.predict(X))
    assert made.history.history == model.history.history


def test_ensembles_and_callbacks_that_hold_models() -> None:
    ensemble = bp.Ensemble(bp.Sequential([bp.Dense(2)]), 3, seed=0)
    ensemble.compile("adam", "mse")
    stopping = bp.EarlyStopping("loss", patience=1)
    ensemble.fit(X, Y, epochs=2, verbose=0)
    ensemble[0].fit(X, Y, epochs=2, verbose=0, callbacks=[stopping])
    for way in WAYS[1:]:
        np.testing.assert_array_equal(way(ensemble).predict(X), ensemble.predict(X))
        assert way(stopping).best_epoch == stopping.best_epoch
