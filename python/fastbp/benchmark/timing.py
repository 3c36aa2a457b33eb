"""The timing harness: samples of a call, and what is kept of them."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

WARM_UP = 0.1  # seconds
SHORTEST_SAMPLE = 0.002  # seconds: what the clock and a timer interrupt cost is below 1 % of it


def seconds(call: Callable[[], object], loops: int = 1) -> float:
    """How long `loops` calls take."""
    start = time.perf_counter()
    for _ in range(loops):
        call()
    return time.perf_counter() - start


def calibrate(call: Callable[[], object], at_least: float = SHORTEST_SAMPLE) -> int:
    """How many calls make a sample of `at_least` seconds; the first calls warm up."""
    call()
    once = seconds(call)
    if once >= at_least:
        return 1
    loops = max(2, min(1000, math.ceil(at_least / 4 / max(once, 1e-7))))
    once = seconds(call, loops) / loops
    return max(1, math.ceil(at_least / max(once, 1e-9)))


def samples(call: Callable[[], object], loops: int, slice_seconds: float) -> list[float]:
    """Seconds per call, sample after sample until the slice is over; at least one.

    Calls go before them unmeasured, WARM_UP seconds of them: caches fill, threads wake, clocks
    rise. A call that lasts that long needs no such company and is measured at once.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        start = time.perf_counter()
        first = seconds(call, loops)
        found = [first / loops] if first > WARM_UP else []
        while time.perf_counter() < start + WARM_UP:
            seconds(call, loops)
        end = time.perf_counter() + slice_seconds
        while not found or (first < slice_seconds and time.perf_counter() < end):
            found.append(seconds(call, loops) / loops)
        return found
    finally:
        if enabled:
            gc.enable()


@dataclass(frozen=True)
class Timing:
    """Seconds per unit over all rounds, and the median of each round."""

    median: float
    p10: float
    p90: float
    best: float
    samples: int
    rounds: tuple[float, ...]

    @classmethod
    def of(cls, rounds: Sequence[Sequence[float]]) -> Timing:
        """From the samples of each round."""
        values = [value for found in rounds for value in found]
        low, high = np.percentile(values, [10, 90])
        return cls(
            statistics.median(values),
            float(low),
            float(high),
            min(values),
            len(values),
            tuple(statistics.median(found) for found in rounds),
        )

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "rounds": list(self.rounds)}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Timing:
        """From its form in a saved document; other keys of the mapping are ignored."""
        fields = {name: document[name] for name in cls.__dataclass_fields__}
        return cls(**{**fields, "rounds": tuple(fields["rounds"])})

    @property
    def spread(self) -> float:
        """(p90 - p10) / median."""
        return (self.p90 - self.p10) / self.median


@dataclass(frozen=True)
class Ratio:
    """How many times as long another took, round by round: both ran one after the other."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, other: Timing, own: Timing) -> Ratio:
        """low and high bound the rounds' ratios, of five or more all but the outermost two."""
        ratios = sorted(a / b for a, b in zip(other.rounds, own.rounds, strict=True))
        kept = ratios[1:-1] if len(ratios) >= 5 else ratios
        return cls(statistics.median(ratios), kept[0], kept[-1])
