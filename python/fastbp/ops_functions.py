"""Makes the functions of fastbp.ops that differ in a name: activations, losses, updates, maths."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any

import numpy as np

from . import _core, arrays, checks, losses, optimizers
from .arrays import Array
from .errors import describe
from .layers import Activation
from .operands import check_out, common_dtype, deliver, operand, packed
from .registry import ACTIVATIONS, LOSSES, OPTIMIZERS, PARAMETERS

Function = Callable[..., Any]

_PLAIN, _KEYWORD = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
_REQUIRED = inspect.Parameter.empty


def _named(name: str, doc: str, body: Function, *parameters: inspect.Parameter) -> Function:
    """A function of that name and signature; `body` takes all arguments by name."""
    signature = inspect.Signature(parameters)

    def function(*args: Any, **kwargs: Any) -> Any:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{name}{signature}: {error}") from None
        bound.apply_defaults()
        return body(**bound.arguments)

    function.__name__ = function.__qualname__ = name
    function.__module__ = "fastbp.ops"
    function.__doc__ = doc
    function.__signature__ = signature  # type: ignore[attr-defined]
    return function


def _quick_first(quick: Function, name: str, general: Function) -> Function:
    """`general`, but with quick(name, names of the parameters, args, kwargs) where that gives
    something else than None: binding arguments to a signature takes longer than a small kernel.
    """
    names = tuple(inspect.signature(general).parameters)

    @wraps(general)
    def function(*args: Any, **kwargs: Any) -> Any:
        result = quick(name, names, args, kwargs)
        return general(*args, **kwargs) if result is None else result

    return function


def _parameter(name: str, default: Any = _REQUIRED, kind: Any = _PLAIN) -> inspect.Parameter:
    return inspect.Parameter(name, kind, default=default)


def _elementwise(x: Any, out: Array | None, kernel: Callable[[Array, Array], object]) -> Any:
    source = operand("x", x)
    dtype = common_dtype(source)
    ready = packed(source, dtype)
    reads = [] if ready is out else [ready]
    return deliver(lambda result: kernel(ready, result), source.shape, dtype, out, reads)


def vector_function(name: str) -> Function:
    """(x, out=None) -> name(x) of every element, any shape."""

    def body(x: Any, out: Array | None) -> Any:
        return _elementwise(x, out, lambda x, y: _core.vector_math(name, x, y))

    doc = f"{name} of every element of x, any shape."
    general = _named(name, doc, body, _parameter("x"), _parameter("out", None))
    return _quick_first(_core.quick_vector_function, name, general)


def activation_function(name: str) -> Function:
    """(x, out=None), with the activation's parameter between them if it has one."""
    default = ACTIVATIONS[name]["default_param"]
    parameter = PARAMETERS.get(name, "param")

    def body(x: Any, out: Array | None, **given: float) -> Any:
        if arrays.is_on_device(x) or arrays.is_on_device(out):
            from . import device_ops  # not needed without a GPU

            return device_ops.activation_forward(name, x, given.get(parameter), out)
        function = Activation(name, given.get(parameter))
        return _elementwise(
            x, out, lambda x, y: _core.activation_forward(name, x, y, function.param)
        )

    own = [_parameter(parameter, default)] if default else []
    doc = f"The activation {name!r} of every element of x, any shape (formula: fastbp.layers)."
    general = _named(name, doc, body, _parameter("x"), *own, _parameter("out", None))
    return _quick_first(_core.quick_activation, name, general)


def loss_function(name: str) -> Function:
    """(y, t) -> (loss, dy), with the loss's parameter as a third argument if it has one."""
    default, parameter = LOSSES[name]["default_param"], LOSSES[name]["parameter"]
    numbers = losses.Loss(name).traits.class_numbers
    first, second = ("logits", "target") if numbers else ("y", "t")

    def body(**given: Any) -> tuple[float, Array]:
        loss = losses.Loss(name, given.get(parameter))
        y = operand(first, given[first])
        dtype = common_dtype(y)
        outputs, target = packed(y, dtype), operand(second, given[second])
        if y.size == 0:
            raise ValueError(f"the loss of nothing is undefined; {first} has shape {y.shape}")
        if numbers:
            target = _row_target(first, y, second, target, dtype)
        else:
            if target.shape != y.shape:
                raise ValueError(
                    f"{second} has shape {target.shape}; expected {y.shape}, as {first}"
                )
            target = packed(target, dtype)
            outputs = outputs.reshape(-1, y.shape[-1] if y.ndim > 1 else 1)
            target = target.reshape(outputs.shape)
            arrays.check_range(second, target, loss)
        gradient = np.empty(outputs.shape, dtype)
        value = _core.loss(name, outputs, target, gradient, loss.param)
        return value, gradient.reshape(y.shape)

    own = [_parameter(parameter, default)] if parameter else []
    doc = (
        f"The loss {name!r} and its gradient: ({first}, {second}) -> (loss, d{first}).\n\n"
        f"The loss is a float; the gradient has the shape and dtype of {first}. "
        + (
            "logits is (n, classes); target class numbers (n,) or rows (n, classes)."
            if numbers
            else f"{second} has the shape of {first}, any."
        )
    )
    general = _named(name, doc, body, _parameter(first), _parameter(second), *own)
    return _quick_first(_core.quick_loss, name, general)


