"""Activations and losses that are Python functions, on device="cuda": bit for bit those of the CPU.

What functions get and return is copied between the device and the host, so the CPU's engine is the
measure in float32 and float64; where a function fails, a run that was not that long.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import fastbp as bp
import test_custom_functions as functions
import test_custom_sequences as sequences
from cuda_library import copied, is_emulated
from cupy_stand_in import array
from sweeps import DTYPES, Array
from test_cuda_mixed import assert_close
from test_cuda_training import digest, state

OWN = functions.SOFTSIGN
ROWS = bp.CustomLoss(functions.log_cosh_of_rows)
ELEMENTS = bp.CustomLoss(functions.squares)


@pytest.fixture(autouse=True)
def library(device_library: Path) -> Path:
    return device_library


class Case(NamedTuple):
    """A network of 7 inputs and 3 outputs, and how it is trained."""

    layers: Callable[[], list[bp.Layer]]
    loss: Any = "mse"
    weights: bool = False
    rules: dict[str, Any] | None = None
    frozen: tuple[int, ...] = ()
    batch: int = 32

    def model(self, device: str, dtype: str) -> bp.Sequential:
        model = bp.Sequential(self.layers(), seed=3)
        optimizer = bp.Adam(0.01, **(self.rules or {}))
        model.compile(optimizer, self.loss, ["mae", "mse"], device=device, dtype=dtype)
        model.build(7)
        if self.frozen:
            model.freeze(layers=self.frozen)
        return model

    def outcome(self, device: str, dtype: str) -> list[Any]:
        """All that a model says and holds after each kind of call."""
        rng = np.random.default_rng(7)
        x, y = rng.normal(size=(70, 7)).astype(dtype), rng.normal(size=(70, 3)).astype(dtype)
        weights = rng.random(70) if self.weights else None
        model = self.model(device, dtype)
        fit = {"batch_size": self.batch, "sample_weight": weights, "verbose": 0}
        said: list[Any] = [
            model.fit(x, y, epochs=2, validation_data=(x[:9], y[:9]), **fit).history,
            state(model),
            model.state(),
            model.predict(x),
            model.evaluate(x, y, batch_size=24, sample_weight=weights),
            model.forward(x, training=True),
            model.gradients(x, y, sample_weight=weights),
            model.input_gradient(x, y),
            model.step(x, y),
            model.fit([(x[:40], y[:40])] * 2, epochs=1, verbose=0).history,
            state(model),
        ]
        assert model.device == device
        if device == "cuda":
            assert model._require_built().replays == 0  # type: ignore[attr-defined]
        return said


def one() -> list[bp.Layer]:
    return [bp.Dense(6, activation=OWN), bp.Dense(3)]


def around() -> list[bp.Layer]:
    """In front, last, two in a row; what it reads also added to."""
    return [OWN, bp.Dense(70, "relu"), bp.Residual([OWN, OWN]), bp.Dense(3, activation=OWN)]


def plain() -> list[bp.Layer]:
    return [bp.Dense(9, "tanh"), bp.Dense(3)]


CASES = {
    "an activation": Case(one),
    "activations around": Case(around, weights=True),
    "activations in all places": Case(lambda: functions.layers_with(OWN), ELEMENTS),
    "one batch in chunks": Case(around, ROWS, batch=70),
    "a loss of rows": Case(plain, ROWS),
    "a loss of elements, weights": Case(plain, ELEMENTS, weights=True),
    "both, with rules": Case(one, ROWS, True, {
        "clip_norm": 0.05, "gradient_accumulation_steps": 2, "use_ema": True}),
    "both, frozen below": Case(around, ELEMENTS, frozen=(0, 1)),
    "all frozen": Case(one, ROWS, frozen=(0, 1)),
    "limited columns": Case(lambda: [bp.Dense(9, activation=OWN, max_norm=0.5), bp.Dense(3)]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_are_the_cpus(name: str, dtype: str) -> None:
    cpu, cuda = (CASES[name].outcome(device, dtype) for device in ("cpu", "cuda"))
    for place, (got, want) in enumerate(zip(cuda, cpu, strict=True)):
        assert digest(got) == digest(want), f"result {place}: {got} is not {want}"


@pytest.mark.parametrize("every_step", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_sequences_have_the_cpus_bits(every_step: bool, dtype: str) -> None:
    """Of different lengths; in parts of a batch, as the CPU's."""
    x = bp.Sequences(sequences.X, sequences.LENGTHS)
    y = sequences.OF_STEPS if every_step else sequences.OF_LAST
    found = []
    for device in ("cpu", "cuda"):
        model = sequences.model_of(every_step, device, dtype)
        fit = {"sample_weight": sequences.WEIGHTS, "verbose": 0, "batch_size": 64}
        said: list[Any] = [model.fit(x, y, epochs=2, **fit).history, model.predict(x)]
        said += [model.evaluate(x, y), model.gradients(x, y), model.step(x, y), state(model)]
        found.append(said)
    for place, (want, got) in enumerate(zip(*found, strict=True)):
        assert digest(got) == digest(want), f"result {place}: {got} is not {want}"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "tf32"])
