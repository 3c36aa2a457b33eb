"""Plain values and arrays as JSON beside a list of tensors: the states that model files keep.

None, bool, int, str, finite float    as they are
other floats                          {"float": "inf"}
list, tuple                           list
dict                                  {"dict": {name: value}}
array                                 {"tensor": number in the list}
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .arrays import Array
from .errors import describe

DTYPES = ("float32", "float64", "int64")
MAX_DEPTH = 20


def pack(value: Any, tensors: list[Array], name: str, depth: int = 0) -> Any:
    """`value` as JSON data; its arrays are appended to `tensors`. TypeError names what cannot."""
    if depth > MAX_DEPTH:
        raise ValueError(f"{name} is nested more than {MAX_DEPTH} deep")
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, np.ndarray):
        if value.dtype.name not in DTYPES:
            raise TypeError(
                f"{name} is an array of {value.dtype}; files keep {', '.join(DTYPES)}: use "
                ".astype(...)"
            )
        tensors.append(np.ascontiguousarray(value).reshape(value.shape))
        return {"tensor": len(tensors) - 1}
    if isinstance(value, (list, tuple)):
        return [pack(v, tensors, f"{name}[{i}]", depth + 1) for i, v in enumerate(value)]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        packed = {k: pack(v, tensors, f"{name}[{k!r}]", depth + 1) for k, v in value.items()}
        return {"dict": packed}
    raise TypeError(
        f"{name} is {describe(value)}; files keep numbers, text, None, lists, dicts by text, and "
        "arrays"
    )


def unpack(data: Any, tensors: Sequence[Array]) -> Any:
    """What `pack` was given. Raises ValueError or TypeError for anything that it does not write."""
    if isinstance(data, list):
        return [unpack(item, tensors) for item in data]
    if not isinstance(data, dict):
        return data
    if len(data) != 1:
        raise ValueError("a packed object has one entry")
    ((kind, content),) = data.items()
    if kind == "dict" and isinstance(content, dict):
        return {name: unpack(item, tensors) for name, item in content.items()}
    if kind == "float" and content in ("inf", "-inf", "nan"):
        return float(content)
    if kind == "tensor" and type(content) is int and 0 <= content < len(tensors):
        return tensors[content]
    raise ValueError(f"unknown packed object {kind!r}")
