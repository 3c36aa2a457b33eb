"""Plain-text output: labelled lines and aligned tables, alike with and without a terminal."""

from __future__ import annotations

from collections.abc import Sequence


def line(label: str, text: str) -> None:
    """Print `text` behind a label; further lines of the text are indented alike."""
    print(f"{label:<10}" + text.replace("\n", "\n" + " " * 10), flush=True)


def table(rows: Sequence[Sequence[str]], *, indent: int = 10, left: int = 1) -> str:
    """Rows of cells as aligned columns: the first `left` ones to the left, others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(" " * indent + "  ".join(cells).rstrip())
    return "\n".join(lines)


def seconds(value: float) -> str:
    """A duration with three significant digits in a unit that fits."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value * 1e9:.3g} ns"


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
