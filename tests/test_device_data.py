"""Models on CUDA with data that lies on the device: what arrays of the host give, bit for bit, and
no number of the data on its way through the host.

The device is the emulated one, which counts what is copied; the arrays are a stand-in for CuPy's
(cupy_stand_in.py), which like CuPy's refuse to become NumPy arrays.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cuda_library
import fastbp as bp
from cupy_stand_in import DeviceArray, array
from fastbp import _core, device_rows
from sweeps import Array, assert_same_bits

pytestmark = pytest.mark.usefixtures("cupy_like")
ROWS, INPUTS = 256, 6
QUIET: dict[str, Any] = {"epochs": 2, "batch_size": 32, "verbose": 0}


def model(**options: Any) -> bp.Sequential:
    made = bp.Sequential([bp.Dense(5, activation="tanh"), bp.Dense(3)], seed=1)
    made.compile("adam", "softmax_cross_entropy", ["accuracy"], device="cuda", **options)
    return made


def data(rows: int = ROWS) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(rows, INPUTS)).astype(np.float32), rng.integers(0, 3, rows)


def parameters(of: bp.Sequential) -> Array:
    return np.concatenate([value.ravel() for value in of.parameters().values()])


def strided(x: Array) -> DeviceArray:
    """The same values with gaps between them."""
    return array(np.repeat(x, 2, axis=-1))[..., ::2]


def reversed_rows(x: Array) -> DeviceArray:
    return array(np.ascontiguousarray(x[::-1]))[::-1]


def read_only(x: Array) -> DeviceArray:
    made = array(x)
    made.read_only = True
    return made


LAYOUTS: list[Callable[[Array], DeviceArray]] = [array, strided, reversed_rows, read_only]


@pytest.mark.parametrize("lay", LAYOUTS, ids=lambda lay: lay.__name__)
def test_the_data_of_fit_do_not_leave_the_device(
    lay: Callable[[Array], DeviceArray], cupy_like: Path
) -> None:
    x, y = data()
    twin, found = model(), model()
    wanted = twin.fit(x, y, validation_data=(x[:40], y[:40]), shuffle=False, **QUIET)
    there = lay(x), array(y), lay(x[:40]), array(y[:40])
    found.build(INPUTS)
    before = cuda_library.copied(cupy_like)
    history = found.fit(there[0], there[1], validation_data=there[2:], shuffle=False, **QUIET)
    after = cuda_library.copied(cupy_like)
    assert history.history == wanted.history
    assert_same_bits(parameters(found), parameters(twin))
    # Sums of loss and metrics, hyper-parameters and parameters: 8 KB; the data are 8 KB and more.
    moved = {way: after[way] - before[way] for way in ("in", "out")}
    assert sum(moved.values()) < x.nbytes, moved
    assert after["within"] == before["within"]
    for given, host in zip(there, (x, y, x[:40], y[:40]), strict=True):
        assert_same_bits(given.get(), host)


def test_one_step_copies_none_of_its_rows(cupy_like: Path) -> None:
    x, y = data(2000)
    twin, found = model(), model()
    for m in (twin, found):
        m.build(INPUTS)
    there = array(x), array(y)
    before = cuda_library.copied(cupy_like)
    assert found.step(*there) == twin.step(x, y)
    after = cuda_library.copied(cupy_like)
    assert after["in"] - before["in"] < 2 * x.nbytes + 2000  # the twin's, held nowhere
    before = after
    found.step(*there)
    loss = found.evaluate(*there)
    after = cuda_library.copied(cupy_like)
    assert after["in"] - before["in"] < 2000
    assert after["out"] - before["out"] < 6000  # of losses, one for 16 rows
    twin.step(x, y)
    assert loss == twin.evaluate(x, y)


@pytest.mark.parametrize(
    "options",
    [
        {"sample_weight": True},
        {"class_weight": "balanced", "sample_weight": True},
        {"validation_split": 0.25, "sample_weight": True},
        {"validation_split": 0.25, "stratify": True, "sample_weight": True},
        {"gradient_norms": True},
        {"augment": lambda x, rng: x + rng.normal(size=x.shape)},
    ],
    ids=lambda options: "+".join(options),
)
def test_options_of_fit(options: dict[str, Any]) -> None:
    """As from the host, and the weights' mean to the last bit."""
    x, y = data(90)
    twin, found = model(), model()
    weights = np.random.default_rng(1).uniform(0.1, 3, 90)
    on_host = {"sample_weight": weights} if options.get("sample_weight") else {}
    on_device = {"sample_weight": array(weights[:, None])} if on_host else {}
    wanted = twin.fit(x, y, **QUIET, **{**options, **on_host})
    history = found.fit(array(x), array(y.astype(np.int32)), **QUIET, **{**options, **on_device})
    assert history.history == wanted.history
    assert_same_bits(parameters(found), parameters(twin))


