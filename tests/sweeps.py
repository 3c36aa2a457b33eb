"""What the kernel tests walk through: sizes, places in memory, strides, values.

Sizes lie on both sides of one, two and four half vectors of 8 (AVX-512 double, AVX2 float), of the
virtual vector of 16 floats, and of the GEMM's panel of 64; 97 is beyond all, and a prime. Memory
is handed out in three ways: shifted from the 64-byte line, framed by bytes that must not change,
and ending or beginning at a page that cannot be touched.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

SIZES = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 97)
DTYPES = ("float32", "float64")
SHIFTS = (
    0,
    1,
    3,
)  # elements from a 64-byte line: none, the least, and one that 16 bytes do not fit
FRAME = 64  # elements of frame on each side of an output
FRAME_BYTE = 0xA5
LANES = {"float32": 16, "float64": 8}  # of the virtual vector, on every instruction set
# Every place in two vectors and a tail of all but one lane.
LANE_POSITIONS = {dtype: range(3 * lanes - 1) for dtype, lanes in LANES.items()}
SEEDS = range(4)


def normal(seed: int, dtype: str, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def aligned(shape: int | tuple[int, ...], dtype: str, shift: int = 0) -> Array:
    """Uninitialised C-contiguous memory `shift` elements beyond a 64-byte line."""
    count = int(np.prod(shape))
    item = np.dtype(dtype).itemsize
    raw = np.empty((count + shift) * item + 64, np.uint8)
    start = -raw.ctypes.data % 64 + shift * item
    return raw[start : start + count * item].view(dtype).reshape(shape)


def shifted(values: Array, shift: int) -> Array:
    """A copy of `values` that begins `shift` elements beyond a 64-byte line."""
    copy = aligned(values.shape, values.dtype.name, shift)
    copy[...] = values
    return copy


def unaligned(values: Array) -> Array:
    """A copy of `values` one byte off its item's alignment."""
    raw = np.empty(values.nbytes + 1, np.uint8)
    copy: Array = np.ndarray(values.shape, values.dtype, raw.data, offset=1)
    copy[...] = values
    assert not copy.flags.aligned
    return copy


def framed(
    shape: int | tuple[int, ...], dtype: str, shift: int = 0, fill: float = np.nan
) -> tuple[Array, Callable[[], None]]:
    """An array full of `fill` inside a larger buffer, and a function that fails if anything
    around the array has changed.
    """
    count = int(np.prod(shape))
    item = np.dtype(dtype).itemsize
    before = FRAME * item
    whole = aligned(count + 2 * FRAME, dtype, shift)
    frame = whole.view(np.uint8)
    frame[...] = FRAME_BYTE
    inside = whole[FRAME : FRAME + count].reshape(shape)
    inside[...] = fill

    def intact() -> None:
        after = before + count * item
        for name, part in (("before", frame[:before]), ("behind", frame[after:])):
            touched = np.flatnonzero(part != FRAME_BYTE)
            assert touched.size == 0, f"wrote {touched.size} bytes {name} the output: at {touched}"

    return inside, intact


@contextmanager
def guarded(values: Array, *, at_end: bool = True) -> Iterator[Array]:
    """A copy of `values` that ends (or begins) exactly at a page that faults when it is touched."""
    page = mmap.PAGESIZE
    pages = -(-max(values.nbytes, 1) // page) * page
    memory = mmap.mmap(-1, pages + 2 * page)
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    offset = page + (pages - values.nbytes if at_end else 0)
    copy: Array = np.ndarray(values.shape, values.dtype, memory, offset=offset)
    copy[...] = values
    guards = (base, base + page + pages)
    for guard in guards:
        assert protect(guard, page, 0) == 0
    try:
        yield copy
    finally:
        for guard in guards:
            assert protect(guard, page, mmap.PROT_READ | mmap.PROT_WRITE) == 0


def points(dtype: str, count: int) -> Array:
    """Both signs of every magnitude, denormals too, more of them where functions bend."""
    info = np.finfo(dtype)
    small, large = (float(np.log2(float(m))) for m in (info.smallest_subnormal, info.max))
    size = np.concatenate(
        [
            2.0 ** np.linspace(small, large, count)[:-1],
            np.geomspace(1e-6, 100, count),
            np.linspace(0, 20, count),
            [float(info.smallest_subnormal), float(info.tiny), float(info.max), 0.0, 0.5, 1.0],
        ]
    )
    return np.concatenate([size, -size]).astype(dtype)


def bits(a: Array) -> Array:
    """The same memory as unsigned integers: == of these tells zeros and NaN apart."""
    return np.ascontiguousarray(a).view(f"u{a.dtype.itemsize}")


def assert_same_bits(actual: Array, expected: Array, what: str = "") -> None:
    """Every bit equal, but for sign and payload of a NaN."""
    assert actual.shape == expected.shape and actual.dtype == expected.dtype, what
    different = (bits(actual) != bits(expected)) & ~(np.isnan(actual) & np.isnan(expected))
    if not different.any():
        return
    at = tuple(int(i) for i in np.argwhere(different)[0])
    raise AssertionError(
        f"{what}: {different.sum()} of {different.size} differ; the first at {at}: "
        f"{actual[at]!r}, expected {expected[at]!r}"
    )
