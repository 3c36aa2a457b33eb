"""Activations and losses of your own: Python functions on arrays.

The engines call them in the middle of their steps, once for a whole batch, by the thread that
called fit, while all else waits; the rest is as compiled as ever. A function gets and returns
float64 NumPy arrays, whatever the model's dtype and device: device="cuda" copies them to the host
and back, and has the bits of the processor. In networks of sequences a function is called for up to
32 sequences of a batch at a time, and on the processor one thread does all the work. Everything
else is as always: fit, callbacks, exact resume within the process, weights, schedules. A function
must not use the model that it is part of. Model files hold no code, so such a model cannot be
saved; its parameters can (model.parameters()).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .arrays import Array
from .errors import describe
from .layers import Activation
from .losses import Loss, Traits

Function = Callable[[Array], Any]


class CustomActivation(Activation):
    """y = forward(z), elementwise, by a function of your own.

        def softsign(z):
            return z / (1 + np.abs(z))

        def slope(z):
            return 1 / (1 + np.abs(z)) ** 2

        Dense(32, activation=CustomActivation(softsign, slope))

    Args:
        forward: takes z, float64 of shape (n, columns) (of sequences (n, steps, columns)),
            read-only, and returns y of that shape.
        derivative: takes the same z and returns dy/dz, of that shape.

    Training raises ValueError where a function returns another shape, or NaN for a finite z,
    TypeError for what are no numbers; what a function raises passes through. The model stays as the
    last step left it.
    """

    def __init__(self, forward: Function, derivative: Function) -> None:
        _require_function("forward", forward)
        _require_function("derivative", derivative)
        self._set(name=_name(forward), param=0.0, forward=forward, derivative=derivative)

    forward: Function
    derivative: Function

    def specs(self) -> list[tuple[Any, ...]]:
        from .reference.activations import Activation as Entry

        def called(function: Function) -> Callable[[Array, float], Array]:
            return lambda z, _: _checked(_name(function), function(_read_only(z)), z.shape, z)

        return [("activation", Entry(called(self.forward), called(self.derivative)), 0.0)]

    def config(self) -> dict[str, Any]:
        """The constructor arguments by name."""
        return {"forward": self.forward, "derivative": self.derivative}

    @classmethod
    def packed_class(cls) -> str:
        raise ValueError(_not_kept("an activation"))

    def __repr__(self) -> str:
        return f"CustomActivation({_name(self.forward)}, {_name(self.derivative)})"

    __hash__ = Activation.__hash__


class CustomLoss(Loss):
    """A loss by a function of your own: compile(loss=CustomLoss(function)).

        def log_cosh(y, t):
            return np.log(np.cosh(y - t)), np.tanh(y - t)

    Args:
        function: takes the outputs y and the targets t, float64 (n, outputs), read-only; of outputs
            at every step, the steps that count are rows, in any order. It returns the losses, of
            the shape of y or one for each row (n,), and their gradient by y, of the shape of y. The
            loss of a batch is the mean of the losses, of rows with weights the weighted one; the
            mean's factor is not a part of the gradient returned.

    Targets are numbers, (n, outputs) or (n,) for one output; metrics are as with "mse". Training
    raises ValueError where the function returns another shape, or NaN for finite outputs, TypeError
    for what are no numbers; what it raises passes through. The model stays as the last step left
    it.
    """

    function: Callable[[Array, Array], Any]

    def __init__(self, function: Callable[[Array, Array], Any]) -> None:
        _require_function("function", function)
        self._set(name=_name(function), param=0.0, function=function)

    @property
    def kernel(self) -> Any:
        from .reference.losses import Loss as Entry

        def elements(y: Array, t: Array, _: float, __: Any) -> tuple[Array, Array]:
            found = self.function(_read_only(y), _read_only(t))
            if not isinstance(found, tuple) or len(found) != 2:
                raise TypeError(
                    f"the loss {self.name} must return (losses, gradient); got {describe(found)}"
                )
            gradient = _checked(f"{self.name}'s gradient", found[1], y.shape, y)
            if np.ndim(found[0]) == 1:
                return _checked(self.name, found[0], y.shape[:1], y.sum(axis=1)), gradient
            return _checked(self.name, found[0], y.shape, y), gradient

        return Entry(elements)

    @property
    def traits(self) -> Traits:
        return Traits()

    @property
    def targets(self) -> tuple[float, float]:
        return -np.inf, np.inf

    def config(self) -> dict[str, object]:
        return {"function": self.function}

    @classmethod
    def packed_class(cls) -> str:
        raise ValueError(_not_kept("a loss"))

    def __repr__(self) -> str:
        return f"CustomLoss({self.name})"


def _require_function(name: str, value: object) -> None:
    if not callable(value):
        raise TypeError(f"{name} must be a function; got {describe(value)}")


def _name(function: Any) -> str:
    return str(getattr(function, "__name__", type(function).__name__))


def _not_kept(what: str) -> str:
    return (
        f"the model has {what} that is a Python function, and model files hold no code: keep "
        "model.parameters(), and set_parameters in a model made by the same program"
    )


def _read_only(array: Array) -> Array:
    view = array.view()
    view.flags.writeable = False
    return view


def _checked(name: str, value: Any, shape: tuple[int, ...], given: Array) -> Array:
    """What a function returned for `given`, as float64 of that shape."""
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} must return numbers; got {describe(value)}")
    if array.shape != shape:
        raise ValueError(f"{name} must return shape {shape}; got {array.shape}")
    array = array.astype(np.float64)
    if np.isnan(array).any():
        wrong = np.argwhere(np.isnan(array) & np.isfinite(given))
        if wrong.size:
            row, *column = wrong[0]
            place = "".join(f", column {at}" for at in column[-1:])
            raise ValueError(
                f"{name} returned NaN for finite values, first in row {row} of the batch{place}: "
                "keep it within its domain, for example by np.maximum(z, 1e-12) before a log"
            )
    return array