def test_data_partly_on_the_host() -> None:
    """Targets and weights follow X to where it is."""
    x, y = data(50)
    weights = np.linspace(0, 2, 50)
    results = []
    for given in itertools.product((x, array(x)), (y, array(y)), (weights, array(weights))):
        m = model()
        results.append(m.fit(given[0], given[1], sample_weight=given[2], **QUIET).history)
        results[-1]["again"] = m.evaluate(given[0], given[1], sample_weight=given[2])
    assert all(result == results[0] for result in results)


def test_batches_of_an_iterator() -> None:
    x, y = data(60)
    parts = [slice(0, 20), slice(20, 40), slice(40, 60)]
    wanted = model().fit([(x[p], y[p]) for p in parts], epochs=2, verbose=0)
    found = model().fit([(array(x[p]), array(y[p])) for p in parts], epochs=2, verbose=0)
    assert found.history == wanted.history


def test_metrics_that_are_computed_of_all_outputs() -> None:
    x, y = data(60)
    histories = []
    for given in ((x, y), (array(x), array(y))):
        m = bp.Sequential([bp.Dense(3)], seed=0)
        m.compile("sgd", "softmax_cross_entropy", ["f1", "auc"], device="cuda")
        histories.append(m.fit(*given, **QUIET).history)
        histories[-1]["evaluated"] = m.evaluate(*given)
    assert histories[0] == histories[1]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_real_targets_of_other_dtypes(dtype: str) -> None:
    x, _ = data(40)
    y = np.random.default_rng(2).integers(-5, 5, (40, 2)).astype(np.int16)
    losses = []
    for given in ((x, y), (strided(x.astype(np.float16)), strided(y))):
        m = bp.Sequential([bp.Dense(2)], seed=0)
        m.compile("sgd", "mse", ["mae"], device="cuda", dtype=dtype)
        rows = given[0] if isinstance(given[0], DeviceArray) else x.astype(np.float16)
        losses.append(m.fit(rows, given[1], **QUIET).history)
    assert losses[0] == losses[1]


def test_a_run_on_the_device_goes_on_from_a_file(tmp_path: Path) -> None:
    x, y = data(64)

    class Stop(bp.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: object = None) -> None:
            if epoch == 0:
                self.model.save(tmp_path / "run")
                self.model.stop_training = True

    whole, broken, other = model(), model(), model()
    wanted = whole.fit(x, y, epochs=3, batch_size=10, verbose=0)
    broken.fit(array(x), array(y), epochs=3, batch_size=10, verbose=0, callbacks=Stop())
    rest = other.fit(
        array(x), array(y), epochs=3, batch_size=10, verbose=0, resume=tmp_path / "run",
        callbacks=Stop(),
    )  # fmt: skip
    assert rest.history["loss"] == wanted.history["loss"]
    assert_same_bits(parameters(other), parameters(whole))