def _row_target(
    first: str, logits: Array, second: str, target: Array, dtype: np.dtype[Any]
) -> Array:
    """The target of a row loss: int64 (n,) or rows of `dtype`."""
    if logits.ndim != 2:
        raise ValueError(f"{first} must have shape (rows, classes); got shape {logits.shape}")
    rows, classes = logits.shape
    if target.shape == (rows,):
        return arrays.class_numbers(target, classes, second)
    if target.shape != (rows, classes):
        raise ValueError(
            f"{second} must be class numbers ({rows},) or rows ({rows}, {classes}); got "
            f"shape {target.shape}"
        )
    return packed(target, dtype)


def update_function(name: str) -> Function:
    """(w, g, *states, hyper-parameters by keyword): one optimizer step in place."""
    entry = OPTIMIZERS[name]
    slots = [f"state_{slot}" for slot in range(entry["slots"])]
    slots = {1: ["s" if "momentum" in entry["hyper"] else "v"], 2: ["m", "v"]}.get(
        len(slots), slots
    )
    counts_steps = "beta_1" in entry["hyper"]  # the bias correction of adam and adamw
    defaults = optimizers.kernel_defaults(name)

    def body(w: Any, g: Any, step: int = 1, **given: Any) -> None:
        states = {slot: given.pop(slot) for slot in slots}
        hyper = {key: optimizers.check_hyper(key, value) for key, value in given.items()}
        step = checks.integer("step", step)
        _update(name, {"w": w, **states}, g, hyper, step)

    step_keyword = [_parameter("step", kind=_KEYWORD)] if counts_steps else []
    keywords = [_parameter(key, defaults.get(key, _REQUIRED), _KEYWORD) for key in entry["hyper"]]
    arrays = [_parameter(key) for key in ("w", "g", *slots)]
    doc = (
        f"One step of {name!r} in place: changes w{''.join(f' and {slot}' for slot in slots)} "
        "(formula: fastbp.optimizers).\n\n"
        "All arrays have one shape and one dtype, float32 or float64; g is not changed."
        + (" step is 1 for the first step." if counts_steps else "")
    )
    general = _named(f"{name}_update", doc, body, *arrays, *step_keyword, *keywords)
    spec = _specs(name, inspect.Signature(keywords))

    @wraps(general)
    def function(*args: Any, **kwargs: Any) -> None:
        hyper = dict(kwargs)
        step = hyper.pop("step", None) if counts_steps else 1
        try:
            done = _core.quick_update(args, spec(**hyper), step)
        except (TypeError, ValueError):  # the general path says it with the right names
            done = None
        if not done:
            general(*args, **kwargs)

    return function


def _specs(name: str, signature: inspect.Signature) -> Callable[..., object]:
    """From hyper-parameters to what quick_update takes; values that were checked are remembered."""

    @lru_cache(maxsize=64, typed=True)
    def spec(**given: Any) -> object:
        bound = signature.bind(**given)
        bound.apply_defaults()
        hyper = {key: optimizers.check_hyper(key, value) for key, value in bound.arguments.items()}
        return _core.optimizer_spec(name, hyper)

    return spec


def _update(
    name: str, changed: dict[str, Any], gradient: Any, hyper: dict[str, float], step: int
) -> None:
    """Updates the arrays of `changed`, w and then the states; through copies where needed."""
    w = changed["w"]
    if not isinstance(w, np.ndarray):
        raise TypeError(f"w must be a NumPy array, which is changed in place; got {describe(w)}")
    dtype = np.dtype(w.dtype)
    if dtype not in (np.float32, np.float64):
        raise TypeError(
            f"w has dtype {dtype.str!r}; expected float32 or float64 in native byte order"
        )
    for slot, array in changed.items():
        check_out(array, w.shape, dtype, slot)
    g = operand("g", gradient)
    if g.shape != w.shape or common_dtype(g) != dtype:
        raise ValueError(f"g has shape {g.shape} and dtype {g.dtype}; w has {w.shape} and {dtype}")
    places = list(changed.values())
    for position, one in enumerate(places):
        if any(np.may_share_memory(one, other) for other in places[position + 1 :]):
            raise ValueError(f"{', '.join(changed)} overlap in memory; each needs its own")
    g = packed(g, dtype)
    if any(np.may_share_memory(g, place) for place in places):
        g = g.copy()
    flat = [packed(place, dtype).reshape(-1) for place in places]
    _core.update(name, flat[0], g.reshape(-1), flat[1:], hyper, step)
    for place, values in zip(places, flat, strict=True):
        if not np.may_share_memory(place, values):  # a copy had to be made
            place[...] = values.reshape(place.shape)
