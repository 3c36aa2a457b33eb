"""`fastbp bench --device cuda`: the table of goals, without a GPU and on the emulated device.

What it times is run once in small on the emulated device; no figure comes of that.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastbp import cli
from fastbp.benchmark import cuda

SMALL = cuda.Goal("T", "small", "", (3, 4, 2), 8)


def table(capsys: pytest.CaptureFixture[str], *options: str) -> list[list[str]]:
    assert cli.main(["bench", "--device", "cuda", *options]) == 0
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
        assert {row[3] for row in rows if row[0] not in ("G10", "G12")} == {"not yet measured"}


@pytest.mark.parametrize(
    "goal",
    [
        SMALL,
        SMALL._replace(single=True, dtype="bfloat16"),
        SMALL._replace(figure="host"),
        SMALL._replace(sizes=(3, 4), steps=5),
    ],
    ids=["epochs", "single", "host", "lstm"],
)
def test_a_row_is_timed(
    emulated_library: Path, monkeypatch: pytest.MonkeyPatch, goal: cuda.Goal
) -> None:
    monkeypatch.setenv("FASTBP_CUDA_LIBRARY", str(emulated_library))
    monkeypatch.setattr(cuda, "BATCHES", 2)
    assert cuda.Run(goal).seconds_per_step(rounds=1, seconds=0.001) > 0


def test_figures_in_words() -> None:
    assert cuda.in_words(SMALL, 12.34e-6) == "12.3 us"
    assert cuda.in_words(SMALL._replace(figure="rows"), 8e-6) == "1.00e+06 rows/s"
    assert cuda.in_words(SMALL._replace(figure="TB"), 26 * 32 / 2.5e12) == "2.50 TB/s"
    assert cuda.Row(SMALL, 2e-6, 3e-6).cells()[3:] == ["2.0 us", "3.0 us (1.50x)"]
    assert cuda.Row(SMALL, None, 3e-6).cells()[3:] == ["not yet measured", "3.0 us"]
    with pytest.raises(ValueError, match="G12 has no measurement of its own"):
        cuda.Run(next(goal for goal in cuda.GOALS if goal.name == "G12"))


def test_files(tmp_path: Path) -> None:
    rows = [cuda.Row(SMALL, 2e-6), cuda.Row(SMALL)]
    page = tmp_path / "page.md"
    page.write_text(f"before\n{cuda.BEGIN}\nold\n{cuda.END}\nafter\n")
    cuda.write_markdown(page, cuda.as_markdown(rows, "some GPU"))
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    assert "| T | small |  | 2.0 us |" in text
    cuda.write_json(tmp_path / "run.json", rows, "some GPU", {})
    saved = json.loads((tmp_path / "run.json").read_text())
    assert [row["seconds_per_step"] for row in saved["rows"]] == [2e-6, None]
