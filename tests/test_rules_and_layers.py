"""Weights of rows and rules of updates beside what else a network may have.

Frozen layers, moving statistics, blocks of layers, rows that are gathered in Python or come in
batches, hooks between batches, and a run that is stopped in the middle of everything. Compared:
the engine with the oracle; the definitions in NumPy; with == what has to be the same.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastbp as bp
import machine
import sweeps
import tolerances
from sweeps import Array

DEVICES = ["cpu", "reference"]
X, Y = np.random.default_rng(3).normal(size=(48, 5)), np.random.default_rng(4).normal(size=(48, 2))
WEIGHTS = np.linspace(0.2, 2.0, 48)
RULES: dict[str, Any] = {
    "clip_norm": 0.2,
    "clip_value": 0.1,
    "gradient_accumulation_steps": 3,
    "use_ema": True,
    "ema_momentum": 0.8,
    "layer_rates": {2: 0.5, -1: 2.0},
}


def layers_of() -> list[bp.Layer]:
    penalty = bp.L1L2(1e-3, 1e-2)
    return [
        bp.Dense(40, activation="tanh", kernel_regularizer=penalty),
        bp.BatchNorm(),
        bp.Residual([bp.LayerNorm(), bp.Dense(40, activation="relu", kernel_regularizer=penalty)]),
        bp.Dropout(0.2),
        bp.Dense(2, kernel_regularizer="l2"),
    ]


def model_of(
    device: str = "cpu", dtype: str = "float64", loss: str = "mse", **rules: Any
) -> bp.Sequential:
    model = bp.Sequential(layers_of(), seed=1)
    rate = bp.CosineDecay(0.05, 12, warmup_steps=3)
    model.compile(bp.Adam(rate, **rules), loss, device=device, dtype=dtype)
    model.build(5)
    return model


def outcome(model: bp.Sequential) -> list[bytes]:
    engine = model._require_built()
    arrays = [engine.parameters, engine.state, *engine.optimizer_state]
    return [a.tobytes() for a in arrays]


@pytest.mark.parametrize("frozen", [[], [0], [1, 2]])
@pytest.mark.parametrize("dtype", sweeps.DTYPES)
def test_the_engine_follows_the_oracle(dtype: str, frozen: list[int]) -> None:
    """Everything at once; some layers are frozen in the middle of an accumulation."""
    models = [model_of(device, dtype, **RULES) for device in ("reference", "cpu")]
    for model in models:
        model.fit(X, Y, epochs=2, batch_size=16, sample_weight=WEIGHTS, verbose=0)
        model.step(X, Y, sample_weight=WEIGHTS)
        model.freeze(layers=frozen)
        model.fit(X, Y, epochs=2, batch_size=16, sample_weight=WEIGHTS, verbose=0)
    oracle, engine = (model._require_built() for model in models)
    limit = 2000 * tolerances.unit(dtype)
    pairs = [(engine.parameters, oracle.parameters), (engine.state, oracle.state)]
    pairs += zip(engine.optimizer_state, oracle.optimizer_state, strict=True)
    for place, (got, want) in enumerate(pairs):
        error = tolerances.norm_error(got, want)
        assert error <= limit, f"array {place} is off by {error:.3g}"
    losses = [model.evaluate(X, Y)["loss"] for model in models]
    assert losses[1] == pytest.approx(losses[0], rel=limit)


def test_threads_and_instruction_sets_change_no_bit() -> None:
    def run() -> tuple[bytes, ...]:
        model = model_of(dtype="float32", **RULES)
        model.freeze(layers=[0])
        model.fit(X, Y, epochs=3, batch_size=20, sample_weight=WEIGHTS, verbose=0)
        return tuple(outcome(model))

    found = set()
    for threads in machine.THREADS:
        with machine.using_threads(threads):
            found |= set(machine.on_every_isa(run).values())
    assert len(found) == 1


@pytest.mark.parametrize("device", DEVICES)
def test_frozen_layers_have_no_penalty_no_part_in_the_norm_and_no_step(device: str) -> None:
    model = model_of(device, **RULES)
    before = {name: view.copy() for name, view in model.parameters().items()}
    model.freeze(layers=[0, 2])
    loss, gradients = model.gradients(X, Y)
    assert {name.split(".")[0] for name in gradients} == {"1", "4"}
    plain = layers_of()
    plain[0] = bp.Dense(40, activation="tanh")
    plain[2] = bp.Residual([bp.LayerNorm(), bp.Dense(40, activation="relu")])
    other = bp.Sequential(plain, seed=1)
    other.compile("sgd", "mse", device=device, dtype="float64")
    other.build(5)
    other.freeze(layers=[0, 2])
    assert other.gradients(X, Y)[0] == pytest.approx(loss, rel=1e-13)
    assert other.evaluate(X, Y)["loss"] == pytest.approx(model.evaluate(X, Y)["loss"], rel=1e-13)
    for _ in range(6):  # the first update has rate 0
        model.step(X, Y)
    for name, view in model.parameters().items():
        changed = (view != before[name]).any()
        assert changed == (name.split(".")[0] in "14"), name


@pytest.mark.parametrize("device", DEVICES)
def test_the_averaged_model_predicts_with_the_statistics_of_training(device: str) -> None:
    model = model_of(device, **RULES)
    model.freeze(layers=[0])
    model.fit(X, Y, epochs=4, batch_size=16, verbose=0)
    smooth = model.averaged()
    for name, view in smooth.state().items():
        np.testing.assert_array_equal(view, model.state()[name])
    assert set(smooth.gradients(X, Y)[1]) == set(model.gradients(X, Y)[1])
    assert (smooth.predict(X) != model.predict(X)).all()


@pytest.mark.parametrize("loss", ["mse", "half_sse"])
def test_hooks_between_batches_change_no_loss(loss: str) -> None:
    """The penalty counts once in an evaluation, however its rows are taken."""

    class Watcher(bp.Callback):
        def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
            """Is called."""

    model = model_of(loss=loss)
    whole = model.evaluate(X, Y, batch_size=10, sample_weight=WEIGHTS)["loss"]
    parts = model.evaluate(X, Y, batch_size=10, sample_weight=WEIGHTS, callbacks=Watcher())["loss"]
    assert parts == pytest.approx(whole, rel=1e-12)
    assert whole > model_of(loss=loss).evaluate(X, Y, batch_size=10)["loss"] * 0.3


def as_memmap(folder: Path, dtype: str) -> Array:
    path = folder / "x"
    X.astype(dtype).tofile(path)
    return np.memmap(path, dtype, "r", shape=X.shape)


def test_rows_gathered_in_python_have_the_same_weights(tmp_path: Path) -> None:
    """A memmap of another dtype, an augmentation that changes nothing, an iterator of triples."""
    x = X.astype("float32").astype("float64")
    mean = WEIGHTS / WEIGHTS.mean()
    ways: list[Callable[[bp.Sequential], Any]] = [
        lambda m: m.fit(x, Y, sample_weight=WEIGHTS, batch_size=16, shuffle=False, verbose=0),
        lambda m: m.fit(
            as_memmap(tmp_path, "float32"),
            Y,
            sample_weight=WEIGHTS,
            batch_size=16,
            shuffle=False,
            verbose=0,
        ),
        lambda m: m.fit(
            x,
            Y,
            sample_weight=WEIGHTS,
            batch_size=16,
            shuffle=False,
            verbose=0,
            augment=lambda batch, rng: batch,
        ),
    ]
    found = []
    for way in ways:
        model = model_of(**RULES)
        history = way(model)
        found.append((history.history["loss"], outcome(model)))
    assert found[0] == found[1] == found[2]
    # Of an iterator each batch has a mean of its own.
    triples = [(x[i : i + 16], Y[i : i + 16], mean[i : i + 16]) for i in (0, 16, 32)]
    by_batches, by_steps = model_of(**RULES), model_of(**RULES)
    by_batches.fit(triples, epochs=1, verbose=0)
    for a, b, w in triples:
        by_steps.step(a, b, sample_weight=w)
    assert outcome(by_batches) == outcome(by_steps)
    bad: list[dict[str, Any]] = [{"sample_weight": WEIGHTS}, {"class_weight": "balanced"}]
    for arguments in bad:
        with pytest.raises(ValueError, match="X gives batches"):
            by_batches.fit(triples, epochs=1, verbose=0, **arguments)
    assert outcome(by_batches) == outcome(by_steps)


@pytest.mark.parametrize("every_step", [False, True])
@pytest.mark.parametrize("dtype", sweeps.DTYPES)
def test_sequences(dtype: str, every_step: bool) -> None:
    """The weight of a sequence is that of all its steps; all rules beside recurrent layers."""
    x = np.random.default_rng(5).normal(size=(40, 6, 3))
    y = np.random.default_rng(6).normal(size=(40, 6, 2) if every_step else (40, 2))
    weights = np.linspace(0, 2, 40)
    rules = {**RULES, "layer_rates": {0: 0.5, -1: 2.0}}
    models = []
    for device in ("reference", "cpu"):
        layers = [
            bp.LSTM(9, return_sequences=True),
            bp.GRU(7, return_sequences=every_step),
            bp.Dense(2, kernel_regularizer="l2"),
        ]
        model = bp.Sequential(layers, seed=2)
        model.compile(bp.Adam(0.02, **rules), "huber", device=device, dtype=dtype)
        models.append(model)
        model.fit(x, y, epochs=2, batch_size=16, sample_weight=weights, verbose=0)
        model.freeze(upto=1)
        model.fit(x, y, epochs=2, batch_size=16, sample_weight=weights, verbose=0)
    oracle, engine = (model._require_built() for model in models)
    limit = 2000 * tolerances.unit(dtype)
    pairs = [(engine.parameters, oracle.parameters)]
    pairs += zip(engine.optimizer_state, oracle.optimizer_state, strict=True)
    for place, (got, want) in enumerate(pairs):
        error = tolerances.norm_error(got, want)
        assert error <= limit, f"array {place} is off by {error:.3g}"
    losses = [model.evaluate(x, y, sample_weight=weights)["loss"] for model in models]
    assert losses[1] == pytest.approx(losses[0], rel=limit)
    twice = np.repeat(np.arange(40), np.arange(40) % 3)
    counted = models[1].evaluate(x, y, sample_weight=np.arange(40) % 3)["loss"]
    assert counted == pytest.approx(models[1].evaluate(x[twice], y[twice])["loss"], rel=limit)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("loss", ["mse", "half_sse"])
def test_the_weight_of_a_sequence_is_that_of_each_of_its_steps(loss: str, device: str) -> None:
    """Of sequences of different lengths too: a weight of 2 is the sequence twice."""
    rng = np.random.default_rng(5)
    lengths, y = rng.integers(1, 7, 30), rng.normal(size=(30, 6, 2))
    x = bp.Sequences(rng.normal(size=(30, 6, 3)), lengths)
    model = bp.Sequential([bp.LSTM(4, return_sequences=True), bp.Dense(2)], seed=2)
    model.compile("sgd", loss, device=device, dtype="float64")
    weights = np.arange(30) % 3
    twice = np.repeat(np.arange(30), weights)
    found, gradients = model.gradients(x, y, sample_weight=weights)
    expected, repeated = model.gradients(x[twice], y[twice])
    assert found == pytest.approx(expected, rel=1e-12)
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, repeated[name], rtol=1e-9, atol=1e-13)
    counted = model.evaluate(x, y, sample_weight=weights, batch_size=7)["loss"]
    assert counted == pytest.approx(model.evaluate(x[twice], y[twice])["loss"], rel=1e-12)


class StopAt(bp.Callback):
    """Ends fit behind step k of the run."""

    def __init__(self, k: int) -> None:
        self.left = k

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.left -= 1
        if self.left == 0:
            self.model.stop_training = True

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: Any) -> None:
        self.left = -1


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("k", [1, 2, 4, 5, 7, 9])
def test_a_run_stopped_at_any_batch_goes_on_bit_for_bit(
    k: int, device: str, tmp_path: Path
) -> None:
    """In the middle of accumulation, schedule and average, with dropout and moving statistics."""
    settings: dict[str, Any] = {"epochs": 4, "batch_size": 16, "sample_weight": WEIGHTS}
    one = model_of(device, **RULES)
    one.freeze(layers=[0])
    history = one.fit(X, Y, callbacks=StopAt(-1), verbose=0, **settings)
    two = model_of(device, **RULES)
    two.freeze(layers=[0])
    two.fit(X, Y, callbacks=[StopAt(k)], verbose=0, **settings)
    assert outcome(two) != outcome(one)
    two.save(tmp_path / "net")
    three = model_of(device, **RULES)
    resumed = three.fit(
        X, Y, callbacks=[StopAt(-1)], verbose=0, resume=tmp_path / "net", **settings
    )
    assert outcome(three) == outcome(one)
    assert resumed.history == history.history
    assert one.averaged().predict(X).tobytes() == three.averaged().predict(X).tobytes()
    other = dict(settings, sample_weight=WEIGHTS[::-1])
    with pytest.raises(ValueError, match="not the data of the run"):
        model_of(device, **RULES).fit(
            X, Y, callbacks=[StopAt(-1)], verbose=0, resume=tmp_path / "net", **other
        )


@pytest.mark.parametrize(
    "callback", [bp.ReduceLROnPlateau("loss"), bp.LearningRateScheduler(lambda e, r: r)]
)
def test_callbacks_that_change_a_rate_refuse_a_schedule_before_training(callback: Any) -> None:
    model = model_of()
    before = outcome(model)
    with pytest.raises(TypeError, match="a number; the optimizer has CosineDecay"):
        model.fit(X, Y, epochs=1, callbacks=callback, verbose=0)
    assert outcome(model) == before
    model.optimizer.learning_rate = 0.1
    model.fit(X, Y, epochs=1, callbacks=callback, verbose=0)


def test_lbfgs_refuses_layers_that_change_the_loss() -> None:
    pytest.importorskip("scipy")
    changing: list[bp.Layer] = [
        bp.BatchNorm(),
        bp.Dropout(0.5),
        bp.Residual([bp.Dropout(0.5)]),
        bp.TimeDistributed(bp.Dropout(0.5)),
        bp.LSTM(3, dropout=0.5),
        bp.Bidirectional(bp.GRU(3, recurrent_dropout=0.5)),
    ]
    for layer in changing:
        model = bp.Sequential([bp.Dense(4), layer, bp.Dense(2)], seed=0)
        model.compile(bp.LBFGS(), "mse", dtype="float64")
        with pytest.raises(ValueError, match="LBFGS compares losses"):
            model.fit(X, Y, epochs=2, verbose=0)
    model = bp.Sequential([bp.Dense(4), bp.LayerNorm(), bp.Dense(2)], seed=0)
    model.compile(bp.LBFGS(), "mse", dtype="float64")
    model.freeze(upto=1)
    kept = model.build(5) or model.parameters()["0.kernel"].copy()
    history = model.fit(X, Y, epochs=5, verbose=0).history["loss"]
    assert history[-1] < history[0]
    np.testing.assert_array_equal(model.parameters()["0.kernel"], kept)
    with pytest.raises(ValueError, match="all rows at once"):
        model.fit([(X, Y)], epochs=1, verbose=0)
