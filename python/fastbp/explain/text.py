"""Numbers, rows and sums as text of at most WIDTH columns; what is long is cut, and says so."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import numpy as np

from ..arrays import Array

SHOWN = 6  # terms of a sum, and units, columns and rows of a matrix, that are written out
WIDTH = 100


def number(value: float) -> str:
    return f"{value:.7g}"


def row(values: Array) -> str:
    """A vector, or a number."""
    if np.ndim(values) == 0:
        return number(float(values))
    shown = ", ".join(number(value) for value in values[:SHOWN])
    return f"[{shown}{', ...' if len(values) > SHOWN else ''}]"


def products(left: Array, right: Array) -> list[str]:
    pairs = zip(left[:SHOWN], right[:SHOWN], strict=True)
    return [f"{number(a)}*{number(b)}" for a, b in pairs]


def total(terms: list[str], count: int, what: str = "products") -> str:
    """Terms with plus signs; says how many of `count` are left out, and what they are."""
    left_out = [f"({count - SHOWN} more {what})"] if count > SHOWN else []
    return " + ".join([*terms[:SHOWN], *left_out, *terms[SHOWN:]])


def sum_of_products(left: Array, right: Array, *more: float) -> str:
    """left . right, and more terms behind."""
    return total([*products(left, right), *map(number, more)], len(left))


def rest(count: int, what: str, shown: int = SHOWN) -> list[str]:
    return [f"  ... and {count - shown} more {what}"] if count > shown else []


def ends(count: int) -> list[int | None]:
    """Which of so many steps or rows are shown: all of up to 4; else the first two, None for the
    gap, and the last two."""
    return list(range(count)) if count <= 4 else [0, 1, None, count - 2, count - 1]


def gap(count: int, what: str) -> str:
    """What stands for the None of `ends`."""
    left_out = f"{what} 3 is" if count == 5 else f"{what}s 3 to {count - 2} are"
    return f"  ... {left_out} left out ..."


def each(label: str, values: Array, what: str) -> list[str]:
    """A line for one row; of several one for each that is shown."""
    if np.ndim(values) < 2:
        return [f"  {label} = {row(values)}"]
    return [
        gap(len(values), what) if k is None else f"  {what} {k + 1}: {label} = {row(values[k])}"
        for k in ends(len(values))
    ]


def wrapped(lines: Iterable[str]) -> Iterator[str]:
    """The lines, those that are too long broken behind a comma, a sign or a gap."""
    for line in lines:
        indent = " " * (len(line) - len(line.lstrip()) + 4)
        while len(line) > WIDTH:
            cuts = [at for at in _breaks(line) if len(indent) < at <= WIDTH]
            if not cuts:
                break
            yield line[: cuts[-1]].rstrip()
            line = indent + line[cuts[-1] :].lstrip()
        yield line


def _breaks(line: str) -> list[int]:
    """Where a line may be broken, in order."""
    return [mark.end() for mark in re.finditer(r"(?<=[,;]) | \+ |   ", line)]
