"""A whole job of fastbp's, from the description of the network to the trained model."""

from pathlib import Path
from typing import Any

import pytest
import suite

from fastbp.benchmark.workloads import JOBS, Workload


@pytest.mark.parametrize("workload", JOBS, ids=lambda workload: workload.name)
def test_job(benchmark: Any, workload: Workload, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    suite.time_workload(benchmark, workload, tmp_path)
