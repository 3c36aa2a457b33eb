"""What the figures depend on, and what may disturb them."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

import fastbp as bp

from .contestants import Contestant, versions

BUSY = 0.5  # load average above which figures are unsteady
PREFIXES = ("FASTBP_", "OPENBLAS_", "OMP_", "MKL_", "XLA_", "KMP_")


def describe(contestants: Sequence[Contestant]) -> dict[str, Any]:
    """Goes into every saved document."""
    info = bp.info()
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": info["cpu"],
        "processors": info["processors"],
        "isa": info["isa"],
        "threads": info["threads"],
        "fastbp": info["fastbp"],
        "build": info["build"],
        "numpy": np.__version__,
        "blas": np.show_config(mode="dicts")["Build Dependencies"]["blas"].get("name", "unknown"),
        "packages": versions(contestants),
        "environment": {
            name: value for name, value in os.environ.items() if name.startswith(PREFIXES)
        },
        "load_average": load(),
    }


def load() -> float:
    return os.getloadavg()[0]


def line(machine: dict[str, Any]) -> str:
    """The machine in one line."""
    return f"{machine['cpu']}, {machine['isa']}, {machine['threads']} threads"


def warnings() -> list[str]:
    """Settings that make NumPy's time no fair measure, or a busy machine."""
    found = [
        f"{name}={os.environ[name]} is set: it changes NumPy's matrix product; unset it"
        for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
        if name in os.environ
    ]
    if load() > BUSY:
        found.append(f"the machine is busy (load average {load():.2f}): times will be unsteady")
    return found
