"""Recurrent layers of device="cuda" in bfloat16, float16 and TF32, on the emulated device.

Both the device and the NumPy twin round the operands of every product, those with the recurrent
weights too, and keep states, gates and sums as they are. The same run gives the same bits in any
order of the threads; a sequence has the same bits wherever it is in a batch, and cut in two.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import fastbp as bp
from cuda_library import in_orders, is_emulated, launches
from fastbp.reference import bfloat16, float16
from fastbp.reference.tf32 import round_to_tf32
from sweeps import Array
from test_cuda_mixed import CAPABILITY, STEP, lower_scale
from test_cuda_recurrent import CASES, WALK, Case
from test_cuda_training import SCHEDULES, digest, state

SCAN = "scan_kernel"  # a step of its own
STEPS = 5  # of a sequence, in CASES

# One above the other, with sums along k of two chunks, and sizes that fill no fragment.
EVERY_CELL = Case(
    lambda: [bp.SimpleRNN(5, return_sequences=True),
             bp.SimpleRNN(19, activation="relu", return_sequences=True),
             bp.GRU(13, return_sequences=True), bp.LSTM(70), bp.Dense(4)],
    lengths=True, rows=17, batch=17, steps=3)  # fmt: skip


@pytest.fixture(autouse=True)
def library(device_library: Path) -> Path:
    return device_library


@pytest.fixture(params=STEP)
def dtype(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def made(case: Case, device: str, dtype: str) -> bp.Sequential:
    model = case.model(device, dtype)
    lower_scale(model)
    return model


def assert_close(found: Any, wanted: Any, dtype: str, roundings: float) -> None:
    """A rounding of an operand may fall to the other side where sums differ in their last bits,
    which is STEP of it; states carry that from step to step, so it may come once in each."""
    scale = max(float(np.abs(wanted).max()), 1e-3)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=roundings * STEP[dtype] * scale)


# The three roundings share everything but the fragments of their products: every network runs in
# bfloat16, those whose products differ (cells, sizes, ways, lengths, parts, a table) in all three.
OF_ALL_DTYPES = {
    "plain, relu", "lstm", "gru", "many units", "both ways", "lengths, both ways", "all rules",
    "dropout and norms", "states are masked", "many parts", "words",
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        pytest.param(
            name, d, marks=() if d == "bfloat16" or name in OF_ALL_DTYPES else pytest.mark.slow
        )
        for name in CASES
        for d in STEP
    ],
)
def test_gradients_and_predictions_are_the_twins(name: str, dtype: str) -> None:
    case = CASES[name]
    x, y = case.data("float32")
    cuda, twin = (made(case, device, dtype) for device in ("cuda", "reference"))
    roundings = case.steps
    assert_close(cuda.predict(x), twin.predict(x), dtype, roundings)
    (loss, found), (expected, wanted) = cuda.gradients(x, y), twin.gradients(x, y)
    assert loss == pytest.approx(expected, rel=case.steps * STEP[dtype])
    for key in wanted:
        assert_close(found[key], wanted[key], dtype, roundings)
    if not case.numbers:
        assert_close(cuda.input_gradient(x, y)[1], twin.input_gradient(x, y)[1], dtype, roundings)


@pytest.mark.parametrize(
    "name", ["lstm", "both ways", "lengths, both ways", "dropout and norms", "all rules"]
)
def test_training_follows_the_twin(name: str, dtype: str) -> None:
    """What an update leaves is what the next step rounds."""
    case = CASES[name]._replace(optimizer=lambda: bp.SGD(0.05, momentum=0.9))
    x, y = case.data("float32")
    cuda, twin = (made(case, device, dtype) for device in ("cuda", "reference"))
    for model in (cuda, twin):
        model.fit(x, y, epochs=3, batch_size=case.batch, verbose=0)
    for mine, theirs in zip(state(cuda), state(twin), strict=True):
        assert_close(mine, theirs, dtype, 6)
    assert cuda.loss_scale == twin.loss_scale


def integers(shape: tuple[int, ...], seed: int) -> Array:
    return np.random.default_rng(seed).integers(-2, 3, shape).astype(np.float32)


class Relu(NamedTuple):
    """A layer of relu cells, and its gradients by NumPy, whose sums are exact here."""

    kernel: Array
    bias: Array
    recurrent: Array

    def model(self, dtype: str, *, walks: bool) -> bp.Sequential:
        layer = bp.SimpleRNN(len(self.bias), activation="relu", return_sequences=True)
        model = bp.Sequential([layer])
        model.compile("sgd", "half_sse", device="cuda", dtype=dtype)
        model.build(len(self.kernel))
        engine: Any = model._require_built()
        engine.set_persistent(walks)
        if dtype == "float16":
            engine.loss_scale[0] = 1
        names = ("0.kernel", "0.bias", "0.recurrent_kernel")
        model.set_parameters(dict(zip(names, self, strict=True)))
        return model

    def states(self, x: Array, rounded: Callable[[Array], Array]) -> Array:
        """(rows, steps + 1, units), before each step and behind the last."""
        h = [np.zeros((len(x), len(self.bias)), np.float32)]
        for t in range(x.shape[1]):
            products = rounded(x[:, t]) @ rounded(self.kernel)
            products += rounded(h[-1]) @ rounded(self.recurrent)
            h.append(np.maximum(products + self.bias, 0))
        return np.stack(h, axis=1)

    def deltas(self, h: Array, errors: Array, rounded: Callable[[Array], Array]) -> Array:
        """(rows, steps, units), where the loss's gradient is `errors`."""
        dz = np.zeros_like(errors)
        behind = np.zeros_like(dz[:, 0])
        for t in reversed(range(dz.shape[1])):
            dz[:, t] = (errors[:, t] + behind) * (h[:, t + 1] > 0)
            behind = rounded(dz[:, t]) @ rounded(self.recurrent).T
        return dz


