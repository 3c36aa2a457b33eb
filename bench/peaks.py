"""What this machine can do at most: floating-point peak and memory bandwidth, both measured.

The peak is that of the instruction set in use (FASTBP_ISA): independent FMAs in registers, on one
thread and on all of fastbp's threads. The bandwidth is that of NumPy's copy on one thread, counting
the bytes read and the bytes written, over arrays far larger than any cache.
"""

from __future__ import annotations

from typing import Any

import harness
import numpy as np

import fastbp as bp
from fastbp import _core

STREAM_BYTES = 1 << 28  # 256 MiB: larger than the last-level cache of any processor we know of


def peak_gflops(dtype: str, threads: int | None = None, seconds: float = 0.1) -> float:
    """Best of five probes, in GFLOP/s (one FMA is two operations)."""
    threads = threads or bp.get_num_threads()
    return max(_core.probe_peak(dtype, threads, seconds) for _ in range(5))


def copy_gbytes(repeats: int = 5) -> float:
    """Bandwidth of a copy on one thread in GB/s (10^9 bytes), read and written bytes counted."""
    source = np.ones(STREAM_BYTES // 8)
    target = np.zeros_like(source)
    timing = harness.interleaved({"copy": lambda: np.copyto(target, source)}, repeats)["copy"]
    return 2 * source.nbytes / timing.best / 1e9


def main() -> None:
    arguments = harness.parser(__doc__).parse_args()
    harness.announce()
    threads = bp.get_num_threads()
    results: dict[str, Any] = {"threads": threads, "peak_gflops": {}}
    rows = [["GFLOP/s", "1 thread", f"{threads} threads"]]
    for dtype in ("float32", "float64", *["bfloat16"] * (not _core.bfloat16_problem())):
        one, all_threads = peak_gflops(dtype, 1), peak_gflops(dtype, threads)
        results["peak_gflops"][dtype] = {"1": one, str(threads): all_threads}
        rows.append([dtype, f"{one:.1f}", f"{all_threads:.1f}"])
    print(harness.table(rows))
    results["copy_gbytes"] = copy_gbytes()
    print(f"memory: {results['copy_gbytes']:.1f} GB/s, copy on one thread")
    harness.write(arguments.json, "peaks", results)


if __name__ == "__main__":
    main()
