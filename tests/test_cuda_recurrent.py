"""Recurrent layers of device="cuda" against device="cpu", bit for bit, on the emulated device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import fastbp as bp
from cuda_library import in_orders, is_emulated, launches
from fastbp import _core
from fastbp.cuda_engine import CudaEngine
from sweeps import DTYPES, Array
from test_cuda_training import SCHEDULES, digest, state


@pytest.fixture(autouse=True)
def library(device_library: Path) -> Path:
    return device_library


class Case(NamedTuple):
    """A network over sequences and how it is trained; the second part of a batch is shorter."""

    layers: Callable[[], Sequence[bp.layers.Layer]]
    every_step: bool = False  # an output at every step
    lengths: bool = False  # sequences end early
    labels: bool = False
    weights: str = ""  # what has weights of its own: "rows" or "steps"
    rows: int = 45
    batch: int = 37
    steps: int = 5
    optimizer: Callable[[], bp.optimizers.Optimizer] = lambda: bp.Adam(0.01)
    frozen: tuple[int, ...] = ()
    numbers: bool = False  # x is entries of a table

    def data(self, dtype: str) -> tuple[Any, Array]:
        rng = np.random.default_rng(7)
        inputs = 1 if self.numbers else 3
        x: Any = rng.normal(size=(self.rows, self.steps, inputs)).astype(dtype)
        if self.numbers:
            x = rng.integers(0, 11, x.shape).astype(dtype)
        shape = (self.rows, self.steps) if self.every_step else (self.rows,)
        y = rng.integers(0, 4, shape) if self.labels else rng.random((*shape, 4)).astype(dtype)
        if self.lengths:
            x = bp.Sequences(x, rng.integers(1, self.steps + 1, self.rows))
        return x, y

    def model(self, device: str, dtype: str) -> bp.Sequential:
        model = bp.Sequential(self.layers(), seed=3)
        loss = "softmax_cross_entropy" if self.labels else "mse"
        metrics = ["accuracy"] if self.labels else ["mse"]
        model.compile(self.optimizer(), loss, metrics, device=device, dtype=dtype)
        model.build(1 if self.numbers else 3)
        if self.frozen:
            model.freeze(layers=self.frozen)
        return model


CASES = {
    "plain": Case(lambda: [bp.SimpleRNN(6), bp.Dense(4)]),
    "plain, relu": Case(lambda: [bp.SimpleRNN(6, activation="relu"), bp.Dense(4)]),
    "lstm": Case(lambda: [bp.LSTM(19), bp.Dense(4)]),
    "gru": Case(lambda: [bp.GRU(19), bp.Dense(4)]),
    "many units": Case(lambda: [bp.LSTM(70), bp.Dense(4)], rows=7, batch=7, steps=3),
    "two layers": Case(lambda: [bp.GRU(6, return_sequences=True), bp.LSTM(9), bp.Dense(4)]),
    "every step": Case(
        lambda: [bp.LSTM(6, return_sequences=True), bp.Dense(9, activation="tanh"), bp.Dense(4)],
        every_step=True),
    "classes of steps": Case(
        lambda: [bp.GRU(6, return_sequences=True), bp.Dense(4)], every_step=True, labels=True,
        weights="steps"),
    "the last layer": Case(lambda: [bp.LSTM(4)]),
    "dropout and norms": Case(
        lambda: [bp.Dropout(0.2), bp.GRU(6, return_sequences=True), bp.LayerNorm(),
                 bp.Dropout(0.3), bp.SimpleRNN(5), bp.LayerNorm(), bp.Dropout(0.1), bp.Dense(4)]),
    "both ways": Case(lambda: [bp.Bidirectional(bp.GRU(6)), bp.Dense(4)]),
    "both ways at every step, added": Case(
        lambda: [bp.Bidirectional(bp.LSTM(6, return_sequences=True), merge_mode="sum"),
                 bp.Dense(4)], every_step=True),
    "backwards": Case(lambda: [bp.LSTM(6, go_backwards=True), bp.Dense(4)]),
    "lengths": Case(lambda: [bp.LSTM(6), bp.Dense(4)], lengths=True),
    "lengths, both ways": Case(
        lambda: [bp.Bidirectional(bp.GRU(6)), bp.Dense(4)], lengths=True, weights="rows"),
    "one part": Case(lambda: [bp.GRU(6), bp.Dense(4)], rows=12, batch=8, lengths=True),
    "all rules": Case(
        lambda: [bp.LSTM(6), bp.Dense(4, kernel_regularizer=bp.L2(0.01))],
        optimizer=lambda: bp.Adam(0.01, clip_norm=0.05, gradient_accumulation_steps=2,
                                  use_ema=True, layer_rates={0: 0.5})),
    "frozen": Case(lambda: [bp.GRU(6, return_sequences=True), bp.LSTM(5), bp.Dense(4)],
                   frozen=(0,)),
    "lengths at every step": Case(
        lambda: [bp.LSTM(6, return_sequences=True), bp.Dense(9, activation="tanh"), bp.Dense(4)],
        every_step=True, lengths=True, weights="steps"),
    "classes of lengths": Case(
        lambda: [bp.Bidirectional(bp.GRU(6, return_sequences=True)), bp.LayerNorm(),
                 bp.Dropout(0.1), bp.Dense(4)],
        every_step=True, lengths=True, labels=True, weights="rows", steps=9,
        optimizer=lambda: bp.Adam(0.01, clip_norm=0.05, gradient_accumulation_steps=2)),
    "lengths of the last layer": Case(
        lambda: [bp.GRU(4, return_sequences=True)],
        every_step=True, lengths=True),
    "states are masked": Case(
        lambda: [bp.Bidirectional(bp.GRU(70, recurrent_dropout=0.3)), bp.Dense(4)], rows=9,
        batch=9, steps=3, lengths=True),
    "many parts": Case(  # of which 9 have a place for their gradients
        lambda: [bp.GRU(3, return_sequences=True), bp.LayerNorm(), bp.Dense(4)], rows=620,
        batch=600, steps=2, every_step=True),
    "words": Case(lambda: [bp.Embedding(11, 7), bp.GRU(6), bp.Dense(4)], numbers=True),
}  # fmt: skip

# Recurrent weights of more than one block's shared memory, and less than that of two. The first has
# more sequences than the blocks take together.
TWO_SLICES = {
    "float32": Case(lambda: [bp.LSTM(121), bp.Dense(4)], rows=17, batch=17, steps=4, lengths=True),
    "float64": Case(lambda: [bp.GRU(100, recurrent_dropout=0.3), bp.Dense(4)], rows=5, batch=5,
                    steps=4),
}  # fmt: skip

# Under tests/test_cuda_persistent.py's watched device.
WATCHED = ["plain", "gru", "states are masked", "dropout and norms", "classes of lengths"]
WALK, STEP = "walk_kernel", "scan_kernel"  # as they are launched


def outcome(case: Case, device: str, dtype: str) -> list[Any]:
    """All that a model says and holds after each kind of call."""
    x, y = case.data(dtype)
    shapes = {"rows": (case.rows,), "steps": (case.rows, case.steps)}
    weights = np.random.default_rng(8).random(shapes[case.weights]) if case.weights else None
    model = case.model(device, dtype)
    said: list[Any] = [
        model.fit(x, y, epochs=2, batch_size=case.batch, sample_weight=weights, verbose=0).history,
        state(model),
        model.predict(x),
        model.evaluate(x, y, batch_size=24, sample_weight=weights),
        model.gradients(x, y, sample_weight=weights),
        model.step(x, y),
        state(model),
    ]
    assert model.device == device
    return said


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_are_the_cpus(name: str, dtype: str) -> None:
    cpu, cuda = (outcome(CASES[name], device, dtype) for device in ("cpu", "cuda"))
    for place, (got, want) in enumerate(zip(cuda, cpu, strict=True)):
        assert digest(got) == digest(want), f"{name}: result {place}: {got} is not {want}"


@pytest.mark.parametrize("dtype", DTYPES)
def test_input_gradients_and_passes_of_training(dtype: str) -> None:
    case = CASES["dropout and norms"]
    x, y = case.data(dtype)
    models = [case.model(device, dtype) for device in ("cpu", "cuda")]
    said = [(m.input_gradient(x, y), m.forward(x, training=True)) for m in models]
    assert digest(said[0]) == digest(said[1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layer", [bp.SimpleRNN, bp.LSTM, bp.GRU])
@pytest.mark.parametrize("steps", [1, 9])
def test_states_of_zero_meet_infinite_weights(
    layer: type[bp.layers.Layer], dtype: str, steps: int
) -> None:
    """0 times infinity is no number, on the first step too."""
    case = Case(lambda: [layer(6)], steps=steps)  # type: ignore[call-arg]
    out = []
    for device in ("cpu", "cuda"):
        model = case.model(device, dtype)
        engine: Any = model._require_built()
        offset = engine.parameter_shapes[1][0]
        engine.parameters[offset + 2] = np.inf
        out.append(model.predict(case.data(dtype)[0]))
    assert np.isnan(out[0]).any()
    np.testing.assert_array_equal(out[0], out[1])


def test_one_kernel_walks_where_the_weights_fit(library: Path) -> None:
    """Over all steps, with the bits of a kernel for each step."""
    for case in (CASES["plain, relu"], CASES["lengths, both ways"]):
        x, y = case.data("float32")
        found = []
        for walks in (True, False):
            model = case.model("cuda", "float32")
            engine: Any = model._require_built()
            engine.set_persistent(walks)
            before = launches(library, WALK), launches(library, STEP)
            model.fit(x, y, epochs=2, batch_size=case.batch, verbose=0)
            after = launches(library, WALK), launches(library, STEP)
            if is_emulated(library):
                assert (after[0] != before[0], after[1] != before[1]) == (walks, not walks)
            found.append(digest(state(model)))
        assert found[0] == found[1]


def test_few_steps_or_too_many_weights_are_steps_of_their_own(library: Path) -> None:
    before = launches(library, WALK)
    for dtype, case in (
        ("float64", TWO_SLICES["float32"]._replace(rows=1)),
        ("float32", CASES["states are masked"]),
    ):
        case.model("cuda", dtype).predict(case.data(dtype)[0])
    assert launches(library, WALK) == before


def fit_in_two_slices(device: str, dtype: str) -> str:
    case = TWO_SLICES[dtype]
    model = case.model(device, dtype)
    model.fit(*case.data(dtype), epochs=1, batch_size=case.batch, verbose=0)
    return digest(state(model))


@pytest.mark.parametrize("dtype", DTYPES)
def test_blocks_share_weights_that_one_cannot_hold(library: Path, dtype: str) -> None:
    expected, before = fit_in_two_slices("cpu", dtype), launches(library, WALK)
    for schedule in in_orders(library, ("forward", "random:3")):
        assert fit_in_two_slices("cuda", dtype) == expected, schedule
    if is_emulated(library):
        assert launches(library, WALK) != before


def test_models_of_unlike_sizes_by_turns() -> None:
    """A kernel's shared memory is that of the device, not of the model that came last."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4, 5, 2)).astype(np.float32)
    models = []
    for units in (100, 3):
        models.append(bp.Sequential([bp.LSTM(units), bp.Dense(1)], seed=0))
        models[-1].compile(device="cuda", loss="mse")
    said = [model.predict(x) for model in (*models, *models)]
    assert digest(said[:2]) == digest(said[2:])


