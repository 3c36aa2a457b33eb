"""Narrow networks are trained whole by one kernel (kernels/cuda/train/narrow.cu), many steps to
a launch.

In float32 it has the CPU's bits, as the stages one by one have: parameters, optimizer state, losses
and metrics, for any order of the threads. In bfloat16 it follows the NumPy twin, and gives the same
bits in any order of the threads. The library compiled to watch for data races and unwritten memory
finds none.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import fastbp as bp
from cuda_library import in_orders
from sweeps import Array, assert_same_bits
from test_cuda_training import digest, state


class Case(NamedTuple):
    inputs: int
    units: tuple[int, ...]
    rows: int
    batch: int
    activation: str = "relu"
    loss: str | bp.Loss = "mse"
    optimizer: bp.optimizers.Optimizer = bp.SGD(0.05)  # never changed
    metrics: tuple[str, ...] = ()
    labels: bool = False
    bias: bool = True

    def data(self) -> tuple[Array, Array]:
        rng = np.random.default_rng(3)
        x = rng.normal(size=(self.rows, self.inputs)).astype(np.float32)
        if self.labels:
            return x, rng.integers(0, self.units[-1], self.rows)
        return x, rng.random((self.rows, self.units[-1])).astype(np.float32)

    def model(self, device: str, dtype: str) -> bp.Sequential:
        layers = [bp.Dense(n, activation=self.activation, use_bias=self.bias) for n in self.units]
        layers[-1] = bp.Dense(self.units[-1], use_bias=self.bias)
        made = bp.Sequential(layers, seed=2)
        made.compile(self.optimizer, self.loss, list(self.metrics), device=device, dtype=dtype)
        made.build(self.inputs)
        return made


SMOOTHED = bp.Loss("softmax_cross_entropy", label_smoothing=0.1)
# Around fragments of 8 and 16, tiles of 64 rows, squares of 64 of the gradient; units of a batch
# and a rest; every kind of loss and of what a derivative reads.
CASES = {
    "single values": Case(1, (1,), 5, 1),
    "one row": Case(3, (2, 2), 1, 1, "tanh"),
    "rests everywhere": Case(7, (9, 17, 3), 75, 33, "gelu", metrics=("mse", "mae")),
    "whole fragments": Case(16, (32, 64), 128, 64, "sigmoid", optimizer=bp.Adam(0.01)),
    "no activation": Case(9, (24, 7, 3), 40, 40, "identity"),
    "two squares": Case(65, (64, 5), 70, 70, "elu", optimizer=bp.AdamW(0.01)),
    "hidden units in chunks": Case(30, (128, 128, 3), 40, 40, optimizer=bp.Adam(0.01)),
    "widest": Case(20, (128, 3), 40, 40, "mish", optimizer=bp.RMSprop(0.01)),
    "many units": Case(5, (12, 2), 700, 600, "tanh", optimizer=bp.SGD(0.01, momentum=0.9)),
    "no bias": Case(6, (10, 4), 30, 16, "silu", loss="huber", bias=False),
    "few classes": Case(4, (8, 5), 90, 40, loss=SMOOTHED, labels=True, metrics=("accuracy", "mse")),
    "many classes": Case(4, (8, 37), 90, 40, loss="softmax_cross_entropy", labels=True),
    "classes as rows": Case(4, (8, 21), 50, 20, loss=SMOOTHED, metrics=("accuracy",)),
    "logits": Case(5, (6, 3), 40, 40, loss="binary_cross_entropy_with_logits",
                   metrics=("accuracy",)),
}  # fmt: skip


@pytest.fixture(autouse=True)
def library(device_library: Path) -> Path:
    return device_library


def train(case: Case, device: str, dtype: str = "float32", *, whole: bool = True) -> Any:
    """(state, history) of two epochs; on CUDA all steps were taken in the way asked for."""
    made = case.model(device, dtype)
    engine: Any = made._require_built()
    if device == "cuda":
        engine.set_persistent(whole)
    history = made.fit(*case.data(), epochs=2, batch_size=case.batch, verbose=0).history
    if device == "cuda":
        assert engine.persistent_steps == (engine.steps if whole else 0)
    return state(made), history


@pytest.mark.parametrize("name", CASES)
def test_bits_are_the_cpus(name: str) -> None:
    cpu = train(CASES[name], "cpu")
    for whole in (True, False):
        assert digest(train(CASES[name], "cuda", whole=whole)) == digest(cpu)


class Ruled(NamedTuple):
    """A network whose parameters or rows are not all treated alike."""

    optimizer: bp.optimizers.Optimizer = bp.Adam(0.01)
    frozen: tuple[int, ...] = ()
    penalty: bp.regularizers.Regularizer | None = None
    weights: bool = False
    loss: str | bp.Loss = "mse"
    metrics: tuple[str, ...] = ()
    labels: bool = False

    def train(self, device: str, *, whole: bool = True) -> Any:
        """(state, history, steps that the kernel took) of 75 rows, in batches of 17."""
        rng = np.random.default_rng(3)
        layers = [bp.Dense(n, activation="tanh", kernel_regularizer=self.penalty) for n in (40, 30)]
        made = bp.Sequential([*layers, bp.Dense(5)], seed=2)
        made.compile(self.optimizer, self.loss, list(self.metrics), device=device)
        made.build(9)
        if self.frozen:
            made.freeze(layers=self.frozen)
        engine: Any = made._require_built()
        if device == "cuda":
            engine.set_persistent(whole)
        x = rng.normal(size=(75, 9)).astype(np.float32)
        y = rng.integers(0, 5, 75) if self.labels else rng.random((75, 5)).astype(np.float32)
        weights = rng.random(75) if self.weights else None
        history = made.fit(x, y, epochs=3, batch_size=17, sample_weight=weights, verbose=0).history
        taken = engine.persistent_steps if device == "cuda" else engine.steps
        return state(made), history, taken


def every_rule(clip_norm: float | None = None) -> bp.optimizers.Optimizer:
    return bp.AdamW(
        0.01, clip_value=0.02, gradient_accumulation_steps=4, use_ema=True,
        layer_rates={0: 0.5, 2: 2.0}, clip_norm=clip_norm,
    )  # fmt: skip


RULED = {
    "clipped": Ruled(bp.SGD(0.1, momentum=0.9, clip_value=0.001)),
    "batches to an update": Ruled(bp.Adam(0.01, gradient_accumulation_steps=4)),
    "averages": Ruled(bp.SGD(0.1, use_ema=True)),
    "rates": Ruled(bp.Adam(0.01, layer_rates={1: 0.1})),
    "penalties": Ruled(penalty=bp.L1L2(0.01, 0.02)),
    "frozen": Ruled(frozen=(0,)),
    "weights": Ruled(weights=True, loss="huber", metrics=("mse",)),
    "weights of classes": Ruled(
        weights=True, loss=SMOOTHED, labels=True, metrics=("accuracy", "mse")),
    "all": Ruled(every_rule(), (1,), bp.L2(0.02), True, SMOOTHED, ("accuracy", "mse"), True),
}  # fmt: skip


@pytest.mark.parametrize("name", RULED)
def test_rules_and_weights(name: str) -> None:
    """As on the CPU, and as stage by stage."""
    *cpu, steps = RULED[name].train("cpu")
    for whole in (True, False):
        *found, taken = RULED[name].train("cuda", whole=whole)
        assert digest(found) == digest(cpu)
        assert taken == (steps if whole else 0)


def test_a_limit_on_the_norm_needs_the_stages() -> None:
    ruled = Ruled(every_rule(clip_norm=0.01))
    *cpu, _ = ruled.train("cpu")
    *found, taken = ruled.train("cuda")
    assert digest(found) == digest(cpu) and taken == 0


@pytest.mark.parametrize("name", CASES)
def test_bfloat16_follows_the_twin(name: str) -> None:
    """Losses and metrics of both epochs, to a few roundings of operands (2^-8 each)."""
    _, found = train(CASES[name], "cuda", "bfloat16")
    _, wanted = train(CASES[name], "reference", "bfloat16")
    for key, values in wanted.items():
        np.testing.assert_allclose(found[key], values, rtol=0.02, atol=0.002, err_msg=key)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_order_of_threads_does_not_matter(library: Path, dtype: str) -> None:
    case = CASES["many units"]
    schedules = ("forward", "reverse", "random:1", "random:2")
    assert len({digest(train(case, "cuda", dtype)) for _ in in_orders(library, schedules)}) == 1


def test_order_of_threads_does_not_matter_with_rules(library: Path) -> None:
    schedules = ("forward", "reverse", "random:1", "random:2")
    found = {digest(RULED["all"].train("cuda")) for _ in in_orders(library, schedules)}
    assert len(found) == 1


def test_gradients_in_bfloat16_are_exact_for_small_integers() -> None:
    """One step of SGD with rate 1 from weights of small integers: w - dw, without a rounding."""
    rng = np.random.default_rng(0)
    x = rng.integers(-2, 3, (70, 18)).astype(np.float32)
    y = rng.integers(-2, 3, (70, 9)).astype(np.float32)
    made = bp.Sequential([bp.Dense(33, activation="relu"), bp.Dense(9)])
    made.compile(bp.SGD(1.0), "half_sse", device="cuda", dtype="bfloat16")
    made.build(18)
    w1, w2 = rng.integers(-1, 2, (18, 33)), rng.integers(-1, 2, (33, 9))
    b1, b2 = rng.integers(-2, 3, 33), rng.integers(-2, 3, 9)
    start = {"0.kernel": w1, "0.bias": b1, "1.kernel": w2, "1.bias": b2}
    made.set_parameters({name: value.astype(np.float32) for name, value in start.items()})
    made.step(x, y)
    h = np.maximum(x @ w1 + b1, 0)
    dz = h @ w2 + b2 - y
    if np.abs(dz).max() > 256 or np.abs(h).max() > 256:
        pytest.fail("choose smaller numbers: bfloat16 has 8 bits")
    dh = dz @ w2.T * (h > 0)
    # dh is rounded to bfloat16 in front of the product.
    bits = dh.astype(np.float32).view(np.uint32)
    dh = ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)
    found = made.parameters()
    assert np.array_equal(found["1.kernel"], w2 - h.T @ dz)
    assert np.array_equal(found["1.bias"], b2 - dz.sum(axis=0))
    assert np.array_equal(found["0.kernel"], w1 - x.T @ dh)
    assert np.array_equal(found["0.bias"], b1 - dh.sum(axis=0))


def test_what_is_too_wide_is_trained_stage_by_stage() -> None:
    for case in (Case(3, (129,), 4, 4), Case(257, (2,), 4, 4)):
        made = case.model("cuda", "float32")
        made.step(*case.data())
        engine: Any = made._require_built()
        assert engine.steps == 1 and engine.persistent_steps == 0


@pytest.mark.parametrize(
    ("sizes", "batch", "whole"),
    [((16, 64, 64, 4), 64, True), ((16, 64, 64, 4), 512, False), ((30, 128, 128, 3), 40, False)],
)
def test_the_quicker_way_is_taken_and_has_the_same_bits(
    sizes: tuple[int, ...], batch: int, whole: bool
) -> None:
    """By an estimate after measurements on an H100: which way, not what comes of it."""
    case = Case(sizes[0], sizes[1:], batch, batch)
    made, other = case.model("cuda", "float32"), case.model("cuda", "float32")
    made.step(*case.data())
    engine: Any = made._require_built()
    assert engine.persistent_steps == int(whole)
    forced: Any = other._require_built()
    forced.set_persistent(not whole)
    other.step(*case.data())
    assert forced.persistent_steps == int(not whole)
    assert_same_bits(engine.parameters, forced.parameters)


def test_models_of_unlike_sizes_by_turns() -> None:
    """A kernel's shared memory is that of the device, not of the model that came last."""
    cases = [CASES["hidden units in chunks"], CASES["one row"]]
    models = [case.model("cuda", "float32") for case in cases]
    engines: list[Any] = [made._require_built() for made in models]
    for engine in engines:
        engine.set_persistent(True)
    for made, case in zip([*models, *models], [*cases, *cases], strict=True):
        made.fit(*case.data(), epochs=1, batch_size=case.batch, verbose=0)
    assert all(engine.persistent_steps == engine.steps == 2 for engine in engines)


def test_the_rest_of_an_epoch_and_single_steps_go_on_from_it() -> None:
    """A run in pieces, single steps and gradients between them: as on the CPU."""
    case = CASES["rests everywhere"]
    x, y = case.data()
    models = [case.model(device, "float32") for device in ("cpu", "cuda")]
    schedule = (case.batch, 3, 0, True, 11, [])
    for made in models:
        engine: Any = made._require_built()
        position, record = np.zeros(2, np.int64), np.zeros((3, 1))
        for steps in (1, 3, 1, -1):
            engine.train(x, y, *schedule, position, record, steps)
            made.gradients(x, y)
        made.step(x, y)
        assert position.tolist() == [3, 0]
    assert digest(state(models[0])) == digest(state(models[1]))
