"""The benchmark runs: processes, contestants, rounds, the command. No time is judged here.

What is no matter of processes is tested in this one, without the calls that warm up.
"""

import json
import os
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import fastbp as bp
from fastbp.benchmark import contestants, document, peaks, runner, timing, workloads
from fastbp.benchmark.contestants.numpy_loop import NumpyNet
from fastbp.benchmark.contestants.task import ALLOWED
from fastbp.benchmark.pool import Pool, WorkerError, workers
from fastbp.benchmark.worker import Worker
from fastbp.benchmark.workloads import Workload
from fastbp.cli import main

SMALL = Workload("train", (4, 32, 3), 16)


class InThisProcess(Pool):
    """The contestants' answers, as their processes would give them."""

    def __init__(self) -> None:
        super().__init__()
        self.workers: dict[str, Worker] = {}

    def ask(self, name: str, command: str, **request: Any) -> dict[str, Any]:
        worker = self.workers.setdefault(name, Worker(name))
        asked = json.loads(json.dumps({"command": command, **request}))
        reply: dict[str, Any] = json.loads(json.dumps(worker.answer(asked)))
        if "error" in reply:
            raise WorkerError(reply["error"])
        return reply


@pytest.fixture
def pool_here(monkeypatch: pytest.MonkeyPatch) -> InThisProcess:
    monkeypatch.setattr(timing, "WARM_UP", 0.0)
    monkeypatch.setattr(peaks, "PROBE_SECONDS", 0.001)
    monkeypatch.setattr(peaks, "BANDWIDTH_SECONDS", 0.001)
    monkeypatch.setattr(peaks, "MEMORY_BYTES", 1 << 20)
    return InThisProcess()


def prepare(pool: Pool, name: str, workload: Workload, folder: Path) -> float:
    """The difference from the reference that a contestant reports."""
    request = {"workload": workload.to_json(), "reference": str(folder / "reference.npz")}
    pool.ask("reference", "reference", **request)
    return float(pool.ask(name, "prepare", **request)["difference"])


def test_flop_and_traffic_of_a_step() -> None:
    workload = Workload("train", (784, 128, 10), 32)
    assert workload.parameters == 784 * 128 + 128 + 128 * 10 + 10
    assert workload.flop == 2 * 32 * (2 * 784 * 128 + 3 * 128 * 10)
    assert workload.traffic(4) == 4 * (6 * workload.parameters + 32 * 794)
    assert Workload.from_json(json.loads(json.dumps(workload.to_json()))) == workload


def test_workloads_have_names_of_their_own() -> None:
    everything = workloads.chosen(large=True, sweep=True)
    names = [workload.name for workload in everything]
    assert len(set(names)) == len(names)
    assert "4096-4096-4096-4096 b1024" in names
    assert not any("4096-4096" in w.name for w in workloads.chosen())
    assert all(w.flop <= workloads.QUICK_FLOP for w in workloads.chosen(quick=True)[:8])


def test_the_roofline_is_the_higher_of_two_bounds() -> None:
    rates = {"one": 50.0, "all": 100.0}
    roofline = peaks.Roofline(
        {"float32": rates},
        {"l2": {"one": 40.0, "all": 80.0}, "memory": {"one": 10.0, "all": 20.0}},
        1000,
        0,
    )
    assert roofline.seconds("float32", 1000, 8, 8) == pytest.approx(1e-8)
    assert roofline.seconds("float32", 1, 800, 800) == pytest.approx(1e-8)
    assert roofline.seconds("float32", 1, 2000, 2000) == pytest.approx(1e-7)
    assert roofline.seconds("bfloat16", 1, 1, 1) is None


