"""The kernels one by one, beside NumPy: matrix products, activations and vector maths, updates.

Every result is compared with the NumPy reference before it is timed. Products give GFLOP/s and the
share of the probed peak; elementwise functions give GB/s (every array counted once per pass) and
nanoseconds per element.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import harness
import numpy as np
from peaks import peak_gflops

import fastbp as bp
from fastbp import _core, ops, reference

SHAPES = (  # rows, columns, terms: squares, the products of the step workloads, thin and odd ones
    (4, 4, 4),
    (16, 16, 16),
    (64, 64, 64),
    (65, 65, 65),
    (256, 256, 256),
    (1024, 1024, 1024),
    (32, 128, 784),
    (784, 128, 32),
    (256, 128, 256),
    (4096, 64, 64),
    (512, 1024, 784),
    (1, 1024, 1024),
    (1024, 1, 1024),
)
ELEMENTS = 1 << 16  # 256 KiB of float32: the arrays of an elementwise kernel stay in the L2 cache
HYPER = {"learning_rate": 1e-3, "momentum": 0.9}


def products(dtype: str, peak: float, repeats: int) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(0)
    for m, n, k in SHAPES:
        a = rng.standard_normal((m, k)).astype(dtype)
        b = rng.standard_normal((k, n)).astype(dtype)
        out, other = np.empty((m, n), dtype), np.empty((m, n), dtype)
        terms = np.abs(a.astype(np.float64)) @ np.abs(b.astype(np.float64))
        error = np.abs(ops.matmul(a, b, out=out) - a.astype(np.float64) @ b.astype(np.float64))
        verify(f"matmul {m}x{k}x{n}", error <= (k + 2) * np.finfo(dtype).eps * terms)
        timings = harness.interleaved(
            {
                "fastbp": lambda a=a, b=b, out=out: ops.matmul(a, b, out=out),
                "numpy": lambda a=a, b=b, out=other: np.matmul(a, b, out=out),
            },
            repeats,
            at_least=0.005,
        )
        flop = 2 * m * n * k
        gflops = {name: flop / timing.median / 1e9 for name, timing in timings.items()}
        yield {
            "name": f"{m}x{k} @ {k}x{n}",
            "timings": timings,
            "gflops": gflops,
            "peak": {name: value / peak for name, value in gflops.items()},
            "ratio": timings["numpy"].median / timings["fastbp"].median,
        }


def elementwise(dtype: str, repeats: int) -> Iterator[dict[str, Any]]:
    """Activations both ways and vector maths, in cache, against the formulas of the reference."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-4, 4, ELEMENTS).astype(dtype)
    positive, dy = np.abs(x) + x.dtype.type(0.1), rng.standard_normal(ELEMENTS).astype(dtype)
    for name in _core.vector_functions():
        yield function(name, getattr(ops, name), getattr(reference, name), (positive,), 2, repeats)
    for entry in bp.registry.ACTIVATIONS.values():
        name = entry["name"]
        keeps = "y" if entry["saves"] == "output" else "z"
        saved = reference.activation_forward(name, x) if keeps == "y" else x

        def forward(lib: Any, name: str = name) -> Callable[..., Any]:
            return lambda x, out=None: lib.activation_forward(name, x, out=out)

        def backward(lib: Any, name: str = name, keeps: str = keeps) -> Callable[..., Any]:
            return lambda dy, kept, out=None: lib.activation_backward(
                name, dy, out=out, **{keeps: kept}
            )

        yield function(name, forward(ops), forward(reference), (x,), 2, repeats)
        yield function(
            f"{name} backward", backward(ops), backward(reference), (dy, saved), 3, repeats
        )


