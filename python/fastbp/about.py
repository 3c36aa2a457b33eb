"""What is installed and in use, for users, bug reports and the first line of every benchmark."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from . import _core, devices


class Info(dict[str, Any]):
    """Plain data by name, which prints as a table."""

    def __str__(self) -> str:
        rows = [(name, _shown(value)) for name, value in self.items()]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name.ljust(width)}  {text}" for name, text in rows)


def collect() -> Info:
    """fastbp.info; see there."""
    build, isas = dict(_core.build_info()), _core.isas()
    return Info(
        fastbp=build.pop("version"),
        python=platform.python_version(),
        numpy=np.__version__,
        system=platform.platform(),
        cpu=build.pop("cpu", "") or platform.machine(),
        isa=isas["active"],
        isas_available=list(isas["available"]),
        isas_compiled=list(isas["compiled"]),
        threads=_core.get_num_threads(),
        processors=_processors(),
        devices=["cpu", "reference"],
        build=build,
        environment=environment(isas["compiled"], isas["available"]),
    )


def environment(compiled: list[str], available: list[str]) -> dict[str, dict[str, Any]]:
    """The variables that fastbp reads: name -> value (None if unset), whether it is valid, and what
    is expected.
    """
    rules: dict[str, tuple[Callable[[str], bool], str]] = {
        "FASTBP_ISA": (
            lambda value: value in available,
            f"one of {', '.join(available)}"
            + (f" (compiled: {', '.join(compiled)})" if compiled != available else ""),
        ),
        "FASTBP_NUM_THREADS": (
            lambda value: value.isascii() and value.isdigit() and int(value) > 0,
            "a number of threads, at least 1",
        ),
        devices.VARIABLE: (
            lambda value: value in ("auto", "cpu", "reference"),
            "auto, cpu or reference",
        ),
        "FASTBP_CUDA_LIBRARY": (
            lambda value: Path(value).is_file(),
            "the path of libfastbp_cuda.so",
        ),
    }
    found = {}
    for name, (is_valid, expected) in rules.items():
        value = os.environ.get(name)
        found[name] = {"value": value, "valid": not value or is_valid(value), "expected": expected}
    return found


def _processors() -> int:
    """The logical processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if not isinstance(value, dict):
        return str(value)
    parts = []
    for name, item in value.items():
        if isinstance(item, dict):
            if item["value"] is not None:
                mark = "" if item["valid"] else f" (not valid: expected {item['expected']})"
                parts.append(f"{name}={item['value']}{mark}")
        else:
            parts.append(f"{name} {item}")
    return ", ".join(parts) or "none set"
