"""Activations and losses that are Python functions.

Compared: functions that fastbp has, written anew, with its own, and the compiled engine with the
reference, to the rounding of float64; the gradient of others with central differences; bits among
numbers of threads; a run that was stopped with one that was not.
"""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastbp as bp
from machine import using_threads
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


DEVICES = pytest.mark.parametrize("device", ["cpu", "reference"])


def model_of(
    activation: Any = SOFTSIGN, loss: Any = LOSS, device: str = "auto", **compile_: Any
) -> bp.Sequential:
    layers = [bp.Dense(6, activation=activation), bp.Dropout(0.1), bp.Dense(2)]
    model = bp.Sequential(layers, seed=3)
    settings = {"optimizer": bp.Adam(0.02), "dtype": "float64", **compile_}
    model.compile(loss=loss, device=device, **settings)
    return model


@DEVICES
def test_functions_that_fastbp_has_train_alike(device: str) -> None:
    ours = model_of("tanh", "mse", "reference", metrics=["mae", "r2"])
    function, loss = bp.CustomActivation(tanh, tanh_slope), bp.CustomLoss(squares)
    yours = model_of(function, loss, device, metrics=["mae", "r2"])
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


@DEVICES
def test_gradients_are_differences_of_the_loss(device: str) -> None:
    model = model_of(device=device)
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


@DEVICES
def test_a_stopped_run_goes_on(device: str, tmp_path: Path) -> None:
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

    whole, stopped = model_of(device=device), model_of(device=device)
    whole.fit(X, Y, epochs=4, batch_size=8, verbose=0)
    stop = Stop()
    stopped.fit(X, Y, epochs=4, batch_size=8, verbose=0, callbacks=stop)
    assert stop.stopped
    stopped.fit(X, Y, epochs=4, batch_size=8, verbose=0, callbacks=stop, resume=True)
    assert stopped.predict(X).tobytes() == whole.predict(X).tobytes()
    with pytest.raises(ValueError, match=r"model files hold no code: keep model\.parameters"):
        whole.save(tmp_path / "net")
    assert not list(tmp_path.iterdir())
    again = model_of(device=device)
    again.build(5)
    again.set_parameters(whole.parameters())
    assert again.predict(X).tobytes() == whole.predict(X).tobytes()


def test_where_they_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert model_of().device == "cpu"
    on_cpu = model_of("relu", "mse")
    on_cpu.build(5)
    before = on_cpu.parameters()["0.kernel"].copy()
    on_cpu.append(SOFTSIGN)
    assert np.abs(on_cpu.predict(X)).max() < 1
    on_cpu.compile("sgd", LOSS, device="reference")  # moves
    np.testing.assert_array_equal(on_cpu.parameters()["0.kernel"], before.astype(np.float32))
    explained = model_of().explain(X[0], Y[0])
    assert explained.loss == pytest.approx(model_of().gradients(X[:1], Y[:1])[0], rel=1e-6)
    assert "a = softsign(z) = [" in str(explained)
    monkeypatch.setenv("FASTBP_DEVICE", "reference")
    assert model_of().device == "reference"


def layers_with(function: Any) -> list[bp.Layer]:
    """A network with a function in each place that a stage may have."""
    return [
        bp.Activation("tanh") if function is None else function,
        bp.Dense(24, use_bias=False),  # a bias would have no gradient but rounding
        bp.BatchNorm(),
        function or bp.Activation("tanh"),
        bp.Residual([bp.Dense(24, activation=function or "tanh"), bp.Dropout(0.3)]),
        bp.LayerNorm(),
        bp.Dense(3, activation=function or "tanh"),
    ]


def trained(
    layers: list[bp.Layer], loss: Any, device: str, dtype: str = "float64", **fit: Any
) -> bp.Sequential:
    model = bp.Sequential(layers, seed=5)
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(150, 7)), rng.normal(size=(150, 3))
    optimizer = bp.AdamW(0.01, clip_norm=1.0, ema_momentum=0.9)
    model.compile(optimizer, loss, metrics=["mae"], device=device, dtype=dtype)
    model.build(7)
    model.freeze(upto=fit.pop("frozen", 0))
    weights = np.linspace(0.5, 2, 150)
    model.fit(x, y, epochs=2, batch_size=64, sample_weight=weights, verbose=0)
    model.fit([(x[:90], y[:90])] * 2, epochs=1, verbose=0)
    model.step(x[:1], y[:1])
    return model


