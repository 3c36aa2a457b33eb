"""Saved benchmark runs that were never timed: documents with times of the test's choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastbp.benchmark import contestants, machine
from fastbp.benchmark.runner import FORMAT
from fastbp.benchmark.timing import Timing
from fastbp.benchmark.workloads import Workload

US = 1e-6
Times = Mapping[str, Sequence[float]]  # microseconds of each round, by contestant

SMALL = Workload("train", (4, 32, 3), 16)
WIDE = Workload("train", (784, 1024, 10), 128)


def result(name: str, rounds: Sequence[float]) -> dict[str, Any]:
    contestant = contestants.named(name)
    return {
        "library": contestant.library,
        "form": contestant.form,
        "dtype": contestant.dtype,
        "seconds": Timing.of([[US * value] for value in rounds]).to_json(),
        "difference": 1e-6,
        "threads": None,
        "roofline_seconds": US / 2,
    }


def workload(
    described: Workload, times: Times, *, steady: bool = True, failed: Mapping[str, str] = {}
) -> dict[str, Any]:
    return {
        **described.to_json(),
        "name": described.name,
        "unit": described.unit,
        "flop": described.flop,
        "bytes": described.traffic(4),
        "probe_gflops": {"before": 100.0, "after": 100.0},
        "steady": steady,
        "attempts": 1,
        "results": {name: result(name, rounds) for name, rounds in times.items()},
        "failed": dict(failed),
    }


def document(*workloads: dict[str, Any]) -> dict[str, Any]:
    rates = {"one": 50.0, "all": 100.0}
    return {
        "format": FORMAT,
        "machine": machine.describe([]),
        "options": {"repeats": 5, "seconds": 0.1, "peers": True, "dtypes": ["float32"]},
        "peaks": {
            "threads": 2,
            "l2_bytes": 1 << 20,
            "l3_bytes": 1 << 24,
            "gflops": {"float32": rates},
            "gbytes": {"l2": rates, "memory": rates},
        },
        "workloads": list(workloads),
    }


def plain(own: float = 1.0, numpy: float = 10.0) -> dict[str, Any]:
    """Two workloads; five rounds with 2 % of noise."""
    noise = (0.99, 1.0, 1.01, 1.0, 1.0)
    times = {
        "fastbp": [own * n for n in noise],
        "fastbp step": [2 * own * n for n in noise],
        "numpy": [numpy * n for n in reversed(noise)],
        "torch": [4 * numpy] * 5,
    }
    return document(workload(SMALL, times), workload(WIDE, times))
