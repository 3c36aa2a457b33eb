"""The benchmarks run, verify what they time and write their figures. No time is judged here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parent.parent / "bench"


def run(script: str, *options: str) -> str:
    done = subprocess.run(
        [sys.executable, str(BENCH / script), *options],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_training_step_beside_numpy(tmp_path: Path) -> None:
    file = tmp_path / "step.json"
    shown = run("bench_step.py", "--repeats", "1", "--only", "4-32-3", "--json", str(file))
    assert "4-32-3 b16" in shown
    document = json.loads(file.read_text())
    (result,) = document["results"]["workloads"]
    assert {"fastbp", "numpy"} <= set(result["per_step"])
    assert document["machine"]["fastbp"]["isa"] in document["machine"]["fastbp"]["isas_available"]
    assert document["results"]["peak_gflops"] > 0


@pytest.mark.slow
def test_the_kernels_beside_numpy() -> None:
    assert "1024x1024 @ 1024x1024" in run("bench_kernels.py", "--repeats", "1")


@pytest.mark.slow
def test_the_whole_job_beside_scikit_learn(tmp_path: Path) -> None:
    file = tmp_path / "digits.json"
    run("bench_digits.py", "--repeats", "1", "--json", str(file))
    results = json.loads(file.read_text())["results"]
    assert results["accuracy"]["fastbp"] >= 0.97
    assert results["loss"]["fastbp"] == pytest.approx(results["loss"]["reference"], rel=1e-3)
