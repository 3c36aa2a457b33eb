"""The functional layer: the same names and signatures as fastbp.ops, in NumPy.

Arrays are float32 or float64; the result has the dtype of the inputs (float64 if they are mixed),
is computed in float64 and rounded once. `out=` is written and returned. Besides what is written
here there is, for every entry of ACTIVATIONS, LOSSES and OPTIMIZERS,

    <activation>(x, out=None)               with its parameter, if any: elu(x, alpha=1.0)
    <loss>(y, t) -> (loss, dy)              with its parameter, if any: huber(y, t, delta=1.0)
    <optimizer>_update(w, g, <states>, *, <hyper-parameters>)     changes w and the states in place
"""

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from . import losses, special
from .activations import ACTIVATIONS, Activation
from .arrays import F64, Array, as_float64, result_dtype, rounded
from .bfloat16 import round_to_bfloat16
from .losses import LOSSES, Loss
from .optimizers import OPTIMIZERS, Optimizer

quiet = np.errstate(all="ignore")  # NaN and infinity are values here, not events


def find_activation(name: str | Activation | None) -> Activation:
    """The entry of that name, or itself; None is the identity. ValueError names the choices."""
    if isinstance(name, Activation):
        return name
    try:
        return ACTIVATIONS[name or "identity"]
    except KeyError:
        choices = ", ".join(ACTIVATIONS)
        raise ValueError(f"unknown activation {name!r}; choose one of: {choices}") from None


@quiet
def matmul(
    a: ArrayLike,
    b: ArrayLike,
    *,
    transpose_a: bool = False,
    transpose_b: bool = False,
    bias: ArrayLike | None = None,
    activation: str | None = None,
    precision: str | None = None,
    out: Array | None = None,
) -> Array:
    """activation(a @ b + bias), as numpy.matmul: (..., m, k), (..., k, n) -> (..., m, n).

    Leading axes broadcast; a 1-D operand is a row on the left, a column on the right. Transposing
    swaps the last two axes of an operand that has them. bias has shape (n,). precision "bfloat16"
    rounds a and b, of float32, to bfloat16 first.
    """
    dtype = result_dtype(a, b, *([] if bias is None else [bias]))
    a64, b64 = as_float64(a), as_float64(b)
    if transpose_a and a64.ndim > 1:
        a64 = a64.swapaxes(-1, -2)
    if transpose_b and b64.ndim > 1:
        b64 = b64.swapaxes(-1, -2)
    if precision is not None:
        _check_precision(precision, dtype)
        a64, b64 = round_to_bfloat16(a64), round_to_bfloat16(b64)
    entry = find_activation(activation)
    return rounded(entry.forward(_affine(a64, b64, bias), entry.default_param), dtype, out)


def _check_precision(precision: str, dtype: np.dtype[Any]) -> None:
    if precision != "bfloat16":
        raise ValueError(f"precision must be None or 'bfloat16'; got {precision!r}")
    if dtype != np.float32:
        raise TypeError(f"precision 'bfloat16' takes float32 arrays; these give {dtype}")


def _affine(a: F64, b: F64, bias: ArrayLike | None) -> F64:
    """a @ b + bias."""
    z = as_float64(np.matmul(a, b))
    if bias is None:
        return z
    columns = b.shape[-1:] if b.ndim > 1 else ()
    if np.shape(bias) != columns:
        raise ValueError(f"bias has shape {np.shape(bias)}, expected {columns}")
    return z + as_float64(bias)


@quiet
def dense_forward(
    x: ArrayLike,
    kernel: ArrayLike,
    bias: ArrayLike | None = None,
    activation: str | None = None,
    *,
    param: float | None = None,
) -> tuple[Array, Array]:
    """y = f(x kernel + bias) and what dense_backward needs to know of it, here always z.

    x (n, inputs), kernel (inputs, units), bias (units,) -> y, saved (n, units).
    """
    _check_dense(np.shape(x), np.shape(kernel))
    dtype = result_dtype(x, kernel, *([] if bias is None else [bias]))
    entry = find_activation(activation)
    z = _affine(as_float64(x), as_float64(kernel), bias)
    return rounded(entry.forward(z, _param(entry, param)), dtype), rounded(z, dtype)


