"""Types for argparse: each says what it expected when a value does not fit. Shared options."""

from __future__ import annotations

import argparse
import csv
import io
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from ..arrays import DTYPES
from .errors import CommandError

Number = TypeVar("Number", int, float)


def add_device_and_dtype(parser: Any) -> None:
    """Of a model, to a parser or a group of one."""
    parser.add_argument("--device", default="auto", help="auto (default), cpu or reference")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="default: float32")


def positive_int(text: str) -> int:
    value = _convert(int, text, "a whole number")
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is too small: expected 1 or more")
    return value


def seed(text: str) -> int:
    value = _convert(int, text, "a whole number")
    if not 0 <= value < 2**64:
        raise argparse.ArgumentTypeError(f"{value} is out of range: expected 0 to 2**64 - 1")
    return value


def positive_float(text: str) -> float:
    value = _convert(float, text, "a number")
    if not (0 < value < math.inf):
        raise argparse.ArgumentTypeError(f"{text} is out of range: expected a number above 0")
    return value


def fraction(text: str) -> float:
    value = _convert(float, text, "a number")
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is out of range: expected 0 or more, below 1")
    return value


def file_or_share(text: str) -> str | float:
    """A share of the rows, where it is a number and there is no file of that name."""
    if Path(text).exists():
        return text
    try:
        float(text)
    except ValueError:
        return text
    return fraction(text)


def widths(text: str) -> list[int]:
    """ "64,32" as [64, 32]; "none" or nothing as []: no hidden layer."""
    if text.strip() in ("", "none"):
        return []
    return [positive_int(part) for part in text.split(",")]


def numbers(text: str) -> list[float]:
    """ "1,0.5" as [1.0, 0.5]."""
    return [_convert(float, part, "a number") for part in text.split(",")]


def rows(text: str) -> list[Any]:
    """ "1,0.5" as [1.0, 0.5]; "1,2;3,4" as a list of rows, each of as many numbers."""
    if ";" not in text:
        return numbers(text)
    found = [numbers(part) for part in text.strip("; ").split(";")]
    if len({len(row) for row in found}) > 1:
        raise argparse.ArgumentTypeError(
            f"expected as many numbers in each row, got {', '.join(str(len(r)) for r in found)}"
        )
    return found


def row_range(text: str) -> range:
    """ "3" as the row 3, "3-5" as the rows 3 to 5, counted from 1."""
    first, dash, last = text.partition("-")
    begin = positive_int(first)
    end = positive_int(last) if dash else begin
    if end < begin:
        raise argparse.ArgumentTypeError(f"expected a first row, then a later one, got {text!r}")
    return range(begin, end + 1)


def names(text: str) -> list[str]:
    """ "a,b" as ["a", "b"]; a name that has a comma stands in quotes, as in a CSV file."""
    try:
        (parts,) = csv.reader([text], skipinitialspace=True, strict=True)
    except (csv.Error, ValueError):
        raise argparse.ArgumentTypeError(f"expected names and commas, got {text!r}") from None
    return [part.strip() for part in parts if part.strip()]


def joined(parts: Iterable[str]) -> str:
    """What `names` takes apart."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(parts)
    return text.getvalue()


def delimiter(text: str) -> str:
    """One character; "tab" for the tab."""
    text = "\t" if text in ("tab", "\\t") else text
    if len(text) != 1 or text in '\r\n"':
        raise argparse.ArgumentTypeError(f"expected one character, or the word tab, got {text!r}")
    return text


def output_path(text: str) -> Path:
    """A file to be written; that its folder exists is checked before any work is done."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a folder: expected a file name")
    if not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {path.parent}")
    return path


def refuse_to_overwrite(output: Path, *inputs: object) -> None:
    """Raises CommandError where the file to be written is one of those to be read."""
    paths = [path for path in inputs if isinstance(path, str) and Path(path).exists()]
    for path in paths:
        if output.exists() and output.samefile(path):
            raise CommandError(f"--output {output} would overwrite {path}: choose another name")


def _convert(kind: type[Number], text: str, expected: str) -> Number:
    try:
        return kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}") from None
