"""What this machine can do at most, measured: floating point, caches, memory.

The floating-point peak is that of the instruction set in use (FASTBP_ISA): independent
multiply-adds in registers, on one thread and on all of fastbp's. A bandwidth is that of NumPy's
copy, counting bytes read and bytes written, of arrays that fit in a cache or in none.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

import fastbp as bp

from .. import _core
from .timing import calibrate, samples

PROBES = 3
PROBE_SECONDS = 0.03
MEMORY_BYTES = 1 << 27  # each of two arrays: larger than the caches of most processors
BANDWIDTH_SECONDS = 0.15
PAGE = 4096


def gflops(dtype: str, threads: int) -> float | None:
    """Best of a few probes in GFLOP/s, or None where no such peak can be probed."""
    try:
        return max(_core.probe_peak(dtype, threads, PROBE_SECONDS) for _ in range(PROBES))
    except (ValueError, RuntimeError):  # this version or this processor has no such probe
        return None


def probe(dtypes: list[str]) -> dict[str, dict[str, float]]:
    """By dtype: GFLOP/s of "one" thread and of "all" threads."""
    found: dict[str, dict[str, float]] = {}
    for dtype in dtypes:
        one, many = gflops(dtype, 1), gflops(dtype, bp.get_num_threads())
        if one is not None and many is not None:
            found[dtype] = {"one": one, "all": many}
    return found


def bandwidths() -> dict[str, dict[str, float]]:
    """By level ("l2", "l3", "memory"): GB/s of "one" thread and of "all" threads.

    The L2 caches of the cores are taken as independent: all threads have the multiple of one.
    """
    threads = bp.get_num_threads()
    build = _core.build_info()
    l2 = build.get("l2_bytes") or 1 << 20
    l3 = build.get("l3_bytes") or 0
    one = copy_rate(l2 // 4, 1)
    found = {"l2": {"one": one, "all": one * threads}}
    if l3 > 4 * l2:
        found["l3"] = {name: copy_rate(l3 // 8, n) for name, n in (("one", 1), ("all", threads))}
    found["memory"] = {
        name: copy_rate(MEMORY_BYTES // n, n) for name, n in (("one", 1), ("all", threads))
    }
    return found


def copy_rate(nbytes: int, threads: int) -> float:
    """GB/s of copies of `nbytes` on each of some threads at the same time.

    Where the target lies a few bytes behind the source, but for whole pages, as two large arrays of
    NumPy may, Zen 3 copies a tenth as fast (6 GB/s): here it lies half a page behind.
    """

    def one_thread(_: int) -> float:
        size = max(1, nbytes // 8)
        behind = size + (PAGE // 2 - 8 * size) % PAGE // 8
        both = np.ones(behind + size)
        source, target = both[:size], both[behind:]

        def copy() -> None:
            np.copyto(target, source)

        return 2 * source.nbytes / min(samples(copy, calibrate(copy), BANDWIDTH_SECONDS)) / 1e9

    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(one_thread, range(threads)))


@dataclass(frozen=True)
class Roofline:
    """The time below which no program gets, on this machine."""

    compute: Mapping[str, Mapping[str, float]]
    bandwidth: Mapping[str, Mapping[str, float]]
    l2_bytes: int
    l3_bytes: int

    @classmethod
    def from_json(cls, peaks: Mapping[str, Any]) -> Roofline:
        return cls(peaks["gflops"], peaks["gbytes"], peaks["l2_bytes"], peaks["l3_bytes"])

    def level(self, footprint: int) -> str:
        """The nearest memory that holds so many bytes."""
        if footprint <= self.l2_bytes:
            return "l2"
        return "l3" if footprint <= self.l3_bytes and "l3" in self.bandwidth else "memory"

    def seconds(self, dtype: str, flop: int, traffic: int, footprint: int) -> float | None:
        """max(FLOP / peak, bytes / bandwidth), all threads; None without a peak of the dtype."""
        if dtype not in self.compute:
            return None
        rate = self.bandwidth[self.level(footprint)]["all"]
        return max(flop / self.compute[dtype]["all"], traffic / rate) * 1e-9