def over_steps(a: Array, dz: Array) -> Array:
    """The gradient of weights that multiply `a`, (rows, steps, k), to which `dz` belongs."""
    return np.tensordot(a, dz, axes=((0, 1), (0, 1)))


@pytest.mark.parametrize("walks", [True, False])
@pytest.mark.parametrize(("rows", "units"), [(3, 5), (16, 24), (37, 40), (5, 300)])
def test_products_of_small_integers_are_exact(
    rows: int, units: int, dtype: str, *, walks: bool
) -> None:
    """Every term is there, once: relu, and weights of which few are not 0, keep states small."""
    sparse = np.random.default_rng(3).random((units, units)) < 1.5 / units
    layer = Relu(integers((4, units), 0), integers((units,), 1), integers(sparse.shape, 2) * sparse)
    model, x = layer.model(dtype, walks=walks), integers((rows, 3, 4), 4)
    h = layer.states(x, rounded=np.asarray)
    wanted = h[:, 1:]
    assert 0 < wanted.max() < 2**8
    assert np.array_equal(model.predict(x), wanted)
    errors = integers(wanted.shape, 5)
    dz = layer.deltas(h, errors, rounded=np.asarray)
    assert np.abs(dz).max() < 2**8
    found = model.gradients(x, wanted - errors)[1]
    assert np.array_equal(found["0.kernel"], over_steps(x, dz))
    assert np.array_equal(found["0.recurrent_kernel"], over_steps(h[:, :-1], dz))


ROUNDED = {
    "bfloat16": bfloat16.round_to_bfloat16,
    "float16": float16.round_to_float16,
    "tf32": round_to_tf32,
}