@quiet
def dense_backward(
    x: ArrayLike,
    kernel: ArrayLike,
    saved: ArrayLike,
    dy: ArrayLike,
    activation: str | None = None,
    *,
    param: float | None = None,
    use_bias: bool = True,
    input_gradient: bool = True,
) -> tuple[Array | None, Array, Array | None]:
    """The gradients (dx, dkernel, dbias) of dense_forward, in its shapes; None where not wanted.

    dz = dy f'(z);  dx = dz kernel^T, dkernel = x^T dz, dbias = sum of dz's rows.
    """
    _check_dense(np.shape(x), np.shape(kernel))
    dtype = result_dtype(x, kernel, dy)
    x64, kernel64, dz = as_float64(x), as_float64(kernel), as_float64(dy)
    if dz.shape != (len(x64), kernel64.shape[1]):
        raise ValueError(f"dy has shape {dz.shape}, expected {(len(x64), kernel64.shape[1])}")
    entry = find_activation(activation)
    if entry is not ACTIVATIONS["identity"]:
        dz = dz * entry.derivative(as_float64(saved), _param(entry, param))
    dx = rounded(dz @ kernel64.T, dtype) if input_gradient else None
    dbias = rounded(dz.sum(axis=0), dtype) if use_bias else None
    return dx, rounded(x64.T @ dz, dtype), dbias


def _check_dense(x: tuple[int, ...], kernel: tuple[int, ...]) -> None:
    if len(x) != 2 or len(kernel) != 2 or x[1] != kernel[0]:
        raise ValueError(f"expected x (n, inputs) and kernel (inputs, units), got {x} and {kernel}")


def _param(entry: Activation | Loss, param: float | None) -> float:
    return entry.default_param if param is None else float(param)


@quiet
def activation_forward(
    name: str | None, x: ArrayLike, *, param: float | None = None, out: Array | None = None
) -> Array:
    """y = f(x), elementwise."""
    entry = find_activation(name)
    return rounded(entry.forward(as_float64(x), _param(entry, param)), result_dtype(x), out)


@quiet
def activation_backward(
    name: str | None,
    dy: ArrayLike,
    *,
    z: ArrayLike | None = None,
    y: ArrayLike | None = None,
    param: float | None = None,
    out: Array | None = None,
) -> Array:
    """dz = dy f'(z), from z if it is given, otherwise from y = f(z) where y determines f'(z)."""
    entry = find_activation(name)
    value = _param(entry, param)
    if z is not None:
        saved, derivative = z, entry.derivative
    elif y is None:
        raise ValueError("activation_backward needs z or y")
    elif entry.derivative_from_output is not None and value >= 0:
        saved, derivative = y, entry.derivative_from_output
    else:
        raise ValueError(f"the derivative of {name} with parameter {value} needs z, not y")
    if np.shape(saved) != np.shape(dy):
        raise ValueError(f"dy has shape {np.shape(dy)}, z or y {np.shape(saved)}: not the same")
    dz = as_float64(dy) * derivative(as_float64(saved), value)
    return rounded(dz, result_dtype(dy, saved), out)


@quiet
def softmax(x: ArrayLike, out: Array | None = None) -> Array:
    """exp(x) / sum of exp(x) over the last axis, without overflow."""
    return rounded(losses.softmax(as_float64(x)), result_dtype(x), out)


def _elementwise(function: Callable[[F64], F64], name: str) -> Callable[..., Array]:
    @quiet
    def apply(x: ArrayLike, out: Array | None = None) -> Array:
        return rounded(function(as_float64(x)), result_dtype(x), out)

    apply.__name__ = apply.__qualname__ = name
    apply.__doc__ = f"{name} of every element of x; NaN and infinity are values, not warnings."
    return apply


exp = _elementwise(np.exp, "exp")
expm1 = _elementwise(np.expm1, "expm1")
log = _elementwise(np.log, "log")
log1p = _elementwise(np.log1p, "log1p")
erf = _elementwise(special.erf, "erf")


