"""Batches of sequences cut in parts: every number of sequences, its loss and metrics, its bits."""

import numpy as np
import pytest
from numpy.typing import NDArray

import fastbp as bp
import machine

Floats = NDArray[np.float32]
STEPS = 5  # so that no part's rows of output are whole blocks of the loss


def made(rows: int, ends: bool) -> tuple[bp.Sequential, bp.Sequences, Floats]:
    """A network heavy enough to share a batch of 8 sequences, and what it reads and learns."""
    rng = np.random.default_rng(rows)
    values = rng.normal(size=(rows, STEPS, 8)).astype(np.float32)
    lengths = rng.integers(1, STEPS + 1, rows) if ends else None
    y = rng.normal(size=(rows, STEPS, 2)).astype(np.float32)
    layers = [bp.LSTM(32, return_sequences=True), bp.Dense(2)]
    model = bp.Sequential(layers, seed=1)
    model.compile(optimizer="adam", loss="mse", metrics=["mae"])
    return model, bp.Sequences(values, lengths), y


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("rows", [1, 7, 8, 13, 16, 17, 33, 64, 65])
def test_loss_and_metrics_are_means_over_the_steps_that_count(rows: int, ends: bool) -> None:
    model, x, y = made(rows, ends)
    outputs = model.predict(x)
    assert isinstance(outputs, np.ndarray)
    error = (outputs - y)[x.running()].astype(np.float64)
    measured = model.evaluate(x, y)
    assert measured["loss"] == pytest.approx(np.mean(error**2), rel=1e-6)
    assert measured["mae"] == pytest.approx(np.mean(np.abs(error)), rel=1e-6)
    history = model.fit(x, y, epochs=1, batch_size=rows, shuffle=False, verbose=0)
    assert history.history["loss"][0] == pytest.approx(measured["loss"], rel=1e-6)
    assert history.history["mae"][0] == pytest.approx(measured["mae"], rel=1e-6)


@pytest.mark.parametrize("rows", [8, 13, 16, 40])
def test_threads_and_isa_leave_the_bits(rows: int) -> None:
    def trained() -> bytes:
        model, x, y = made(rows + 7, True)  # the last batch has parts of another size
        model.fit(x, y, epochs=2, batch_size=rows, verbose=0)
        return b"".join(value.tobytes() for value in model.parameters().values())

    results = set()
    for threads in machine.THREADS:
        with machine.using_threads(threads):
            results |= set(machine.on_every_isa(trained).values())
    assert len(results) == 1