def test_samples_fill_the_slice_and_there_is_at_least_one(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def call() -> None:
        nonlocal now
        now += 0.001

    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: now))
    assert timing.calibrate(call, at_least=0.0205) == 21
    found = timing.samples(call, 2, 0.0195)
    assert found == pytest.approx([0.001] * 10)
    assert now == pytest.approx(0.001 * (1 + 1 + 6) + timing.WARM_UP + 0.02, abs=0.003)
    assert len(timing.samples(call, 1, 0.0)) == 1


@pytest.mark.parametrize(
    ("activation", "optimizer", "rule"),
    [
        ("tanh", "adam", bp.Adam(1e-3)),
        ("relu", "sgd", bp.SGD(1e-3)),
        ("gelu_tanh", "adamw", bp.AdamW(1e-3, weight_decay=workloads.WEIGHT_DECAY)),
    ],
)
def test_the_numpy_loop_is_the_reference_engine(
    activation: str, optimizer: str, rule: bp.optimizers.Optimizer
) -> None:
    """Both in float64: written independently, equal to rounding."""
    workload = Workload("train", (5, 7, 3), 4, activation=activation, optimizer=optimizer)
    x, y = workload.data("float64")
    net = NumpyNet(workload.start("float64"), activation=activation, optimizer=optimizer)
    net.train(x[:32], y[:32], 4, 1, None)
    model = bp.Sequential([bp.Dense(7, activation=activation), bp.Dense(3)], seed=0)
    model.compile(rule, "softmax_cross_entropy", device="reference", dtype="float64")
    model.build(5)
    model.set_parameters(dict(zip(model.parameters(), workload.start("float64"), strict=True)))
    model.fit(x[:32], y[:32], batch_size=4, shuffle=False, verbose=0)
    for ours, theirs in zip(model.parameters().values(), net.parameters, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


def test_random_steps_are_those_of_their_seed_and_of_every_kind() -> None:
    steps = workloads.random_steps(60, seed=3)
    assert steps == workloads.random_steps(60, seed=3) != workloads.random_steps(60, seed=4)
    assert {step.activation for step in steps} == set(workloads.ACTIVATIONS)
    assert {step.optimizer for step in steps} == set(workloads.OPTIMIZERS)
    assert max(step.flop for step in steps) <= workloads.QUICK_FLOP
    assert max(len(step.sizes) for step in steps) > 8
    assert max(max(step.sizes) for step in steps) > 1000
    described = steps[0].to_json()
    assert Workload.from_json(described) == steps[0]
    del described["optimizer"]  # as in files of before there was one
    assert Workload.from_json(described).optimizer == "adam"


def test_a_worker_lies_stopped_between_questions() -> None:
    with workers() as pool:
        pool.ask("fastbp", "accepts", dtype="float32")
        (process,) = pool._processes.values()
        stat = Path(f"/proc/{process._process.pid}/stat")
        if stat.exists():
            deadline = time.monotonic() + 60
            while (state := stat.read_text().rpartition(")")[2].split()[0]) != "T":
                assert time.monotonic() < deadline, f"the process is in state {state}"
        pid = process._process.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_what_a_library_raises_and_how_a_process_dies_is_reported(tmp_path: Path) -> None:
    with workers() as pool:
        with pytest.raises(WorkerError, match="AssertionError: time before prepare"):
            pool.ask("fastbp", "time", seconds=0.01)
        assert pool.ask("fastbp", "accepts", dtype="float32")["accepted"]
        assert not pool.ask("fastbp", "accepts", dtype="float8")["accepted"]
        pool._processes["fastbp"]._process.kill()
        with pytest.raises(WorkerError, match="its process died: status -9"):
            pool.ask("fastbp", "accepts", dtype="float32")
        assert prepare(pool, "fastbp", SMALL, tmp_path) < 1e-4


@pytest.mark.parametrize(
    "contestant", [c for c in contestants.ALL if not c.is_peer], ids=lambda c: c.name
)
def test_fastbp_and_numpy_do_every_kind_right(
    contestant: contestants.Contestant, tmp_path: Path, pool_here: InThisProcess
) -> None:
    kinds = {
        "train": SMALL,
        "predict": Workload("predict", (6, 9, 4), 3),
        "matmul": Workload("matmul", (5, 6, 7)),
    }
    pool = pool_here
    if not pool.ask("fastbp", "accepts", dtype=contestant.dtype)["accepted"]:
        pytest.skip(f"fastbp does not offer {contestant.dtype} here")
    for kind, workload in kinds.items():
        if kind in contestant.kinds:
            difference = prepare(pool, contestant.name, workload, tmp_path)
            assert difference <= ALLOWED[kind][contestant.dtype]
            found = pool.ask(contestant.name, "time", seconds=0.001)["samples"]
            assert all(0 < seconds < 1 for seconds in found)


def test_who_starts_slowly_takes_part_where_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contestants.Contestant, "installed", lambda self: True)
    usual = contestants.field(peers=True, dtypes=["float32"])
    every = contestants.field(peers=True, dtypes=["float32"], slow_starters=True)
    assert [c.name for c in every if c not in usual] == ["torch compile"]
    assert not any(c.is_peer for c in contestants.field(peers=False, dtypes=["float32"]))


