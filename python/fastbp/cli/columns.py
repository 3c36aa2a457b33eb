"""From text cells to network inputs and targets, as learned from the training rows.

Cells that are missing are filled in, if that was asked for; otherwise they are an error. Number
columns are standardised with the training rows' mean and standard deviation; category
columns become one input per value seen in the training rows (one-hot). Both are kept in the
model file.
"""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from decimal import Context, Decimal
from typing import Any

import numpy as np
import numpy.typing as npt

from ..normalization import standard
from .errors import CommandError
from .table import Table, parse_numbers, shortened

FORMAT = 1  # of the description in the model file
MAX_CATEGORIES = 1000
MISSING_VALUE = "(missing)"  # what a missing cell of a category column is filled with
LARGE_WHOLE = 1e15  # from here on whole numbers have more than 15 digits
NUMBERS_SHARE = 0.5  # above it a column with some text is taken for numbers with typing errors

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Column:
    """One input column: a number (mean, std) or, where `values` is not empty, a category.

    `fill` is what a missing cell counts as; None: it is an error.
    """

    name: str
    mean: float = 0.0
    std: float = 1.0
    values: tuple[str, ...] = ()
    fill: str | None = None

    @property
    def width(self) -> int:
        return len(self.values) or 1

    def encode(self, table: Table, index: int, unknown: str) -> Floats:
        """(rows, width) inputs. `unknown`: "error", or "zeros" for a category never seen."""
        if not self.values:
            return ((table.numbers(index, self.fill) - self.mean) / self.std)[:, None]
        position = {value: i for i, value in enumerate(self.values)}
        encoded = np.zeros((len(table), self.width))
        for row, cell in enumerate(table.cells(index, self.fill)):
            if cell in position:
                encoded[row, position[cell]] = 1.0
            elif unknown == "error" and cell != self.fill:  # no training row lacked its cell
                raise CommandError(
                    f"{table.where(row, index)}: {cell!r} was not among the values seen in "
                    f"training, which were: {shortened(self.values)}. "
                    "Pass --unknown zeros to treat it as none of them."
                )
        return encoded


@dataclass(frozen=True)
class Target:
    """What the network predicts. Regression: standardised value; else one of `classes`."""

    name: str
    task: str  # regression | binary | multiclass
    mean: float = 0.0
    std: float = 1.0
    classes: tuple[str, ...] = ()
    numeric: bool = False  # the classes are numbers: "1" and "1.0" are the same class

    @property
    def outputs(self) -> int:
        """Of the network: one per class, but one in all for two classes and for a quantity."""
        return len(self.classes) if self.task == "multiclass" else 1

    def encode(self, table: Table, index: int) -> npt.NDArray[Any]:
        """Regression (n, 1) float; binary (n, 1) 0.0 or 1.0; multiclass (n,) class numbers."""
        if self.task == "regression":
            return ((table.numbers(index, target=True) - self.mean) / self.std)[:, None]
        position = {name: i for i, name in enumerate(self.classes)}
        labels = class_names(table.cells(index, target=True), self.numeric)
        for row, label in enumerate(labels):
            if label not in position:
                raise CommandError(
                    f"{table.where(row, index)}: {label!r} is not one of the classes the model "
                    f"knows, which are: {shortened(self.classes)}"
                )
        numbers = np.array([position[label] for label in labels], dtype=np.int64)
        return numbers.astype(np.float64)[:, None] if self.task == "binary" else numbers