def _function(
    name: str, doc: str | None, signature: inspect.Signature, body: Callable[[dict[str, Any]], Any]
) -> Callable[..., Any]:
    """A function with that name and signature which hands all its arguments, by name, to body."""

    @quiet
    def function(*args: Any, **kwargs: Any) -> Any:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{name}(): {error}") from None
        bound.apply_defaults()
        return body(bound.arguments)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    function.__signature__ = signature  # type: ignore[attr-defined]
    return function


_REQUIRED = inspect.Parameter.empty


def _signature(
    positional: Mapping[str, Any], keyword_only: Mapping[str, Any] | None = None
) -> inspect.Signature:
    """Parameters and defaults; _REQUIRED, or None for a keyword-only one, means there is none."""
    plain, keyword = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    parameters = [inspect.Parameter(n, plain, default=d) for n, d in positional.items()]
    for n, d in (keyword_only or {}).items():
        parameters.append(inspect.Parameter(n, keyword, default=_REQUIRED if d is None else d))
    return inspect.Signature(parameters)


def _activation_function(name: str, entry: Activation) -> Callable[..., Any]:
    parameter = {entry.parameter: entry.default_param} if entry.parameter else {}

    def body(given: dict[str, Any]) -> Array:
        param = given[entry.parameter] if entry.parameter else None
        return activation_forward(name, given["x"], param=param, out=given["out"])

    signature = _signature({"x": _REQUIRED} | parameter | {"out": None})
    return _function(name, entry.forward.__doc__, signature, body)


def _loss_function(name: str, entry: Loss) -> Callable[..., Any]:
    first, second = ("logits", "target") if entry.rows else ("y", "t")
    parameter = {entry.parameter: entry.default_param} if entry.parameter else {}

    def body(given: dict[str, Any]) -> tuple[float, Array]:
        y, target = np.asarray(given[first]), np.asarray(given[second])
        losses.check_target(y, target, name, second)
        if target.ndim == y.ndim:
            target = as_float64(target)
        param = _param(entry, given[entry.parameter] if entry.parameter else None)
        dtype = result_dtype(y)
        loss, dy = entry.value_and_gradient(as_float64(y), target, param, dtype)
        return loss, rounded(dy, dtype)

    signature = _signature({first: _REQUIRED, second: _REQUIRED} | parameter)
    return _function(name, entry.elements.__doc__, signature, body)


def _update_function(name: str, entry: Optimizer) -> Callable[..., Any]:
    step = {"step": None} if entry.uses_step else {}

    def body(given: dict[str, Any]) -> None:
        w, g = given["w"], given["g"]
        states = [given[slot] for slot in entry.slots]
        for slot, array in zip(("w", "g", *entry.slots), (w, g, *states), strict=True):
            if array.shape != w.shape or array.dtype != w.dtype:
                raise ValueError(
                    f"{slot} has shape {array.shape} and dtype {array.dtype}, "
                    f"expected {w.shape} and {w.dtype} as w"
                )
        hyper = {key: float(given[key]) for key in entry.hyper}
        new_w, new_states = entry.update(
            as_float64(w),
            as_float64(g),
            [as_float64(s) for s in states],
            hyper,
            given.get("step", 1),
        )
        for array, value in zip((w, *states), (new_w, *new_states), strict=True):
            rounded(value, result_dtype(array), array)

    signature = _signature(dict.fromkeys(("w", "g", *entry.slots), _REQUIRED), step | entry.hyper)
    return _function(f"{name}_update", entry.update.__doc__, signature, body)


_FUNCTIONS: dict[str, Callable[..., Any]] = (
    {name: _activation_function(name, entry) for name, entry in ACTIVATIONS.items()}
    | {name: _loss_function(name, entry) for name, entry in LOSSES.items()}
    | {f"{name}_update": _update_function(name, entry) for name, entry in OPTIMIZERS.items()}
)
globals().update(_FUNCTIONS)


if TYPE_CHECKING:

    def __getattr__(name: str) -> Callable[..., Any]:
        """Type checkers cannot see the functions just made."""


__all__ = [
    "activation_backward",
    "activation_forward",
    "dense_backward",
    "dense_forward",
    "erf",
    "exp",
    "expm1",
    "log",
    "log1p",
    "matmul",
    "softmax",
    *_FUNCTIONS,
]