@pytest.mark.parametrize("lay", LAYOUTS, ids=lambda lay: lay.__name__)
def test_predictions_and_gradients_are_of_the_callers_kind(
    lay: Callable[[Array], DeviceArray], cupy_like: Path
) -> None:
    x, y = data(30)
    m = model()
    m.fit(x, y, verbose=0)
    wanted, (loss, dx) = m.predict(x), m.input_gradient(x, y)
    there, labels = lay(x), array(y)
    before = cuda_library.copied(cupy_like)["out"]
    result = m.predict(there)
    assert type(result) is DeviceArray
    assert cuda_library.copied(cupy_like)["out"] - before <= parameters(m).nbytes * 2
    assert_same_bits(result.get(), wanted)
    found, gradient = m.input_gradient(there, labels)
    assert found == loss and type(gradient) is DeviceArray
    assert_same_bits(gradient.get(), dx)
    assert_same_bits(m.forward(there, training=True).get(), m.forward(x, training=True))
    assert_same_bits(m.predict_proba(there), m.predict_proba(x))
    assert_same_bits(m.predict_class(there), m.predict_class(x))
    for name, value in m.gradients(x, y)[1].items():
        assert_same_bits(m.gradients(there, labels)[1][name], value)
    assert m.predict(array(x[:0])).shape == (0, 3)
    x[3, 2] = np.nan  # stays in its row
    assert_same_bits(m.predict(lay(x)).get(), m.predict(x))


@pytest.mark.usefixtures("cupy_like")
def test_input_gradients_have_the_shape_of_x_behind_flatten() -> None:
    x, y = data(30)
    m = bp.Sequential([bp.Flatten(), bp.Dense(3)], seed=0)
    m.compile("sgd", "softmax_cross_entropy", device="cuda")
    images = x.reshape(30, 2, -1)
    wanted, gradient = m.input_gradient(images, y)[1], m.input_gradient(array(images), array(y))[1]
    assert wanted.shape == gradient.shape == images.shape
    assert_same_bits(gradient.get(), wanted)
    assert_same_bits(m.predict(array(x.astype(np.float64))).get(), m.predict(x))


