"""The goals on one H100 beside what this machine's GPU takes: `fastbp bench --device cuda`.

A row is timed over whole calls of the engine's train(), which return when the device has ended, on
random data that lie on the device; the fastest of several rounds counts. Where there is no GPU, and
on the emulated device, every row says "not yet measured": nothing else would be true.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np

from .. import layers, model, optimizers

UNMEASURED = "not yet measured"


class Goal(NamedTuple):
    """A row: a network and how it is trained; sizes None where what it needs is not built."""

    name: str
    workload: str
    goal: str
    sizes: tuple[int, ...] | None = None
    batch: int = 0
    dtype: str = "float32"
    rate: bool = False  # the figure is rows a second, else microseconds a step
    single: bool = False  # by calls of step()


GOALS = (
    Goal("G1", "128-64x5-16, batch 2^20, bfloat16", ">= 2.0e9 rows/s",
         (128, *5 * (64,), 16), 2**20, "bfloat16", rate=True),
    Goal("G1s", "the same, batch 2^14", "<= 16 us",
         (128, *5 * (64,), 16), 2**14, "bfloat16"),
    Goal("G2", "128-128x5-16, batch 2^20, bfloat16", ">= 0.5e9 rows/s",
         (128, *5 * (128,), 16), 2**20, "bfloat16", rate=True),
    Goal("G3", "16-64-64-4, batch 64, many steps a call", "<= 8 us", (16, 64, 64, 4), 64),
    Goal("G3s", "the same by step()", "<= 20 us", (16, 64, 64, 4), 64, single=True),
    Goal("G4", "784-256-128-10, batch 128", "<= 20 us", (784, 256, 128, 10), 128),
    Goal("G5", "4096x4, batch 4096, bfloat16", "<= 1700 us", 4 * (4096,), 4096, "bfloat16"),
    Goal("G5b", "4096x4, batch 16384, bfloat16", "<= 6300 us", 4 * (4096,), 16384, "bfloat16"),
    Goal("G6", "4096x4, batch 4096, TF32", "<= 3200 us"),
    Goal("G7", "4096x4, batch 4096, float32", "<= 21800 us", 4 * (4096,), 4096),
    Goal("G8", "784-1024-1024-10, batch 512, bfloat16", "<= 60 us",
         (784, 1024, 1024, 10), 512, "bfloat16"),
    Goal("G9", "LSTM, 128 steps, 512 units, batch 32", "1.5 x cuDNN"),
    Goal("G10", "GPT-2 124M class", "llm.c's speed"),
    Goal("G11", "the host's part of a step", "<= 3 us"),
    Goal("G12", "bfloat16 product 4096^3", ">= 720 TFLOP/s"),
    Goal("G13", "the optimizer alone", ">= 92 % of a copy"),
)  # fmt: skip


def seconds_per_step(
    goal: Goal, *, device: str = "cuda", rounds: int = 5, seconds: float = 0.2
) -> float:
    """The fastest round's. Raises ValueError for a row without sizes."""
    if goal.sizes is None:
        raise ValueError(f"{goal.name}: what it needs is not built")
    inputs, *units = goal.sizes
    hidden = [layers.Dense(n, activation="relu") for n in units[:-1]]
    network = model.Sequential([*hidden, layers.Dense(units[-1])], seed=0)
    network.compile(optimizers.AdamW(1e-3), "mse", device=device, dtype=goal.dtype)
    network.build(inputs)
    engine: Any = network._require_built()
    rng = np.random.default_rng(0)
    x = rng.normal(size=(goal.batch, inputs)).astype(np.float32)
    y = rng.normal(size=(goal.batch, units[-1])).astype(np.float32)
    engine.hold(x, y)

    def run(steps: int) -> float:
        begin = time.perf_counter()
        if goal.single:
            for _ in range(steps):
                engine.step(x, y)
        else:
            engine.train(x, y, goal.batch, steps, 0, False, 0, [])
        return time.perf_counter() - begin

    steps = 1
    while run(steps) < seconds and steps < 2**20:
        steps *= 2
    taken = min(run(steps) for _ in range(rounds)) / steps
    engine.release()
    return taken


def measured(goal: Goal, device: str) -> str:
    """The row's figure in words."""
    if goal.sizes is None:
        return "not built, or without a measurement of its own"
    taken = seconds_per_step(goal, device=device)
    return f"{goal.batch / taken:.2e} rows/s" if goal.rate else f"{taken * 1e6:.1f} us"


def rows(device: str | None) -> list[tuple[str, str, str, str]]:
    """(name, workload, goal, measured) of every goal; device None: of no GPU."""
    return [
        (g.name, g.workload, g.goal, UNMEASURED if device is None else measured(g, device))
        for g in GOALS
    ]


def report(device: str | None, name: str) -> str:
    """A Markdown table under a line that says what it was measured on."""
    lines = [f"CUDA: {name}", "", "| goal | workload | goal on one H100 | measured |"]
    lines += ["|---|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows(device))]
    return "\n".join(lines)