@pytest.mark.parametrize("walks", [True, False])
def test_operands_are_rounded_and_nothing_else(dtype: str, *, walks: bool) -> None:
    """Of numbers of 12 bits and more; every sum has one product, and is exact."""
    rows, units, steps = 5, 19, 3
    rng = np.random.default_rng(1)

    def numbers(shape: tuple[int, ...], least: float) -> Array:
        """Of 12 bits, from `least` to twice that."""
        return (least * (1 + rng.integers(0, 2**11, shape) / 2**11)).astype(np.float32)

    one_each = np.eye(units, dtype=np.float32)
    recurrent = one_each[rng.permutation(units)] * numbers((units,), 0.25)
    layer = Relu(one_each, numbers((units,), 0.5), recurrent)
    model, x = layer.model(dtype, walks=walks), np.zeros((rows, steps, units), np.float32)
    h = layer.states(x, ROUNDED[dtype])
    assert np.array_equal(model.predict(x), h[:, 1:])
    assert not np.array_equal(h, layer.states(x, np.asarray))
    errors = numbers((rows, steps, units), 0.5)
    dz, target = layer.deltas(h, errors, ROUNDED[dtype]), h[:, 1:] - errors
    assert np.array_equal(model.input_gradient(x, target)[1], ROUNDED[dtype](dz))
    found = model.gradients(x, target)[1]["0.recurrent_kernel"]
    wanted = over_steps(ROUNDED[dtype](h[:, :-1]), ROUNDED[dtype](dz))
    np.testing.assert_allclose(found, wanted, rtol=rows * steps * 2**-24)


@pytest.mark.parametrize("case", [EVERY_CELL, CASES["lengths, both ways"]])
def test_one_kernel_walks_over_any_number_of_steps(library: Path, case: Case, dtype: str) -> None:
    x, y = case.data("float32")
    found = []
    for walks in (True, False):
        model = made(case, "cuda", dtype)
        model._require_built().set_persistent(walks)  # type: ignore[attr-defined]
        before = launches(library, WALK), launches(library, SCAN)
        model.fit(x, y, epochs=2, batch_size=case.batch, verbose=0)
        model.predict(x.values[:, :1])
        after = launches(library, WALK), launches(library, SCAN)
        if is_emulated(library):
            assert (after[0] != before[0], after[1] != before[1]) == (walks, not walks)
        found.append(model.predict(x))
    assert_close(found[0], found[1], dtype, case.steps)


def wide(dtype: str) -> Case:
    """Recurrent weights of more than one block's shared memory."""
    units = 130 if dtype == "tf32" else 190
    return Case(lambda: [bp.GRU(units), bp.Dense(4)], rows=19, batch=19, steps=3, lengths=True)


def test_blocks_share_weights_that_one_cannot_hold(library: Path, dtype: str) -> None:
    case, before = wide(dtype), launches(library, WALK)
    x, y = case.data("float32")
    found = []
    for _ in in_orders(library, ("forward", "random:3")):
        found.append(made(case, "cuda", dtype).gradients(x, y)[1])
    assert digest(found[0]) == digest(found[1])
    wanted = made(case, "reference", dtype).gradients(x, y)[1]
    for key in wanted:
        assert_close(found[0][key], wanted[key], dtype, case.steps)
    if is_emulated(library):
        assert launches(library, WALK) != before


@pytest.mark.parametrize("name", ["lengths, both ways", "states are masked"])
def test_order_of_threads_does_not_matter(library: Path, name: str, dtype: str) -> None:
    case = CASES[name]
    x, y = case.data("float32")

    def found() -> str:
        model = made(case, "cuda", dtype)
        model.fit(x, y, epochs=1, batch_size=case.batch, verbose=0)
        return digest(state(model))

    expected = found()
    for schedule in in_orders(library, SCHEDULES):
        assert found() == expected, schedule


def test_a_sequence_has_the_same_bits_in_any_batch(dtype: str) -> None:
    case = CASES["two layers"]
    x, _ = case.data("float32")
    model = made(case, "cuda", dtype)
    whole = model.predict(x)
    for first, count in ((0, 1), (31, 2), (5, 40)):
        assert np.array_equal(model.predict(x[first : first + count]), whole[first : first + count])
    layer = bp.Sequential(wide(dtype).layers(), seed=3)  # of which a block has more turns in a step
    layer.compile("sgd", "mse", device="cuda", dtype=dtype)
    x = np.random.default_rng(9).normal(size=(150, 2, 3)).astype(np.float32)
    assert np.array_equal(layer.predict(x)[140:], layer.predict(x[140:]))