def test_rounded_products_follow_the_twin(dtype: str) -> None:
    models = []
    for device in ("cuda", "reference"):
        model = Case(around, ROWS, True).model(device, dtype)
        rng = np.random.default_rng(7)
        x, y = rng.normal(size=(70, 7)), rng.normal(size=(70, 3))
        model.fit(x, y, epochs=2, batch_size=32, sample_weight=rng.random(70), verbose=0)
        models.append(model)
    for mine, theirs in zip(*map(state, models), strict=True):
        assert_close(mine, theirs, dtype, steps=12)


def test_a_model_moves_with_its_functions() -> None:
    x, y = functions.X, functions.Y
    found = []
    for second in ("cpu", "cuda"):
        model = functions.model_of(device="cpu")
        model.fit(x, y, epochs=1, batch_size=8, verbose=0)
        model.compile("sgd", ELEMENTS, device=second, dtype="float64")
        model.step(x, y)
        model.append(OWN)
        found.append((model.step(x, y), model.predict(x)))
    assert digest(found[0]) == digest(found[1])


def test_a_named_loss_comes_back_to_the_device(library: Path) -> None:
    """Compiled anew, nothing is asked of the function that was there before."""
    x, y = functions.X, functions.Y
    model = functions.model_of("tanh", functions.LOSS, "cuda")
    model.step(x, y)
    model.compile("adam", "mse", device="cuda", dtype="float64")
    if is_emulated(library):
        before = copied(library)["out"]
        for _ in range(5):
            model.step(x, y)
        assert copied(library)["out"] - before < 5 * y.nbytes  # outputs stay on the device


PLACES = {
    "forward": functions.softsign,
    "derivative": functions.softsign_slope,
    "loss": functions.log_cosh_of_rows,
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("what", [functions.stop, functions.interrupt])
def test_a_failure_leaves_a_step_boundary(place: str, what: Any) -> None:
    """What is left is the model of so many whole steps, and it trains on: also where the layers
    above have their gradients when a derivative fails."""
    x, y = functions.X, functions.Y
    own: dict[str, Any] = dict(PLACES)

    def model() -> bp.Sequential:
        layers = [bp.Dense(40, "tanh"), bp.BatchNorm()]
        layers += [bp.CustomActivation(own["forward"], own["derivative"]), bp.Dense(2)]
        made = bp.Sequential(layers, seed=1)
        made.compile("adam", bp.CustomLoss(own["loss"]), metrics=["mae"], device="cuda")
        return made

    whole = model()
    settings: dict[str, Any] = {"epochs": 1, "batch_size": 10, "verbose": 0, "shuffle": False}
    whole.fit(x[:20], y[:20], **settings)
    fails = own[place] = functions.Fails(own[place], 3, what)
    failed = model()
    with pytest.raises(KeyboardInterrupt if what is functions.interrupt else LookupError):
        failed.fit(x, y, **settings)
    assert failed._require_built().steps == 2
    assert fails.left == 0
    assert digest(state(failed), failed.state()) == digest(state(whole), whole.state())
    failed.fit(x[20:], y[20:], **settings)
    own[place] = fails.function
    whole.fit(x[20:], y[20:], **settings)
    assert digest(failed.predict(x)) == digest(whole.predict(x))


def test_a_run_that_failed_is_resumed() -> None:
    x, y = functions.X, functions.Y
    whole = functions.model_of(device="cuda")
    whole.fit(x, y, epochs=3, batch_size=8, verbose=0)
    fails = functions.Fails(functions.log_cosh_of_rows, 8, functions.stop)
    failed = functions.model_of(loss=bp.CustomLoss(fails), device="cuda")
    with pytest.raises(LookupError):
        failed.fit(x, y, epochs=3, batch_size=8, verbose=0)
    failed.fit(x, y, epochs=3, batch_size=8, verbose=0, resume=True)
    assert failed.history is not None and whole.history is not None
    assert failed.history.history["loss"] == whole.history.history["loss"]
    assert digest(failed.predict(x)) == digest(whole.predict(x))


def test_states_are_those_of_the_last_whole_step() -> None:
    """Of stateful layers: a step that is given up has been through some of them."""
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(60, 5, 3)), rng.normal(size=(60, 2))
    found = []
    for device in ("cpu", "cuda"):
        own = functions.Fails(functions.softsign_slope, 10**9, functions.stop)
        layers = [bp.LSTM(4, return_sequences=True, stateful=True)]
        layers += [bp.CustomActivation(functions.softsign, own), bp.GRU(3, stateful=True)]
        model = bp.Sequential([*layers, bp.Dense(2)], seed=2)
        model.compile(bp.Adam(0.01), ELEMENTS, device=device, dtype="float64")
        settings: dict[str, Any] = {"batch_size": 10, "shuffle": False, "verbose": 0}
        model.fit(x, y, epochs=1, **settings)
        own.left = 4
        with pytest.raises(LookupError):
            model.fit(x, y, epochs=2, **settings)
        steps = model._require_built().steps
        own.left = 10**9
        model.fit(x, y, epochs=2, resume=True, **settings)
        found.append((steps, state(model), model.predict(x[:10])))
    assert digest(found[0]) == digest(found[1])


