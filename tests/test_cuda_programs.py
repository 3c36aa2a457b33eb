"""Random programs on device="cuda", the emulated one: networks, losses, rules and calls as nobody
would combine them by hand. In float32 and float64 they have the CPU's bits; with products in
bfloat16, float16 and TF32 they are beside the NumPy twin; and where memory ends in the midst of
them, it is said, nothing has changed, and they go on to the same end.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cuda_library
from fastbp.cuda_engine import CudaEngine
from random_programs import Program, Said, more, outcome, program
from sweeps import DTYPES
from test_cuda_mixed import STEP
from test_cuda_training import digest

MANY = pytest.param(range(4, 40), marks=pytest.mark.slow)
EVERY = pytest.mark.parametrize("seeds", [range(1, 4), MANY], ids=["few", "many"])
BOTH = pytest.mark.parametrize("sequences", [False, True], ids=["rows", "sequences"])


@pytest.fixture(autouse=True)
def library(device_library: Path) -> Path:
    return device_library


def dtype_of(seed: int, dtypes: Any) -> str:
    names = list(dtypes)
    return str(names[seed % len(names)])


def assert_same(found: Said, wanted: Said, made: Program) -> None:
    for (name, got), (_, want) in zip(found, wanted, strict=True):
        assert digest(got) == digest(want), f"{name} of {made}: {got} is not {want}"


@EVERY
@BOTH
def test_bits_are_the_cpus(seeds: range, *, sequences: bool) -> None:
    for seed in seeds:
        made, dtype = program(seed, sequences=sequences), dtype_of(seed, DTYPES)
        assert_same(more(made, "cuda", dtype), more(made, "cpu", dtype), made)


@EVERY
@BOTH
def test_rounded_products_are_beside_the_twins(seeds: range, *, sequences: bool) -> None:
    """By norms: a rounding that falls to the other side costs less than all roundings do, which is
    seen beside a twin that does not round, and 3 of the largest."""
    for seed in seeds:
        made, dtype = program(seed, sequences=sequences), dtype_of(seed, STEP)
        ways = outcome(made, "cuda", dtype), outcome(made, "reference", dtype)
        for (name, got), (_, want), (_, exact) in zip(
            *ways, outcome(made, "reference", "float64"), strict=True
        ):
            if name == "scale":
                assert got == want, made
                continue
            size, rounding = np.linalg.norm(want), np.linalg.norm(np.subtract(want, exact))
            allowed = rounding + 3 * STEP[dtype] * size + 1e-6
            assert np.linalg.norm(np.subtract(got, want)) <= allowed, f"{name} of {made}"


class ShortOfMemory:
    """Lets the device's memory end close behind what is held, in front of calls drawn at random."""

    def __init__(self, library: Path, seed: int, patch: pytest.MonkeyPatch) -> None:
        self.library, self.patch, self.failed = library, patch, 0
        self.rng = np.random.default_rng(seed)
        self.plain: Any = CudaEngine._call
        patch.setattr(CudaEngine, "_call", lambda engine, work: self.call(engine, work))

    def call(self, engine: CudaEngine, work: Callable[[], Any]) -> Any:
        room = int(2 ** self.rng.uniform(6, 18))
        self.plain(engine, lambda: None)  # what the caller has written to parameters goes there
        before = self.state(engine)
        self.patch.setenv("FASTBP_EMULATION_MEMORY", str(cuda_library.held(self.library) + room))
        try:
            return self.plain(engine, work)
        except MemoryError as error:
            assert "MiB" in str(error)
            self.failed += 1
        finally:
            self.patch.delenv("FASTBP_EMULATION_MEMORY")
        assert self.state(engine) == before
        return self.plain(engine, work)

    def state(self, engine: CudaEngine) -> str:
        """What the device holds of the parameters and beside them."""
        network, arrays = engine._network, []
        for number, count in enumerate([network.parameter_count] * 4):
            if number in (0, *range(2, 2 + engine._slots)):
                arrays.append(np.empty(count, engine._dtype))
                network.read(number, arrays[-1])
        return digest(arrays, network.steps)


@pytest.mark.usefixtures("emulated_device")
@pytest.mark.parametrize("seeds", [range(2, 3), MANY], ids=["one", "many"])
@BOTH
def test_memory_that_ends_anywhere_changes_nothing(
    library: Path, monkeypatch: pytest.MonkeyPatch, seeds: range, *, sequences: bool
) -> None:
    dtypes, failed = ("float32", *STEP), 0
    for seed in seeds:
        made, dtype = program(seed, sequences=sequences), dtype_of(seed, dtypes)
        wanted = more(made, "cuda", dtype)
        with monkeypatch.context() as patch:
            short = ShortOfMemory(library, seed, patch)
            assert_same(more(made, "cuda", dtype), wanted, made)
            failed += short.failed
    assert failed >= len(seeds)
