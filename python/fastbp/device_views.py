"""Arrays of other libraries that lie on a GPU, and what is known of them.

They come through `__cuda_array_interface__` (version 2 or later: CuPy, PyTorch, Numba, JAX), or
through DLPack alone. Nothing here reads or writes their numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from . import _core, cuda_library
from .arrays import is_on_device
from .errors import describe

LEGACY_STREAM = 1  # CUDA's default stream, in DLPack and in the array interface


class View(NamedTuple):
    """An array on a device: where it lies; strides count elements."""

    pointer: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype[Any]
    read_only: bool
    stream: int | None  # None: nothing to wait for
    owner: Any  # keeps the memory alive

    @property
    def rows_are_dense(self) -> bool:
        """Whether the elements of a row lie side by side."""
        return not self.shape or self.shape[-1] <= 1 or self.strides[-1] == 1

    @property
    def is_contiguous(self) -> bool:
        """Whether it is without gaps, in C's order."""
        if 0 in self.shape:
            return True
        dense = dense_strides(self.shape)
        places = zip(self.shape, self.strides, dense, strict=True)
        return all(n == 1 or stride == wanted for n, stride, wanted in places)

    def span(self) -> tuple[int, int]:
        """First byte, and one past the last."""
        if 0 in self.shape:
            return self.pointer, self.pointer
        steps = [(n - 1) * stride for n, stride in zip(self.shape, self.strides, strict=True)]
        low, high = sum(s for s in steps if s < 0), sum(s for s in steps if s > 0)
        size = self.dtype.itemsize
        return self.pointer + low * size, self.pointer + (high + 1) * size


def view(name: str, value: Any) -> View:
    """A view of real numbers of any dtype and layout.

    Raises TypeError for another kind, a mask, or other numbers; ValueError where elements are not
    aligned.
    """
    interface, owner = _interface(name, value)
    order, kind = interface["typestr"][0], interface["typestr"][1:]
    if kind[0] not in "biuf" or order == ">" or kind in ("f16", "f1"):
        raise TypeError(
            f"{name} has dtype {interface['typestr']!r}; expected bools, integers or floats of up "
            "to 64 bits: convert it, for example to float32"
        )
    return _strided(name, interface, np.dtype(kind), owner)


def float_view(name: str, value: Any) -> View:
    """The same of float32 or float64."""
    interface, owner = _interface(name, value)
    order, kind = interface["typestr"][0], interface["typestr"][1:]
    if kind not in ("f4", "f8") or order == ">":
        raise TypeError(
            f"{name} has dtype {interface['typestr']!r}; expected float32 or float64: convert it "
            "with .astype"
        )
    return _strided(name, interface, np.dtype(kind), owner)


def _interface(name: str, value: Any) -> tuple[dict[str, Any], Any]:
    if not is_on_device(value):
        raise TypeError(
            f"{name} is on no GPU, but another argument is; got {describe(value)}: copy it"
        )
    if not hasattr(type(value), "__cuda_array_interface__"):
        return _by_dlpack(name, value)
    interface: dict[str, Any] = value.__cuda_array_interface__
    if interface["version"] < 2:
        raise TypeError(
            f"{name} has __cuda_array_interface__ of version {interface['version']}; expected 2 or "
            "later: update the library that it comes from"
        )
    if interface.get("mask") is not None:
        raise TypeError(f"{name} is a masked array, and masks are not supported")
    return interface, value


def _by_dlpack(name: str, value: Any) -> tuple[dict[str, Any], Any]:
    """As __cuda_array_interface__ has it; the array is ready for the default stream."""
    core_is_ready()
    try:
        try:
            capsule = value.__dlpack__(stream=LEGACY_STREAM, max_version=(1, 0))
        except TypeError:  # it knows no versions
            capsule = value.__dlpack__(stream=LEGACY_STREAM)
        interface, owner, _ = _core.cuda_dlpack_view(capsule)
    except (BufferError, RuntimeError, TypeError) as error:
        raise TypeError(f"{name} does not hand over its memory by DLPack: {error}") from error
    return {**interface, "stream": LEGACY_STREAM}, owner


def _strided(name: str, interface: dict[str, Any], dtype: np.dtype[Any], owner: Any) -> View:
    shape = tuple(interface["shape"])
    pointer, read_only = interface["data"]
    steps, size = interface.get("strides"), dtype.itemsize
    if 0 not in shape and (pointer % size or any(step % size for step in steps or ())):
        raise ValueError(f"{name} is not aligned to its elements of {size} bytes: pass a copy")
    strides = dense_strides(shape) if steps is None else tuple(step // size for step in steps)
    stream = interface.get("stream")
    return View(pointer or 0, shape, strides, dtype, bool(read_only), stream, owner)


def dense_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Those of a contiguous array."""
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step)
        step *= n
    return tuple(reversed(strides))


def require_device(name: str, one: View, device: int) -> None:
    """Raises ValueError unless the memory is that of the device of this number."""
    if 0 in one.shape:
        return
    there = _core.cuda_device_of(one.pointer)
    if there != device:
        where = f"on GPU {there}" if there >= 0 else "in no GPU's memory"
        raise ValueError(
            f"{name} lies {where}, and the model is on GPU {device}: copy it there, or compile "
            f"with device='cuda:{max(there, 0)}'"
        )


def empty_like(like: Any, shape: Sequence[int], dtype: np.dtype[Any]) -> Any:
    """A new array of the kind of `like`. Raises TypeError for a kind that cannot be made."""
    if hasattr(like, "new_empty"):  # PyTorch
        if _torch_name(like.dtype) == dtype.name:
            return like.new_empty(tuple(shape))
        import torch

        return like.new_empty(tuple(shape), dtype=getattr(torch, dtype.name))
    if _is_of("cupy", like):  # whose arrays name no namespace
        import cupy

        with like.device:
            return cupy.empty(tuple(shape), dtype)
    if hasattr(like, "__array_namespace__"):  # others that follow the array API standard
        space = like.__array_namespace__()
        named = like.dtype if like.dtype == dtype else getattr(space, dtype.name, dtype)
        return space.empty(tuple(shape), dtype=named)
    raise TypeError(
        f"fastbp cannot make an array of the kind {type(like).__name__}: pass one for the result "
        "as out="
    )


def _is_of(package: str, value: Any) -> bool:
    return any(cls.__module__.partition(".")[0] == package for cls in type(value).__mro__)


def _torch_name(dtype: Any) -> str:
    return str(dtype).rpartition(".")[2]


def stream_of(views: Sequence[View]) -> int:
    """The stream to work on: the first that an array names; the others are waited for."""
    core_is_ready()
    named = [one.stream for one in views if one.stream is not None]
    chosen = named[0] if named else 0
    for other in set(named) - {chosen}:
        _core.cuda_synchronize(other)
    return chosen


def core_is_ready() -> None:
    """Loads the CUDA library where nobody has."""
    if not _core.cuda_library_path():
        cuda_library.open_device(0)