@pytest.mark.parametrize("every", [False, True])
def test_sequences(every: bool) -> None:
    """Their lengths too; what lies behind an end is not looked at, of targets neither."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 7, 3)).astype(np.float32)
    y, lengths = rng.integers(0, 4, (20, 7) if every else 20), rng.integers(1, 8, 20)
    behind, ended = x.copy(), np.arange(7) >= lengths[:, None]
    behind[ended] = np.nan
    if every:
        y[ended] = -1
    results = []
    for given in ((x, y, x, behind), (array(x), array(y), array(x), array(behind))):
        m = bp.Sequential([bp.GRU(4, return_sequences=every), bp.Dense(4)], seed=0)
        m.compile("adam", "softmax_cross_entropy", ["accuracy"], device="cuda")
        m.fit(given[0], given[1], lengths=lengths, epochs=2, batch_size=8, verbose=0)
        results.append(m.fit(given[3], given[1], lengths=lengths, **QUIET).history)
        results[-1]["evaluated"] = m.evaluate(given[3], given[1], lengths=lengths)
        weights = np.linspace(0, 2, y.size).reshape(y.shape)
        if given[0] is not x:
            weights = array(weights)
        same = {"sample_weight": weights, "lengths": lengths}
        m.fit(given[0], given[1], validation_split=0.5, **same, **QUIET)
        results[-1]["weighted"] = m.step(given[0], given[1], **same)
        out = m.predict(given[2], lengths), m.predict(given[2])
        results[-1]["out"] = [one.get().tolist() if given[0] is not x else one.tolist()
                              for one in out]  # fmt: skip
    assert results[0] == results[1]
    with pytest.raises(ValueError, match=r"X has NaN at row \d+, step \d+, column 0"):
        m.fit(array(behind), array(y), verbose=0)


def test_numbers_of_a_table() -> None:
    numbers = np.random.default_rng(0).integers(0, 9, (30, 2))
    y = np.arange(30) % 3
    losses = []
    for given in (numbers, array(numbers)):
        m = bp.Sequential([bp.Embedding(9, 4), bp.Dense(3)], seed=0)
        m.compile("adam", "softmax_cross_entropy", device="cuda")
        losses.append(m.fit(given, y, verbose=0).history)
    assert losses[0] == losses[1]
    numbers[4, 1] = 9
    with pytest.raises(ValueError, match=r"X has 9.0 at row 4, column 1"):
        m.fit(array(numbers), y, verbose=0)


class Handed:
    """An array that others get by DLPack alone: a capsule made as C libraries make them."""

    def __init__(self, there: DeviceArray, *, versioned: bool, device_type: int = 2) -> None:
        self.there, self.versioned, self.device_type = there, versioned, device_type
        self.released = 0
        self.asked: list[Any] = []

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device_type, 0

    def __dlpack__(self, *, stream: int | None = None, **version: Any) -> Any:
        if version and not self.versioned:
            raise TypeError("unexpected keyword argument 'max_version'")
        self.asked.append(stream)
        there = self.there
        size = there.dtype.itemsize
        sizes = (ctypes.c_int64 * len(there.shape))(*there.shape)
        steps = (ctypes.c_int64 * len(there.shape))(*(s // size for s in there.host.strides))
        tensor = Tensor(
            there.pointer - 8, self.device_type, 0, len(there.shape),
            {"i": 0, "u": 1, "f": 2, "b": 6}[there.dtype.kind], 8 * size, 1, sizes, steps, 8,
        )  # fmt: skip
        kind = Versioned if self.versioned else Managed
        self.deleter = DELETER(self.release)
        self.kept = managed = kind()
        managed.tensor, managed.deleter = tensor, self.deleter
        self.sizes = sizes, steps
        if self.versioned:
            managed.major, managed.flags = 1, 1
        self.name = b"dltensor_versioned" if self.versioned else b"dltensor"
        new = ctypes.pythonapi.PyCapsule_New
        new.restype, new.argtypes = (
            ctypes.py_object,
            (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p),
        )
        return new(ctypes.addressof(managed), self.name, None)

    def release(self, _: Any) -> None:
        self.released += 1


DELETER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class Managed(ctypes.Structure):
    _fields_ = (("tensor", Tensor), ("manager", ctypes.c_void_p), ("deleter", DELETER))


class Versioned(ctypes.Structure):
    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("manager", ctypes.c_void_p),
        ("deleter", DELETER),
        ("flags", ctypes.c_uint64),
        ("tensor", Tensor),
    )


@pytest.mark.parametrize("versioned", [False, True])
def test_arrays_by_dlpack(versioned: bool) -> None:
    x, y = data(30)
    wanted = model().fit(x, y, **QUIET).history
    rows = Handed(strided(x), versioned=versioned)
    labels = Handed(array(y), versioned=versioned, device_type=13)
    assert model().fit(rows, labels, **QUIET).history == wanted
    assert rows.asked == labels.asked == [1]  # ready for the default stream
    gc.collect()  # of the model, which holds them
    assert rows.released == labels.released == 1
    with pytest.raises(TypeError, match="cannot make an array of the kind Handed"):
        model().predict(rows)


def test_work_waits_for_the_arrays_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = data(30)
    there, labels = array(x), array(y)
    there.stream, labels.stream = 2, 1
    seen: list[int] = []
    real = _core.cuda_intake

    def intake(*args: Any) -> bool:
        seen.append(args[-1])
        return real(*args[:-1], 0)

    monkeypatch.setattr(_core, "cuda_intake", intake)
    monkeypatch.setattr(_core, "cuda_synchronize", lambda stream: None)
    model().fit(there, labels, **QUIET)
    assert seen == [2, 1]


KINDS = ["bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
         "float16", "float32", "float64"]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("to", ["float32", "float64", "int64"])
def test_numbers_become_what_numpy_makes_of_them(kind: str, to: str) -> None:
    rng = np.random.default_rng(0)
    if np.dtype(kind).kind == "f":
        values = rng.normal(size=(33, 5)) * np.float64(2.0) ** rng.integers(-20, 14, (33, 5))
        values[0] = [0.0, -0.0, 6e-8, 65504, -1]
    elif kind == "bool":
        values = rng.integers(0, 2, (33, 5))
    else:
        info = np.iinfo(kind)
        values = rng.integers(info.min, info.max, (33, 5), dtype=kind, endpoint=True)
        values[0, :2] = info.min, info.max
    host = values.astype(kind)
    one = device_rows.view("x", strided(host))
    made = device_rows._room(host.shape, np.dtype(to), 0)
    assert device_rows._intake(one, host.shape, made)
    with np.errstate(invalid="ignore"):
        assert_same_bits(made.get(), host.astype(to))


def test_a_sum_is_rounded_once() -> None:
    rng = np.random.default_rng(0)
    for n in (1, 2, 255, 1000, 4097):
        values = rng.uniform(size=n) * 2.0 ** rng.integers(-40, 40, n)
        there = array(values)
        assert _core.cuda_sum(0, there.pointer, n, 0) == math.fsum(values)


def test_wrong_data_is_refused_in_the_words_for_the_host() -> None:
    x, y = data(12)
    bad, labels, fraction = x.copy(), y.copy(), y.astype(np.float32)
    bad[5, 2], labels[3], fraction[7] = np.inf, 3, 0.5
    huge = x.astype(np.float64)
    huge[1, 1] = 1e300
    cases: list[tuple[Array, Array, Array | None]] = [
        (bad, y, None),
        (huge, y, None),
        (x, labels, None),
        (x, fraction, None),
        (x, y[:5], None),
        (x[:, :4], y, None),
        (x[0], y, None),
        (x[:0], y[:0], None),
        (x, np.ones((12, 4), np.float32), None),
        (x, np.full((12, 3), -1, np.float32), None),
        (x, y, np.full(12, -1.0)),
        (x, y, np.zeros(12)),
        (x, y, np.ones(3)),
    ]
    m, twin = model(), model()
    for made in (m, twin):
        made.build(INPUTS)
    for rows, target, weight in cases:
        with pytest.raises((ValueError, TypeError)) as wanted:
            twin.step(rows, target, weight)
        there = None if weight is None else array(weight)
        with pytest.raises(wanted.type) as found:
            m.step(array(rows), array(target), there)
        assert str(found.value).replace("np.float32", "") == str(wanted.value).replace(
            "np.float32", ""
        )
    assert m.step(array(x), array(y)) == twin.step(x, y)  # nothing is broken


def test_what_no_kernel_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = data(12)
    m = model()
    with pytest.raises(TypeError, match="'<c8'; expected bools, integers or floats"):
        m.fit(array(x.astype(np.complex64)), array(y), verbose=0)
    host = bp.Sequential([bp.Dense(3)], seed=0)
    host.compile("sgd", "softmax_cross_entropy", device="cpu")
    with pytest.raises(TypeError, match=r"X lies on a GPU \(DeviceArray\)"):
        host.fit(array(x), y, verbose=0)
    with pytest.raises(TypeError, match="y lies on a GPU"):
        host.fit(x, array(y), verbose=0)
    monkeypatch.setattr(_core, "cuda_device_of", lambda pointer: 1)
    with pytest.raises(ValueError, match="X lies on GPU 1, and the model is on GPU 0: copy it"):
        m.fit(array(x), array(y), verbose=0)
    monkeypatch.setattr(_core, "cuda_device_of", lambda pointer: -1)
    with pytest.raises(ValueError, match="X lies in no GPU's memory"):
        m.predict(array(x))
