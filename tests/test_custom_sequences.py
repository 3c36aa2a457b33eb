"""Activations and losses that are Python functions, in networks of sequences.

Compared: the compiled engine with the reference, to the rounding of float64; a run with one that a
function ended; bits among numbers of threads. 70 sequences make three parts of a batch, which end
at different steps.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastbp as bp
from machine import using_threads
from sweeps import Array
from test_custom_functions import LOSS, SOFTSIGN, softsign, softsign_slope

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(70, 6, 3))
LENGTHS = RANDOM.integers(1, 7, 70)
OF_STEPS, OF_LAST = RANDOM.normal(size=(70, 6, 2)), RANDOM.normal(size=(70, 2))
WEIGHTS = np.linspace(0, 2, 70)


def model_of(every_step: bool, device: str, dtype: str = "float64") -> bp.Sequential:
    inner = bp.Residual([bp.Dense(4, activation=SOFTSIGN), bp.Dropout(0.2)])
    model = bp.Sequential(
        [
            bp.Bidirectional(bp.LSTM(2, return_sequences=True)),
            SOFTSIGN,
            inner,
            bp.GRU(4, return_sequences=every_step),
            bp.Dense(2, activation=SOFTSIGN),
        ],
        seed=2,
    )
    model.compile(bp.Adam(0.01), LOSS, metrics=["mae"], device=device, dtype=dtype)
    return model


@pytest.mark.parametrize("every_step", [True, False])
def test_the_engine_trains_as_the_reference_does(every_step: bool) -> None:
    x, y = bp.Sequences(X, LENGTHS), OF_STEPS if every_step else OF_LAST
    models = [model_of(every_step, device) for device in ("auto", "reference")]
    assert [model.device for model in models] == ["cpu", "reference"]
    histories = [
        model.fit(x, y, epochs=2, batch_size=70, sample_weight=WEIGHTS, verbose=0).history
        for model in models
    ]
    for name, values in histories[1].items():
        assert histories[0][name] == pytest.approx(values, rel=1e-9), name
    ours, theirs = models
    np.testing.assert_allclose(ours.predict(x), theirs.predict(x), rtol=1e-9, atol=1e-12)
    assert ours.evaluate(x, y, sample_weight=WEIGHTS) == pytest.approx(
        theirs.evaluate(x, y, sample_weight=WEIGHTS), rel=1e-9
    )
    loss, gradients = ours.gradients(x, y)
    wanted, slopes = theirs.gradients(x, y)
    assert loss == pytest.approx(wanted, rel=1e-9)
    for name, slope in slopes.items():
        np.testing.assert_allclose(gradients[name], slope, rtol=1e-8, atol=1e-12)


def test_no_bit_depends_on_the_threads() -> None:
    found = []
    for threads in (1, 2, 4):
        with using_threads(threads):
            model = model_of(True, "cpu", "float32")
            model.fit(bp.Sequences(X, LENGTHS), OF_STEPS, epochs=2, batch_size=70, verbose=0)
            found.append(model.predict(X).tobytes())
    assert found[0] == found[1] == found[2]


def test_what_a_function_gets() -> None:
    shapes: dict[str, set[tuple[int, ...]]] = {"steps": set(), "last": set()}

    def noting(place: str) -> Any:
        def forward(z: Array) -> Array:
            shapes[place].add(z.shape)
            return softsign(z)

        return bp.CustomActivation(forward, softsign_slope)

    layers = [bp.SimpleRNN(4, return_sequences=True), noting("steps"), bp.LSTM(3), noting("last")]
    model = bp.Sequential([*layers, bp.Dense(2)])
    model.compile("adam", "mse")
    model.fit(X, OF_LAST, epochs=1, batch_size=70, verbose=0)
    assert all(n <= 32 and rest == (6, 4) for n, *rest in shapes["steps"] for rest in [tuple(rest)])
    assert all(n <= 32 and rest == (3,) for n, *rest in shapes["last"] for rest in [tuple(rest)])


def test_a_function_that_fails_ends_the_run_in_front_of_its_step() -> None:
    calls, model = [0], model_of(True, "cpu")

    def failing(y: Array, t: Array) -> tuple[Array, Array]:
        calls[0] += 1
        if calls[0] == 5:  # in the second step's second part
            raise KeyError("mine")
        return (y - t) ** 2, 2 * (y - t)

    model.compile(bp.Adam(0.01), bp.CustomLoss(failing), dtype="float64")
    with pytest.raises(KeyError, match="mine"):
        model.fit(X, OF_STEPS, epochs=3, batch_size=70, shuffle=False, verbose=0)
    other = model_of(True, "cpu")
    calls[0] = 100
    other.compile(bp.Adam(0.01), bp.CustomLoss(failing), dtype="float64")
    other.fit(X, OF_STEPS, epochs=1, batch_size=70, shuffle=False, verbose=0)
    assert model.predict(X).tobytes() == other.predict(X).tobytes()


def test_bad_returns_are_named() -> None:
    wrong = bp.CustomActivation(lambda z: z[:, :1], softsign_slope)
    model = bp.Sequential([bp.LSTM(4, return_sequences=True), wrong, bp.Dense(2)])
    model.compile("adam", "mse")
    with pytest.raises(ValueError, match=r"must return shape \(\d+, 6, 4\); got \(\d+, 1, 4\)"):
        model.fit(X, OF_STEPS, epochs=1, verbose=0)