@pytest.mark.parametrize("frozen", [0, 2])
def test_the_engine_trains_as_the_reference_does(frozen: int) -> None:
    function = bp.CustomActivation(tanh, tanh_slope)
    results = []
    for device, entry in (("cpu", function), ("reference", function), ("reference", None)):
        loss = "mse" if entry is None else bp.CustomLoss(squares)
        model = trained(layers_with(entry), loss, device, frozen=frozen)
        assert model.device == device
        assert model.history is not None
        x = np.random.default_rng(9).normal(size=(600, 7))  # more than predict has at a time
        y = np.random.default_rng(8).normal(size=(600, 3))
        values = [model.predict(x), *model.input_gradient(x[:70], y[:70])]
        values += [*model.gradients(x[:70], y[:70])[1].values(), *model.parameters().values()]
        values += [np.array([*model.evaluate(x, y).values(), *model.history.history["loss"]])]
        results.append(np.concatenate([np.ravel(value) for value in values]))
    np.testing.assert_allclose(results[0], results[1], rtol=1e-7, atol=1e-11)
    np.testing.assert_allclose(results[0], results[2], rtol=1e-7, atol=1e-11)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bits_do_not_depend_on_threads(dtype: str) -> None:
    bits = set()
    for threads in (1, 2, 3):
        with using_threads(threads):
            light = trained([bp.Dense(16, activation=SOFTSIGN), bp.Dense(3)], "mse", "cpu", dtype)
            own_loss = trained([bp.Dense(64, activation="relu"), bp.Dense(3)], LOSS, "cpu", dtype)
            mixed = trained(layers_with(SOFTSIGN), LOSS, "cpu", dtype)
        models = light, own_loss, mixed
        bits.add(b"".join(m._require_built().parameters.tobytes() for m in models))
    assert len(bits) == 1


class Fails:
    """A function that does something of its own in its n-th call."""

    def __init__(self, function: Any, at: int, what: Any) -> None:
        self.function, self.left, self.what = function, at, what

    def __call__(self, *arguments: Array) -> Any:
        self.left -= 1
        if self.left == 0:
            return self.what(*arguments)
        return self.function(*arguments)


def stop(*_: Array) -> Array:
    raise LookupError("enough")


def interrupt(z: Array, *_: Array) -> Array:
    signal.raise_signal(signal.SIGINT)
    time.sleep(0)  # Python runs the handler here at the latest
    return z


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("place", ["forward", "derivative", "loss"])
@pytest.mark.parametrize(("what", "error"), [(stop, LookupError), (interrupt, KeyboardInterrupt)])
def test_a_failure_leaves_a_step_boundary(
    threads: int, place: str, what: Any, error: type[BaseException]
) -> None:
    """What is left is the model of so many whole steps, and it trains on."""
    functions = {"forward": softsign, "derivative": softsign_slope, "loss": log_cosh_of_rows}

    def model() -> bp.Sequential:
        layers = [bp.Dense(40, activation="tanh"), bp.BatchNorm()]
        own = bp.CustomActivation(functions["forward"], functions["derivative"])
        layers += [own, bp.Dense(2)]
        made = bp.Sequential(layers, seed=1)
        made.compile("adam", bp.CustomLoss(functions["loss"]), metrics=["mae"], device="cpu")
        return made

    whole = model()
    settings = {"epochs": 1, "batch_size": 10, "verbose": 0, "shuffle": False}
    whole.fit(X[:20], Y[:20], **settings)
    functions[place] = Fails(functions[place], 3, what)
    failed = model()
    with using_threads(threads), pytest.raises(error):
        failed.fit(X, Y, **settings)
    assert failed._require_built().steps == 2
    for name, value in (whole.parameters() | whole.state()).items():
        np.testing.assert_array_equal((failed.parameters() | failed.state())[name], value)
    failed.fit(X[20:], Y[20:], **settings)
    functions[place] = functions[place].function
    whole.fit(X[20:], Y[20:], **settings)
    np.testing.assert_array_equal(failed.predict(X), whole.predict(X))


