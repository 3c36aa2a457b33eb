"""Every layer and rule of device="cuda" against device="cpu", bit for bit, on the emulated device.

tests/test_cuda_training.py has networks of dense layers, losses and optimizers; here stands what
may be put between them, and what may happen to a gradient on its way into the parameters.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import fastbp as bp
from fastbp.cuda_engine import CudaEngine
from sweeps import DTYPES, Array
from test_cuda_training import SCHEDULES, digest, state


@pytest.fixture(scope="module", autouse=True)
def library(emulated_library: Path) -> Iterator[Path]:
    """The emulated device is the process's CUDA device."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTBP_CUDA_LIBRARY", str(emulated_library))
        yield emulated_library


class Case(NamedTuple):
    """A network and how it is trained."""

    layers: Callable[[], Sequence[bp.layers.Layer]]
    inputs: int = 6
    optimizer: Callable[[], bp.optimizers.Optimizer] = lambda: bp.Adam(0.01)
    loss: str = "mse"
    batch: int = 20
    rows: int = 50
    frozen: tuple[int, ...] = ()
    weights: bool = False  # of the rows
    labels: bool = False  # class numbers instead of rows

    def data(self, dtype: str) -> tuple[Array, Array]:
        rng = np.random.default_rng(7)
        x = rng.normal(size=(self.rows, self.inputs)).astype(dtype)
        outputs = bp.Sequential(self.layers()).outputs
        if self.labels:
            return x, rng.integers(0, outputs, self.rows)
        return x, rng.random((self.rows, outputs)).astype(dtype)

    def sample_weight(self) -> Array | None:
        weights: Array = np.random.default_rng(8).random(self.rows)
        return weights if self.weights else None

    def model(self, device: str, dtype: str) -> bp.Sequential:
        model = bp.Sequential(self.layers(), seed=3)
        model.compile(self.optimizer(), self.loss, device=device, dtype=dtype)
        model.build(self.inputs)
        model.freeze(layers=self.frozen)
        return model


def dense() -> list[bp.layers.Layer]:
    """More than one block of 1024 parameters, cut within by the layers' ends; a part in chunks."""
    return [bp.Dense(40, activation="tanh"), bp.Dense(33, activation="relu"), bp.Dense(3)]


def penalized() -> list[bp.layers.Layer]:
    return [
        bp.Dense(40, activation="tanh", kernel_regularizer=bp.L1L2(0.01, 0.02)),
        bp.Dense(33, kernel_regularizer=bp.L2(0.003)),
        bp.Dense(3, kernel_regularizer=bp.L1(0.001)),
    ]


def with_rules(**rules: Any) -> Callable[[], bp.optimizers.Optimizer]:
    return lambda: bp.Adam(0.01, **rules)


ALL = {"clip_norm": 0.05, "clip_value": 0.002, "gradient_accumulation_steps": 2,
       "use_ema": True, "ema_momentum": 0.9, "layer_rates": {0: 0.5, 2: 0.0}}  # fmt: skip
CASES = {
    "a frozen layer": Case(dense, frozen=(1,)),
    "frozen at the bottom, in chunks": Case(dense, frozen=(0,), rows=300, batch=300),
    "all frozen": Case(dense, frozen=(0, 1, 2)),
    "rates of layers": Case(dense, optimizer=with_rules(layer_rates={0: 0.5, 2: 2.0})),
    "penalties": Case(penalized),
    "penalties, one layer frozen": Case(penalized, frozen=(1,)),
    "the norm is limited": Case(dense, optimizer=with_rules(clip_norm=0.05)),
    "values are limited": Case(dense, optimizer=with_rules(clip_value=0.002)),
    "three batches to an update": Case(
        dense, optimizer=with_rules(gradient_accumulation_steps=3), batch=10),
    "an average is kept": Case(dense, optimizer=with_rules(use_ema=True, ema_momentum=0.9)),
    "all rules": Case(penalized, optimizer=with_rules(**ALL), weights=True),
    "all rules, chunks, one layer frozen": Case(
        penalized, optimizer=with_rules(**ALL), frozen=(2,), rows=300, batch=290),
    "weights": Case(dense, weights=True),
    "weights of classes": Case(
        dense, loss="softmax_cross_entropy", labels=True, weights=True),
    "weights of many classes": Case(
        lambda: [bp.Dense(21)], loss="softmax_cross_entropy", labels=True, weights=True),
}  # fmt: skip


