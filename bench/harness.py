"""What the benchmarks share: interleaved timing, the machine's description, tables and JSON."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import fastbp as bp

PEERS = ("scikit-learn", "torch")


@dataclass(frozen=True)
class Timing:
    """Seconds per call over interleaved repeats."""

    median: float
    p10: float
    p90: float
    best: float
    repeats: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Timing:
        low, high = np.percentile(seconds, [10, 90])
        return cls(statistics.median(seconds), float(low), float(high), min(seconds), len(seconds))

    def scaled(self, divisor: float) -> Timing:
        """The time of one part of a call that consists of `divisor` equal parts."""
        parts = (self.median, self.p10, self.p90, self.best)
        return Timing(*(part / divisor for part in parts), self.repeats)

    @property
    def spread(self) -> float:
        """(p90 - p10) / median."""
        return (self.p90 - self.p10) / self.median


def interleaved(
    calls: Mapping[str, Callable[[], object]], repeats: int, at_least: float = 0.0
) -> dict[str, Timing]:
    """Time every call `repeats` times in turn (A B A B ...), after one call each to warm up.

    A call shorter than `at_least` seconds is repeated inside one measurement until it is as long.
    """
    loops = {}
    for name, call in calls.items():
        call()
        once = _seconds(call, 1)
        loops[name] = max(1, int(np.ceil(at_least / max(once, 1e-9))))
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            seconds[name].append(_seconds(call, loops[name]) / loops[name])
    return {name: Timing.of(values) for name, values in seconds.items()}


def _seconds(call: Callable[[], object], loops: int) -> float:
    start = time.perf_counter()
    for _ in range(loops):
        call()
    return time.perf_counter() - start


def machine() -> dict[str, Any]:
    """What the figures depend on: goes into every JSON file."""
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "fastbp": bp.info(),
        "numpy": np.__version__,
        "blas": np.show_config(mode="dicts")["Build Dependencies"]["blas"],
        "peers": peers(),
        "environment": {
            name: value
            for name, value in os.environ.items()
            if name.startswith(("FASTBP_", "OPENBLAS_", "OMP_", "MKL_"))
        },
        "load_average": os.getloadavg() if hasattr(os, "getloadavg") else None,
    }


def peers() -> dict[str, str]:
    """The versions of the peers that are installed."""
    found = {}
    for name in PEERS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def warnings() -> list[str]:
    """Settings that make NumPy's time no fair measure, or the machine busy."""
    found = [
        f"{name}={os.environ[name]} is set: it changes NumPy's matrix product; unset it"
        for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
        if name in os.environ
    ]
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > 0.5:
        found.append(f"the machine is busy (load average {load:.2f}): times will be unsteady")
    return found


def parser(doc: str | None) -> argparse.ArgumentParser:
    """--json FILE, --repeats N; every benchmark adds its own."""
    made = argparse.ArgumentParser(description=(doc or "").strip().splitlines()[0])
    made.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    made.add_argument("--repeats", type=int, default=9, help="interleaved repeats (default: 9)")
    return made


def announce() -> None:
    """First lines of every benchmark: the machine, the active ISA, and what may disturb."""
    info = bp.info()
    print(f"fastbp {bp.__version__}, numpy {np.__version__}, python {platform.python_version()}")
    print(describe(info))
    for warning in warnings():
        print(f"WARNING: {warning}", file=sys.stderr)


def describe(info: Mapping[str, Any]) -> str:
    return (
        f"{info['cpu']}, {info['isa']} (of {', '.join(info['isas_available'])}), "
        f"{info['threads']} threads"
    )


def write(path: Path | None, name: str, results: Any) -> None:
    if path is not None:
        document = {"benchmark": name, "machine": machine(), "results": results}
        path.write_text(json.dumps(document, indent=2, default=_jsonable) + "\n")
        print(f"written to {path}")


def _jsonable(value: Any) -> Any:
    if isinstance(value, Timing):
        return asdict(value)
    if isinstance(value, np.generic):
        return value.item()
    return str(value)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as aligned columns, the first to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def microseconds(seconds: float) -> str:
    return f"{seconds * 1e6:.3g}" if seconds < 1e-3 else f"{seconds * 1e6:.0f}"
