"""No cliffs: what must not suddenly cost several times as much, and what must stay within its plan.

Times are ratios from one run, of the shortest of many short turns each. Another program can only
make a turn longer, but it may take every turn of one side: a ratio beyond its limit is measured
again, up to ATTEMPTS times, and fails where it never was within. Memory is the peak of a process of
its own.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastbp as bp
import matmul_beside_numpy
from fastbp import _core

timing = pytest.mark.timing
RNG = np.random.default_rng(0)
ATTEMPTS = 5
SAMPLE = 4e-4  # seconds, a fraction of a time slice


def network(*widths: int) -> Any:
    layers = [bp.Dense(units, activation="relu") for units in widths[1:-1]]
    model = bp.Sequential([*layers, bp.Dense(widths[-1])], seed=0)
    model.compile(optimizer=bp.Adam(1e-3), loss="softmax_cross_entropy")
    model.build(widths[0])
    return model


def batch(rows: int, inputs: int, classes: int) -> tuple[Any, Any]:
    x = RNG.standard_normal((rows, inputs)).astype(np.float32)
    return x, RNG.integers(0, classes, rows)


def best(calls: dict[Any, Callable[[], object]], turns: int = 60) -> dict[Any, float]:
    """The shortest time of each, in seconds, taken in turn; each call repeated for SAMPLE."""
    loops = {}
    for name, call in calls.items():
        call()
        start = time.perf_counter()
        call()
        loops[name] = int(SAMPLE / (time.perf_counter() - start)) + 1
    shortest = dict.fromkeys(calls, np.inf)
    for _ in range(turns):
        for name, call in calls.items():
            start = time.perf_counter()
            for _ in range(loops[name]):
                call()
            shortest[name] = min(shortest[name], (time.perf_counter() - start) / loops[name])
    return shortest


def check_ratios(
    calls: dict[Any, Callable[[], object]], limits: dict[tuple[Any, Any], float], turns: int = 60
) -> None:
    """limits[a, b]: how many times as long as b's call a's may take."""
    seen = []
    for _ in range(ATTEMPTS):
        took = best(calls, turns)
        ratios = {pair: took[pair[0]] / took[pair[1]] for pair in limits}
        if all(ratios[pair] <= limit for pair, limit in limits.items()):
            return
        seen.append(ratios)
    pytest.fail(f"in every attempt a ratio was above its limit {limits}: {seen}")


@timing
def test_the_first_step_takes_no_longer_than_5_ms() -> None:
    x, y = batch(32, 784, 10)
    shortest = np.inf
    for _ in range(5):
        model = network(784, 128, 10)
        start = time.perf_counter()
        model.step(x, y)
        shortest = min(shortest, time.perf_counter() - start)
    assert shortest < 5e-3


@timing
@pytest.mark.parametrize("width", [15, 31, 45, 63, 127, 255])
def test_one_unit_more_is_no_cliff(width: int) -> None:
    """A full vector or tile ends at each of these widths. Measured: 1.0 to 1.2.

    But for 17 units, which need two vectors where 16 need one, in each of a step's products: 1.55.
    AVX2, whose tiles are one vector wide: 17 units 1.4, 33 units 1.3 (docs/performance.md).
    """
    x, y = batch(64, 16, 4)
    models = {w: network(16, w, w, 4) for w in (width, width + 1, width + 2)}
    known = {16: 1.7, 32: 1.5, 64: 1.4} if bp.info()["isa"] == "avx2" else {16: 1.7}
    limits = {(w + 1, w): known.get(w, 1.3) for w in (width, width + 1)}
    check_ratios({w: lambda m=m: m.step(x, y) for w, m in models.items()}, limits)


@timing
@pytest.mark.skipif(bp.get_num_threads() < 2, reason="one CPU")
@pytest.mark.parametrize(
    ("widths", "rows"),
    [((2, 16, 1), 32), ((16, 64, 64, 4), 64), ((784, 128, 10), 32), ((32, 64, 64, 16), 1024)],
)
def test_two_threads_are_not_slower_than_one(widths: tuple[int, ...], rows: int) -> None:
    """The goal is 1.05."""
    x, y = batch(rows, widths[0], max(2, widths[-1]))
    model = network(*widths[:-1], max(2, widths[-1]))
    before = bp.get_num_threads()

    def run(threads: int) -> None:
        bp.set_num_threads(threads)
        model.fit(x, y, epochs=20, batch_size=rows, verbose=0)

    try:
        check_ratios({threads: lambda t=threads: run(t) for threads in (1, 2)}, {(2, 1): 1.1}, 40)
    finally:
        bp.set_num_threads(before)


@timing
def test_denormals_cost_nothing() -> None:
    """The goal is 1.05."""
    x, _ = batch(64, 64, 4)
    tiny = (x * np.float32(1e-40)).astype(np.float32)
    model = network(64, 128, 4)
    calls = {"normal": lambda: model.predict(x), "denormal": lambda: model.predict(tiny)}
    check_ratios(calls, {("denormal", "normal"): 1.1})


@timing
def test_products_of_any_shape_beside_numpy() -> None:
    """One thread, the same shapes each time. Measured: 0.75 at the median, 1.05 at nine tenths;
    what is slower, and why, is in docs/performance.md.
    """
    threadpoolctl = pytest.importorskip("threadpoolctl")
    what = matmul_beside_numpy.random_cases(80, seed=3, most_flop=2e7)
    before = bp.get_num_threads()
    bp.set_num_threads(1)
    seen = []
    try:
        with threadpoolctl.threadpool_limits(1):
            for _ in range(ATTEMPTS):
                found = matmul_beside_numpy.compare(what, SAMPLE)
                middle, high = np.quantile([beside.ratio for beside in found], (0.5, 0.9))
                if middle < 0.9 and high < 1.25:
                    return
                seen.append((middle, high))
    finally:
        bp.set_num_threads(before)
    pytest.fail(f"median and nine tenths of the ratios, in every attempt: {seen}")


MEMORY = """
import numpy as np, sys
import fastbp as bp

def peak():
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024

widths, rows = [256, 1024, 1024, 512, 10], 2048
x = np.random.default_rng(0).standard_normal((rows, widths[0]), dtype=np.float32)
y = np.zeros(rows, np.int64)
bp.ops.matmul(x[:64], x[:64], transpose_b=True)
before = peak()
model = bp.Sequential([bp.Dense(u, activation="relu") for u in widths[1:]], seed=0)
model.compile(optimizer="adam", loss="softmax_cross_entropy")
model.fit(x, y, epochs=2, batch_size=rows, shuffle=False, verbose=0)
parameters = sum((a + 1) * b for a, b in zip(widths, widths[1:]))
# Parameters, gradient, two slots; inputs, and outputs and deltas of every layer.
planned = 4 * (4 * parameters + rows * (widths[0] + 2 * sum(widths[1:])))
print(peak() - before, planned)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
@pytest.mark.skipif(
    bool(_core.build_info()["sanitize"]), reason="a sanitizer's shadow and freed blocks count, too"
)
def test_peak_memory_is_the_plan() -> None:
    run = subprocess.run(
        [sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True, timeout=300
    )
    used, planned = map(int, run.stdout.split())
    assert used <= 1.05 * planned + (16 << 20), (used, planned)
