"""Calls that must be short: predictions of few rows, small matrix products, the first step."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import suite

from fastbp.benchmark.contestants import ours
from fastbp.benchmark.workloads import LATENCY, Workload


@pytest.mark.parametrize("workload", LATENCY, ids=lambda workload: workload.name)
def test_call(benchmark: Any, workload: Workload, tmp_path: Path) -> None:
    suite.time_workload(benchmark, workload, tmp_path)


def test_first_step(benchmark: Any) -> None:
    """From a described network to the end of its first training step: nothing is compiled."""
    x, y = np.ones((32, 784), np.float32), np.zeros(32, np.int64)

    def first_step() -> float:
        return float(ours.compiled((784, 128, 10)).step(x, y))

    assert np.isfinite(benchmark(first_step))
