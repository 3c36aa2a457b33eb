"""Devices: where a network runs, and how many threads the processor gives it."""

from __future__ import annotations

import os
from functools import partial
from importlib import import_module
from typing import Any, NamedTuple

from . import _core, checks
from .errors import DeviceNotAvailableError, describe

VARIABLE = "FASTBP_DEVICE"


class Backend(NamedTuple):
    """What a model needs of a device: engine, random functions, and functions on arrays."""

    engine: Any  # _core.Engine, or its twin
    random_uniform: Any
    random_normal: Any
    ops_module: str  # in this package

    @property
    def ops(self) -> Any:
        """Functions on arrays; they take milliseconds to import, and few programs need them."""
        return import_module(f".{self.ops_module}", __package__)


def resolve(device: str) -> str:
    """The device that a name stands for: "cpu", "reference", "cuda" (for "cuda:0"), "cuda:1", ...

    "auto" is FASTBP_DEVICE if that is set, else "cpu". Raises DeviceNotAvailableError for a device
    that cannot be used here, ValueError for a name that is no device, TypeError for another kind.
    """
    if not isinstance(device, str):
        raise TypeError(f"device must be a string; got {describe(device)}")
    source = ""
    if device == "auto":
        device = os.environ.get(VARIABLE, "") or "cpu"
        source = f" (from the environment variable {VARIABLE})"
        device = "cpu" if device == "auto" else device
    if device in ("cpu", "reference"):
        return device
    if is_cuda(device):
        number = _open_cuda(device, source)
        return f"cuda:{number}" if number else "cuda"
    raise ValueError(
        f"unknown device {device!r}{source}: choose 'auto', 'cpu', 'reference' or 'cuda'"
    )


def require_dtype(device: str, dtype: str) -> None:
    """Raises DeviceNotAvailableError unless that device, as `resolve` gave it, has that dtype."""
    if is_cuda(device) and dtype in ("bfloat16", "tf32"):
        _require_tensor_cores(device, dtype)
    problem = _core.bfloat16_problem() if (device, dtype) == ("cpu", "bfloat16") else ""
    if problem:
        raise DeviceNotAvailableError(
            f"dtype 'bfloat16' is not available on this device: {problem}. It needs a processor "
            "that multiplies bfloat16 faster than float32 (AMD Zen 4 or later, Intel with AMX) "
            "and is never emulated. Use dtype='float32', or device='reference' to reproduce its "
            "results slowly",
            reason="no_bfloat16",
        )
    if device == "cpu" and dtype in ("float16", "tf32"):
        raise DeviceNotAvailableError(
            f"dtype {dtype!r} is for device='cuda', whose tensor cores multiply it. On the "
            "processor use dtype='float32' (or 'bfloat16' where fastbp.info() offers it), or "
            "device='reference' to reproduce its results slowly",
            reason=f"no_{dtype}",
        )


def _require_tensor_cores(device: str, dtype: str) -> None:
    from . import cuda_library

    capability = cuda_library.open_device(cuda_number(device)).capability
    if 0 < capability < 80:  # the emulated device has 0
        raise DeviceNotAvailableError(
            f"dtype {dtype!r} needs tensor cores of compute capability 8.0 or later, and device "
            f"{device!r} has {capability / 10:.1f}. Use dtype='float16' or 'float32'",
            reason=f"no_{dtype}",
        )


def _open_cuda(device: str, source: str) -> int:
    """The number of a CUDA device, which is then ready to be used."""
    from . import cuda_library

    number = cuda_number(device)
    try:
        cuda_library.open_device(number)
        return number
    except DeviceNotAvailableError as error:
        other = f"unset {VARIABLE}, or use device='cpu'" if source else "use device='auto' or 'cpu'"
        raise DeviceNotAvailableError(
            f"device {device!r} was asked for{source}, but {error}. Or {other}", error.reason
        ) from None


def is_cuda(device: str) -> bool:
    """Whether the name is "cuda" or "cuda:<number>"."""
    name, colon, number = device.partition(":")
    return name == "cuda" and (not colon or (number.isascii() and number.isdigit()))


def cuda_number(device: str) -> int:
    """1 of "cuda:1", 0 of "cuda"."""
    return int(device.partition(":")[2] or 0)


def backend(device: str) -> Backend:
    """The backend of a name that `resolve` returned; each is imported when it is asked for."""
    if device == "reference":
        from . import reference

        random = reference.random
        return Backend(
            reference.Engine, random.random_uniform, random.random_normal, "reference.ops"
        )
    if is_cuda(device):
        from .cuda_engine import CudaEngine

        engine = partial(CudaEngine, device=cuda_number(device))
        return Backend(engine, _core.random_uniform, _core.random_normal, "ops")
    return Backend(_core.Engine, _core.random_uniform, _core.random_normal, "ops")


def set_num_threads(n: int) -> None:
    """Uses `n` threads of the processor from now on, at least 1; results do not depend on it.

    The start value is FASTBP_NUM_THREADS, else the processors that this process may use (affinity,
    container quota). Raises TypeError if n is no integer, ValueError unless it is from 1 to 1024.
    """
    _core.set_num_threads(min(checks.integer("n", n), 2**31 - 1))  # of a C int; it knows the most


def get_num_threads() -> int:
    """The number of threads in use."""
    return _core.get_num_threads()
