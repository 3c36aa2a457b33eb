"""Learning-rate schedules: what an optimizer takes in the place of a number.

    Adam(CosineDecay(1e-3, decay_steps=10_000, warmup_steps=500))

A schedule is a function of the number of updates done since the model was compiled, 0 at the first
one, evaluated inside the engine: `schedule(1000)` gives the rate of update 1001. A model file keeps
it. Any Python function of that number does too, at the price of a call for each step, and without
being kept in files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from . import checks
from .errors import describe
from .spec import Spec, unpack

if TYPE_CHECKING:
    from .reference.schedules import Piece

_rate = partial(checks.real, low=0)
_positive = partial(checks.real, low=0, open_low=True)


def _piece(start: int, form: str, first: float, **numbers: float) -> Piece:
    from .reference.schedules import FORMS, Piece  # not loaded with the package

    return Piece(start, list(FORMS).index(form), first, **numbers)


def table(start: int, rates: Sequence[float]) -> list[Piece]:
    """Pieces for given rates from `start` updates on."""
    from .reference.schedules import TABLE, Piece

    before = [_piece(0, "constant", rates[0])] if start else []
    return [*before, Piece(start, TABLE, 0.0)]


class Schedule(Spec):
    """Base of the schedules; equal arguments make equal ones."""

    def pieces(self) -> list[Piece]:
        """The schedule as the engine takes it, in pieces of a few forms."""
        raise NotImplementedError

    def __call__(self, step: int) -> float:
        """The learning rate of the update that follows `step` others."""
        from .reference.schedules import rate

        return rate(self.pieces(), checks.integer("step", step, 0))


class ExponentialDecay(Schedule):
    """initial_learning_rate * decay_rate^(step / decay_steps).

    With staircase=True the exponent is rounded down, so that the rate falls every decay_steps.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        decay_rate: float,
        staircase: bool = False,
    ) -> None:
        self._set(
            initial_learning_rate=_rate("initial_learning_rate", initial_learning_rate),
            decay_steps=checks.integer("decay_steps", decay_steps),
            decay_rate=_positive("decay_rate", decay_rate),
            staircase=checks.boolean("staircase", staircase),
        )

    def pieces(self) -> list[Piece]:
        own = self.config()
        form = "staircase" if own["staircase"] else "exponential"
        numbers = {"length": own["decay_steps"], "ratio": own["decay_rate"]}
        return [_piece(0, form, own["initial_learning_rate"], **numbers)]


class StepDecay(Schedule):
    """initial_learning_rate, times `factor` every step_size updates (PyTorch's StepLR)."""

    def __init__(self, initial_learning_rate: float, step_size: int, factor: float = 0.1) -> None:
        self._set(
            initial_learning_rate=_rate("initial_learning_rate", initial_learning_rate),
            step_size=checks.integer("step_size", step_size),
            factor=_positive("factor", factor),
        )

    def pieces(self) -> list[Piece]:
        own = self.config()
        numbers = {"length": own["step_size"], "ratio": own["factor"]}
        return [_piece(0, "staircase", own["initial_learning_rate"], **numbers)]


