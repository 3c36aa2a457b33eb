"""fastbp.ops on arrays that lie on a GPU: no copies, the caller's stream, the caller's kind out.

Work is enqueued on the stream that an array's interface names, and not waited for; arrays of
another stream are waited for first. Results are made by the library that the first operand comes
from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import _core
from .device_views import View, empty_like, float_view, stream_of
from .layers import Activation
from .registry import ACTIVATIONS


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
    left, right = float_view("a", a), float_view("b", b)
    offset = None if bias is None else float_view("bias", bias)
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
    stream = stream_of([*inputs, target])
    _core.cuda_matmul(
        dtype.name, None if function is None else function.name,
        0.0 if function is None else function.param, (m, n, k),
        (left.pointer, a_row, a_col), (right.pointer, b_row, b_col),
        0 if offset is None else offset.pointer, (target.pointer, row), stream,
    )  # fmt: skip
    return result


def activation_forward(name: str, x: Any, param: float | None, out: Any) -> Any:
    """y = f(x), elementwise; x of any shape, contiguous; out may be x."""
    function, source = Activation(name, param), _contiguous("x", float_view("x", x))
    result, target = _result(x, source.shape, source.dtype, out, [source], in_place=True)
    _core.cuda_activation(
        source.dtype.name, function.name, function.param, int(np.prod(source.shape)),
        source.pointer, 0, _contiguous("out", target).pointer, stream_of([source, target]),
    )  # fmt: skip
    return result


def activation_backward(name: str, dy: Any, z: Any, y: Any, param: float | None, out: Any) -> Any:
    """dz = dy f'(z), elementwise, from what the activation saves: z, or y."""
    function = Activation(name, param)
    wanted = ACTIVATIONS[function.name]["saves"]
    given, label = (y, "y") if wanted == "output" else (z, "z")
    if given is None and wanted != "none":
        raise ValueError(f"on a GPU the derivative of {function.name!r} takes {label}")
    gradient = _contiguous("dy", float_view("dy", dy))
    inputs = [gradient]
    if wanted != "none":
        inputs.append(_contiguous(label, float_view(label, given)))
        if inputs[1].shape != gradient.shape:
            raise ValueError(f"dy has shape {gradient.shape}, but {label} has {inputs[1].shape}")
    dtype = _common_dtype(inputs)
    result, target = _result(dy, gradient.shape, dtype, out, inputs, in_place=True)
    _core.cuda_activation(
        dtype.name, function.name, function.param, int(np.prod(gradient.shape)),
        gradient.pointer, inputs[-1].pointer, _contiguous("out", target).pointer,
        stream_of([*inputs, target]),
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
        made = empty_like(like, shape, dtype)
        return made, float_view("out", made)
    target = float_view("out", out)
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