@pytest.mark.slow
@pytest.mark.parametrize(
    "contestant", [c for c in contestants.ALL if c.is_peer], ids=lambda c: c.name
)
def test_peers_do_every_kind_right(contestant: contestants.Contestant, tmp_path: Path) -> None:
    if not contestant.installed():
        pytest.skip(f"{contestant.library} is not installed")
    suite = {
        "train": (
            SMALL,
            Workload("train", (2, 16, 1), 8, activation="tanh"),
            Workload("train", (6, 16, 3), 8, activation="gelu_tanh", optimizer="adamw"),
            Workload("train", (6, 16, 3), 8, optimizer="sgd"),
        ),
        "predict": (Workload("predict", (6, 9, 4), 3),),
        "matmul": (Workload("matmul", (5, 6, 7)),),
        "job": workloads.JOBS,
    }
    with workers() as pool:
        for kind in contestant.kinds:
            for workload in filter(contestant.takes, suite[kind]):
                difference = prepare(pool, contestant.name, workload, tmp_path)
                assert difference <= ALLOWED[kind][contestant.dtype], workload.name


def test_the_command_times_verifies_and_saves(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    pool_here: InThisProcess,
) -> None:
    """(A run with processes is in test_bench_gate.py.)"""
    monkeypatch.setattr(runner, "workers", lambda: nullcontext(pool_here))
    file = tmp_path / "run.json"
    options = ["--quick", "--repeats", "2", "--only", "4-32-3", "--dtype", "float32", "float64"]
    assert main(["bench", *options, "--json", str(file)]) == 0
    shown = capsys.readouterr()
    assert "1/1 4-32-3 b16" in shown.err
    assert "One training step (forward, loss, backward, Adam), float64" in shown.out
    (workload,) = document.read(file)["workloads"]
    assert list(workload["results"]) == [
        "fastbp",
        "fastbp step",
        "fastbp float64",
        "numpy",
        "numpy float64",
    ]
    assert workload["failed"] == {}
    for result in workload["results"].values():
        assert len(result["seconds"]["rounds"]) == 2
        assert 0 < result["roofline_seconds"] < result["seconds"]["median"]


def test_a_wrong_result_is_refused(
    monkeypatch: pytest.MonkeyPatch, pool_here: InThisProcess
) -> None:
    monkeypatch.setattr(runner, "workers", lambda: nullcontext(pool_here))
    monkeypatch.setitem(ALLOWED, "train", {"float32": -1.0})
    options = runner.Options([SMALL], dtypes=["float32"], repeats=1, seconds=0.001)
    made = runner.run(options)
    (workload,) = made["workloads"]
    assert workload["results"] == {}
    assert "from the reference's; allowed -1" in workload["failed"]["fastbp"]
    assert len(runner.failures(made)) == 3
