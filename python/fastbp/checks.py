"""Checks of single numbers, switches and sizes: one rule, one message each."""

from __future__ import annotations

import math
import numbers
import operator

from .errors import describe

MAX_ROWS = 2**62
LARGEST = 2**63 - 1  # the engine's integers have 64 bits


def integer(name: str, value: object, low: int = 1, high: int | None = None) -> int:
    """`value` as an int in [low, high]. NumPy's integers count; bool and float raise TypeError."""
    number = _whole(name, value)
    if low <= number <= (LARGEST if high is None else high):
        return number
    if high is not None:
        wanted = f"from {low} to {high}"
    else:
        wanted = f"at least {low}" if number < low else "below 2**63"
    raise ValueError(f"{name} must be {wanted}; got {number}")


def _whole(name: str, value: object) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer; got {describe(value)}")
    try:
        return operator.index(value)
    except TypeError:  # an array of integers has __index__ too
        raise TypeError(f"{name} must be one integer; got {describe(value)}") from None


def batch_size(value: object) -> int:
    """Rows of a batch, at least 1; as the engine takes it, where it may exceed the rows there are.

    Raises what `integer` does.
    """
    return integer("batch_size", min(_whole("batch_size", value), MAX_ROWS))


def real(
    name: str,
    value: object,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    open_low: bool = False,
    open_high: bool = False,
) -> float:
    """`value` as a finite float in the range; an open end is excluded. bool raises TypeError."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number; got {describe(value)}")
    try:
        number = float(value)
    except OverflowError:
        raise ValueError(f"{name} is too large for a float; got {describe(value)}") from None
    above = number > low if open_low else number >= low
    below = number < high if open_high else number <= high
    if not (math.isfinite(number) and above and below):
        raise ValueError(f"{name} must be {_range(low, high, open_low, open_high)}; got {number!r}")
    return number


def boolean(name: str, value: object) -> bool:
    """`value` as a bool; NumPy's bool counts, 0 and 1 do not."""
    if type(value).__name__ not in ("bool", "bool_"):
        raise TypeError(f"{name} must be True or False; got {describe(value)}")
    return bool(value)


def _range(low: float, high: float, open_low: bool, open_high: bool) -> str:
    if math.isinf(low) and math.isinf(high):
        return "finite"
    if math.isinf(high):
        return f"finite and {'above' if open_low else 'at least'} {low:g}"
    return f"in {'(' if open_low else '['}{low:g}, {high:g}{')' if open_high else ']'}"
