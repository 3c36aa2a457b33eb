"""`fastbp bench --device cuda`: the table of goals, without a GPU and on the emulated device.

What it times is run once in small on the emulated device; no figure comes of that.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fastbp import cli
from fastbp.benchmark import cuda


def table(capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    assert cli.main(["bench", "--device", "cuda"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| G")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_without_a_gpu_nothing_is_measured(
    capsys: pytest.CaptureFixture[str], emulated_library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor on the emulated device, whose speed says nothing."""
    for library in ("/nonexistent/library.so", str(emulated_library)):
        monkeypatch.setenv("FASTBP_CUDA_LIBRARY", library)
        rows = table(capsys)
        assert {row[0] for row in rows} >= {f"G{number}" for number in range(1, 14)}
        assert {row[3] for row in rows} == {"not yet measured"}


@pytest.mark.parametrize("single", [True, False])
def test_a_row_is_timed(
    emulated_library: Path, monkeypatch: pytest.MonkeyPatch, single: bool
) -> None:
    monkeypatch.setenv("FASTBP_CUDA_LIBRARY", str(emulated_library))
    goal = cuda.Goal("T", "small", "", (3, 4, 2), 8, "bfloat16", single=single)
    assert cuda.seconds_per_step(goal, rounds=1, seconds=0.001) > 0
    assert re.fullmatch(r"[0-9.]+ us", cuda.measured(goal._replace(dtype="float32"), "cuda"))
    with pytest.raises(ValueError, match="G6: what it needs is not built"):
        cuda.seconds_per_step(next(g for g in cuda.GOALS if g.name == "G6"))