class CosineDecay(Schedule):
    """From initial_learning_rate along half a cosine to `alpha` of it after decay_steps updates.

    Loshchilov and Hutter 2016. With warmup_steps the rate first rises in a straight line, from 0 to
    initial_learning_rate, and the decay begins after them.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        alpha: float = 0.0,
        warmup_steps: int = 0,
    ) -> None:
        self._set(
            initial_learning_rate=_rate("initial_learning_rate", initial_learning_rate),
            decay_steps=checks.integer("decay_steps", decay_steps),
            alpha=checks.real("alpha", alpha, 0, 1),
            warmup_steps=checks.integer("warmup_steps", warmup_steps, 0),
        )

    def pieces(self) -> list[Piece]:
        own = self.config()
        top, warmup = own["initial_learning_rate"], own["warmup_steps"]
        decay = _piece(warmup, "cosine", top, last=top * own["alpha"], length=own["decay_steps"])
        return [*_rise(0.0, top, warmup), decay]


class LinearDecay(Schedule):
    """From initial_learning_rate in a straight line to end_learning_rate after decay_steps."""

    def __init__(
        self, initial_learning_rate: float, decay_steps: int, end_learning_rate: float = 0.0
    ) -> None:
        self._set(
            initial_learning_rate=_rate("initial_learning_rate", initial_learning_rate),
            decay_steps=checks.integer("decay_steps", decay_steps),
            end_learning_rate=_rate("end_learning_rate", end_learning_rate),
        )

    def pieces(self) -> list[Piece]:
        first, length, last = self.config().values()
        return [_piece(0, "linear", first, last=last, length=length)]


class PiecewiseConstant(Schedule):
    """values[0] for the first boundaries[0] updates, values[1] up to boundaries[1], and so on."""

    def __init__(self, boundaries: Sequence[int], values: Sequence[float]) -> None:
        for name, given in (("boundaries", boundaries), ("values", values)):
            if not hasattr(given, "__len__") or isinstance(given, str):
                raise TypeError(f"{name} must be a list of numbers; got {describe(given)}")
        edges = [checks.integer("boundaries", edge) for edge in boundaries]
        if any(b <= a for a, b in pairwise(edges)):
            raise ValueError(f"boundaries must rise; got {edges}")
        if len(values) != len(edges) + 1:
            raise ValueError(
                f"values must be one more than boundaries, {len(edges) + 1}; got {len(values)}"
            )
        # Tuples compare and hash; files give lists.
        self._set(boundaries=tuple(edges), values=tuple(_rate("values", v) for v in values))

    def pieces(self) -> list[Piece]:
        own = self.config()
        starts = (0, *own["boundaries"])
        return [
            _piece(start, "constant", value)
            for start, value in zip(starts, own["values"], strict=True)
        ]


class OneCycle(Schedule):
    """Up to max_learning_rate and down again along two half cosines (Smith and Topin 2017).

    From max_learning_rate / initial_divisor, which is reached at the last update of the first
    `warmup` of total_steps, and down to the first rate / final_divisor at the last one: PyTorch's
    OneCycleLR with its defaults. Where the rise ends between two updates it has no update at its
    top.
    """

    def __init__(
        self,
        max_learning_rate: float,
        total_steps: int,
        warmup: float = 0.3,
        initial_divisor: float = 25.0,
        final_divisor: float = 1e4,
    ) -> None:
        self._set(
            max_learning_rate=_rate("max_learning_rate", max_learning_rate),
            total_steps=checks.integer("total_steps", total_steps, 4),
            warmup=checks.real("warmup", warmup, 0, 1, open_low=True, open_high=True),
            initial_divisor=_positive("initial_divisor", initial_divisor),
            final_divisor=_positive("final_divisor", final_divisor),
        )

    def pieces(self) -> list[Piece]:
        own = self.config()
        top, last = own["max_learning_rate"], own["total_steps"] - 1
        rise = own["warmup"] * own["total_steps"] - 1
        low, begin = top / own["initial_divisor"], max(math.ceil(rise), 0)
        up = [_piece(0, "cosine", low, last=top, length=rise)] if begin > 0 else []
        fall = {"last": low / own["final_divisor"], "length": last - rise}
        return [*up, _piece(begin, "cosine", top, **fall, ahead=begin - rise)]


class WarmUp(Schedule):
    """A straight rise over `steps` updates from `start`, then another schedule, or a number.

    The schedule counts its own updates from the end of the rise, which leads to its first rate.
    """

    def __init__(self, learning_rate: float | Schedule, steps: int, start: float = 0.0) -> None:
        self._set(
            learning_rate=check("learning_rate", learning_rate, functions=False),
            steps=checks.integer("steps", steps),
            start=_rate("start", start),
        )

    def pieces(self) -> list[Piece]:
        own = self.config()
        after, steps = own["learning_rate"], own["steps"]
        if not isinstance(after, Schedule):
            return [*_rise(own["start"], after, steps), _piece(steps, "constant", after)]
        later = [piece._replace(start=piece.start + steps) for piece in after.pieces()]
        return [*_rise(own["start"], after(0), steps), *later]


def _rise(first: float, last: float, steps: int) -> list[Piece]:
    return [_piece(0, "linear", first, last=last, length=steps)] if steps else []


CLASSES: dict[str, type[Schedule]] = {
    cls.__name__: cls
    for cls in (
        ExponentialDecay,
        StepDecay,
        CosineDecay,
        LinearDecay,
        PiecewiseConstant,
        OneCycle,
        WarmUp,
    )
}


def check(name: str, value: Any, *, functions: bool = True) -> Any:
    """A learning rate: a number, at least 0, a Schedule, or its packed form, or a function."""
    if isinstance(value, Schedule) or (functions and callable(value)):
        if isinstance(value, type):
            raise TypeError(f"{name} must be an object; write {value.__name__}(...)")
        return value
    if isinstance(value, dict):
        return unpack("schedule", value, CLASSES)
    return _rate(name, value)
