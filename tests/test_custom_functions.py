"""Activations and losses that are Python functions.

Compared: functions that fastbp has, written anew, with == on device="reference"; the gradient of
others with central differences; a run that was stopped with one that was not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastbp as bp
from sweeps import Array

X, Y = np.random.default_rng(0).normal(size=(40, 5)), np.random.default_rng(1).normal(size=(40, 2))
WEIGHTS = np.linspace(0, 2, 40)


def tanh(z: Array) -> Array:
    return np.tanh(z)


def tanh_slope(z: Array) -> Array:
    return 1 - np.tanh(z) ** 2


def softsign(z: Array) -> Array:
    return z / (1 + np.abs(z))


def softsign_slope(z: Array) -> Array:
    return 1 / (1 + np.abs(z)) ** 2


def squares(y: Array, t: Array) -> tuple[Array, Array]:
    return (y - t) ** 2, 2 * (y - t)


def log_cosh_of_rows(y: Array, t: Array) -> tuple[Array, Array]:
    return np.log(np.cosh(y - t)).sum(axis=1), np.tanh(y - t)


SOFTSIGN = bp.CustomActivation(softsign, softsign_slope)
LOSS = bp.CustomLoss(log_cosh_of_rows)


def model_of(
    activation: Any = SOFTSIGN, loss: Any = LOSS, device: str = "auto", **compile_: Any
) -> bp.Sequential:
    layers = [bp.Dense(6, activation=activation), bp.Dropout(0.1), bp.Dense(2)]
    model = bp.Sequential(layers, seed=3)
    settings = {"optimizer": bp.Adam(0.02), "dtype": "float64", **compile_}
    model.compile(loss=loss, device=device, **settings)
    return model


def test_functions_that_fastbp_has_train_alike() -> None:
    ours = model_of("tanh", "mse", "reference", metrics=["mae", "r2"])
    yours = model_of(
        bp.CustomActivation(tanh, tanh_slope), bp.CustomLoss(squares), metrics=["mae", "r2"]
    )
    assert yours.device == "reference"
    histories = [
        m.fit(X, Y, epochs=5, batch_size=8, validation_split=0.2, verbose=0).history
        for m in (ours, yours)
    ]
    for name, values in histories[0].items():
        assert histories[1][name] == pytest.approx(values, rel=1e-9)
    np.testing.assert_allclose(yours.predict(X), ours.predict(X), rtol=1e-9)
    assert yours.evaluate(X, Y, sample_weight=WEIGHTS) == pytest.approx(
        ours.evaluate(X, Y, sample_weight=WEIGHTS)
    )


def test_gradients_are_differences_of_the_loss() -> None:
    model = model_of()
    loss, gradients = model.gradients(X, Y, sample_weight=WEIGHTS)
    for name, view in model.parameters().items():
        flat, slopes = view.reshape(-1), gradients[name].reshape(-1)
        for i in range(0, flat.size, 5):
            start, values = flat[i], []
            for step in (1e-5, -1e-5):
                flat[i] = start + step
                values.append(model.gradients(X, Y, sample_weight=WEIGHTS)[0])
            flat[i] = start
            assert (values[0] - values[1]) / 2e-5 == pytest.approx(slopes[i], abs=1e-8)
    output = model.forward(X, training=True)
    rows = np.log(np.cosh(output - Y)).sum(axis=1)
    assert loss == pytest.approx(np.average(rows, weights=WEIGHTS), rel=1e-12)


def test_they_learn() -> None:
    target = np.tanh(X @ np.random.default_rng(5).normal(size=(5, 2)))
    model = model_of(dtype="float32")
    losses = model.fit(X, target, epochs=150, batch_size=10, verbose=0).history["loss"]
    assert losses[-1] < losses[0] / 4


def test_sequences_and_layers_of_their_own() -> None:
    x = np.random.default_rng(7).normal(size=(12, 4, 3))
    layers = [bp.LSTM(5, return_sequences=True), SOFTSIGN, bp.Residual([bp.Dense(5), SOFTSIGN])]
    model = bp.Sequential([*layers, bp.LSTM(4), bp.Dense(2)], seed=0)
    model.compile("adam", LOSS)
    before = model.evaluate(x, Y[:12])["loss"]
    model.fit(x, Y[:12], epochs=30, verbose=0)
    assert model.evaluate(x, Y[:12])["loss"] < before


def test_a_stopped_run_goes_on(tmp_path: Path) -> None:
    class Stop(bp.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            assert self.model.history is not None
            if batch == 2 and len(self.model.history.epoch) == 1 and not self.stopped:
                self.stopped = True
                self.model.stop_training = True

        stopped = False

        def state(self) -> dict[str, Any]:
            return {}

        def load_state(self, state: Any) -> None:
            """Nothing is kept."""

    whole, stopped = model_of(), model_of()
    whole.fit(X, Y, epochs=4, batch_size=8, verbose=0)
    stop = Stop()
    stopped.fit(X, Y, epochs=4, batch_size=8, verbose=0, callbacks=stop)
    assert stop.stopped
    stopped.fit(X, Y, epochs=4, batch_size=8, verbose=0, callbacks=stop, resume=True)
    assert stopped.predict(X).tobytes() == whole.predict(X).tobytes()
    with pytest.raises(ValueError, match=r"model files hold no code: keep model\.parameters"):
        whole.save(tmp_path / "net")
    assert not list(tmp_path.iterdir())
    again = model_of()
    again.build(5)
    again.set_parameters(whole.parameters())
    assert again.predict(X).tobytes() == whole.predict(X).tobytes()


def test_they_run_in_numpy_alone() -> None:
    for device in ("cpu", "cuda"):
        with pytest.raises(ValueError, match="the activation softsign is a Python function"):
            model_of(loss="mse", device=device)
        with pytest.raises(ValueError, match="the loss log_cosh_of_rows is a Python function"):
            model_of("relu", device=device)
    on_cpu = model_of("relu", "mse")
    on_cpu.build(5)
    assert on_cpu.device == "cpu"
    before = on_cpu.parameters()["0.kernel"].copy()
    with pytest.raises(ValueError, match="the activation softsign"):
        on_cpu.append(SOFTSIGN)
    assert len(on_cpu.layers) == 3
    on_cpu.compile("sgd", LOSS)  # moves
    assert on_cpu.device == "reference"
    np.testing.assert_array_equal(on_cpu.parameters()["0.kernel"], before.astype(np.float32))
    on_cpu.append(SOFTSIGN)
    with pytest.raises(ValueError, match="explain is about fastbp's own functions"):
        model_of().explain(X[0], Y[0])


BAD_LOSSES: list[tuple[Any, type[Exception], str]] = [
    (lambda y, t: y - t, TypeError, r"must return \(losses, gradient\)"),
    (
        lambda y, t: (y - t, y[:1]),
        ValueError,
        r"gradient must return shape \(40, 2\); got \(1, 2\)",
    ),
    (lambda y, t: (np.float64(0), y), ValueError, r"must return shape \(40, 2\); got \(\)"),
    (lambda y, t: ("none", y), TypeError, "must return numbers"),
    (lambda y, t: (np.add(y, t, out=y), y), ValueError, "read-only"),
    (lambda y, t: 1 / 0, ZeroDivisionError, "division"),
]


@pytest.mark.parametrize(("function", "error", "said"), BAD_LOSSES)
def test_a_function_that_fails_leaves_the_model(
    function: Any, error: type[Exception], said: str
) -> None:
    model = model_of(loss=bp.CustomLoss(function))
    model.build(5)
    engine = model._require_built()
    before = engine.parameters.tobytes()
    with pytest.raises(error, match=said):
        model.fit(X, Y, epochs=1, batch_size=40, verbose=0)
    with pytest.raises(error, match=said):
        model.step(X, Y)
    assert engine.parameters.tobytes() == before
    assert engine.steps == 0


def test_wrong_arguments() -> None:
    with pytest.raises(TypeError, match="derivative must be a function; got int 3"):
        bp.CustomActivation(tanh, 3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="function must be a function"):
        bp.CustomLoss("mse")  # type: ignore[arg-type]
    wide = bp.CustomActivation(lambda z: z.sum(axis=1), tanh_slope)
    with pytest.raises(ValueError, match=r"<lambda> must return shape \(40, 6\); got \(40,\)"):
        model_of(wide).predict(X)
    assert bp.CustomActivation(softsign, softsign_slope) == SOFTSIGN
    assert bp.CustomActivation(softsign, tanh_slope) != SOFTSIGN
    assert repr(SOFTSIGN) == "CustomActivation(softsign, softsign_slope)"
    assert repr(LOSS) == "CustomLoss(log_cosh_of_rows)"
