"""The kernels one by one: matrix products, activations and vector maths, updates.

Every result is compared with the NumPy reference before it is timed. Products say GFLOP/s;
elementwise functions say GB/s (every array counted once per pass) and nanoseconds per element.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fastbp as bp
from fastbp import _core, ops, reference

SHAPES = (  # rows, terms, columns: squares, the products of the step workloads, thin and odd ones
    (4, 4, 4),
    (16, 16, 16),
    (64, 64, 64),
    (65, 65, 65),
    (256, 256, 256),
    (1024, 1024, 1024),
    (32, 784, 128),
    (784, 32, 128),
    (256, 256, 128),
    (4096, 64, 64),
    (512, 784, 1024),
    (1, 1024, 1024),
    (1024, 1024, 1),
)
ELEMENTS = 1 << 16  # 256 KiB of float32: the arrays of an elementwise kernel stay in the L2 cache
HYPER = {"learning_rate": 1e-3, "momentum": 0.9}
DTYPES = ("float32", "float64")


def verify(name: str, right: Any) -> None:
    assert np.all(right), f"{name}: wrong in {np.sum(~right)} of {right.size} elements"


def note(benchmark: Any, **amounts: float) -> None:
    """Amounts per second, in units of 10^9, into the saved figures."""
    if benchmark.stats is not None:  # None with --benchmark-disable
        for name, amount in amounts.items():
            benchmark.extra_info[name] = amount / benchmark.stats.stats.median / 1e9


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def test_matmul(benchmark: Any, shape: tuple[int, int, int], dtype: str) -> None:
    m, k, n = shape
    rng = np.random.default_rng(0)
    a = rng.standard_normal((m, k)).astype(dtype)
    b = rng.standard_normal((k, n)).astype(dtype)
    out = np.empty((m, n), dtype)
    terms = np.abs(a.astype(np.float64)) @ np.abs(b.astype(np.float64))
    error = np.abs(ops.matmul(a, b, out=out) - a.astype(np.float64) @ b.astype(np.float64))
    verify("matmul", error <= (k + 2) * np.finfo(dtype).eps * terms)
    benchmark.group = f"matmul {dtype}"
    benchmark(ops.matmul, a, b, out=out)
    note(benchmark, gflops=2.0 * m * n * k)


def time_elementwise(
    benchmark: Any,
    mine: Callable[..., Any],
    twin: Callable[..., Any],
    inputs: tuple[Any, ...],
) -> None:
    out = np.empty_like(inputs[0])
    expected = twin(*inputs)
    error = np.abs(mine(*inputs).astype(np.float64) - expected)
    verify("result", error <= 8 * np.finfo(out.dtype).eps * (np.abs(expected) + np.abs(inputs[0])))
    benchmark(mine, *inputs, out=out)
    note(benchmark, gbytes=out.nbytes * (len(inputs) + 1), elements=out.size)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", _core.vector_functions())
def test_vector_function(benchmark: Any, name: str, dtype: str) -> None:
    x = np.random.default_rng(0).uniform(0.1, 4.1, ELEMENTS).astype(dtype)
    benchmark.group = f"vector functions {dtype}"
    time_elementwise(benchmark, getattr(ops, name), getattr(reference, name), (x,))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", bp.registry.ACTIVATIONS)
def test_activation_forward(benchmark: Any, name: str, dtype: str) -> None:
    x = np.random.default_rng(0).uniform(-4, 4, ELEMENTS).astype(dtype)

    def forward(library: Any) -> Callable[..., Any]:
        return lambda x, out=None: library.activation_forward(name, x, out=out)

    benchmark.group = f"activations {dtype}"
    time_elementwise(benchmark, forward(ops), forward(reference), (x,))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", bp.registry.ACTIVATIONS)
def test_activation_backward(benchmark: Any, name: str, dtype: str) -> None:
    rng = np.random.default_rng(0)
    x, dy = rng.uniform(-4, 4, ELEMENTS).astype(dtype), rng.standard_normal(ELEMENTS).astype(dtype)
    keeps = "y" if bp.registry.ACTIVATIONS[name]["saves"] == "output" else "z"
    saved = reference.activation_forward(name, x) if keeps == "y" else x

    def backward(library: Any) -> Callable[..., Any]:
        return lambda dy, kept, out=None: library.activation_backward(
            name, dy, out=out, **{keeps: kept}
        )

    benchmark.group = f"derivatives {dtype}"
    time_elementwise(benchmark, backward(ops), backward(reference), (dy, saved))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", bp.registry.OPTIMIZERS)
def test_update(benchmark: Any, name: str, dtype: str) -> None:
    entry = bp.registry.OPTIMIZERS[name]
    hyper = {key: value for key, value in HYPER.items() if key in entry["hyper"]}
    if {"beta_1", "beta_2"} <= set(entry["hyper"]):
        hyper["step"] = 1
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(ELEMENTS).astype(dtype) for _ in range(2)]
    arrays += [np.zeros(ELEMENTS, dtype) for _ in range(entry["slots"])]
    copies = [a.copy() for a in arrays]
    update, twin = getattr(ops, f"{name}_update"), getattr(reference, f"{name}_update")
    update(*arrays, **hyper)
    twin(*copies, **hyper)
    for a, b in zip(arrays, copies, strict=True):
        verify(name, np.abs(a - b) <= 8 * np.finfo(dtype).eps * np.abs(b).max())
    benchmark.group = f"updates {dtype}"
    benchmark(update, *arrays, **hyper)
    passes = 3 + 2 * entry["slots"]  # w read and written, g read, every slot read and written
    note(benchmark, gbytes=passes * arrays[0].nbytes, elements=ELEMENTS)