# Under tests/test_cuda_persistent.py's watched device.
WATCHED = ["all rules, chunks, one layer frozen", "weights", "weights of many classes"]


def outcome(case: Case, device: str, dtype: str) -> list[Any]:
    """All that a model says and holds after each kind of call."""
    (x, y), weights = case.data(dtype), case.sample_weight()
    model = case.model(device, dtype)
    said: list[Any] = [
        model.fit(x, y, epochs=2, batch_size=case.batch, sample_weight=weights, verbose=0).history,
        state(model),
        model.predict(x),
        model.evaluate(x, y, batch_size=24, sample_weight=weights),
        model.forward(x, training=True),
        model.gradients(x, y),
        model.input_gradient(x, y),
        model.step(x, y),
        model.step(x, y),
        state(model),
    ]
    assert model.device == device
    return said


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_are_the_cpus(name: str, dtype: str) -> None:
    case = CASES[name]
    cpu, cuda = (outcome(case, device, dtype) for device in ("cpu", "cuda"))
    for place, (got, want) in enumerate(zip(cuda, cpu, strict=True)):
        assert digest(got) == digest(want), f"{name}: result {place}: {got} is not {want}"


@pytest.mark.parametrize("name", ["all rules, chunks, one layer frozen"])
def test_order_of_threads_does_not_matter(library: Path, name: str) -> None:
    set_schedule = ctypes.CDLL(str(library)).fbp_emulation_set_schedule
    case = CASES[name]
    x, y = case.data("float32")

    def found() -> str:
        model = case.model("cuda", "float32")
        model.fit(x, y, epochs=1, batch_size=case.batch, verbose=0)
        return digest(state(model))

    expected = found()
    try:
        for schedule in SCHEDULES:
            assert set_schedule(schedule.encode()) == 0
            assert found() == expected, schedule
    finally:
        assert set_schedule(b"forward") == 0


def test_rules_come_and_go() -> None:
    """Recorded steps are not replayed under other rules, other frozen layers."""
    case = CASES["weights"]
    x, y = case.data("float32")
    models = [case.model(device, "float32") for device in ("cpu", "cuda")]
    said: list[list[Any]] = [[], []]
    for model, log in zip(models, said, strict=True):
        for optimizer in (bp.Adam(0.01), bp.Adam(0.01, clip_norm=0.01), bp.Adam(0.01)):
            model.compile(optimizer, "mse", device=model.device)
            log += [model.step(x, y) for _ in range(3)]
            model.freeze(1)
            log += [model.step(x, y) for _ in range(3)]
            model.freeze(0)
            log += [model.step(x, y), state(model)]
    assert digest(said[0]) == digest(said[1])


def test_arrays_that_rules_do_not_want_are_refused() -> None:
    engine: Any = CudaEngine(2, [("dense", 3, True)], "float32")
    engine.compile("mse", 0.0, "sgd", {"learning_rate": 0.1})
    network = engine._network
    with pytest.raises(ValueError, match="want no such array"):
        network.read(4, np.zeros(network.parameter_count, np.float32))
    with pytest.raises(ValueError, match="ranges"):
        network.set_rules({"ranges": [(0, 10_000, 1.0, 0.0, 0.0)]})
    with pytest.raises(ValueError, match="weights: "):
        engine.step(
            np.ones((4, 2), np.float32), np.ones((4, 3), np.float32), np.ones(3, np.float32)
        )
    with pytest.raises(ValueError, match="layers: expected a value for each"):
        network.set_trainable([True, True])
