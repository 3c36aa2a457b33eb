"""What the suites share: a task of fastbp's, made ready and verified, timed by pytest-benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastbp.benchmark import contestants
from fastbp.benchmark.contestants.task import ALLOWED, Reference
from fastbp.benchmark.workloads import Workload


def time_workload(benchmark: Any, workload: Workload, folder: Path, name: str = "fastbp") -> None:
    """Times fastbp on a workload; `extra_info` says what one unit took."""
    reference = Reference(folder / "reference.npz")
    contestants.named(contestants.REFERENCE).load().save_reference(workload, reference)
    contestant = contestants.named(name)
    task = contestant.load().prepare(contestant, workload, reference)
    assert task.difference <= ALLOWED[workload.kind][contestant.dtype]
    benchmark(task.call)
    if benchmark.stats is not None:  # None with --benchmark-disable
        seconds = benchmark.stats.stats.median / task.units
        benchmark.extra_info["unit"] = workload.unit
        benchmark.extra_info["us_per_unit"] = 1e6 * seconds
        benchmark.extra_info["gflops"] = workload.flop / seconds / 1e9
