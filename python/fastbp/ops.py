"""The kernels as functions on NumPy arrays.

Shapes, broadcasting and `out=` follow NumPy. Inputs are float32 or float64, in any byte order and
with any strides; bools and integers count as float64, and so does a mixture of both. float16,
complex, object and text raise TypeError. Results are float32 only where every input is. NaN and
infinity are values here: they propagate and raise nothing.

`out`, if given, must be a writeable ndarray of the result's shape and dtype, contiguous or not; it
may overlap the inputs.

matmul and the activations, with activation_backward, also take arrays that lie on a GPU, by
`__cuda_array_interface__`: of CuPy, PyTorch and others, float32 or float64. Nothing is copied; the
work is enqueued on the arrays' stream, and the result is an array of the same kind. There arrays
have one dtype, activations take contiguous ones, and `out` may be x itself but not overlap it else.

Besides what is defined below there are exp, log and the other vector functions (x, out=None), and
for every entry of fastbp.registry's ACTIVATIONS, LOSSES and OPTIMIZERS

    <activation>(x, out=None)               with its parameter, if any: elu(x, alpha=1.0, out=None)
    <loss>(y, t) -> (loss, dy)              with its parameter, if any: huber(y, t, delta=1.0)
    <optimizer>_update(w, g, <states>, *, step, <hyper-parameters>)
                                            changes w and the states in place; step for adam, adamw

fastbp.reference.ops has the same names in plain NumPy.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import _core
from .arrays import Array, is_on_device
from .errors import unknown_name
from .layers import Activation
from .operands import check_precision, common_dtype, deliver, operand, packed, strided
from .ops_functions import activation_function, loss_function, update_function, vector_function
from .registry import ACTIVATIONS, LOSSES, OPTIMIZERS

_ELEMENTWISE = ("x", "param", "out")  # the parameters that quick_activation is given


def matmul(
    a: Any,
    b: Any,
    *,
    transpose_a: bool = False,
    transpose_b: bool = False,
    bias: Any = None,
    activation: str | None = None,
    precision: str | None = None,
    out: Array | None = None,
) -> Any:
    """activation(a @ b + bias), as numpy.matmul: (..., m, k), (..., k, n) -> (..., m, n).

    Leading axes broadcast; a 1-D operand is a row on the left, a column on the right, and its axis
    is left out of the result. The transposes swap the last two axes of an operand that has two.
    bias is (n,), or one number where b is 1-D. precision="bfloat16" rounds a and b, of float32, to
    bfloat16 and sums in float32, on processors that are fast at it.

    Raises ValueError for shapes that do not fit and unknown names, TypeError for other dtypes,
    DeviceNotAvailableError for bfloat16 on another processor.
    """
    if precision is None:  # the quick way has no other
        quick = _core.quick_matmul(a, b, transpose_a, transpose_b, bias, activation, out)
        if quick is not None:
            return quick
        if is_on_device(a) or is_on_device(b) or is_on_device(out):
            return _device_ops().matmul(
                a, b, transpose_a=transpose_a, transpose_b=transpose_b, bias=bias,
                activation=activation, out=out,
            )  # fmt: skip
    left, right = operand("a", a), operand("b", b)
    offset = None if bias is None else operand("bias", bias)
    function = None if activation is None else Activation(activation)
    if left.ndim == 0 or right.ndim == 0:
        raise ValueError(
            f"matmul takes arrays with at least one axis; got shapes {left.shape} and {right.shape}"
        )
    dtype = common_dtype(left, right, *([] if offset is None else [offset]))
    if precision is not None:
        check_precision(precision, dtype)
    row, column = left.ndim == 1, right.ndim == 1
    left, right = strided(left, dtype), strided(right, dtype)
    left = left[None, :] if row else left.swapaxes(-1, -2) if transpose_a else left
    right = right[:, None] if column else right.swapaxes(-1, -2) if transpose_b else right
    m, n = left.shape[-2], right.shape[-1]
    stack = _stack_shape(left, right)
    if offset is not None:
        wanted = () if column else (n,)
        if offset.shape != wanted:
            raise ValueError(f"bias has shape {offset.shape}; expected {wanted}")
        offset = packed(offset.reshape(n), dtype)

    def fill(result: Array) -> None:
        stacked = result.reshape(*stack, m, n)
        _stacked_matmul(left, right, offset, function, stacked, precision is not None)

    shape = (*stack, *(() if row else (m,)), *(() if column else (n,)))
    reads = [left, right] if offset is None else [left, right, offset]
    return deliver(fill, shape, dtype, out, reads)


def _device_ops() -> Any:
    from . import device_ops  # not needed without a GPU

    return device_ops


def _stack_shape(left: Array, right: Array) -> tuple[int, ...]:
    if left.shape[-1] != right.shape[-2]:
        raise ValueError(
            f"a has {left.shape[-1]} columns, but b has {right.shape[-2]} rows: shapes "
            "(after transposing) are "
            f"{left.shape} and {right.shape}"
        )
    try:
        return np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    except ValueError:
        raise ValueError(
            f"the leading axes of a and b do not broadcast: shapes are {left.shape} and "
            f"{right.shape}"
        ) from None


def _stacked_matmul(
    left: Array,
    right: Array,
    bias: Array | None,
    activation: Activation | None,
    result: Array,
    bfloat16: bool,
) -> None:
    """result = activation(left @ right + bias); the operands broadcast to (..., m, n).

    result is C-contiguous. The engine takes one stacking axis with any stride, 0 for a broadcast
    operand: nothing is copied.
    """
    stack = result.shape[:-2]
    left = np.broadcast_to(left, stack + left.shape[-2:])
    right = np.broadcast_to(right, stack + right.shape[-2:])
    name, param = (None, 0.0) if activation is None else (activation.name, activation.param)
    if not stack:
        _core.matmul(left[None], right[None], bias, name, param, result[None], bfloat16)
        return
    for index in np.ndindex(stack[:-1]):
        _core.matmul(left[index], right[index], bias, name, param, result[index], bfloat16)


def activation_forward(
    name: str | None, x: Any, *, param: float | None = None, out: Array | None = None
) -> Any:
    """y = f(x), elementwise; None is the identity. Any shape."""
    name = "identity" if name is None else name
    quick = _core.quick_activation(name, _ELEMENTWISE, (x, param, out), {})
    if quick is not None:
        return quick
    if is_on_device(x) or is_on_device(out):
        return _device_ops().activation_forward(name, x, param, out)
    function = Activation(name, param)
    source = operand("x", x)
    dtype = common_dtype(source)
    ready = packed(source, dtype)

    def fill(result: Array) -> None:
        _core.activation_forward(function.name, ready, result, function.param)

    return deliver(fill, source.shape, dtype, out, [] if ready is out else [ready])


def activation_backward(
    name: str | None,
    dy: Any,
    *,
    z: Any = None,
    y: Any = None,
    param: float | None = None,
    out: Array | None = None,
) -> Any:
    """dz = dy * f'(z), elementwise, from z or, where y = f(z) tells f'(z), from y; any shape.

    Raises ValueError if neither is given, the shapes differ, or only y is given and f' needs z.
    """
    name = "identity" if name is None else name
    quick = _core.quick_activation_backward(name, dy, z, y, param, out)
    if quick is not None:
        return quick
    if is_on_device(dy) or is_on_device(out):
        return _device_ops().activation_backward(name, dy, z, y, param, out)
    function = Activation(name, param)
    given = z if z is not None else y
    if given is None:
        raise ValueError("activation_backward needs z, or y = f(z)")
    gradient, known = operand("dy", dy), operand("z" if z is not None else "y", given)
    if known.shape != gradient.shape:
        raise ValueError(
            f"dy has shape {gradient.shape}, but {'z' if z is not None else 'y'} has {known.shape}"
        )
    dtype = common_dtype(gradient, known)
    ready, saved = packed(gradient, dtype), packed(known, dtype)
    saves = ACTIVATIONS[function.name]["saves"]
    if saves == "input" and z is None:
        raise ValueError(f"the derivative of {function.name!r} needs z; got only y")
    if saves == "output" and z is not None:
        saved = np.empty_like(saved)
        _core.activation_forward(function.name, packed(known, dtype), saved, function.param)

    def fill(result: Array) -> None:
        _core.activation_backward(function.name, saved, ready, result, function.param)

    return deliver(fill, gradient.shape, dtype, out, [a for a in (ready, saved) if a is not out])


def dense_forward(
    x: Any,
    kernel: Any,
    bias: Any = None,
    activation: str | None = None,
    *,
    param: float | None = None,
) -> tuple[Array, Array]:
    """(y, saved): y = f(x @ kernel + bias), and what dense_backward needs of it, z or y.

    x (n, inputs), kernel (inputs, units), bias (units,) -> y, saved (n, units).
    """
    quick = _core.quick_dense_forward(x, kernel, bias, activation, param)
    if quick is not None:
        return quick
    _check_dense(operand("x", x), operand("kernel", kernel))
    function = Activation("identity" if activation is None else activation, param)
    z = matmul(x, kernel, bias=bias)
    saves = ACTIVATIONS[function.name]["saves"]
    y = activation_forward(function.name, z, param=param, out=None if saves == "input" else z)
    return y, z


def dense_backward(
    x: Any,
    kernel: Any,
    saved: Any,
    dy: Any,
    activation: str | None = None,
    *,
    param: float | None = None,
    use_bias: bool = True,
    input_gradient: bool = True,
) -> tuple[Array | None, Array, Array | None]:
    """(dx, dkernel, dbias) of dense_forward.

    dz = dy * f'(z); dx = dz @ kernel^T, dkernel = x^T @ dz, dbias = the sum of dz's rows. Shapes as
    in dense_forward; dx and dbias are None where not wanted.
    """
    quick = _core.quick_dense_backward(
        x, kernel, saved, dy, activation, param, use_bias, input_gradient
    )
    if quick is not None:
        return quick
    rows, weights, gradient = operand("x", x), operand("kernel", kernel), operand("dy", dy)
    _check_dense(rows, weights)
    shape = (rows.shape[0], weights.shape[1])
    if gradient.shape != shape:
        raise ValueError(f"dy has shape {gradient.shape}; expected {shape}")
    function = Activation("identity" if activation is None else activation, param)
    dtype = common_dtype(rows, weights, gradient)
    dz = packed(gradient, dtype)
    if function.name != "identity":
        known = packed(operand("saved", saved), dtype)
        if known.shape != shape:
            raise ValueError(f"saved has shape {known.shape}; expected {shape}")
        dz = np.empty(shape, dtype)
        _core.activation_backward(function.name, known, packed(gradient, dtype), dz, function.param)
    dx = matmul(dz, strided(weights, dtype), transpose_b=True) if input_gradient else None
    dbias = None
    if use_bias:
        dbias = np.empty(shape[1], dtype)
        _core.column_sum(dz, dbias)
    return dx, matmul(strided(rows, dtype), dz, transpose_a=True), dbias


def _check_dense(x: Array, kernel: Array) -> None:
    if x.ndim != 2 or kernel.ndim != 2 or x.shape[1] != kernel.shape[0]:
        raise ValueError(
            f"expected x (n, inputs) and kernel (inputs, units); got shapes {x.shape} and "
            f"{kernel.shape}"
        )


def softmax(x: Any, out: Array | None = None) -> Any:
    """exp(x) / sum of exp(x) over the last axis, without overflow; x has at least one axis."""
    quick = _core.quick_softmax(x, out)
    if quick is not None:
        return quick
    source = operand("x", x)
    if source.ndim == 0:
        raise ValueError("softmax takes an array with at least one axis; got a number")
    dtype = common_dtype(source)
    ready = packed(source, dtype)
    rows = (-1, source.shape[-1]) if source.size else (0, 1)

    def fill(result: Array) -> None:
        _core.softmax(ready.reshape(rows), result.reshape(rows))

    return deliver(fill, source.shape, dtype, out, [ready])


_FUNCTIONS = {
    **{name: vector_function(name) for name in _core.vector_functions()},
    **{name: activation_function(name) for name in ACTIVATIONS},
    **{name: loss_function(name) for name in LOSSES},
    **{f"{name}_update": update_function(name) for name in OPTIMIZERS},
}
globals().update(_FUNCTIONS)


def __getattr__(name: str) -> Any:
    """Tells type checkers of the functions made above, which are found without it."""
    raise AttributeError(str(unknown_name("function of fastbp.ops", name, __all__)))


__all__ = [
    "activation_backward",
    "activation_forward",
    "dense_backward",
    "dense_forward",
    "matmul",
    "softmax",
    *_FUNCTIONS,
]
