"""Arrays on the emulated device with the surface that fastbp uses of CuPy's: no GPU is needed."""

from __future__ import annotations

import ctypes
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np

from cuda_library import Library
from sweeps import Array


class UnknownArray:
    """Device memory of its own, or a view of another array; of a kind that nobody can make."""

    library: Library  # set by the tests

    def __init__(self, host: Array, owner: UnknownArray | None = None) -> None:
        self.host = host  # for shape, strides and dtype; its values are those of the last get()
        self.owner, self.read_only, self.stream, self.version = owner, False, 1, 3
        base = owner.base if owner else host
        self.base = base
        if owner is None:
            self.memory = ctypes.c_void_p()
            self.library.check(
                self.library.api.allocate(ctypes.byref(self.memory), max(host.nbytes, 1))
            )
            copy = self.library.api.copy_to_device
            self.library.check(copy(self.memory, host.ctypes.data, host.nbytes, None))
        else:
            self.memory = owner.memory

    def __del__(self) -> None:
        if self.owner is None:
            self.library.api.release(self.memory)

    shape = property(lambda self: self.host.shape)
    dtype = property(lambda self: self.host.dtype)

    @property
    def pointer(self) -> int:
        return int(self.memory.value or 0) + self.host.ctypes.data - self.base.ctypes.data

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.host.shape,
            "typestr": self.host.dtype.str,
            "data": (self.pointer, self.read_only),
            "strides": None if self.host.flags.c_contiguous else self.host.strides,
            "version": self.version,
            "stream": self.stream,
        }

    def __array__(self, *_: Any, **__: Any) -> Array:
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")  # as CuPy says

    def __getitem__(self, index: Any) -> Any:
        return type(self)(self.host[index], self.owner or self)

    @property
    def T(self) -> Any:
        return type(self)(self.host.T, self.owner or self)

    def get(self) -> Array:
        copy = self.library.api.copy_to_host
        self.library.check(copy(self.base.ctypes.data, self.memory, self.base.nbytes, None))
        return self.host.copy()


class DeviceArray(UnknownArray):
    """One of CuPy's, which name no namespace: the module `cupy` of the tests makes others."""

    __module__ = "cupy"
    device = nullcontext()  # CuPy's makes it the current one


class StandardArray(UnknownArray):
    """One of a library that follows the array API standard."""

    def __array_namespace__(self) -> Any:
        return SimpleNamespace(empty=lambda shape, dtype: empty(shape, dtype, StandardArray))


def empty(shape: tuple[int, ...], dtype: Any, kind: Any = DeviceArray) -> Any:
    return kind(np.full(shape, np.nan, dtype))


def array(host: Array, kind: Any = DeviceArray) -> Any:
    return kind(np.ascontiguousarray(host).copy())