@pytest.mark.parametrize("name", ["lengths, both ways", "classes of lengths"])
def test_order_of_threads_does_not_matter(library: Path, name: str) -> None:
    case = CASES[name]
    x, y = case.data("float32")

    def found() -> str:
        model = case.model("cuda", "float32")
        model.fit(x, y, epochs=1, batch_size=case.batch, verbose=0)
        return digest(state(model))

    expected = found()
    for schedule in in_orders(library, SCHEDULES):
        assert found() == expected, schedule


@pytest.mark.parametrize("walks", [True, False])
@pytest.mark.parametrize("truncate", [1, 2, 3])
def test_gradients_end_where_they_are_cut(truncate: int, *, walks: bool) -> None:
    """Truncated backpropagation, with sequences that have ended."""
    layers = [
        ("dense", 12, True),
        ("scan", "lstm", 3, True, False, False, "one", truncate, 0.0),
        ("dense", 2, True),
    ]
    rng = np.random.default_rng(5)
    x, y = rng.random((9, 7, 2), np.float32), rng.random((9, 2), np.float32)
    lengths = rng.integers(1, 8, 9)
    found = []
    for kind in (_core.Engine, CudaEngine):
        engine: Any = kind(2, layers, "float32", 1, True)
        if kind is CudaEngine:
            engine.set_persistent(walks)
        engine.parameters[...] = np.random.default_rng(6).normal(size=engine.parameters.size)
        engine.compile("mse", 0.0, "sgd", {"learning_rate": 0.1})
        found.append((engine.gradients((x, lengths), y), engine.gradients_.copy()))
    assert digest(found[0]) == digest(found[1])


