"""Arrays that lie on a GPU: fastbp.ops and predict without copies, on the caller's stream, the
caller's kind out; a copy on the host for what checks values.

Arrays come through `__cuda_array_interface__` (version 2 or later: CuPy, PyTorch, Numba, JAX).
Work is enqueued on the stream that the interface names, and not waited for; arrays of another
stream are waited for first. Results are made by the library that the first operand comes from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from . import _core, cuda_library
from .arrays import Array, is_on_device
from .errors import describe
from .layers import Activation
from .registry import ACTIVATIONS

_FLOATS: dict[str, np.dtype[Any]] = {"f4": np.dtype(np.float32), "f8": np.dtype(np.float64)}


class View(NamedTuple):
    """An array on a device: where it lies; strides count elements."""

    pointer: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype[Any]
    read_only: bool
    stream: int | None  # None: nothing to wait for

    @property
    def rows_are_dense(self) -> bool:
        return not self.shape or self.shape[-1] <= 1 or self.strides[-1] == 1

    @property
    def is_contiguous(self) -> bool:
        return 0 in self.shape or self.strides == _dense_strides(self.shape)

    def span(self) -> tuple[int, int]:
        """First byte, and one past the last."""
        if 0 in self.shape:
            return self.pointer, self.pointer
        steps = [(n - 1) * stride for n, stride in zip(self.shape, self.strides, strict=True)]
        low, high = sum(s for s in steps if s < 0), sum(s for s in steps if s > 0)
        size = self.dtype.itemsize
        return self.pointer + low * size, self.pointer + (high + 1) * size


def view(name: str, value: Any) -> View:
    """Raises TypeError for another kind or dtype, ValueError for a layout that no kernel reads."""
    interface = _interface(name, value)
    order, kind = interface["typestr"][0], interface["typestr"][1:]
    if kind not in _FLOATS or order == ">":
        raise TypeError(
            f"{name} has dtype {interface['typestr']!r}; expected float32 or float64: convert it "
            "with .astype"
        )
    return _strided(name, interface, _FLOATS[kind])


def _interface(name: str, value: Any) -> dict[str, Any]:
    if not is_on_device(value):
        raise TypeError(
            f"{name} is on no GPU, but another argument is; got {describe(value)}: copy it"
        )
    interface: dict[str, Any] = value.__cuda_array_interface__
    if interface["version"] < 2:
        raise TypeError(
            f"{name} has __cuda_array_interface__ of version {interface['version']}; expected 2 or "
            "later: update the library that it comes from"
        )
    if interface.get("mask") is not None:
        raise TypeError(f"{name} is a masked array, and masks are not supported")
    return interface


def _strided(name: str, interface: dict[str, Any], dtype: np.dtype[Any]) -> View:
    shape = tuple(interface["shape"])
    pointer, read_only = interface["data"]
    steps, size = interface.get("strides"), dtype.itemsize
    if 0 not in shape and (pointer % size or any(step % size for step in steps or ())):
        raise ValueError(f"{name} is not aligned to its elements of {size} bytes: pass a copy")
    strides = _dense_strides(shape) if steps is None else tuple(step // size for step in steps)
    return View(pointer or 0, shape, strides, dtype, bool(read_only), interface.get("stream"))


def _dense_strides(shape: Sequence[int]) -> tuple[int, ...]:
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step)
        step *= n
    return tuple(reversed(strides))


def to_host(name: str, value: Any) -> Array:
    """A NumPy array with the values of an array on a GPU, of any numeric dtype, complete when it
    returns."""
    interface = _interface(name, value)
    dtype, shape = np.dtype(interface["typestr"]), tuple(interface["shape"])
    if dtype.kind not in "biuf":
        raise TypeError(f"{name} must hold real numbers; got dtype {dtype}")
    one = _strided(name, interface, dtype)
    low, high = one.span()
    memory = np.empty(high - low, np.uint8)
    stream = _stream([one])
    if memory.size:
        _core.cuda_copy_to_host(low, memory, stream)
    steps = tuple(stride * dtype.itemsize for stride in one.strides)
    offset = one.pointer - low if memory.size else 0
    return np.ndarray(shape, dtype, memory, offset, steps)


def predict(model: Any, x: Any) -> Any:
    """Sequential.predict of rows (n, inputs) on the device of a model on CUDA."""
    rows = _contiguous("X", view("X", x))
    if rows.dtype != model._dtype:
        raise TypeError(
            f"X has dtype {rows.dtype}, and the model's is {model._dtype}: convert it with .astype"
        )
    if len(rows.shape) != 2:
        raise ValueError(f"X must be 2-D, one row per sample; got shape {rows.shape}")
    inputs = model._inputs or rows.shape[1]
    if rows.shape[1] != inputs:
        raise ValueError(f"X has {rows.shape[1]} columns; the model has {inputs} inputs")
    engine = model._engine or model._build(inputs)
    shape = (rows.shape[0], model.outputs)
    result, target = _result(x, shape, rows.dtype, None, [rows], in_place=False)
    if rows.shape[0]:
        stream = _stream([rows, target])
        engine.predict_there(rows.pointer, target.pointer, rows.shape[0], stream)
    return result


def matmul(
    a: Any,
    b: Any,
    *,
    transpose_a: bool,
    transpose_b: bool,
    bias: Any,
    activation: str | None,
    out: Any,
) -> Any:
    """fastbp.ops.matmul of matrices: (m, k) @ (k, n) -> (m, n), of one dtype."""
    left, right = view("a", a), view("b", b)
    offset = None if bias is None else view("bias", bias)
    function = None if activation is None else Activation(activation)
    if len(left.shape) != 2 or len(right.shape) != 2:
        raise ValueError(
            "on a GPU matmul takes two matrices; got shapes "
            f"{left.shape} and {right.shape}: call it for each of a stack"
        )
    (m, k), (a_row, a_col) = _oriented(left, transpose_a)
    (inner, n), (b_row, b_col) = _oriented(right, transpose_b)
    if k != inner:
        raise ValueError(
            f"a has {k} columns, but b has {inner} rows, after transposing: shapes are "
            f"{left.shape} and {right.shape}"
        )
    if offset is not None and (offset.shape != (n,) or not offset.is_contiguous):
        raise ValueError(f"bias has shape {offset.shape}; expected a contiguous one of ({n},)")
    inputs = [left, right] if offset is None else [left, right, offset]
    dtype = _common_dtype(inputs)
    result, target = _result(a, (m, n), dtype, out, inputs, in_place=False)
    row = target.strides[0] if m > 1 else n
    stream = _stream([*inputs, target])
    _core.cuda_matmul(
        dtype.name, None if function is None else function.name,
        0.0 if function is None else function.param, (m, n, k),
        (left.pointer, a_row, a_col), (right.pointer, b_row, b_col),
        0 if offset is None else offset.pointer, (target.pointer, row), stream,
    )  # fmt: skip
    return result


def activation_forward(name: str, x: Any, param: float | None, out: Any) -> Any:
    """y = f(x), elementwise; x of any shape, contiguous; out may be x."""
    function, source = Activation(name, param), _contiguous("x", view("x", x))
    result, target = _result(x, source.shape, source.dtype, out, [source], in_place=True)
    _core.cuda_activation(
        source.dtype.name, function.name, function.param, int(np.prod(source.shape)),
        source.pointer, 0, _contiguous("out", target).pointer, _stream([source, target]),
    )  # fmt: skip
    return result


def activation_backward(name: str, dy: Any, z: Any, y: Any, param: float | None, out: Any) -> Any:
    """dz = dy f'(z), elementwise, from what the activation saves: z, or y."""
    function = Activation(name, param)
    wanted = ACTIVATIONS[function.name]["saves"]
    given, label = (y, "y") if wanted == "output" else (z, "z")
    if given is None and wanted != "none":
        raise ValueError(f"on a GPU the derivative of {function.name!r} takes {label}")
    gradient = _contiguous("dy", view("dy", dy))
    inputs = [gradient]
    if wanted != "none":
        inputs.append(_contiguous(label, view(label, given)))
        if inputs[1].shape != gradient.shape:
            raise ValueError(f"dy has shape {gradient.shape}, but {label} has {inputs[1].shape}")
    dtype = _common_dtype(inputs)
    result, target = _result(dy, gradient.shape, dtype, out, inputs, in_place=True)
    _core.cuda_activation(
        dtype.name, function.name, function.param, int(np.prod(gradient.shape)),
        gradient.pointer, inputs[-1].pointer, _contiguous("out", target).pointer,
        _stream([*inputs, target]),
    )  # fmt: skip
    return result


