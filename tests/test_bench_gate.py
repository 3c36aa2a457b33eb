"""The gate against lost speed: ratios measured in one run, so that any machine can judge.

Contestants run in processes of their own, in turn. The floors are far below what was measured (see
README.md), the shortest sample counts, which neighbours on the machine do not shorten, and of a few
attempts the best: only a real regression fails here.
"""

from typing import NamedTuple

import pytest

import fastbp as bp
from fastbp.benchmark import report, runner
from fastbp.benchmark.workloads import Workload

pytestmark = pytest.mark.timing

ROUNDS = (1, 3, 3, 3, 5)  # of each attempt: a glance mostly says it


class Floor(NamedTuple):
    """At least so many times as fast as the NumPy loop, at least this share of the roofline."""

    workload: Workload
    ratio: float
    share: float


FLOORS = (
    Floor(Workload("train", (2, 16, 1), 1), 40, 0),  # measured: 140
    Floor(Workload("train", (4, 32, 3), 16), 15, 0.02),  # 46, 6 %
    Floor(Workload("train", (16, 64, 64, 4), 64), 2.5, 0.1),  # 7.8, 30 %
    Floor(Workload("train", (784, 256, 128, 10), 128), 1.0, 0.1),  # 2.5, 56 to 70 %
    Floor(Workload("predict", (64, 128, 10), 1), 1.0, 0),  # 2.9
)


def shortfalls(floors: list[Floor], rounds: int) -> list[tuple[Floor, str]]:
    """Times each workload beside NumPy; those below their floors, and by how much."""
    options = runner.Options(
        [floor.workload for floor in floors],
        dtypes=["float32"],
        repeats=rounds,
        seconds=0.03,
        attempts=1,
        only=("fastbp", "numpy"),
    )
    document = runner.run(options)
    assert runner.failures(document) == []
    found = []
    for floor, row in zip(floors, report.rows(document), strict=True):
        (rival,) = row.rivals()
        own, other = row.timing.best, row.workload["results"][rival]["seconds"]["best"]
        ratio, share = other / own, row.own["roofline_seconds"] / own
        if ratio < floor.ratio or share < floor.share:
            found.append((floor, f"{floor.workload.name}: {ratio:.2f}x numpy, {share:.0%}"))
    return found


@pytest.mark.skipif(bp.info()["isa"] == "scalar", reason="plain C++ kernels are not meant as fast")
def test_no_workload_has_lost_its_speed() -> None:
    left = [(floor, "") for floor in FLOORS]
    for rounds in ROUNDS:
        left = shortfalls([floor for floor, _ in left], rounds)
        if not left:
            return
    pytest.fail(
        "\n".join(
            f"{said} of the roofline; floors {floor.ratio:g}x, {floor.share:.0%}"
            for floor, said in left
        )
    )