@dataclass(frozen=True)
class Description:
    """All that predict and evaluate need to know about the file a model was trained on."""

    columns: tuple[Column, ...]
    target: Target
    has_header: bool
    positions: tuple[int, ...]  # of the columns in the training file

    @property
    def width(self) -> int:
        return sum(column.width for column in self.columns)

    def encode(self, table: Table, unknown: str = "error") -> Floats:
        """(rows, width) network inputs of the table's rows."""
        indices = self._locate(table)
        blocks = [
            column.encode(table, index, unknown)
            for column, index in zip(self.columns, indices, strict=True)
        ]
        return np.hstack(blocks)

    def _locate(self, table: Table) -> list[int]:
        if self.has_header:
            return [self._by_name(table, column.name) for column in self.columns]
        if len(table.names) == len(self.columns):  # the target's column was left out
            return list(range(len(self.columns)))
        if len(table.names) <= max(self.positions):
            raise CommandError(
                f"{table.path} has {len(table.names)} columns; the model was trained on a file "
                f"without a header, with its inputs in columns {list(self.positions)}"
            )
        return list(self.positions)

    @staticmethod
    def _by_name(table: Table, name: str) -> int:
        if name in table.names:
            return table.names.index(name)
        raise CommandError(
            f"{table.path} has no column {name!r}, which the model was trained with; "
            f"its columns are: {shortened(table.names)}"
        )

    def to_text(self) -> str:
        """As JSON, for the model file's metadata."""
        return json.dumps({"format": FORMAT, **asdict(self)})

    @classmethod
    def from_text(cls, text: str | None, path: str) -> Description:
        """What `to_text` wrote, found in the file `path`. Raises CommandError for anything else."""
        if text is None:
            raise CommandError(
                f"{path} does not say how its columns were prepared: it was not written by "
                f"'fastbp train'. Use it from Python: fastbp.load({path!r}).predict(X)"
            )
        try:
            stored = json.loads(text)
            if stored["format"] != FORMAT:
                raise CommandError(
                    f"{path} describes its columns in format {stored['format']}; this version of "
                    f"fastbp reads format {FORMAT}"
                )
            columns = tuple(map(_stored_column, stored["columns"]))
            positions = tuple(map(operator.index, stored["positions"]))
            if not columns or len(positions) != len(columns) or min(positions) < 0:
                raise ValueError("positions are those of the columns")
            target = _stored_target(stored["target"])
            return cls(columns, target, bool(stored["has_header"]), positions)
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise CommandError(f"{path}: its description of the columns is damaged") from error


def _stored_column(stored: Any) -> Column:
    """Raises KeyError, TypeError or ValueError where this is no column."""
    fill, values = stored.get("fill"), _texts(stored["values"])
    if fill is not None and not values:
        float(fill)
    mean, std = _finite(stored["mean"]), _finite(stored["std"])
    if std <= 0:
        raise ValueError("std is above 0")
    return Column(_text(stored["name"]), mean, std, values, None if fill is None else _text(fill))


def _stored_target(stored: Any) -> Target:
    """Raises KeyError, TypeError or ValueError where this is no target."""
    task, classes = stored["task"], _texts(stored["classes"])
    right = {"regression": not classes, "binary": len(classes) == 2, "multiclass": bool(classes)}
    if not right[task] or len(set(classes)) < len(classes):
        raise ValueError("classes are those of the task")
    mean, std = _finite(stored["mean"]), _finite(stored["std"])
    return Target(_text(stored["name"]), task, mean, std, classes, bool(stored["numeric"]))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("expected text")
    return value


def _texts(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list):
        raise TypeError("expected a list")
    return tuple(map(_text, values))


def _finite(value: Any) -> float:
    if isinstance(value, str) or not math.isfinite(value):
        raise ValueError("expected a finite number")
    return float(value)


def class_names(cells: Sequence[str], numeric: bool) -> list[str]:
    """Labels as written, or numbers in one spelling ("1.0" and "1" are one class)."""
    return list(map(_spelled, cells)) if numeric and _all_numbers(cells) else list(cells)


def _spelled(number: str) -> str:
    """In 15 digits; in all of them where 15 do not tell whole numbers apart, as of identifiers."""
    value = float(number)
    if abs(value) < LARGE_WHOLE:
        return f"{value:.15g}"
    return f"{Decimal(number).normalize(Context(prec=len(number))):g}"


def _all_numbers(cells: Sequence[str]) -> bool:
    return bool(np.isfinite(parse_numbers(cells)).all())


