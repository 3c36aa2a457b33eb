"""The goals on one H100 beside what this machine's GPU takes: `fastbp bench --device cuda`.

A row is a training step (forward, loss, backward, AdamW) inside the engine's train(), on random
data that lie on the device, in epochs of up to 128 batches; each call returns when the device has
ended, and the fastest of several rounds counts. Where there is no GPU, and on the emulated device,
every row says "not yet measured": nothing else would be true.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .. import layers, model, optimizers, recurrent
from . import document, report

UNMEASURED = "not yet measured"
BEGIN, END = "<!-- cuda: begin -->", "<!-- cuda: end -->"
BATCHES = 128  # of an epoch, at most
NUMBERS = 2**24  # of a set of rows, where it has more than one batch
LEARNING_RATE = 1e-3


class Goal(NamedTuple):
    """A row: a network and how it is trained; sizes None where it has no measurement of its own."""

    name: str
    workload: str
    goal: str
    sizes: tuple[int, ...] | None = None  # inputs, units of each layer; of an LSTM, of that alone
    batch: int = 0
    dtype: str = "float32"
    figure: str = "us"  # or "rows", a second; "TB", moved a second; "host", its part of a step
    steps: int = 0  # of a sequence, for an LSTM
    single: bool = False  # by calls of step()


TINY = (16, 64, 64, 4)
SQUARE = 4 * (4096,)
GOALS = (
    Goal("G1", "128-64x5-16, batch 2^20, bfloat16", ">= 2.0e9 rows/s",
         (128, *5 * (64,), 16), 2**20, "bfloat16", "rows"),
    Goal("G1s", "the same, batch 2^14", "<= 16 us",
         (128, *5 * (64,), 16), 2**14, "bfloat16"),
    Goal("G2", "128-128x5-16, batch 2^20, bfloat16", ">= 0.5e9 rows/s",
         (128, *5 * (128,), 16), 2**20, "bfloat16", "rows"),
    Goal("G3", "16-64-64-4, batch 64, many steps a call", "<= 8 us", TINY, 64),
    Goal("G3s", "the same by step()", "<= 20 us", TINY, 64, single=True),
    Goal("G4", "784-256-128-10, batch 128", "<= 20 us", (784, 256, 128, 10), 128),
    Goal("G5", "4096x4, batch 4096, bfloat16", "<= 1700 us", SQUARE, 4096, "bfloat16"),
    Goal("G5b", "4096x4, batch 16384, bfloat16", "<= 6300 us", SQUARE, 16384, "bfloat16"),
    Goal("G6", "4096x4, batch 4096, TF32", "<= 3200 us", SQUARE, 4096, "tf32"),
    Goal("G7", "4096x4, batch 4096, float32", "<= 21800 us", SQUARE, 4096),
    Goal("G8", "784-1024-1024-10, batch 512, bfloat16", "<= 60 us",
         (784, 1024, 1024, 10), 512, "bfloat16"),
    Goal("G9", "LSTM, 128 steps of 64 features, 512 units, batch 32, float32", "1.5 x cuDNN",
         (64, 512), 32, steps=128),
    Goal("G10", "GPT-2 124M class", "llm.c's speed"),
    Goal("G11", "the host's part of a step (16-64-64-4)", "<= 3 us", TINY, 64, figure="host"),
    Goal("G12", "bfloat16 product 4096^3", ">= 720 TFLOP/s"),
    Goal("G13", "4096x4, batch 16: what the update moves", ">= 92 % of a copy", SQUARE, 16,
         figure="TB"),
)  # fmt: skip


class Run:
    """A goal's network on the device with its data.

    Attributes:
        network: with the parameters that it started with.
        x, y: (rows, inputs), of an LSTM (rows, steps, features), and (rows, outputs).
    """

    def __init__(self, goal: Goal, device: str = "cuda") -> None:
        if goal.sizes is None:
            raise ValueError(f"{goal.name} has no measurement of its own")
        self.goal = goal
        inputs, *units = goal.sizes
        hidden = [layers.Dense(n, activation="relu") for n in units[:-1]]
        last = recurrent.LSTM(units[-1]) if goal.steps else layers.Dense(units[-1])
        self.network = model.Sequential([*hidden, last], seed=0)
        optimizer = optimizers.AdamW(LEARNING_RATE)
        self.network.compile(optimizer, "mse", device=device, dtype=goal.dtype)
        row = (goal.steps, inputs) if goal.steps else (inputs,)
        self.network.build((None, inputs) if goal.steps else inputs)
        widest = max(int(np.prod(row)), units[-1])
        self.batches = max(1, min(BATCHES, NUMBERS // (goal.batch * widest)))
        rng = np.random.default_rng(0)
        rows = self.batches * goal.batch
        self.x = rng.standard_normal((rows, *row), np.float32)
        self.y = rng.standard_normal((rows, units[-1]), np.float32)
        self.engine: Any = self.network._require_built()

    def seconds_per_step(self, rounds: int = 5, seconds: float = 0.2) -> float:
        """The fastest round's; of a goal of the host, of its processors' time."""
        clock = time.process_time if self.goal.figure == "host" else time.perf_counter
        self.engine.set_persistent(self.goal.figure != "host")
        self.engine.hold(self.x, self.y)
        calls = 1
        while _taken(self._call, calls, time.perf_counter) < seconds and calls < 2**20:
            calls *= 2
        taken = min(_taken(self._call, calls, clock) for _ in range(rounds)) / calls
        self.engine.release()
        return taken if self.goal.single else taken / self.batches

    def _call(self) -> None:
        if self.goal.single:
            self.engine.step(self.x[: self.goal.batch], self.y[: self.goal.batch])
        else:
            self.engine.train(self.x, self.y, self.goal.batch, 1, 0, False, 0, [])


def _taken(call: Callable[[], None], calls: int, clock: Callable[[], float]) -> float:
    begin = clock()
    for _ in range(calls):
        call()
    return clock() - begin


def in_words(goal: Goal, taken: float) -> str:
    """A goal's figure of the seconds of a step."""
    if goal.figure == "rows":
        return f"{goal.batch / taken:.2e} rows/s"
    if goal.figure == "TB":
        # Read: the parameters three times (forward, delta, update) and two moments; written: three.
        assert goal.sizes is not None
        parameters = sum((a + 1) * b for a, b in zip(goal.sizes, goal.sizes[1:], strict=False))
        return f"{8 * 4 * parameters / taken / 1e12:.2f} TB/s"
    return f"{taken * 1e6:.1f} us"


