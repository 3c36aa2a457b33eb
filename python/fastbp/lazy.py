"""LazyRows: data whose rows are made into the engine's arrays batch by batch, never as a whole.

SciPy's sparse matrices, np.memmap of another dtype than the model's (a memmap of the model's dtype
the engine reads as it is), and integers: bytes of images would take four times as much in float32.
Integers that lie in memory as they are counted, row after row, the engine on the processor converts
itself as it gathers the rows of a batch; others are converted in Python where a copy of the whole
in floats would be a burden.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import arrays
from .arrays import Array

# Rows at a time where nothing is trained: bounds the memory for activations.
EVALUATION_BATCH = 1024
# Bytes of a copy in the model's dtype from which on integers are converted batch by batch. Smaller
# data is quicker converted once: Python then has nothing to do with the steps.
LARGE_COPY = 2**28


def is_lazy(value: Any, dtype: np.dtype[Any], *, native: bool = False) -> bool:
    """Whether `value` is better not converted as a whole; `native`: the engine takes integers."""
    if isinstance(value, LazyRows) or hasattr(value, "tocsr"):
        return True
    if native and are_integers(value):
        return True
    if _is_large(value, dtype):
        return True
    return isinstance(value, np.memmap) and not (
        value.dtype == dtype and value.flags.c_contiguous and value.flags.aligned
    )


def are_integers(value: Any) -> bool:
    """Whether these are rows of integers that the engine can read as they are."""
    if not isinstance(value, np.ndarray) or value.ndim != 2 or value.dtype.kind not in "biu":
        return False
    return value.dtype.isnative and value.flags.c_contiguous and value.flags.aligned


def _is_large(value: Any, dtype: np.dtype[Any]) -> bool:
    """Whether these are rows of integers of which a whole copy in `dtype` is to be avoided."""
    integers = isinstance(value, np.ndarray) and value.dtype.kind in "biu" and value.ndim == 2
    return integers and value.size * dtype.itemsize >= LARGE_COPY


class LazyRows:
    """Rows (n, columns) of a sparse matrix or a memmap; `self[rows]` makes arrays of some.

    Raises TypeError and ValueError for wrong kinds and shapes at once, for NaN and infinity of a
    memmap when their rows are made, naming row and column.
    """

    def __init__(
        self,
        value: Any,
        inputs: int | None,
        dtype: np.dtype[Any],
        name: str = "X",
        *,
        native: bool = False,
        finite: bool = True,
    ) -> None:
        """`native`: the engine converts integers itself. `finite`: there must be rows, of finite
        numbers."""
        self._finite = finite
        self._native = native and are_integers(value)
        self._source = value.tocsr() if hasattr(value, "tocsr") else value
        self._sparse = hasattr(value, "tocsr")
        self._dtype, self._name = dtype, name
        self._rows: Array | None = None  # which of the source, None: all
        kind = np.dtype(self._source.dtype).kind
        if kind not in "biuf":
            raise TypeError(f"{name} must hold real numbers; got dtype {self._source.dtype}")
        if len(self._source.shape) != 2 or self._source.shape[1] == 0:
            raise ValueError(f"{name} must have shape (rows, columns); got {self._source.shape}")
        if inputs is not None and self._source.shape[1] != inputs:
            raise ValueError(
                f"{name} has {self._source.shape[1]} columns, but the network takes {inputs}; got "
                f"shape {self._source.shape}"
            )
        if finite and len(self) == 0:
            raise ValueError(f"{name} has no rows; got shape {self._source.shape}")
        if finite and self._sparse and not np.isfinite(self._source.data).all():
            self._refuse_sparse()

    def _refuse_sparse(self) -> None:
        entries = self._source.tocoo()
        first = int(np.argmin(np.isfinite(entries.data)))
        kind = "NaN" if np.isnan(entries.data[first]) else "infinity"
        raise ValueError(
            f"{self._name} has {kind} at row {entries.row[first]}, column {entries.col[first]}"
        )

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        count = self._source.shape[0] if self._rows is None else len(self._rows)
        return int(count), int(self._source.shape[1])

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def native(self) -> Array | None:
        """All rows as the engine takes them without a conversion, where there is such a thing."""
        return np.asarray(self._source) if self._native else None

    def part(self, rows: Any) -> LazyRows:
        """Some of the rows, by slice or mask, as lazily."""
        part = object.__new__(LazyRows)
        part.__dict__.update(self.__dict__)
        if self._native:
            part._source = self._source[rows]
            part._native = are_integers(part._source)
            return part
        part._rows = self._numbers()[rows]
        return part

    def _numbers(self) -> Array:
        return np.arange(self._source.shape[0]) if self._rows is None else self._rows

    def __getitem__(self, rows: Any) -> Array:
        """The rows of a slice or an array of numbers: (count, columns), of the model's dtype."""
        if self._rows is None and isinstance(rows, slice):
            numbers: Any = np.arange(*rows.indices(len(self)))
        else:
            numbers = np.asarray(rows) if self._rows is None else self._rows[rows]
        taken = self._source[numbers]
        dense = taken.toarray() if self._sparse else np.asarray(taken)
        with np.errstate(over="ignore"):
            ready = np.require(dense, self._dtype, ["C", "A"])
        wrong = arrays.first_non_finite(ready) if self._finite else -1
        if wrong >= 0:
            row, column = divmod(wrong, ready.shape[1])
            found = dense[row, column].item()
            raise ValueError(
                f"{self._name} has {found!r} at row {numbers[row]}, column {column}: "
                f"fill or drop such rows first, or scale what {self._dtype} cannot hold"
            )
        return ready


def for_engine(x: Any) -> Any:
    """What the engine takes of all rows at once; None of LazyRows that it cannot read."""
    return x.native if isinstance(x, LazyRows) else x


def part(x: Any, rows: Any) -> Any:
    """x[rows], of LazyRows as lazily."""
    return x.part(rows) if isinstance(x, LazyRows) else x[rows]
