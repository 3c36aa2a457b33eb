"""fastbp.ops.matmul beside numpy.matmul, over the shapes that the two may be asked for.

    python tests/matmul_beside_numpy.py [--threads N] [--random COUNT [--seed N]]

over the shapes below, or over random ones (sides evenly spread on a log scale from 1 to 4096, any
layout, both dtypes; the same ones for the same seed), of which it also gives the quantiles,
prints m x n x k, the layout (t: that operand is a transposed view; v: the vector is 1-D), both
times in microseconds and their ratio. All of ours are timed before NumPy's first call: the threads
of a BLAS keep a core busy for a tenth of a second after a product.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import fastbp as bp

SQUARES = [1, 2, 4, 8, 16, 17, 32, 33, 64, 65, 100, 128, 200, 256, 300, 400, 512, 777, 1024]
VECTORS = [
    *((1, 1, 4096), (1, 4096, 1), (4096, 1, 1), (1, 4096, 64), (1, 64, 4096), (64, 1, 4096)),
    *((1, 512, 512), (512, 1, 512), (1, 1024, 1024), (1024, 1, 1024), (4096, 1, 64)),
    *((1, 4096, 4096), (4096, 1, 4096)),
]
SKINNY = [
    *((1024, 1024, 1), (4096, 64, 1), (2, 4096, 4096), (4, 4096, 4096), (4096, 4, 4096)),
    *((4096, 2, 4096), (4096, 10, 784), (4096, 16, 16), (4096, 3, 3), (3, 4096, 3)),
    *((3, 3, 4096), (8, 8, 4096), (16, 16, 4096), (64, 64, 4096), (10, 10, 1000)),
    *((4096, 64, 64), (64, 4096, 64), (128, 10, 784), (32, 10, 128), (256, 10, 4096)),
    *((4096, 4096, 2), (4096, 4096, 8), (1000, 10, 10), (10, 1000, 10)),
    *((2048, 2048, 64), (64, 2048, 2048), (2048, 64, 2048)),
]
SHAPES = [*((n, n, n) for n in SQUARES), *VECTORS, *SKINNY]
LAYOUTS = ("nn", "tn", "nt", "tt", "v")


class Case(NamedTuple):
    shape: tuple[int, int, int]  # m, n, k
    layout: str
    dtype: str

    def operands(self) -> tuple[np.ndarray, np.ndarray]:
        m, n, k = self.shape
        rng = np.random.default_rng(0)
        a, b = rng.random((m, k)).astype(self.dtype), rng.random((k, n)).astype(self.dtype)
        if self.layout == "v":
            return a[0] if m == 1 else a, b[:, 0].copy() if n == 1 else b
        a = a.T.copy().T if self.layout[0] == "t" else a
        return a, b.T.copy().T if self.layout[1] == "t" else b


def random_cases(count: int, seed: int, most_flop: float = 2e8) -> list[Case]:
    """A quarter of the sides are powers of two; products of more than `most_flop` are left out."""
    rng, found = np.random.default_rng(seed), []
    while len(found) < count:
        sides = [
            2 ** int(rng.integers(0, 13)) if rng.random() < 0.25 else round(2 ** rng.uniform(0, 12))
            for _ in range(3)
        ]
        layout = LAYOUTS[int(rng.integers(0, 4))]
        dtype = ("float32", "float64")[int(rng.integers(0, 2))]
        if 2.0 * sides[0] * sides[1] * sides[2] <= most_flop:
            found.append(Case((sides[0], sides[1], sides[2]), layout, dtype))
    return found


def cases(shapes: list[tuple[int, int, int]], dtype: str, layouts: Any = LAYOUTS) -> list[Case]:
    return [
        Case(shape, layout, dtype)
        for shape in shapes
        for layout in layouts
        if layout != "v" or 1 in shape[:2]
    ]


def microseconds(call: Callable[[], object], budget: float = 0.03) -> float:
    """The best of the runs that fit in `budget` seconds, at least three."""
    call()
    start = time.perf_counter()
    call()
    repeats = min(2000, max(1, int(0.002 / max(time.perf_counter() - start, 1e-7))))
    best, runs, end = float("inf"), 0, time.perf_counter() + budget
    while time.perf_counter() < end or runs < 3:
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        best = min(best, (time.perf_counter() - start) / repeats)
        runs += 1
    return best * 1e6


def compare(what: list[Case], budget: float = 0.03) -> list[tuple[Case, float, float]]:
    """Each case with our time and NumPy's."""
    times = []
    for function in (bp.ops.matmul, np.matmul):
        times.append([])
        for case in what:
            a, b = case.operands()
            times[-1].append(microseconds(lambda f=function, a=a, b=b: f(a, b), budget))  # type: ignore[misc]
    return list(zip(what, *times, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description="fastbp.ops.matmul beside numpy.matmul")
    parser.add_argument("--threads", type=int, default=bp.get_num_threads())
    parser.add_argument("--random", type=int, default=0, metavar="COUNT")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    bp.set_num_threads(options.threads)
    from threadpoolctl import threadpool_limits  # comes with scikit-learn

    what = random_cases(options.random, options.seed)
    with threadpool_limits(options.threads):
        found = (
            compare(what, 0.006)
            if what
            else compare([*cases(SHAPES, "float32"), *cases(SHAPES, "float64")])
        )
    for case, ours, theirs in found:
        shape = "x".join(map(str, case.shape))
        ratio = ours / theirs
        mark = "  slower" if ratio > 1.05 else ""
        print(
            f"{case.dtype} {shape:16} {case.layout:2} {ours:10.2f} {theirs:10.2f} "
            f"{ratio:6.2f}{mark}"
        )
    if what:
        ratios = [ours / theirs for _, ours, theirs in found]
        points = (0.5, 0.9, 0.95, 0.99, 1)
        values = " ".join(f"{point:.0%}: {np.quantile(ratios, point):.2f}" for point in points)
        print(f"ratio ours / NumPy's, quantiles {values}")


if __name__ == "__main__":
    main()
