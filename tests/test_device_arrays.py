"""fastbp.ops on arrays that lie on a device: the processor's bits, no copies, clear errors.

The device is the emulated one; the arrays are a stand-in for CuPy's (cupy_stand_in.py), which like
CuPy's refuse to become NumPy arrays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import cupy_stand_in
import fastbp as bp
from cupy_stand_in import DeviceArray, StandardArray, UnknownArray, array
from fastbp import _core, ops
from sweeps import DTYPES, assert_same_bits, normal

pytestmark = pytest.mark.usefixtures("cupy_like")
NAMES = [entry["name"] for entry in _core.activations()]


@pytest.mark.parametrize("dtype", DTYPES)
def test_matmul(dtype: str) -> None:
    a, b, bias = normal(1, dtype, 7, 5), normal(2, dtype, 5, 9), normal(3, dtype, 9)
    device_a, device_b, device_bias = array(a), array(b), array(bias)
    result = ops.matmul(device_a, device_b, bias=device_bias, activation="tanh")
    assert type(result) is DeviceArray
    assert_same_bits(result.get(), ops.matmul(a, b, bias=bias, activation="tanh"))
    result = ops.matmul(array(a.T), device_b.T, transpose_a=True, transpose_b=True)
    assert_same_bits(result.get(), ops.matmul(a, b))
    wide = array(np.zeros((7, 12), dtype))
    out = wide[:, :9]
    assert ops.matmul(device_a[::-1, ::2], device_b[::2], out=out) is out
    assert_same_bits(out.get(), ops.matmul(a[::-1, ::2], b[::2]))
    assert not wide.get()[:, 9:].any()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_activations(dtype: str, name: str) -> None:
    z, dy = normal(1, dtype, 3, 4, 5), normal(2, dtype, 3, 4, 5)
    device_z, device_dy = array(z), array(dy)
    y = getattr(ops, name)(z)
    device_y = getattr(ops, name)(device_z)
    assert_same_bits(device_y.get(), y)
    assert_same_bits(ops.activation_forward(name, device_z).get(), y)
    dz = ops.activation_backward(name, dy, z=z, y=y)
    result = ops.activation_backward(name, device_dy, z=device_z, y=device_y)
    assert_same_bits(result.get(), dz)
    assert ops.activation_forward(name, device_z, out=device_z) is device_z
    assert_same_bits(device_z.get(), y)


def test_sizes_of_nothing() -> None:
    assert ops.relu(array(np.zeros((0, 3), np.float32))).shape == (0, 3)
    nothing, some = np.zeros((2, 0), np.float32), np.zeros((0, 3), np.float32)
    assert_same_bits(ops.matmul(array(nothing), array(some)).get(), np.zeros((2, 3), np.float32))


def test_arrays_of_other_streams_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[int] = []
    monkeypatch.setattr(_core, "cuda_synchronize", waited.append)
    a, b = array(np.ones((2, 2), np.float32)), array(np.ones((2, 2), np.float32))
    ops.matmul(a, b)
    assert waited == []
    b.stream = 2
    ops.matmul(a, b)
    assert waited == [2]


def wrong(change: Callable[[DeviceArray], Any]) -> DeviceArray:
    value = array(np.ones((2, 2), np.float32))
    change(value)
    return value


def read_only(value: DeviceArray) -> None:
    value.read_only = True


def old(value: DeviceArray) -> None:
    value.version = 1


def fitted() -> bp.Sequential:
    model = bp.Sequential([bp.Dense(1)], seed=0)
    model.build(2)
    return model


def test_wrong_arguments() -> None:
    x, host = array(np.ones((2, 2), np.float32)), np.ones((2, 2), np.float32)
    double, three = array(np.ones((2, 2))), array(np.ones((3, 3), np.float32))
    whole = array(np.ones((2, 2), np.int32))
    cases: list[tuple[Callable[[], object], type[Exception], str]] = [
        (lambda: ops.matmul(x, host), TypeError, "b is on no GPU, but another argument is"),
        (lambda: ops.matmul(host, x), TypeError, "a is on no GPU"),
        (lambda: ops.matmul(x, double), TypeError, "one dtype; got float32, float64"),
        (lambda: ops.matmul(x, three), ValueError, "a has 2 columns, but b has 3 rows"),
        (lambda: ops.matmul(x, x, bias=three), ValueError, r"bias has shape \(3, 3\)"),
        (lambda: ops.matmul(x[0], x), ValueError, "takes two matrices"),
        (lambda: ops.matmul(x, x, out=x), ValueError, "out overlaps an input"),
        (lambda: ops.matmul(x, x, out=three), ValueError, r"out has shape \(3, 3\)"),
        (lambda: ops.matmul(x, x, out=double), TypeError, "out has dtype float64"),
        (lambda: ops.matmul(x, x, out=wrong(read_only)), ValueError, "out is read-only"),
        (lambda: ops.matmul(x, x, activation="rellu"), ValueError, "did you mean 'relu'"),
        (lambda: ops.relu(wrong(old)), TypeError, "version 1; expected 2"),
        (lambda: ops.relu(whole), TypeError, "'<i4'; expected float32 or float64"),
        (lambda: ops.relu(three[:, :2]), ValueError, "x is not contiguous"),
        (lambda: ops.relu(host, out=x), TypeError, "x is on no GPU"),
        (
            lambda: ops.activation_backward("gelu", x, y=x),
            ValueError,
            "'gelu' takes z",
        ),
        (lambda: ops.softmax(x), TypeError, "x lies on a GPU"),
        (lambda: fitted().predict(x), TypeError, "X lies on a GPU"),
    ]
    for call, kind, message in cases:
        with pytest.raises(kind, match=message):
            call()
    assert_same_bits(x.get(), host)


def test_what_is_read_only_may_be_read() -> None:
    value = wrong(read_only)
    assert_same_bits(ops.relu(value).get(), np.ones((2, 2), np.float32))


def test_a_kind_that_follows_the_array_standard_is_made() -> None:
    x = array(np.ones((2, 2), np.float32), StandardArray)
    assert isinstance(ops.relu(x), StandardArray)


def test_a_kind_that_cannot_be_made_needs_out() -> None:
    x = array(np.ones((2, 2), np.float32), UnknownArray)
    with pytest.raises(TypeError, match="kind UnknownArray: pass one for the result as out="):
        ops.relu(x)
    out = cupy_stand_in.empty((2, 2), np.float32)
    assert ops.relu(x, out=out) is out


def on_cuda(rows: int = 30) -> tuple[bp.Sequential, np.ndarray, np.ndarray]:
    """A model on CUDA, and data for it."""
    rng = np.random.default_rng(0)
    model = bp.Sequential([bp.Dense(5, activation="tanh"), bp.Dense(3)], seed=1)
    model.compile("adam", "softmax_cross_entropy", ["accuracy"], device="cuda")
    return model, rng.normal(size=(rows, 4)).astype(np.float32), rng.integers(0, 3, rows)


def test_the_data_of_fit_are_copied_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever watches it: training and validation set are held while fit runs, no longer."""
    model, x, y = on_cuda()
    model.build(4)
    engine = model._require_built()
    held: list[tuple[int, ...]] = []
    hold = type(engine).hold

    def count(self: object, rows: np.ndarray, *others: object) -> None:
        held.append(rows.shape)
        hold(self, rows, *others)

    monkeypatch.setattr(type(engine), "hold", count)

    class Change(bp.callbacks.Callback):
        """What is held is what counts: the host's memory is not read again."""

        def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
            x[:] = 0

    twin, *_ = on_cuda()
    kept = x.copy()
    options = {"epochs": 3, "batch_size": 8, "verbose": 0}
    wanted = twin.fit(kept, y, validation_data=(kept[:10].copy(), y[:10]), **options)
    held.clear()
    found = model.fit(x, y, validation_data=(kept[:10], y[:10]), callbacks=[Change()], **options)
    assert found.history == wanted.history
    assert held == [(30, 4), (10, 4)]
    assert model.evaluate(x, y) == twin.evaluate(np.zeros_like(x), y)  # held no longer