def _oriented(matrix: View, transpose: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    step = -1 if transpose else 1
    return matrix.shape[::step], matrix.strides[::step]


def _common_dtype(views: Sequence[View]) -> np.dtype[Any]:
    if len({one.dtype for one in views}) > 1:
        names = ", ".join(one.dtype.name for one in views)
        raise TypeError(f"on a GPU arrays must have one dtype; got {names}: use .astype")
    return views[0].dtype


def _contiguous(name: str, one: View) -> View:
    if not one.is_contiguous:
        raise ValueError(f"{name} is not contiguous: pass a contiguous copy")
    return one


def _result(
    like: Any,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    out: Any,
    inputs: Sequence[View],
    *,
    in_place: bool,
) -> tuple[Any, View]:
    """`out`, checked, or a new array of the kind of `like`; and its view."""
    if out is None:
        made = _empty(like, shape)
        return made, view("out", made)
    target = view("out", out)
    if target.dtype != dtype:
        raise TypeError(f"out has dtype {target.dtype}; the result has {dtype}")
    if target.shape != shape:
        raise ValueError(f"out has shape {target.shape}; the result has shape {shape}")
    if target.read_only:
        raise ValueError("out is read-only: pass an array that may be written")
    if not target.rows_are_dense:
        raise ValueError("out has gaps within its rows: pass one whose rows are contiguous")
    low, high = target.span()
    for one in inputs:
        first, end = one.span()
        same = in_place and one.pointer == target.pointer
        if first < high and low < end and not same:
            raise ValueError("out overlaps an input: pass another array")
    return out, target


def _empty(like: Any, shape: tuple[int, ...]) -> Any:
    if hasattr(like, "new_empty"):  # PyTorch
        return like.new_empty(shape)
    if hasattr(like, "__array_namespace__"):  # CuPy and others that follow the array API standard
        return like.__array_namespace__().empty(shape, dtype=like.dtype)
    raise TypeError(
        f"fastbp cannot make an array of the kind {type(like).__name__}: pass one for the result "
        "as out="
    )


def _stream(views: Sequence[View]) -> int:
    """The stream to work on: the first that an array names; the others are waited for."""
    _core_is_ready()
    named = [one.stream for one in views if one.stream is not None]
    chosen = named[0] if named else 0
    for other in set(named) - {chosen}:
        _core.cuda_synchronize(other)
    return chosen


def _core_is_ready() -> None:
    if not _core.cuda_library_path():
        cuda_library.open_device(0)