@pytest.mark.parametrize("dtype", DTYPES)
def test_states_go_on_from_batch_to_batch(dtype: str) -> None:
    """In fit, in steps of one's own, in predictions, and in a stream; gradients keep them."""
    case = Case(
        lambda: [bp.LSTM(5, return_sequences=True, stateful=True), bp.GRU(6, stateful=True),
                 bp.Dense(4)], rows=12, batch=4)  # fmt: skip
    x, y = case.data(dtype)
    said: list[list[Any]] = [[], []]
    for device, log in zip(("cpu", "cuda"), said, strict=True):
        model = case.model(device, dtype)
        run = model.fit(x, y, epochs=2, batch_size=4, shuffle=False, verbose=0)
        log += [run.history, state(model), model.step(x[:4], y[:4]), model.step(x[4:8], y[4:8])]
        log += [model.predict(x[:4]), model.predict(x[:4])]
        model.reset_states()
        log += [model.predict(x, return_state=True)]
        model.reset_states()
        log += [model.predict(x[:4]), model.evaluate(x[:4], y[:4])]
        stream = model.stream(2)
        log += [stream.step(x[:2, t]) for t in range(3)]
    for place, (got, want) in enumerate(zip(said[1], said[0], strict=True)):
        assert digest(got) == digest(want), f"result {place}: {got} is not {want}"


