"""fastbp.ops.matmul beside numpy.matmul, over the shapes that the two may be asked for.

    python tests/matmul_beside_numpy.py [--threads N] [--json FILE]
    python tests/matmul_beside_numpy.py --random COUNT [--seed N] [--skip N] [--most FLOP]
                                         [--seconds S]

over the shapes below, or over random ones (sides evenly spread on a log scale from 1 to 4096, any
layout, both dtypes; the same ones for the same seed). Each product is verified first. Where ours
took longer by 3 % or more it is measured twice again, and the middle of the three ratios counts.
Printed are m x n x k, the layout (t: that operand is a transposed view; v: the vector is 1-D), both
times in microseconds and their ratio; of random shapes the slowest and the quantiles.

Times are medians of turns in which the two alternate. With several threads they alternate by groups
of shapes: the threads of a BLAS keep a core busy for a while after a product.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
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
CALLS: tuple[Callable[[Any, Any], Any], ...] = (bp.ops.matmul, np.matmul)
SLOWER = 1.03
TURNS = 5
GROUP = 20  # shapes whose turns go together where several threads work
REST = 0.12  # seconds in which a BLAS's threads go to sleep


class Case(NamedTuple):
    shape: tuple[int, int, int]  # m, n, k
    layout: str
    dtype: str

    def operands(self) -> tuple[np.ndarray, np.ndarray]:
        m, n, k = self.shape
        rng = np.random.default_rng(0)
        a, b = (rng.random(shape, np.float32).astype(self.dtype) for shape in ((m, k), (k, n)))
        if self.layout == "v":
            return a[0] if m == 1 else a, b[:, 0].copy() if n == 1 else b
        a = a.T.copy().T if self.layout[0] == "t" else a
        return a, b.T.copy().T if self.layout[1] == "t" else b

    def verify(self, a: np.ndarray, b: np.ndarray) -> None:
        """A few rows against float64: sums of positive terms, each rounded at most k times."""
        found = np.atleast_1d(bp.ops.matmul(a, b))
        rows = slice(None) if a.ndim == 1 else slice(0, None, max(1, len(a) // 4))
        right = np.atleast_1d(np.matmul(a[rows].astype(np.float64), b.astype(np.float64)))
        close = self.shape[2] * np.finfo(self.dtype).eps
        np.testing.assert_allclose(found if a.ndim == 1 else found[rows], right, rtol=close)


class Beside(NamedTuple):
    """Median microseconds of one product."""

    case: Case
    ours: float
    theirs: float

    @property
    def ratio(self) -> float:
        return self.ours / self.theirs

    def __str__(self) -> str:
        shape = "x".join(map(str, self.case.shape))
        mark = "  slower" if self.ratio >= SLOWER else ""
        return (
            f"{self.case.dtype} {shape:16} {self.case.layout:2} {self.ours:10.2f} "
            f"{self.theirs:10.2f} {self.ratio:6.2f}{mark}"
        )


def random_cases(count: int, seed: int, most_flop: float = np.inf) -> list[Case]:
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


class _Timed:
    """A case with its operands, and the samples of either call in microseconds."""

    def __init__(self, case: Case, piece: float) -> None:
        self.case, self.piece = case, piece
        self.operands = case.operands()
        case.verify(*self.operands)
        self.samples: tuple[list[float], list[float]] = ([], [])

    def turns(self, which: int, count: int) -> None:
        """`count` samples of at least `piece` seconds each; one call goes before them."""
        call, (a, b) = CALLS[which], self.operands
        call(a, b)
        start = time.perf_counter()
        call(a, b)
        loops = max(1, int(self.piece / max(time.perf_counter() - start, 1e-7)))
        for _ in range(count):
            start = time.perf_counter()
            for _ in range(loops):
                call(a, b)
            self.samples[which].append((time.perf_counter() - start) / loops * 1e6)

    def result(self) -> Beside:
        ours, theirs = (float(np.median(samples)) for samples in self.samples)
        return Beside(self.case, ours, theirs)


def compare(what: Sequence[Case], piece: float = 1e-3) -> list[Beside]:
    """Each case with our time and NumPy's; samples of `piece` seconds."""
    found = []
    size = 1 if bp.get_num_threads() == 1 else GROUP
    for begin in range(0, len(what), size):
        group = [_Timed(case, piece) for case in what[begin : begin + size]]
        for _ in range(TURNS if size == 1 else 1):
            for which in range(len(CALLS)):
                if which == 0 and size > 1:
                    time.sleep(REST)
                for timed in group:
                    timed.turns(which, 1 if size == 1 else TURNS)
        found += [timed.result() for timed in group]
    return found


def settled(found: Sequence[Beside], piece: float) -> list[Beside]:
    """Those that seem slower measured twice again: of the three, that with the middle ratio."""
    doubted = [beside.case for beside in found if beside.ratio >= SLOWER]
    again = [{beside.case: beside for beside in compare(doubted, piece)} for _ in range(2)]
    return [
        sorted([beside, *(run[beside.case] for run in again)], key=lambda b: b.ratio)[1]
        if beside.ratio >= SLOWER
        else beside
        for beside in found
    ]


def sweep(what: Sequence[Case], seconds: float, piece: float = 1e-3) -> list[Beside]:
    """As many of the cases as `seconds` allow."""
    found: list[Beside] = []
    end = time.perf_counter() + seconds
    for begin in range(0, len(what), GROUP):
        if time.perf_counter() > end:
            break
        found += settled(compare(what[begin : begin + GROUP], piece), piece)
    return found


def said(found: Sequence[Beside], seed: int, shown: int) -> str:
    """The slowest, and the quantiles of the ratios."""
    ratios = np.array([beside.ratio for beside in found])
    points = (0.5, 0.9, 0.95, 0.99, 1)
    values = " ".join(f"{point:.0%}: {np.quantile(ratios, point):.2f}" for point in points)
    slowest = sorted(found, key=lambda beside: -beside.ratio)[:shown]
    return "\n".join(
        [
            *map(str, slowest),
            f"{len(found)} products, seed {seed}; ratio ours / NumPy's, quantiles {values}; "
            f"slower by {SLOWER - 1:.0%} or more: {np.mean(ratios >= SLOWER):.1%}",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="fastbp.ops.matmul beside numpy.matmul")
    parser.add_argument("--threads", type=int, default=bp.get_num_threads())
    parser.add_argument("--random", type=int, default=0, metavar="COUNT")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--skip", type=int, default=0, metavar="N", help="the first N")
    parser.add_argument("--most", type=float, default=np.inf, metavar="FLOP", help="of one")
    parser.add_argument("--seconds", type=float, default=50, help="at most, of random ones")
    parser.add_argument("--shown", type=int, default=40, help="of random ones, the slowest")
    parser.add_argument("--json", type=Path, help="save case, times and ratio of each")
    options = parser.parse_args()
    bp.set_num_threads(options.threads)
    from threadpoolctl import threadpool_limits  # comes with scikit-learn

    with threadpool_limits(options.threads):
        if options.random:
            what = random_cases(options.skip + options.random, options.seed, options.most)
            found = sweep(what[options.skip :], options.seconds)
            print(said(found, options.seed, options.shown))
        else:
            what = [*cases(SHAPES, "float32"), *cases(SHAPES, "float64")]
            found = sweep(what, np.inf)
            print("\n".join(map(str, found)))
    if options.json:
        options.json.write_text(json.dumps([[*b.case, b.ours, b.theirs, b.ratio] for b in found]))


if __name__ == "__main__":
    main()
