"""Array in, array out: the dtype rules of the oracle.

Whatever comes in, float32 or float64, is computed in float64 and rounded once to the dtype that
goes out. For float32 the oracle is thus more precise than any kernel's accumulator; for float64 it
is as precise as NumPy.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

F64 = NDArray[np.float64]
Array = NDArray[Any]


def result_dtype(*arrays: ArrayLike) -> np.dtype[Any]:
    """float32 if every array is float32, otherwise float64; integers and bools count as float64.

    TypeError for anything else (float16, complex, object, text).
    """
    dtype = np.result_type(*(np.asarray(a).dtype for a in arrays)).newbyteorder("=")
    if dtype.kind in "biu":
        return np.dtype(np.float64)
    if dtype not in (np.float32, np.float64):
        raise TypeError(f"expected float32 or float64 (or integers), got {dtype}")
    return dtype


def as_float64(a: ArrayLike) -> F64:
    """The same numbers in float64, native byte order; no copy if they are already so."""
    return np.asarray(a, dtype=np.float64)


def describe(a: Array) -> str:
    """What an array is, for messages."""
    return f"{a.dtype} array of shape {a.shape}"


@np.errstate(over="ignore", under="ignore")
def rounded(value: F64, dtype: Any, out: Array | None = None) -> Array:
    """value in dtype, rounded once; beyond dtype's range it becomes infinite without a warning.

    With out, writes there and returns it: same shape and dtype are required, overlap with the
    inputs is harmless because value is complete by now.
    """
    value = np.asarray(value)
    if out is None:
        return value.astype(dtype)
    if out.shape != value.shape:
        raise ValueError(f"out has shape {out.shape}, expected {value.shape}")
    if out.dtype != dtype:
        raise TypeError(f"out has dtype {out.dtype}, expected {np.dtype(dtype)}")
    out[...] = value
    return out
