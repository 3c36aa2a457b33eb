"""Every layer and rule of device="cuda" against device="cpu", bit for bit, on the emulated device.

tests/test_cuda_training.py has networks of dense layers, losses and optimizers; here stands what
may be put between them, and what may happen to a gradient on its way into the parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import fastbp as bp
from cuda_library import in_orders
from fastbp.cuda_engine import CudaEngine
from sweeps import DTYPES, Array
from test_cuda_training import SCHEDULES, digest, state


@pytest.fixture(autouse=True)
def library(device_library: Path) -> Path:
    return device_library


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
    numbers: bool = False  # x is entries of a table

    def data(self, dtype: str) -> tuple[Array, Array]:
        rng = np.random.default_rng(7)
        x = rng.normal(size=(self.rows, self.inputs)).astype(dtype)
        if self.numbers:
            x = rng.integers(0, 11, x.shape).astype(dtype)
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
        if self.frozen:
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


def limited(limit: float = 1.0) -> list[bp.layers.Layer]:
    """Columns of which some are too long after an update, of more and fewer than a block has."""
    return [bp.Dense(40, activation="tanh", max_norm=limit), bp.Dense(33, activation="relu"),
            bp.Residual([bp.Dense(33, max_norm=limit, kernel_regularizer=bp.L2(0.003))]),
            bp.Dense(3, use_bias=False, max_norm=limit)]  # fmt: skip


def blocks() -> list[bp.layers.Layer]:
    """Around dense layers, within each other, from the input on; dropout behind what is added."""
    return [bp.Residual([bp.Dense(6, activation="tanh"), bp.Dense(6)]), bp.Dropout(0.2),
            bp.Residual([bp.Dense(9, activation="gelu"), bp.Residual([bp.ReLU()]), bp.Dense(6)]),
            bp.Activation("silu"), bp.Dense(3)]  # fmt: skip


def layer_norms() -> list[bp.layers.Layer]:
    """Of more and fewer columns than the CPU's vector has lanes; without scale, without offset."""
    return [bp.LayerNorm(), bp.Dense(37, activation="tanh"), bp.LayerNorm(scale=False), bp.Dense(4),
            bp.LayerNorm(center=False), bp.ReLU()]  # fmt: skip


def softmaxes() -> list[bp.layers.Layer]:
    """Of more and fewer columns than the CPU's vector has lanes; first, between and last."""
    return [bp.Softmax(), bp.Dense(37, activation="tanh"), bp.Softmax(), bp.ReLU(), bp.Dense(4),
            bp.Softmax()]  # fmt: skip


def batch_norms() -> list[bp.layers.Layer]:
    return [bp.BatchNorm(), bp.Dense(21, activation="silu"), bp.BatchNorm(scale=False), bp.ReLU(),
            bp.Dense(5), bp.BatchNorm(momentum=0.8, center=False)]  # fmt: skip


def normalized() -> list[bp.layers.Layer]:
    layer = bp.Normalize()
    layer.adapt(np.random.default_rng(2).normal(3, 2, size=(30, 6)))
    return [layer, bp.Dense(9, activation="tanh"), bp.Dense(3)]


def in_the_middle() -> list[bp.layers.Layer]:
    """What the first layer may do over its input, behind another one and added to."""
    return [bp.Residual([normalized()[0]]), bp.Dense(3)]


def words() -> list[bp.layers.Layer]:
    return [bp.Embedding(11, 19), bp.Dense(9, activation="tanh"), bp.Dense(3)]


