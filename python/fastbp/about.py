"""What is installed and in use, for users, bug reports and the first line of every benchmark."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from . import _core, cublaslt, cuda_library, devices
from .errors import DeviceNotAvailableError

T = TypeVar("T")


class Info(dict[str, Any]):
    """Plain data by name, which prints as a table."""

    def __str__(self) -> str:
        rows = [
            (name, cuda_text(value) if name == "cuda" else _shown(value))
            for name, value in self.items()
        ]
        width = max(len(name) for name, _ in rows)
        indented = "\n" + " " * (width + 2)
        return "\n".join(f"{n.ljust(width)}  {t}".replace("\n", indented) for n, t in rows)


def collect(*, probe_devices: bool) -> Info:
    """fastbp.info; see there. Reports settings that are not valid instead of failing on them."""
    cuda = cuda_library.report(start_driver=probe_devices)
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
        cuda=cuda,
        build=build,
        environment=_environment(isa_problem, threads_problem, cuda),
    )


def _attempt(question: Callable[[], T]) -> tuple[T | None, str | None]:
    """The answer, or None and what is said to be wrong with the settings."""
    try:
        return question(), None
    except (ValueError, DeviceNotAvailableError) as error:
        return None, str(error)


def cuda_text(found: dict[str, Any]) -> str:
    """What info()["cuda"] says, for people."""
    if found["library"] is None:
        tried = ", ".join(f"{name}: {path or 'nothing'}" for name, path in found["tried"].items())
        return f"not available: {found['problem']}\nlooked for in {tried}"
    target = f"CUDA {found['cuda']}, for {', '.join(found['architectures'])}"
    made = "emulated: no GPU is behind it" if found["emulated"] else target
    lines = [f"{found['library']} ({made})"]
    if found["problem"] is not None:
        lines.append(f"not available: {found['problem']}")
    elif found["devices"] is None:
        lines.append("its devices have not been asked for")
    else:
        lines += [f"cuda:{i} {device['name']}" for i, device in enumerate(found["devices"])]
    blas = found["cublaslt"]
    if blas is not None:
        lines.append(
            f"cuBLASLt {blas['version']}: {blas['library']}"
            if blas["library"]
            else f"without cuBLASLt: {blas['problem']}"
        )
        lines += [f"  {line}" for line in blas["products"]]
    return "\n".join(lines)


def _environment(
    isa_problem: str | None, threads_problem: str | None, cuda: dict[str, Any]
) -> dict[str, Any]:
    """The variables that fastbp reads: name -> value and problem, None if unset or valid."""
    device_problem = _attempt(lambda: devices.resolve("auto"))[1]
    named = os.environ.get(cuda_library.VARIABLE)
    library_problem = cuda["problem"] if named and cuda["library"] is None else None
    problems = {
        "FASTBP_ISA": isa_problem,
        "FASTBP_NUM_THREADS": threads_problem,
        devices.VARIABLE: device_problem,
        cuda_library.VARIABLE: library_problem,
        cublaslt.VARIABLE: _blas_problem(cuda),
    }
    return {
        name: {"value": os.environ.get(name), "problem": problem}
        for name, problem in problems.items()
    }


def _blas_problem(cuda: dict[str, Any]) -> str | None:
    """Of a file that is named; that none is found is no mistake of the setting."""
    named = os.environ.get(cublaslt.VARIABLE) or "auto"
    if named in ("auto", "off"):
        return None
    if not Path(named).exists():
        return "there is no such file; expected one, 'auto' or 'off'"
    found: dict[str, Any] = cuda["cublaslt"] or {}
    return None if found.get("library") == str(Path(named).absolute()) else found.get("problem")


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
