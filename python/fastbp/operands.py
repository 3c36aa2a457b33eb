"""The arrays of fastbp.ops: NumPy's rules for inputs, and a right result for any legal `out`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import devices
from .arrays import Array, as_numbers, is_ready
from .errors import describe

FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)


def operand(name: str, value: Any) -> Array:
    """`value` as an array of float32, float64, integers or bools. Raises TypeError for others."""
    array = as_numbers(name, value)
    if array.dtype.kind == "f" and array.dtype.itemsize not in (4, 8):
        raise TypeError(
            f"{name} has dtype {array.dtype}; expected float32 or float64: convert it with .astype"
        )
    return array


def common_dtype(*arrays: Array) -> np.dtype[Any]:
    """float32 if every array is float32, else float64; bools and integers count as float64."""
    single = all(array.dtype.kind == "f" and array.dtype.itemsize == 4 for array in arrays)
    return FLOAT32 if single else FLOAT64


def check_precision(precision: str, dtype: np.dtype[Any]) -> None:
    """Raises ValueError for another name than bfloat16, TypeError unless the arrays are float32,
    DeviceNotAvailableError where the processor is not fast at it.
    """
    if precision != "bfloat16":
        raise ValueError(f"precision must be None or 'bfloat16'; got {describe(precision)}")
    if dtype != FLOAT32:
        raise TypeError(f"precision 'bfloat16' takes float32 arrays; these give {dtype}")
    devices.require_dtype("cpu", precision)


def strided(array: Array, dtype: np.dtype[Any]) -> Array:
    """The same numbers in native `dtype`, aligned; strides stay where no conversion is needed."""
    return np.require(array, dtype, ["A"])


def packed(array: Array, dtype: np.dtype[Any]) -> Array:
    """The same numbers in native `dtype`, aligned and C-contiguous; no copy if they are so."""
    return array if is_ready(array, dtype) else np.require(array, dtype, ["C", "A"])


def check_out(out: Any, shape: tuple[int, ...], dtype: np.dtype[Any], name: str = "out") -> None:
    """Raises TypeError or ValueError unless `out` is a writeable ndarray of shape and dtype."""
    if not isinstance(out, np.ndarray):
        raise TypeError(f"{name} must be a NumPy array; got {describe(out)}")
    if out.dtype != dtype:
        raise TypeError(
            f"{name} has dtype {out.dtype.str!r}; the result has {dtype.str!r} ({dtype})"
        )
    if out.shape != shape:
        raise ValueError(f"{name} has shape {out.shape}; the result has shape {shape}")
    if not out.flags.writeable:
        raise ValueError(f"{name} is read-only: pass an array that may be written, or a copy")


def deliver(
    fill: Callable[[Array], object],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    out: Array | None,
    inputs: Sequence[Array],
) -> Any:
    """What `fill` writes into a C-contiguous array of `shape` and `dtype`, in `out` or a new one.

    `inputs` are what `fill` reads while it writes: where `out` may overlap one of them, or is not
    contiguous, the result is computed apart and copied. A 0-d result without `out` is a NumPy
    scalar, as NumPy's functions give.
    """
    if out is None:
        result: Array = np.empty(shape, dtype)
        fill(result)
        return result if shape else result[()]
    check_out(out, shape, dtype)
    apart = not is_ready(out, dtype) or any(np.may_share_memory(out, array) for array in inputs)
    if apart:
        result = np.empty(shape, dtype)
        fill(result)
        out[...] = result
    else:
        fill(out)
    return out
