"""What is installed and in use, for users, bug reports and the first line of every benchmark."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from . import _core, devices
from .errors import DeviceNotAvailableError

T = TypeVar("T")


class Info(dict[str, Any]):
    """Plain data by name, which prints as a table."""

    def __str__(self) -> str:
        rows = [(name, _shown(value)) for name, value in self.items()]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name.ljust(width)}  {text}" for name, text in rows)


def collect() -> Info:
    """fastbp.info; see there. Reports settings that are not valid instead of failing on them."""
    build = dict(_core.build_info())
    isas, isa_problem = _attempt(_core.isas)
    bfloat16_problem, _ = _attempt(_core.bfloat16_problem)
    threads, threads_problem = _attempt(_core.get_num_threads)
    return Info(
        fastbp=build.pop("version"),
        python=platform.python_version(),
        numpy=np.__version__,
        system=platform.platform(),
        cpu=build.pop("cpu", "") or platform.machine(),
        isa=isas["active"] if isas else None,
        isas_available=isas["available"] if isas else [],
        isas_compiled=isas["compiled"] if isas else [],
        bfloat16=bfloat16_problem == "",
        bfloat16_problem=bfloat16_problem or None,
        threads=threads,
        processors=_processors(),
        devices=["cpu", "reference"],
        build=build,
        environment=_environment(isa_problem, threads_problem),
    )


def _attempt(question: Callable[[], T]) -> tuple[T | None, str | None]:
    """The answer, or None and what is said to be wrong with the settings."""
    try:
        return question(), None
    except (ValueError, DeviceNotAvailableError) as error:
        return None, str(error)


def _environment(isa_problem: str | None, threads_problem: str | None) -> dict[str, Any]:
    """The variables that fastbp reads: name -> value and problem, None if unset or valid."""
    device_problem = _attempt(lambda: devices.resolve("auto"))[1]
    library = os.environ.get("FASTBP_CUDA_LIBRARY")
    library_problem = None if not library or Path(library).is_file() else "there is no such file"
    problems = {
        "FASTBP_ISA": isa_problem,
        "FASTBP_NUM_THREADS": threads_problem,
        devices.VARIABLE: device_problem,
        "FASTBP_CUDA_LIBRARY": library_problem,
    }
    return {
        name: {"value": os.environ.get(name), "problem": problem}
        for name, problem in problems.items()
    }


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
    parts = [
        f"{name} {item}" if not isinstance(item, dict) else _setting(name, **item)
        for name, item in value.items()
    ]
    return ", ".join(filter(None, parts)) or "nothing set"


def _setting(name: str, value: str | None, problem: str | None) -> str:
    if value is None:
        return ""
    return f"{name}={value}" + (f" (not valid: {problem})" if problem else "")
