"""The emulated device notices what a GPU would let pass: races, unwritten memory, wrong masks.

tests/emulation/kernels.cpp has right and broken kernels beside each other and what must be said of
each; all run with threads in order, in reverse and in 64 random orders. Then fastbp's own kernels
run watched in the same orders: no hazard, and the same bits each time.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import cpp_programs
import cuda_library
from cuda_library import Library
from fastbp import ops
from sweeps import assert_same_bits, normal

SCHEDULES = ["forward", "reverse", *(f"random:{seed}" for seed in range(64))]

KERNELS_THAT_CHECK = (
    "warp functions", "half warps", "ended lanes", "bf16 product", "f16 product", "tf32 product",
    "group product", "group product, transposed", "swizzled box",
)  # fmt: skip

pytestmark = pytest.mark.skipif(
    not cpp_programs.HAS_COMPILER,
    reason=f"no C++ compiler: {cpp_programs.COMPILER} is not on PATH",
)


@pytest.fixture(scope="module")
def cases(cases_library: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(cases_library))
    for function in (library.case_name, library.expected_part, library.run_case):
        function.restype = ctypes.c_char_p
    return library


@pytest.fixture(scope="module")
def watched(watched_library: Path) -> Library:
    return Library(watched_library)


def in_orders(library: ctypes.CDLL, schedules: list[str], run: Callable[[str], None]) -> None:
    for schedule in schedules:
        assert library.fbp_emulation_set_schedule(schedule.encode()) == 0
        run(schedule)
    assert library.fbp_emulation_set_schedule(b"forward") == 0


def test_broken_kernels_are_reported_and_right_ones_are_not(cases: ctypes.CDLL) -> None:
    flags = (ctypes.c_int * 64)()

    def run(schedule: str) -> None:
        for number in range(cases.case_count()):
            name, part = cases.case_name(number).decode(), cases.expected_part(number).decode()
            said = cases.run_case(number, flags).decode()
            assert bool(said) == bool(part), f"{name}, {schedule}: {said!r}"
            assert part in said, f"{name}, {schedule}: {said!r}"
            if name in KERNELS_THAT_CHECK:
                assert list(flags) == [1] * 64, f"{name}, {schedule}"

    in_orders(cases, SCHEDULES[:6], run)


def test_fastbps_kernels_have_no_hazards(watched: Library) -> None:
    a, b = normal(1, "float32", 66, 20), normal(2, "float32", 20, 9)
    bias = normal(3, "float32", 9)
    right = ops.matmul(a, b, bias=bias, activation="tanh")

    def run(schedule: str) -> None:
        assert_same_bits(watched.matmul(a, b, bias, "tanh")[1], right, schedule)
        x = normal(4, "float64", 33, 9)
        assert_same_bits(watched.activation("silu", x), ops.silu(x), schedule)

    in_orders(watched.handle, SCHEDULES, run)


def test_watching_sees_fastbps_own_accesses(watched: Library) -> None:
    """A product of memory that nothing has written is refused: so the accesses are watched."""
    api = watched.api
    a, b, c = (ctypes.c_void_p() for _ in range(3))
    for pointer in (a, b, c):
        watched.check(api.allocate(ctypes.byref(pointer), 64))
    b_values = np.ones(16, np.float32)
    watched.check(api.copy_to_device(b, b_values.ctypes.data, 64, None))
    args = cuda_library.MatmulArgs(0, -1, 0, 4, 4, 4, a, 4, 1, b, 4, 1, None, c, 4, None, 0)
    watched.check(api.matmul(ctypes.byref(args), None))
    with pytest.raises(cuda_library.LibraryError, match=r"at gemm.*, which nothing has written"):
        watched.check(api.synchronize(None))
    for pointer in (a, b, c):
        watched.check(api.release(pointer))


def test_training_has_no_races_and_reads_nothing_unwritten(hazards: str) -> None:
    """Of any kernel of a network; watched_training.py trains those that are watched."""
    assert hazards == "no hazard"
