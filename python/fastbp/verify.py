"""Check the compiled operations against their NumPy twins on this machine.

Every operation runs on the same inputs in the compiled library, once for each instruction set that
this machine has, and in `fastbp.reference`, which computes in float64. The report has the largest
error of each operation, what is allowed, and whether all instruction sets gave the same bits.
Which operations there are is asked of the extension; what is fed to them is in `verify_cases` and
`verify_training`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _core
from .verify_cases import Case, kernel_cases, native, oracle
from .verify_training import training_cases

Array = npt.NDArray[Any]
Progress = Callable[[int, int, str], None]  # cases done, cases in all, name of the operation

DTYPES = ("float32", "float64")


@dataclass(frozen=True)
class Result:
    """The worst case of one operation in one dtype on one instruction set.

    `unit` is "ulp", or "eps" for an error relative to the terms that were summed.
    `detail` says which case was the worst.
    """

    group: str
    op: str
    dtype: str
    isa: str
    error: float
    allowance: float
    unit: str
    detail: str

    @property
    def passed(self) -> bool:
        return self.error <= self.allowance  # False for NaN

    @property
    def share(self) -> float:
        """Of the allowance; infinite for NaN, so that it is the worst."""
        return self.error / self.allowance if self.error == self.error else np.inf


@dataclass(frozen=True)
class Report:
    """What `verify` found. `different_bits`: (op, dtype) whose bits depend on the ISA."""

    results: tuple[Result, ...]
    different_bits: tuple[tuple[str, str], ...]
    isas: tuple[str, ...]
    cases: int

    @property
    def failures(self) -> tuple[Result, ...]:
        return tuple(result for result in self.results if not result.passed)

    @property
    def passed(self) -> bool:
        return not self.failures and not self.different_bits

    def to_json(self) -> dict[str, Any]:
        return {
            "passed": self.passed,
            "isas": list(self.isas),
            "cases": self.cases,
            "different_bits": [list(pair) for pair in self.different_bits],
            "results": [{**asdict(result), "passed": result.passed} for result in self.results],
        }


def verify(
    *,
    isas: Sequence[str] | None = None,
    dtypes: Sequence[str] = DTYPES,
    quick: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Compare every compiled operation with NumPy. The active instruction set is restored.

    isas: names as in `fastbp.info()`; all that this machine can run when None.
    quick: fewer sizes and points, a few seconds.
    Raises ValueError for an instruction set or dtype that there is not.
    """
    chosen = _available(isas)
    for dtype in dtypes:
        if dtype not in DTYPES:
            raise ValueError(f"unknown dtype {dtype!r}; expected one of {', '.join(DTYPES)}")
    work = [
        case
        for dtype in dtypes
        for case in (*kernel_cases(dtype, quick), *training_cases(dtype, quick))
    ]
    worst: dict[tuple[str, str, str, str], Result] = {}
    different: dict[tuple[str, str], None] = {}  # a set that keeps its order
    for done, case in enumerate(work):
        if progress:
            progress(done, len(work), case.op)
        results, same_bits = _run(case, chosen)
        for result in results:
            key = (case.group, case.op, case.dtype, result.isa)
            if key not in worst or result.share > worst[key].share:
                worst[key] = result
        if not same_bits:
            different[case.op, case.dtype] = None
    if progress:
        progress(len(work), len(work), "")
    return Report(tuple(worst.values()), tuple(different), chosen, len(work))


def _available(isas: Sequence[str] | None) -> tuple[str, ...]:
    available = tuple(_core.isas()["available"])
    for name in isas or ():
        if name not in available:
            raise ValueError(
                f"this machine cannot run the instruction set {name!r} with this build; "
                f"it has {', '.join(available)}"
            )
    return tuple(dict.fromkeys(isas)) if isas else available


@contextmanager
def _restored_isa() -> Iterator[None]:
    active = _core.isas()["active"]
    try:
        yield
    finally:
        _core.set_isa(active)


def _run(case: Case, isas: Sequence[str]) -> tuple[list[Result], bool]:
    """The case on every instruction set: (results, all gave the same bits)."""
    expected = [np.asarray(out, dtype=np.float64) for out in case.call(oracle(), *case.wide())]
    with np.errstate(over="ignore"):
        scales = case.scale(expected)
    results, bits = [], set()
    with _restored_isa():
        for isa in isas:
            _core.set_isa(isa)
            got = [np.asarray(out) for out in case.call(native(), *case.inputs)]
            error = max(
                largest_error(g, e, s, case.dtype)
                for g, e, s in zip(got, expected, scales, strict=True)
            )
            results.append(
                Result(
                    case.group,
                    case.op,
                    case.dtype,
                    isa,
                    error,
                    case.allowance,
                    case.unit,
                    case.detail,
                )
            )
            bits.add(b"".join(_bits(out) for out in got))
    return results, len(bits) == 1


def largest_error(got: Array, expected: Array, scale: Array | None, dtype: str) -> float:
    """max |got - expected| in eps * scale, or in units in the last place where scale is None.

    Equal infinities and NaN in the same places count as no error; a wrong dtype, shape, NaN or
    infinity as an infinite one.
    """
    if got.shape != expected.shape or (got.ndim and got.dtype != dtype):
        return float("inf")
    kind = np.dtype(dtype).type
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        rounded = expected.astype(dtype)
        same = (got == rounded) | (np.isnan(got) & np.isnan(rounded))
        unit = np.spacing(np.abs(rounded)) if scale is None else np.finfo(kind).eps * scale
        smallest = float(np.finfo(kind).smallest_subnormal)
        errors = np.abs(got.astype(np.float64) - expected) / np.maximum(unit, smallest)
    errors = np.where(same & ~np.isfinite(rounded), 0.0, errors)
    return float(np.max(np.where(np.isnan(errors), np.inf, errors), initial=0.0))


def _bits(out: Array) -> bytes:
    """The bytes of an array, every NaN as the same NaN."""
    return np.where(np.isnan(out), out.dtype.type(np.nan), out).tobytes()
