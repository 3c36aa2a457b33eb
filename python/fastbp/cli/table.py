"""Reading CSV files as text cells; every fault names the file, the line and the column."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .errors import CommandError

MISSING = frozenset({"", "na", "n/a", "nan", "null"})  # compared in lower case
MAX_CELL = 1 << 20  # characters; a longer cell is nearly always a quote that was never closed


@dataclass(frozen=True)
class Table:
    """The cells of a CSV file, stripped of surrounding blanks, and the line each row came from."""

    path: str
    names: tuple[str, ...]
    has_header: bool
    rows: list[list[str]]
    lines: list[int]

    def __len__(self) -> int:
        return len(self.rows)

    def index(self, column: str) -> int:
        """The position of a column given by name or, failing that, by number counted from 0."""
        if column in self.names:
            return self.names.index(column)
        with contextlib.suppress(ValueError):
            if -len(self.names) <= int(column) < len(self.names):
                return int(column) % len(self.names)
        raise CommandError(
            f"{self.path} has no column {column!r}; its columns are: {shortened(self.names)}"
        )

    def where(self, row: int, index: int) -> str:
        return f"{self.path}, line {self.lines[row]}, column {self.names[index]!r}"

    def present(self, index: int) -> list[int]:
        """The rows whose cell in that column is not missing."""
        return [n for n, row in enumerate(self.rows) if row[index].lower() not in MISSING]

    def cells(self, index: int, fill: str | None = None, *, target: bool = False) -> list[str]:
        """One column as text, `fill` in the place of missing cells.

        Raises CommandError where a cell is missing and there is nothing to fill in; of a target
        nothing ever is.
        """
        cells = [row[index] for row in self.rows]
        for row, cell in enumerate(cells):
            if cell.lower() in MISSING:
                if fill is None:
                    shown = f"holds {cell!r}, which means missing" if cell else "is empty"
                    remedy = "or remove the row"
                    if not target:
                        remedy = "remove the row, or train with --missing fill"
                    raise CommandError(
                        f"{self.where(row, index)}: the cell {shown}. Fill it in, {remedy}."
                    )
                cells[row] = fill
        return cells

    def numbers(
        self, index: int, fill: str | None = None, *, target: bool = False
    ) -> npt.NDArray[np.float64]:
        """One column as float64, filled as `cells`.

        Raises CommandError where a cell is not a finite number.
        """
        cells = self.cells(index, fill, target=target)
        values = parse_numbers(cells)
        bad = np.flatnonzero(~np.isfinite(values))
        if bad.size:
            row = int(bad[0])
            raise CommandError(
                f"{self.where(row, index)}: {cells[row]!r} is not a finite number, "
                "and this column is taken as numbers."
            )
        return values


def shortened(names: Sequence[str], limit: int = 12) -> str:
    shown = ", ".join(repr(name) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def parse_numbers(cells: Sequence[str]) -> npt.NDArray[np.float64]:
    """The cells as float64, NaN where a cell is not a number."""
    return np.array([_number_or_nan(cell) for cell in cells], dtype=np.float64)


def _number_or_nan(cell: str) -> float:
    """NaN for "1_000" too, which is a number in Python's source alone: in tables it is a name."""
    try:
        return float("nan") if "_" in cell else float(cell)
    except ValueError:
        return float("nan")


def read_table(path: str, *, header: bool = True, delimiter: str = ",") -> Table:
    """Read a CSV file (UTF-8, quotes as usual, lines of nothing but blanks skipped).

    Raises CommandError when the file cannot be read, is empty, or has rows of unequal length.
    """
    records = list(_records(path, delimiter))
    if not records:
        raise CommandError(f"{path} is empty: expected a header line and rows of data")
    if header:
        names = _header_names(path, *records.pop(0))
    else:
        names = tuple(str(i) for i in range(len(records[0][1])))
    for line, cells in records:
        if len(cells) != len(names):
            raise CommandError(
                f"{path}, line {line}: {len(cells)} cells, expected {len(names)} "
                f"({'as in the header' if header else 'as in the first row'}). "
                "A cell that holds the delimiter needs quotes around it."
            )
    if not records:
        raise CommandError(f"{path} has a header line and no rows of data")
    return Table(
        path, names, header, [cells for _, cells in records], [line for line, _ in records]
    )


def _records(path: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """(first line number, cells) of every record that is not blank."""
    csv.field_size_limit(MAX_CELL)
    line = 1
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            for cells in reader:
                # A missing cell in a table of one column is written as "", which is no blank.
                blank = not cells or (len(cells) == 1 and cells[0].isspace())
                if not blank:
                    yield line, [cell.strip() for cell in cells]
                line = reader.line_num + 1
    except UnicodeDecodeError as error:
        raise CommandError(
            f"{path}, line {_first_undecodable(path)}: not UTF-8 text "
            f"(byte {error.object[error.start]:#04x}). Save it as 'CSV UTF-8' and try again."
        ) from error
    except csv.Error as error:
        raise CommandError(
            f"{path}, record that starts at line {line}: {error}. Is a quote never closed?"
        ) from error
    except OSError as error:
        raise CommandError(f"cannot read {path}: {error.strerror or error}") from error


def _first_undecodable(path: str) -> int:
    """The number of the first line that is not UTF-8."""
    with Path(path).open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number
    return 0


def _header_names(path: str, line: int, names: list[str]) -> tuple[str, ...]:
    for position, name in enumerate(names):
        if not name:
            raise CommandError(
                f"{path}, line {line}: the header's column {position} has no name. Name it, or "
                "write the file without it (pandas: to_csv(..., index=False))"
            )
        if name in names[:position]:
            raise CommandError(
                f"{path}, line {line}: two columns are named {name!r}. "
                "Rename one, or pass --no-header if the file has no header line."
            )
    return tuple(names)