def learn_column(
    table: Table, index: int, training: Rows, categorical: bool, fill: bool = False
) -> Column:
    """Decide number or category from the whole column; learn its values from `training` rows.

    With `fill`, missing cells become the training rows' median, or a category of their own.
    """
    name = table.names[index]
    if not fill:
        table.cells(index)  # raises where one is missing
    present = table.present(index)
    if not present:
        raise CommandError(f"{table.path}, column {name!r}: every cell is missing. --drop {name}")
    if not categorical and _holds_numbers(table, index, present):
        middle = repr(_median(table, index, training)) if fill else None
        values = table.numbers(index, middle)[training]
        return Column(name, *_mean_and_std(table, index, values), fill=middle)
    value = MISSING_VALUE if fill else None
    cells = table.cells(index, value)
    seen = sorted({cells[row] for row in training})
    if len(seen) > MAX_CATEGORIES or (len(seen) == len(training) and len(seen) > 20):
        if not categorical and _all_numbers([cell.replace(",", ".") for cell in seen]):
            raise CommandError(
                f"{table.path}, column {name!r}: {seen[0]!r} and the others are numbers with a "
                "decimal comma. Write them with a point"
            )
        raise CommandError(
            f"{table.path}, column {name!r}: text with {len(seen)} different values in "
            f"{len(training)} training rows, so it looks like an identifier. "
            f"Leave it out with --drop {name}"
        )
    return Column(name, values=tuple(seen), fill=value)


def _median(table: Table, index: int, training: Rows) -> float:
    """Of the training rows' cells that are there; of all rows', if none is."""
    there = set(table.present(index))
    rows = [row for row in training.tolist() if row in there] or sorted(there)
    return float(np.median(parse_numbers([table.rows[row][index] for row in rows])))


def _mean_and_std(table: Table, index: int, values: Floats) -> tuple[float, float]:
    """Of finite numbers of a column; one that is constant gets std 1 and so becomes 0."""
    with np.errstate(over="ignore", invalid="ignore"):
        mean, std = standard(values[:, None])
    if not np.isfinite(std[0]):
        raise CommandError(
            f"{table.path}, column {table.names[index]!r}: its numbers, from {values.min():g} to "
            f"{values.max():g}, are too far apart. Scale them"
        )
    return float(mean[0]), float(std[0]) or 1.0


def _holds_numbers(table: Table, index: int, present: Sequence[int]) -> bool:
    """Whether the cells of those rows are numbers; an error if most are, but not all."""
    cells = [table.rows[row][index] for row in present]
    bad = np.flatnonzero(np.isnan(parse_numbers(cells)))
    if not bad.size:
        return True
    if bad.size < (1 - NUMBERS_SHARE) * len(cells):
        first = int(bad[0])
        raise CommandError(
            f"{table.where(present[first], index)}: {cells[first]!r} is not a number, but "
            f"{len(cells) - bad.size} of the {len(cells)} cells of this column are. Correct it, or "
            f"pass --categorical {table.names[index]} if the column's values are names."
        )
    return False


def choose_task(table: Table, index: int) -> str:
    """The task that the target column suggests.

    Text is classes; so are whole numbers with at most 20 values, each in 3 rows on average.
    """
    cells = table.cells(index, target=True)
    numeric = _all_numbers(cells)
    distinct = len(set(class_names(cells, numeric)))
    if numeric and distinct > 2:
        whole = all(float(cell).is_integer() for cell in cells)
        if not whole or distinct > 20 or len(cells) < 3 * distinct:
            return "regression"
    return "binary" if distinct == 2 else "multiclass"


def learn_target(table: Table, index: int, training: Rows, task: str) -> Target:
    """Learn the classes from all rows, or mean and std from the training rows."""
    name, cells = table.names[index], table.cells(index, target=True)
    numeric = _all_numbers(cells)
    if task == "regression":
        values = table.numbers(index)
        if values.min() == values.max():
            raise CommandError(f"{table.path}, target {name!r}: every value is {values[0]:g}")
        return Target(name, task, *_mean_and_std(table, index, values[training]))
    classes = sorted(set(class_names(cells, numeric)), key=Decimal if numeric else None)
    if len(classes) < 2:
        raise CommandError(f"{table.path}, target {name!r}: every row is of class {classes[0]!r}")
    if task == "binary" and len(classes) != 2:
        raise CommandError(
            f"{table.path}, target {name!r}: {len(classes)} classes ({shortened(classes)}), "
            "but --task binary needs exactly two. Use --task multiclass."
        )
    if len(classes) > MAX_CATEGORIES:
        raise CommandError(
            f"{table.path}, target {name!r}: {len(classes)} different values are too many "
            "classes. Use --task regression if they are quantities."
        )
    return Target(name, task, classes=tuple(classes), numeric=numeric)
