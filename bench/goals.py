"""Training steps beside their goals, row by row: the evidence of docs/performance.md.

    python bench/goals.py [--only TEXT] [--dtype float32] [--rounds 9] [--parts] [--counts]

A step is forward, loss, backward and Adam inside `fit`, rows shuffled, on all of fastbp's threads.
Printed are the shortest and the median of the rounds, which last a fifth of a second each, in
microseconds; the goal; and the time at the probed peak, which is the step's multiply-adds at the
best rate that _core.probe_peak reached between the rounds, in per cent of the shortest. The last
line is the whole job on the digits, in milliseconds: from the description of the network to the
trained model.

--parts    the profile of each row: where its time goes (Sequential.profile)
--counts   instructions of a step on one thread, counted by stepping the processor (small ones)
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import fastbp as bp
from fastbp import _core
from fastbp.benchmark.contestants import ours, task
from fastbp.benchmark.workloads import JOBS, LARGE, STEPS, Workload

ROUND = 0.2  # seconds
PROBE = 0.03
COUNTED = 1e5  # flop: a step of more takes minutes to count

# Microseconds by dtype, for the workloads of `fastbp bench` in their order.
GOALS = (
    {"float32": 0.3},
    {"float32": 0.6},
    {"float32": 0.7},
    {"float32": 12},
    {"float32": 330},
    {"float32": 78},
    {"float32": 630, "bfloat16": 390},
    {"float32": 1750, "bfloat16": 1000},
    {"float32": 23000, "bfloat16": 12300},
    {"float32": 162000, "bfloat16": 86000},
    {"float32": 1270000, "bfloat16": 680000},
)
JOB_GOAL = 15  # milliseconds


class Row(NamedTuple):
    workload: Workload
    dtype: str
    goal: float


def rows(only: str, dtype: str | None) -> Iterator[Row]:
    for workload, goals in zip((*STEPS, *LARGE), GOALS, strict=True):
        for name, goal in goals.items():
            if only in workload.name and dtype in (None, name):
                yield Row(workload, name, goal)


def fitted(row: Row) -> tuple[bp.Sequential, Any, Any]:
    """The row's network, and its data."""
    return ours.started(row.workload, row.dtype), *row.workload.data()


def seconds_of(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def measure(row: Row, rounds: int) -> tuple[list[float], float]:
    """Microseconds of a step in each round; the best peak in GFLOP/s."""
    model, x, y = fitted(row)
    steps, batch = len(x) // row.workload.batch, row.workload.batch

    def fit(epochs: int) -> Callable[[], object]:
        return lambda: model.fit(x, y, epochs=epochs, batch_size=batch, verbose=0)

    fit(1)()
    epochs = max(1, round(ROUND / seconds_of(fit(1))))
    taken, peak = [], 0.0
    for _ in range(rounds if epochs > 1 else min(rounds, 3)):
        peak = max(peak, _core.probe_peak(row.dtype, bp.get_num_threads(), PROBE))
        taken.append(1e6 * seconds_of(fit(epochs)) / (epochs * steps))
    return taken, peak


def line(row: Row, rounds: int) -> str:
    taken, peak = measure(row, rounds)
    best, at_peak = min(taken), row.workload.flop / peak / 1e3
    return (
        f"{row.workload.name:<28}{row.dtype:<9}{best:>12.2f}{statistics.median(taken):>12.2f}"
        f"{row.goal:>11g}{100 * (best / row.goal - 1):>+6.0f} %{at_peak:>13.2f}"
        f"{100 * at_peak / best:>5.0f} %{peak:>8.0f}"
    )


def job_line(rounds: int) -> str:
    """The digits, as `fastbp bench` times them; rounds of four jobs."""
    workload = JOBS[0]
    x, _, y, _ = task.digits()

    def job() -> bp.Sequential:
        model = ours.compiled(workload.sizes, learning_rate=2e-3)
        model.fit(x, y, epochs=workload.epochs, batch_size=workload.batch, verbose=0)
        return model

    job()
    taken = [1e3 * seconds_of(job) for _ in range(4 * rounds)]
    best = min(taken)
    return (
        f"{workload.name:<37}{best:>12.2f}{statistics.median(taken):>12.2f}"
        f"{JOB_GOAL:>11g}{100 * (best / JOB_GOAL - 1):>+6.0f} %"
    )


def show_parts(row: Row) -> None:
    model, x, y = fitted(row)
    print(model.profile(x, y, batch_size=row.workload.batch, seconds=1.0), end="\n\n")


def show_count(row: Row) -> None:
    if row.workload.flop > COUNTED or row.dtype != "float32":
        return
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    import machine
    from instruction_counter import instructions

    sizes, batch = row.workload.sizes, row.workload.batch
    model = ours.started(row.workload, row.dtype)
    x, y = row.workload.data()

    def epoch(steps: int) -> Callable[[], object]:
        rows = slice(steps * batch)
        return lambda: model.fit(x[rows], y[rows], batch_size=batch, verbose=0)

    with machine.using_threads(1):
        epoch(20)()
        # Two epochs that differ by sixteen steps: what is around them falls out.
        count = (instructions(epoch(20)) - instructions(epoch(4))) / 16
    print(f"{'-'.join(map(str, sizes))} b{batch}: {count:.0f} instructions a step")


def main() -> None:
    assert __doc__
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="rows with this in their name")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--parts", action="store_true")
    parser.add_argument("--counts", action="store_true")
    given = parser.parse_args()
    print(
        f"{'workload':<28}{'dtype':<9}{'best us':>12}{'median':>12}{'goal':>11}{'':>8}"
        f"{'us at peak':>13}{'share':>7}{'GFLOP/s':>8}"
    )
    for row in rows(given.only, given.dtype):
        print(line(row, given.rounds), flush=True)
        if given.parts:
            show_parts(row)
        if given.counts:
            show_count(row)
    if given.only in JOBS[0].name and given.dtype != "bfloat16":
        print(job_line(given.rounds), flush=True)


if __name__ == "__main__":
    main()