CASES = {
    "a frozen layer": Case(dense, frozen=(1,)),
    "frozen at the bottom, in chunks": Case(dense, frozen=(0,), rows=300, batch=300),
    "all frozen": Case(dense, frozen=(0, 1, 2)),
    "rates of layers": Case(dense, optimizer=with_rules(layer_rates={0: 0.5, 2: 2.0})),
    "a rate for each layer": Case(
        dense, optimizer=with_rules(layer_rates={0: 0.5, 1: 0.25, 2: 2.0})),
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
    "columns are limited": Case(limited),
    "columns are limited, in chunks, weights": Case(limited, rows=300, batch=290, weights=True),
    "columns are limited, all rules": Case(limited, optimizer=with_rules(**ALL)),
    "columns are limited, an average is kept": Case(
        limited, optimizer=with_rules(use_ema=True, ema_momentum=0.9)),
    "columns are limited, some frozen": Case(
        limited, optimizer=with_rules(use_ema=True, ema_momentum=0.9), frozen=(0, 2)),
    "columns are limited, all frozen": Case(
        limited, optimizer=with_rules(use_ema=True), frozen=(0, 1, 2, 3)),
    "columns are limited behind words": Case(
        lambda: [bp.Embedding(11, 19), bp.Dense(9, max_norm=0.3), bp.LayerNorm(), bp.Dense(3)],
        numbers=True),
    "weights": Case(dense, weights=True),
    "weights of classes": Case(
        dense, loss="softmax_cross_entropy", labels=True, weights=True),
    "weights of many classes": Case(
        lambda: [bp.Dense(21)], loss="softmax_cross_entropy", labels=True, weights=True),
    "residual blocks": Case(blocks),
    "residual blocks, limited": Case(blocks, optimizer=with_rules(clip_norm=0.05)),
    "layer norms": Case(layer_norms),
    "layer norms, in chunks": Case(layer_norms, rows=300, batch=290),
    "layer norms, limited, some frozen": Case(
        layer_norms, optimizer=with_rules(clip_norm=0.05), frozen=(0, 1)),
    "softmaxes": Case(softmaxes),
    "softmaxes, in chunks": Case(softmaxes, rows=300, batch=290),
    "batch norms": Case(batch_norms),
    "batch norms, many blocks": Case(batch_norms, rows=1300, batch=1100),
    "batch norms, all rules": Case(
        batch_norms, optimizer=with_rules(**{**ALL, "layer_rates": {0: 0.5}})),
    "batch norms, some frozen": Case(batch_norms, frozen=(0, 2)),
    "inputs are normalized": Case(normalized),
    "a block normalizes": Case(in_the_middle),
    "a table": Case(words, numbers=True),
    "a table, limited": Case(
        words, numbers=True, optimizer=with_rules(clip_norm=0.05, layer_rates={0: 3.0})),
    "a table, in chunks": Case(words, numbers=True, rows=300, batch=290),
}  # fmt: skip


# Under tests/test_cuda_persistent.py's watched device.
WATCHED = ["columns are limited, all rules", "all rules, chunks, one layer frozen", "weights",
           "weights of many classes", "residual blocks", "layer norms, in chunks", "softmaxes",
           "batch norms",
           "a table"]  # fmt: skip