def test_a_run_that_failed_is_resumed() -> None:
    whole = model_of(device="cpu")
    whole.fit(X, Y, epochs=3, batch_size=8, verbose=0)
    fails = Fails(log_cosh_of_rows, 8, stop)
    failed = model_of(loss=bp.CustomLoss(fails), device="cpu")
    with pytest.raises(LookupError):
        failed.fit(X, Y, epochs=3, batch_size=8, verbose=0)
    failed.fit(X, Y, epochs=3, batch_size=8, verbose=0, resume=True)
    assert failed.history is not None and whole.history is not None
    assert failed.history.history["loss"] == whole.history.history["loss"]
    assert failed.predict(X).tobytes() == whole.predict(X).tobytes()


def test_a_failure_in_prediction_and_evaluation() -> None:
    function = bp.CustomActivation(Fails(softsign, 2, stop), softsign_slope)
    first = bp.Sequential([function, bp.Dense(30), bp.Dense(2)], seed=0)  # in front of all barriers
    first.compile("adam", "mse", device="cpu")
    x = np.tile(X, (40, 1))
    with using_threads(2), pytest.raises(LookupError):
        first.predict(x)
    assert first.predict(x).shape == (1600, 2)
    loss = bp.CustomLoss(Fails(squares, 3, stop))
    second = model_of(loss=loss, device="cpu")
    with using_threads(2), pytest.raises(LookupError):
        second.evaluate(X, Y, batch_size=10)
    assert second.evaluate(X, Y, batch_size=10) == pytest.approx(second.evaluate(X, Y))


def test_functions_run_in_the_callers_floating_point_mode() -> None:
    tiny = np.float64(5e-324)

    def keeps_denormals(z: Array) -> Array:
        return softsign(z) + (tiny * np.ones(3) == 0).any()

    x = np.linspace(-2, 2, 12).reshape(4, 3)
    model = bp.Sequential([bp.Dense(3, activation=bp.CustomActivation(softsign, softsign_slope))])
    model.compile("sgd", "mse")
    expected = model.predict(x)
    ours = bp.CustomActivation(keeps_denormals, softsign_slope)
    other = bp.Sequential([bp.Dense(3, activation=ours)])
    other.compile("sgd", "mse")
    other.build(3)
    other.set_parameters(model.parameters())
    assert other.predict(x).tobytes() == expected.tobytes()


def test_a_function_must_not_use_its_model() -> None:
    model: Any = None

    def nosy(z: Array) -> Array:
        return softsign(z) + model.predict(X).sum()

    model = model_of(bp.CustomActivation(nosy, softsign_slope), device="cpu")
    with pytest.raises(RuntimeError, match="an activation or loss of your own"):
        model.step(X, Y)


def test_another_model_may_be_used_in_a_function() -> None:
    other = model_of("tanh", "mse")
    other.build(5)

    def teacher(y: Array, t: Array) -> tuple[Array, Array]:
        return squares(y, t + other.predict(X[: len(t)]))

    model = model_of(loss=bp.CustomLoss(teacher), device="cpu")
    model.fit(X, Y, epochs=2, verbose=0)
    assert model.epochs_trained == 2


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
    (
        lambda y, t: (np.where(t == t[7, 1], np.nan, y), y),
        ValueError,
        "<lambda> returned NaN for finite values, first in row 7 of the batch, column 1",
    ),
    (
        lambda y, t: (y, np.where(t == t[3, 0], np.nan, y)),
        ValueError,
        "gradient returned NaN for finite values, first in row 3 of the batch, column 0",
    ),
    (
        lambda y, t: (np.where(t == t[5, :1], np.nan, y).sum(axis=1), y),
        ValueError,
        "<lambda> returned NaN for finite values, first in row 5 of the batch: keep",
    ),
]


@DEVICES
@pytest.mark.parametrize(("function", "error", "said"), BAD_LOSSES)
def test_a_function_that_fails_leaves_the_model(
    function: Any, error: type[Exception], said: str, device: str
) -> None:
    model = model_of(loss=bp.CustomLoss(function), device=device)
    model.build(5)
    engine = model._require_built()
    before = engine.parameters.tobytes()
    with pytest.raises(error, match=said):
        model.fit(X, Y, epochs=1, batch_size=40, verbose=0, shuffle=False)
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