@pytest.mark.usefixtures("cupy_like")
def test_rows_on_the_device() -> None:
    """The rows are read there; functions get NumPy arrays all the same."""
    kinds = set()

    def loss(y: Array, t: Array) -> tuple[Array, Array]:
        kinds.add((type(y), type(t), y.dtype, t.dtype))
        return functions.squares(y, t)

    x, y = functions.X.astype(np.float32), functions.Y.astype(np.float32)
    found = []
    for made in (np.asarray, array):
        model = functions.model_of(loss=bp.CustomLoss(loss), device="cuda", dtype="float32")
        model.fit(made(x), made(y), epochs=2, batch_size=16, verbose=0)
        said = [state(model), model.step(made(x), made(y))]
        found.append([*said, model.evaluate(made(x), made(y), batch_size=16)])
    assert digest(found[0]) == digest(found[1])
    assert kinds == {(np.ndarray, np.ndarray, np.dtype("f8"), np.dtype("f8"))}


def test_a_failure_in_prediction_and_evaluation() -> None:
    x, y = functions.X, functions.Y
    own = functions.Fails(functions.softsign, 1, functions.stop)
    model = functions.model_of(bp.CustomActivation(own, functions.softsign_slope), device="cuda")
    for work in (model.predict, lambda rows: model.forward(rows, training=True)):
        own.left = 1
        with pytest.raises(LookupError, match="enough"):
            work(x)
        assert work(x).shape == (40, 2)
    own.left = 3
    with pytest.raises(LookupError, match="enough"):
        model.evaluate(x, y, batch_size=10)
    assert model.evaluate(x, y, batch_size=10) == pytest.approx(model.evaluate(x, y))
    for method in (model.gradients, model.input_gradient, model.step):
        own.left = 1
        with pytest.raises(LookupError, match="enough"):
            method(x, y)
    assert model._require_built().steps == 0


@pytest.mark.parametrize(("function", "error", "said"), functions.BAD_LOSSES)
def test_what_a_loss_must_return(function: Any, error: type[Exception], said: str) -> None:
    functions.test_a_function_that_fails_leaves_the_model(function, error, said, "cuda")


def test_a_function_must_not_use_its_model() -> None:
    model: Any = None

    def nosy(z: Array) -> Array:
        return functions.softsign(z) + model.predict(functions.X).sum()

    own = bp.CustomActivation(nosy, functions.softsign_slope)
    model = functions.model_of(own, device="cuda")
    with pytest.raises(RuntimeError, match="an activation or loss of your own"):
        model.step(functions.X, functions.Y)


def test_another_model_on_the_device_may_be_used_in_a_function() -> None:
    other = functions.model_of("tanh", "mse", "cuda")
    other.build(5)

    def teacher(y: Array, t: Array) -> tuple[Array, Array]:
        return functions.squares(y, t + other.predict(functions.X[: len(t)]))

    found = []
    for device in ("cpu", "cuda"):
        model = functions.model_of(loss=bp.CustomLoss(teacher), device=device)
        model.fit(functions.X, functions.Y, epochs=2, batch_size=20, verbose=0)
        found.append(state(model))
    assert digest(found[0]) == digest(found[1])


def test_ctrl_c_between_the_steps_of_a_function() -> None:
    """The signal arrives while no function runs: the run ends at a step."""
    steps = [0]

    def loss(y: Array, t: Array) -> tuple[Array, Array]:
        steps[0] += 1
        if steps[0] == 4:
            signal.setitimer(signal.ITIMER_REAL, 0.001)
        return functions.squares(y, t)

    def handler(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, handler)
    try:
        model = functions.model_of(loss=bp.CustomLoss(loss), device="cuda")
        with pytest.raises(KeyboardInterrupt):
            model.fit(functions.X, functions.Y, epochs=10**6, batch_size=8, verbose=0)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert model._require_built().steps >= 3
    assert np.isfinite(model.step(functions.X, functions.Y))
