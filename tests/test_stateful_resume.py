"""Runs of stateful layers go on behind any batch, bit for bit, in another model too."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastbp as bp

ROWS, BATCH, EPOCHS = 12, 3, 3  # 4 batches an epoch
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, 5, 2)).astype(np.float32)
Y = X.sum(axis=(1, 2))[:, None]


class StopAt(bp.callbacks.Callback):
    """Stops behind so many batches, or never."""

    def __init__(self, batches: int) -> None:
        self.left = batches

    def on_train_batch_end(self, batch: int, logs: dict[str, Any]) -> None:
        self.left -= 1
        if self.left == 0:
            self.model.stop_training = True


def made(seed: int) -> bp.Sequential:
    layers = [bp.LSTM(6, stateful=True, return_sequences=True), bp.GRU(4, stateful=True)]
    model = bp.Sequential([*layers, bp.Dense(1)], seed=seed)
    model.compile(optimizer="adam", loss="mse")
    return model


def fitted(model: bp.Sequential, stop: int, **arguments: Any) -> bp.Sequential:
    model.fit(
        X,
        Y,
        epochs=EPOCHS,
        batch_size=BATCH,
        shuffle=False,
        verbose=0,
        callbacks=[StopAt(stop)],
        **arguments,
    )
    return model


@pytest.mark.parametrize("stop", [1, 3, 4, 6])
def test_a_run_goes_on_behind_any_batch(stop: int, tmp_path: Path) -> None:
    whole, path = fitted(made(0), -1), tmp_path / "run.safetensors"
    stopped = fitted(made(0), stop)
    stopped.save(path)
    stopped.predict(X[:BATCH])  # which moves the model's states, but not the run's
    other = fitted(made(0), -1, resume=path)
    again = fitted(stopped, -1, resume=True)
    for model in (other, again):
        for name, value in whole.parameters().items():
            np.testing.assert_array_equal(value, model.parameters()[name])
    expected = whole.predict(X[:BATCH])  # from the states that the run left
    for model in (other, again):
        np.testing.assert_array_equal(model.predict(X[:BATCH]), expected)


def test_a_refused_fit_leaves_the_states() -> None:
    model = fitted(made(0), 2)
    state = model.predict(X[:BATCH], return_state=True)[1]
    assert isinstance(state, dict)
    with pytest.raises(ValueError, match="are not the data of the run"):
        model.fit(X + 1, Y, epochs=EPOCHS, batch_size=BATCH, shuffle=False, verbose=0, resume=True,
                  callbacks=[StopAt(-1)])  # fmt: skip
    assert model._carried is not None
    np.testing.assert_array_equal(model._carried[:, :6], state["0.h"])