def outcome(case: Case, device: str, dtype: str) -> list[Any]:
    """All that a model says and holds after each kind of call."""
    (x, y), weights = case.data(dtype), case.sample_weight()
    model = case.model(device, dtype)
    said: list[Any] = [
        model.fit(x, y, epochs=2, batch_size=case.batch, sample_weight=weights, verbose=0).history,
        state(model),
        model.state(),
        model.predict(x),
        model.evaluate(x, y, batch_size=24, sample_weight=weights),
        model.forward(x, training=True),
        model.gradients(x, y),
        model.input_gradient(x, y),
        model.step(x, y),
        model.step(x, y),
        state(model),
        model.state(),
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


@pytest.mark.parametrize(("inputs", "units"), [(1, 3), (67, 32), (300, 65)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_limited_columns_of_any_shape(inputs: int, units: int, dtype: str) -> None:
    """Some columns of each kernel too long, some not, one of zeros; one with a NaN, which stays."""
    layers = [bp.Dense(units, max_norm=0.7), bp.Dense(5, "tanh", max_norm=0.2), bp.Dense(1)]
    rng = np.random.default_rng(inputs)
    x, y = rng.normal(size=(9, inputs)).astype(dtype), rng.normal(size=(9, 1)).astype(dtype)
    kernel = rng.normal(size=(inputs, units)) * 0.75 / np.sqrt(inputs)
    kernel[:, 1] = 0
    found = []
    for device in ("cpu", "cuda"):
        model = bp.Sequential(layers, seed=1)
        model.compile(bp.SGD(1e-3, momentum=0.5), "mse", device=device, dtype=dtype)
        model.build(inputs)
        model.parameters()["0.kernel"][...] = kernel
        steps: list[Any] = [model.step(x, y) for _ in range(3)]
        norms = np.linalg.norm(model.parameters()["0.kernel"].astype(np.float64), axis=0)
        assert 0 < (norms > 0.699).sum() < units or units == 3
        assert norms.max() <= 0.7 * (1 + 1e-6)
        steps.append(state(model))
        model.parameters()["0.kernel"][0, -1] = np.nan
        found.append([*steps, model.step(x, y), state(model)])
    assert digest(found[0][:4]) == digest(found[1][:4])
    for got, want in zip(found[1][5], found[0][5], strict=True):
        np.testing.assert_array_equal(got, want)  # of NaN, which bits it has is left open


def test_a_network_with_limits_is_trained_stage_by_stage() -> None:
    """The kernel for narrow networks has no limits on columns; without them it comes back."""
    x, y = np.ones((8, 2), np.float32), np.ones((8, 1), np.float32)
    counts = []
    for limit in (None, 1.0):
        model = bp.Sequential([bp.Dense(8, "tanh", max_norm=limit), bp.Dense(1)], seed=0)
        model.compile("adam", "mse", device="cuda")
        model.build(2)
        engine: Any = model._require_built()
        engine.set_persistent(True)
        model.fit(x, y, epochs=2, batch_size=4, verbose=0)
        counts.append(engine.persistent_steps)
    assert counts == [4, 0]


@pytest.mark.parametrize(
    "name",
    ["all rules, chunks, one layer frozen", "layer norms, in chunks", "batch norms", "a table",
     "columns are limited, all rules"],
)  # fmt: skip
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


def test_statistics_are_state_that_files_keep(tmp_path: Path) -> None:
    """Saved on one device, a model goes on on the other with its moving means."""
    case = CASES["batch norms"]
    x, y = case.data("float32")
    whole = case.model("cpu", "float32")
    whole.fit(x, y, epochs=3, batch_size=case.batch, verbose=0)
    for first, second in (("cuda", "cpu"), ("cpu", "cuda")):
        model = case.model(first, "float32")
        model.fit(x, y, epochs=1, batch_size=case.batch, verbose=0)
        model.save(tmp_path / "net.safetensors")
        again = bp.load(tmp_path / "net.safetensors", device=second)
        again.fit(x, y, epochs=2, batch_size=case.batch, verbose=0)
        assert digest(state(again), again.state()) == digest(state(whole), whole.state())


def test_state_is_live_and_writable() -> None:
    case = CASES["batch norms"]
    x, y = case.data("float32")
    models = [case.model(device, "float32") for device in ("cpu", "cuda")]
    for model in models:
        held = model._require_built().state
        model.step(x, y)
        held[3] = 2.0
        model.step(x, y)
    assert digest(models[0].predict(x), models[0].state()) == digest(
        models[1].predict(x), models[1].state()
    )


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
    for limit in ((1, 2, 2, 1.0), (0, 3, 3, 1.0), (0, 2, 2, 1.0)):
        with pytest.raises(ValueError, match="limits: expected a layer's weights"):
            network.set_rules({"column_limits": [limit]})
    with pytest.raises(ValueError, match="weights: "):
        engine.step(
            np.ones((4, 2), np.float32), np.ones((4, 3), np.float32), np.ones(3, np.float32)
        )
    with pytest.raises(ValueError, match="layers: expected a value for each"):
        network.set_trainable([True, True])


def test_lbfgs_and_norms_of_gradients() -> None:
    """What asks for losses and gradients alone, with weights and a frozen layer."""
    pytest.importorskip("scipy")
    case = CASES["weights"]._replace(optimizer=bp.LBFGS, frozen=(1,))
    x, y = case.data("float64")
    weights = case.sample_weight()
    found = []
    for device in ("cpu", "cuda"):
        model = case.model(device, "float64")
        run = model.fit(x, y, epochs=5, sample_weight=weights, verbose=0).history
        model.compile("adam", "mse", device=device)
        more = model.fit(x, y, epochs=2, batch_size=20, gradient_norms=True, verbose=0).history
        found.append((run, more, state(model)))
    assert "gradient_norm_2" in found[1][1]
    assert digest(found[0]) == digest(found[1])