def function(
    name: str,
    mine: Callable[..., Any],
    twin: Callable[..., Any],
    inputs: tuple[Any, ...],
    arrays: int,
    repeats: int,
) -> dict[str, Any]:
    """`arrays`: read and written in one pass."""
    out = np.empty_like(inputs[0])
    expected = twin(*inputs)
    error = np.abs(mine(*inputs).astype(np.float64) - expected)
    verify(name, error <= 8 * np.finfo(out.dtype).eps * (np.abs(expected) + np.abs(inputs[0])))
    timings = harness.interleaved(
        {"fastbp": lambda: mine(*inputs, out=out), "reference": lambda: twin(*inputs)},
        repeats,
        at_least=0.002,
    )
    return elements(name, timings, out.nbytes * arrays)


def updates(dtype: str, repeats: int) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(0)
    for entry in bp.registry.OPTIMIZERS.values():
        hyper = {key: value for key, value in HYPER.items() if key in entry["hyper"]}
        if {"beta_1", "beta_2"} <= set(entry["hyper"]):
            hyper["step"] = 1
        arrays = [rng.standard_normal(ELEMENTS).astype(dtype) for _ in range(2)]
        arrays += [np.zeros(ELEMENTS, dtype) for _ in range(entry["slots"])]
        copies = [a.copy() for a in arrays]
        name = f"{entry['name']}_update"
        mine, twin = getattr(ops, name), getattr(reference, name)
        mine(*arrays, **hyper)
        twin(*copies, **hyper)
        for a, b in zip(arrays, copies, strict=True):
            verify(name, np.abs(a - b) <= 8 * np.finfo(dtype).eps * np.abs(b).max())
        timings = harness.interleaved(
            {
                "fastbp": lambda f=mine, a=arrays, h=hyper: f(*a, **h),
                "reference": lambda f=twin, a=copies, h=hyper: f(*a, **h),
            },
            repeats,
            at_least=0.002,
        )
        passes = 3 + 2 * entry["slots"]  # w read and written, g read, every slot read and written
        yield elements(name, timings, arrays[0].nbytes * passes)


def elements(name: str, timings: dict[str, harness.Timing], nbytes: int) -> dict[str, Any]:
    seconds = timings["fastbp"].median
    return {
        "name": name,
        "timings": timings,
        "ns_per_element": 1e9 * seconds / ELEMENTS,
        "gbytes": nbytes / seconds / 1e9,
        "ratio": timings["reference"].median / seconds,
    }


def verify(name: str, right: Any) -> None:
    if not np.all(right):
        raise SystemExit(
            f"{name}: the result is wrong in {np.sum(~right)} of {right.size} elements"
        )


def main() -> int:
    parser = harness.parser(__doc__)
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    arguments = parser.parse_args()
    harness.announce()
    peak = peak_gflops(arguments.dtype)
    print(f"probed {arguments.dtype} peak {peak:.1f} GFLOP/s, {bp.get_num_threads()} threads\n")
    gemms = list(products(arguments.dtype, peak, arguments.repeats))
    rows = [["matmul", "us", "GFLOP/s", "peak", "numpy us", "peak", "ratio"]]
    for result in gemms:
        mine, other = result["timings"]["fastbp"], result["timings"]["numpy"]
        rows.append(
            [
                result["name"],
                harness.microseconds(mine.median),
                f"{result['gflops']['fastbp']:.1f}",
                f"{result['peak']['fastbp']:.0%}",
                harness.microseconds(other.median),
                f"{result['peak']['numpy']:.0%}",
                f"{result['ratio']:.2f}",
            ]
        )
    print(harness.table(rows))
    others = [
        *elementwise(arguments.dtype, arguments.repeats),
        *updates(arguments.dtype, arguments.repeats),
    ]
    rows = [[f"{ELEMENTS} elements", "us", "ns/element", "GB/s", "reference us", "ratio"]]
    for result in others:
        mine, other = result["timings"]["fastbp"], result["timings"]["reference"]
        rows.append(
            [
                result["name"],
                harness.microseconds(mine.median),
                f"{result['ns_per_element']:.3f}",
                f"{result['gbytes']:.1f}",
                harness.microseconds(other.median),
                f"{result['ratio']:.0f}",
            ]
        )
    print()
    print(harness.table(rows))
    harness.write(
        arguments.json, "kernels", {"peak_gflops": peak, "matmul": gemms, "others": others}
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