def test_a_run_is_recorded_and_goes_on_from_a_file(tmp_path: Path) -> None:
    case = CASES["lstm"]
    x, y = case.data("float32")
    whole = case.model("cpu", "float32")
    whole.fit(x, y, epochs=4, batch_size=case.batch, verbose=0)
    model = case.model("cuda", "float32")
    model.fit(x, y, epochs=3, batch_size=case.batch, verbose=0)
    engine: Any = model._require_built()
    assert engine.replays > 0
    model.save(tmp_path / "net.safetensors")
    again = bp.load(tmp_path / "net.safetensors", device="cuda")
    again.fit(x, y, epochs=1, batch_size=case.batch, verbose=0)
    assert digest(state(again)) == digest(state(whole))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "name", ["lengths at every step", "classes of lengths", "lengths of the last layer"]
)
def test_steps_of_unequal_lengths_are_recorded(name: str, dtype: str) -> None:
    """As often as those of equal lengths are: how many outputs count is read from the device."""
    case = CASES[name]._replace(rows=10 * 13 + 5, batch=13)
    replays = []
    for lengths in (True, False):
        case = case._replace(lengths=lengths)
        x, y = case.data(dtype)
        said = []
        for device in ("cpu", "cuda"):
            model = case.model(device, dtype)
            said.append(model.fit(x, y, epochs=3, batch_size=case.batch, verbose=0).history)
            said.append(state(model))
        assert digest(said[2:]) == digest(said[:2])
        replays.append(model._require_built().replays)  # type: ignore[attr-defined]
    assert replays[0] == replays[1] == (3 * 10 - 1) + (3 - 1)


def test_a_recording_serves_other_lengths() -> None:
    """Of calls that bring sequences of the same shape, longer and shorter, under one address."""
    case = CASES["lengths at every step"]
    x, y = case.data("float32")
    models = [case.model(device, "float32") for device in ("cpu", "cuda")]
    rng = np.random.default_rng(5)
    for _ in range(4):
        lengths = rng.integers(1, case.steps + 1, case.rows)
        lengths[:20] = rng.integers(1, case.steps + 1)
        losses = [model.step(bp.Sequences(x.values, lengths), y) for model in models]
        assert losses[0] == losses[1]
    assert digest(state(models[0])) == digest(state(models[1]))
    assert models[1]._require_built().replays == 3  # type: ignore[attr-defined]


def test_scores_of_every_step_are_the_cpus() -> None:
    """Of all outputs of an epoch, in the order of its rows."""
    case = CASES["classes of steps"]
    x, y = case.data("float32")
    said = []
    for device in ("cpu", "cuda"):
        model = bp.Sequential(case.layers(), seed=3)
        model.compile("adam", "softmax_cross_entropy", ["f1", "auc"], device=device)
        history = model.fit(x, y, epochs=1, batch_size=case.batch, verbose=0).history
        said.append({name: values[0] for name, values in history.items()})
        said.append(model.evaluate(x, y))
    for got, want in zip(said[2:], said[:2], strict=True):
        assert got == pytest.approx(want, rel=1e-12)