class Row(NamedTuple):
    """A goal and what was measured: seconds of a step; None where nothing was."""

    goal: Goal
    taken: float | None = None
    peer: float | None = None  # PyTorch's, as a CUDA graph

    def cells(self) -> list[str]:
        if self.taken is None:
            found = UNMEASURED if self.goal.sizes else "not built, or no measurement of its own"
        else:
            found = in_words(self.goal, self.taken)
        beside = "" if self.peer is None else in_words(self.goal, self.peer)
        if self.taken is not None and self.peer is not None:
            beside += f" ({self.peer / self.taken:.2f}x)"
        goal = self.goal
        return [goal.name, goal.workload, goal.goal, found, beside]


def measured(goal: Goal, device: str = "cuda", *, peers: bool = False) -> Row:
    if goal.sizes is None:
        return Row(goal)
    run = Run(goal, device)
    peer = None
    if peers and goal.figure in ("us", "rows"):
        from . import cuda_peer

        peer = cuda_peer.seconds_per_step(run)
    return Row(goal, run.seconds_per_step(), peer)


def chosen(only: str) -> list[Goal]:
    """Those with this text in their name or workload."""
    return [goal for goal in GOALS if only in f"{goal.name} {goal.workload}"]


def as_markdown(rows: list[Row], name: str) -> str:
    """A table under a line that says what it was measured on."""
    peers = any(row.peer is not None for row in rows)
    head = ["goal", "workload", "goal on one H100", "measured", "PyTorch, CUDA graph"]
    table = [head, ["---"] * 5, *(row.cells() for row in rows)]
    lines = [f"| {' | '.join(cells if peers else cells[:4])} |" for cells in table]
    return "\n".join([f"CUDA: {name}", "", *lines])


def write_markdown(path: Path, table: str) -> None:
    """Between the two marks of a file that has them, otherwise as the whole file."""
    if not report.write_between(path, (BEGIN, END), f"{table}\n"):
        path.write_text(f"{table}\n", encoding="utf-8")


def write_json(path: Path, rows: list[Row], name: str, versions: dict[str, Any]) -> None:
    """{"device", "versions", "rows": [{"goal", "workload", "target", "seconds_per_step", "peer"}]};
    null for what was not measured."""
    figures = [
        {
            "goal": row.goal.name,
            "workload": row.goal.workload,
            "target": row.goal.goal,
            "seconds_per_step": row.taken,
            "torch_seconds_per_step": row.peer,
        }
        for row in rows
    ]
    document.write(path, {"device": name, "versions": versions, "rows": figures})
