"""Training steps of fastbp: inside `fit`, and one call of `step` each."""

from pathlib import Path
from typing import Any

import pytest
import suite

from fastbp.benchmark.workloads import STEPS, Workload


@pytest.mark.parametrize("form", ["fastbp", "fastbp step"])
@pytest.mark.parametrize("workload", STEPS, ids=lambda workload: workload.name)
def test_step(benchmark: Any, workload: Workload, form: str, tmp_path: Path) -> None:
    benchmark.group = workload.name
    suite.time_workload(benchmark, workload, tmp_path, form)
