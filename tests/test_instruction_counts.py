"""The gate against lost speed that no noise reaches: instructions of small steps and calls.

At this size a step is calls and bookkeeping, and its time follows its instructions
(docs/performance.md). A count may exceed the committed one by a quarter, or twice that where
another compiler built the extension; where it falls far below, the table is to be made anew, so
that the gain is kept:

    python tests/test_instruction_counts.py > tests/fixtures/instruction_counts.json
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import machine
from fastbp import _core
from instruction_counter import CannotCountError, instructions

TABLE = Path(__file__).parent / "fixtures" / "instruction_counts.json"
BUILD = _core.build_info()
ADAM = {
    "learning_rate": 1e-3,
    "beta_1": 0.9,
    "beta_2": 0.999,
    "epsilon": 1e-8,
    "weight_decay": 0.0,
}
ISAS = [name for name in machine.AVAILABLE if name != "scalar"]  # 10 times the instructions

Call = Callable[[], object]


def step(
    sizes: tuple[int, ...], batch: int, dtype: str = "float32", activation: str = "relu"
) -> Call:
    """A training step by Engine.quick_step, Adam; two outputs or more are classes."""
    layers: list[Any] = []
    for units in sizes[1:-1]:
        layers += [("dense", units, True), ("activation", activation, 0.0)]
    engine = _core.Engine(sizes[0], [*layers, ("dense", sizes[-1], True)], dtype)
    generator = np.random.default_rng(0)
    engine.parameters[...] = generator.normal(size=engine.parameters.size) * 0.3
    one = sizes[-1] == 1
    loss = "binary_cross_entropy_with_logits" if one else "softmax_cross_entropy"
    engine.compile(loss, 0.0, "adam", ADAM)
    x = generator.normal(size=(batch, sizes[0])).astype(dtype)
    y = np.ones((batch, 1), dtype) if one else np.arange(batch) % sizes[-1]
    assert engine.quick_step(x, y) is not None
    return lambda: engine.quick_step(x, y)


def tanh() -> Call:
    x = np.ones((4, 4), np.float32)
    return lambda: _core.quick_vector_function("tanh", ("x", "out"), (x,), {})


WORKLOADS: dict[str, Callable[[], Call]] = {
    "step 2-16-1, batch 1": lambda: step((2, 16, 1), 1),
    "step 2-16-1, batch 32": lambda: step((2, 16, 1), 32),
    "step 4-32-3, batch 16": lambda: step((4, 32, 3), 16),
    "step 3-7-5-2, batch 9, float64, tanh": lambda: step((3, 7, 5, 2), 9, "float64", "tanh"),
    "tanh 4 x 4": tanh,
}


def measured(make: Callable[[], Call]) -> int:
    """Instructions of the call alone, on one thread."""
    with machine.using_threads(1):
        call = make()
        for _ in range(20):  # Python adapts its own code to what it sees
            assert call() is not None
        return instructions(call) - instructions(lambda: None)


@pytest.fixture(scope="module")
def table() -> dict[str, Any]:
    return dict(json.loads(TABLE.read_text()))


@pytest.mark.skipif(BUILD["build_type"] != "Release", reason="the counts are of a release build")
@pytest.mark.skipif(bool(BUILD["sanitize"]), reason="sanitizers add instructions")
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", WORKLOADS)
def test_no_call_takes_more_instructions(name: str, isa: str, table: dict[str, Any]) -> None:
    expected = table["counts"].get(isa, {}).get(name)
    if expected is None:
        pytest.skip(f"no count for {isa} is committed: the table was made on another processor")
    try:
        with machine.using_isa(isa):
            count = measured(WORKLOADS[name])
    except CannotCountError as problem:
        pytest.skip(str(problem))
    same = BUILD["compiler"] == table["compiler"]
    most = expected * (1.25 if same else 1.5)
    assert count <= most, (
        f"{count} instructions; the table has {expected}, at most {most:.0f} may be"
    )
    assert not same or count >= 0.7 * expected, (
        f"{count} instructions where the table has {expected}: make the table anew (see above)"
    )


def main() -> None:
    counts = {}
    for isa in ISAS:
        with machine.using_isa(isa):
            counts[isa] = {name: measured(make) for name, make in WORKLOADS.items()}
    document = {"compiler": BUILD["compiler"], "flags": BUILD["flags"], "counts": counts}
    json.dump(document, sys.stdout, indent=2)
    sys.stdout.write(os.linesep)


if __name__ == "__main__":
    main()
