"""Learning-rate schedules: the rate as a function of the updates done, in pieces.

A piece is (start, form, first, last, length, ratio, ahead) and holds from `start` updates on, until
the next one starts; x counts updates from there, and `ahead` more. FORMS is the one list of forms,
in the order of the compiled library's (csrc/ops/schedules.h); share is x / length, at most 1.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple


class Piece(NamedTuple):
    """One piece of a schedule; which numbers count depends on its form."""

    start: int
    form: int
    first: float
    last: float = 0.0
    length: float = 1.0
    ratio: float = 1.0
    ahead: float = 0.0


def _linear(p: Piece, x: float) -> float:
    """From first to last, where it stays."""
    return p.first + (p.last - p.first) * min(x / p.length, 1)


def _cosine(p: Piece, x: float) -> float:
    """From first to last along half a cosine; last beyond."""
    return p.last + (p.first - p.last) * (1 + math.cos(math.pi * min(x / p.length, 1))) / 2


def _exponential(p: Piece, x: float) -> float:
    """First ratio^(x / length)."""
    return float(p.first * p.ratio ** (x / p.length))


def _staircase(p: Piece, x: float) -> float:
    """First ratio^floor(x / length)."""
    return float(p.first * p.ratio ** int(x / p.length))


FORMS: dict[str, Callable[[Piece, float], float]] = {
    "constant": lambda p, _: p.first,
    "linear": _linear,
    "cosine": _cosine,
    "exponential": _exponential,
    "staircase": _staircase,
}
TABLE = len(FORMS)  # the form of given values, one for each x; the last one beyond their end


def rate(pieces: Sequence[Piece], updates: int, values: Sequence[float] = ()) -> float:
    """The learning rate of the update that follows `updates` others."""
    piece = [p for p in pieces if p.start <= updates][-1]
    x = updates - piece.start
    if piece.form == TABLE:
        return float(values[min(x, len(values) - 1)])
    return list(FORMS.values())[piece.form](piece, x + piece.ahead)
