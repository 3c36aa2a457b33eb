"""Models on a GPU with the arrays of CuPy, PyTorch and JAX: what NumPy's give on the CPU, bit for
bit, on the stream that the arrays come on. With a stand-in for such arrays: test_device_data.py.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cuda_library
import fastbp as bp
from fastbp.cuda_library import VARIABLE
from sweeps import Array, assert_same_bits

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(cuda_library.gpu_architecture() is None, reason="no NVIDIA GPU"),
]
RNG = np.random.default_rng(0)
X = RNG.normal(size=(256, 6)).astype(np.float32)
Y = RNG.integers(0, 3, 256)


@pytest.fixture(autouse=True)
def library(nvcc_library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(nvcc_library))


class Kind:
    """A library's arrays: made on its current device from the host's, and back."""

    def __init__(self, make: Callable[[Array], Any], take: Callable[[Any], Array]) -> None:
        self.make, self.take = make, take


@pytest.fixture(params=["cupy", "torch", "jax"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Kind:
    monkeypatch.setenv(
        "XLA_PYTHON_CLIENT_PREALLOCATE", "false"
    )  # else JAX takes most of the memory
    library = pytest.importorskip(request.param)
    if request.param == "cupy":
        return Kind(library.asarray, lambda x: x.get())
    if request.param == "torch":
        return Kind(lambda x: library.tensor(x, device="cuda"), lambda x: x.cpu().numpy())
    return Kind(library.numpy.asarray, np.asarray)


def trained(x: Any, y: Any, device: str = "cuda") -> bp.Sequential:
    model = bp.Sequential([bp.Dense(32, activation="tanh"), bp.Dense(3)], seed=1)
    model.compile("adam", "softmax_cross_entropy", ["accuracy"], device=device)
    model.fit(x, y, epochs=2, batch_size=32, verbose=0)
    return model


def parameters(model: bp.Sequential) -> Array:
    return np.concatenate([value.ravel() for value in model.parameters().values()])


def check(kind: Kind, x: Any, y: Any) -> None:
    expected = trained(X, Y, "cpu")
    model = trained(x, y)
    assert_same_bits(parameters(model), parameters(expected))
    outputs = model.predict(x)
    assert type(outputs) is type(x)
    assert_same_bits(kind.take(outputs), expected.predict(X))


def test_training_and_prediction(kind: Kind) -> None:
    check(kind, kind.make(X), kind.make(Y))


def test_class_numbers_of_the_host(kind: Kind) -> None:
    check(kind, kind.make(X), Y)


def test_a_view_with_gaps(kind: Kind) -> None:
    check(kind, kind.make(np.repeat(X, 2, axis=1))[:, ::2], kind.make(Y))


@pytest.mark.parametrize("name", ["cupy", "torch"])
def test_arrays_on_a_stream_of_their_own(name: str) -> None:
    library: Any = pytest.importorskip(name)
    cuda = library.cuda
    on = cuda.Stream(non_blocking=True) if name == "cupy" else cuda.stream(cuda.Stream())
    make = library.asarray if name == "cupy" else lambda x: library.tensor(x, device="cuda")
    take = (lambda x: x.get()) if name == "cupy" else (lambda x: x.cpu().numpy())
    with contextlib.ExitStack() as stack:
        stack.enter_context(on)
        # Long work in front on that stream: results would be wrong if it were not waited for.
        x = make(np.zeros_like(X))
        for _ in range(200):
            x = x + make(X) / 256
            x = x - make(X) / 256
        check(Kind(make, take), x + make(X), make(Y))


def test_matmul(kind: Kind) -> None:
    a, b = (
        RNG.normal(size=(70, 33)).astype(np.float32),
        RNG.normal(size=(33, 20)).astype(np.float32),
    )
    product = bp.ops.matmul(kind.make(a), kind.make(b))
    assert type(product) is type(kind.make(a))
    assert_same_bits(kind.take(product), bp.ops.matmul(a, b))


def test_bad_numbers_are_named_and_nothing_is_lost(kind: Kind) -> None:
    x, y = X.copy(), Y.copy()
    x[3, 2], y[7] = np.nan, 9
    with pytest.raises(ValueError, match="X has NaN at row 3, column 2"):
        trained(kind.make(x), kind.make(Y))
    with pytest.raises(ValueError, match=r"y\[7\] is 9"):
        trained(kind.make(X), kind.make(y))
    check(kind, kind.make(X), kind.make(Y))


def test_a_network_too_large_is_a_memory_error() -> None:
    model = bp.Sequential([bp.Dense(300_000), bp.Dense(300_000)], seed=0)
    model.compile("adam", "mse", device="cuda")
    rows = np.zeros((4, 8), np.float32)
    with pytest.raises(MemoryError, match="MiB for parameters"):
        model.fit(rows, np.zeros((4, 300_000), np.float32), verbose=0)
    assert_same_bits(parameters(trained(X, Y)), parameters(trained(X, Y, "cpu")))