def test_a_sequence_cut_in_two_has_the_bits_of_the_whole(dtype: str) -> None:
    case = CASES["two layers"]
    x, _ = case.data("float32")
    model = made(case, "cuda", dtype)
    whole, behind = model.predict(x, return_state=True)
    _, between = model.predict(x[:, :3], return_state=True)
    again, end = model.predict(x[:, 3:], initial_state=between, return_state=True)
    assert np.array_equal(again, whole)
    assert digest(end) == digest(behind)


def test_runs_are_recorded_and_go_on_from_a_file(tmp_path: Path, dtype: str) -> None:
    """With batches and sequences of other lengths in between, for which shadows lie elsewhere."""
    case = CASES["lstm"]
    x, y = case.data("float32")
    whole = made(case, "cuda", dtype)
    whole.fit(x, y, epochs=4, batch_size=case.batch, verbose=0)
    model = made(case, "cuda", dtype)
    model.fit(x, y, epochs=3, batch_size=case.batch, verbose=0)
    assert model._require_built().replays > 0  # type: ignore[attr-defined]
    model.predict(np.concatenate([x, x, x], axis=1))
    model.gradients(x[:, :2], y)
    model.save(tmp_path / "net.safetensors")
    for again in (model, bp.load(tmp_path / "net.safetensors", device="cuda")):
        assert again.dtype == dtype
        again.fit(x, y, epochs=1, batch_size=case.batch, verbose=0)
        assert digest(state(again)) == digest(state(whole))


@pytest.mark.usefixtures("emulated_device")
def test_memory_is_that_of_a_batch(monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    """Of many short sequences, then of two long ones; many long ones would take 32 MiB."""
    monkeypatch.setenv("FASTBP_EMULATION_MEMORY", str(2**23))
    model = made(CASES["gru"], "cuda", dtype)
    model.predict(np.zeros((2000, 1, 3), np.float32))
    loss, _ = model.gradients(np.zeros((2, 1000, 3), np.float32), np.zeros((2, 4), np.float32))
    assert loss == 0


def test_updates_of_float16_that_are_left_out() -> None:
    """A loss beyond float16's range changes neither parameters nor the optimizer's state."""
    case = CASES["gru"]
    x, y = case.data("float32")
    model = case.model("cuda", "float16")
    before = digest(state(model))
    model.step(x, 1e30 * y)
    scale: Any = model.loss_scale
    assert (scale.scale, scale.skipped_updates) == (2**15, 1)
    assert digest(state(model)) == before


@pytest.mark.usefixtures("emulated_device")
def test_the_instructions_before_8_0(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTBP_EMULATION_CAPABILITY", CAPABILITY["float16"])
    case = CASES["both ways"]
    x, y = case.data("float32")
    cuda, twin = (made(case, device, "float16") for device in ("cuda", "reference"))
    found, wanted = cuda.gradients(x, y)[1], twin.gradients(x, y)[1]
    for key in wanted:
        assert_close(found[key], wanted[key], "float16", STEPS)


def train_watched(dtype: str) -> None:
    """For watched_training.py: every kernel that this file is about."""
    few = EVERY_CELL._replace(rows=3, batch=3)  # of one fragment, and of 17 two
    shared = wide(dtype)._replace(rows=3, batch=3, steps=2)
    walks = [EVERY_CELL, few, shared, CASES["states are masked"], CASES["lengths, both ways"]]
    for case, walk in [(EVERY_CELL, False), *((case, True) for case in walks)]:
        model = made(case, "cuda", dtype)
        model._require_built().set_persistent(walk)  # type: ignore[attr-defined]
        model.step(*case.data("float32"))
    model.gradients(*case.data("float32"))
