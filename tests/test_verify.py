"""`fastbp.verify`: it passes on this machine and, above all, it fails when something is wrong."""

import inspect
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastbp import _core, ops, verify

FEW = ("float32",)  # one dtype is enough to see that an error is found


@pytest.fixture(scope="module")
def report() -> verify.Report:
    return verify.verify(quick=True)


def test_every_operation_passes_with_the_same_bits_on_every_isa(report: verify.Report) -> None:
    assert report.failures == ()
    assert report.different_bits == ()
    assert report.passed


def test_every_registered_operation_is_there_on_every_isa_in_both_dtypes(
    report: verify.Report,
) -> None:
    registered = {f"{entry['name']} forward" for entry in _core.activations()}
    registered |= {f"{entry['name']} backward" for entry in _core.activations()}
    registered |= {entry["name"] for entry in _core.losses()}
    registered |= {entry["name"] for entry in _core.optimizers()}
    registered |= set(_core.vector_functions()) | {"softmax", "dense forward", "dense backward"}
    seen = {(result.op, result.dtype, result.isa) for result in report.results}
    for isa in _core.isas()["available"]:
        for dtype in verify.DTYPES:
            assert registered <= {op for op, d, i in seen if (d, i) == (dtype, isa)}


def test_the_report_is_json_that_says_the_same(report: verify.Report) -> None:
    document = json.loads(json.dumps(report.to_json()))
    assert document["passed"] is True
    assert len(document["results"]) == len(report.results)
    assert document["isas"] == _core.isas()["available"]


def test_the_active_isa_is_restored_also_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    before = _core.isas()["active"]
    verify.verify(isas=["scalar"], dtypes=FEW, quick=True)
    assert _core.isas()["active"] == before
    monkeypatch.setattr(ops, "matmul", _raise)
    with pytest.raises(ZeroDivisionError):
        verify.verify(isas=["scalar"], dtypes=FEW, quick=True)
    assert _core.isas()["active"] == before


def _raise(*_: Any, **__: Any) -> Any:
    raise ZeroDivisionError


def test_unknown_names_are_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match=r"'sse9'.*it has.*scalar"):
        verify.verify(isas=["sse9"])
    with pytest.raises(ValueError, match="unknown dtype 'float16'; expected one of float32"):
        verify.verify(dtypes=["float16"])


def _patched(
    monkeypatch: pytest.MonkeyPatch, name: str, change: Callable[[Any, tuple[Any, ...]], Any]
) -> verify.Report:
    """The report when fastbp.ops.<name> gives change(result, arguments) instead of its result."""
    right = getattr(ops, name)

    def wrong(*args: Any, **kwargs: Any) -> Any:
        return change(right(*args, **kwargs), args)

    wrong.__signature__ = inspect.signature(right)  # type: ignore[attr-defined]
    monkeypatch.setattr(ops, name, wrong)
    return verify.verify(isas=["scalar"], dtypes=FEW, quick=True)


def _failing(report: verify.Report) -> set[str]:
    assert not report.passed
    return {result.op for result in report.failures}


def test_a_function_off_by_ten_ulp_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    report = _patched(monkeypatch, "exp", lambda y, _: y * np.float32(1 + 10 * 2**-23))
    assert _failing(report) == {"exp"}


def test_one_activation_with_a_wrong_derivative_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    report = _patched(
        monkeypatch, "activation_backward", lambda dz, a: dz * 1.001 if a[0] == "tanh" else dz
    )
    assert _failing(report) == {"tanh backward"}


def test_one_wrong_element_of_a_product_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def change(c: Any, _: Any) -> Any:
        c.flat[-1] += np.float32(1e-2)
        return c

    assert "matmul A B" in _failing(_patched(monkeypatch, "matmul", change))


def test_an_update_that_forgets_its_state_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def change(_: Any, args: tuple[Any, ...]) -> None:
        args[3][...] = 0

    assert _failing(_patched(monkeypatch, "adam_update", change)) == {"adam"}


def test_a_nan_a_lost_nan_and_a_wrong_dtype_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    for change in (
        lambda y, _: np.where(y == y[0], np.nan, y).astype(y.dtype),
        lambda y, _: np.nan_to_num(y),
        lambda y, _: y.astype(np.float64),
    ):
        with monkeypatch.context() as patch:
            report = _patched(patch, "erf", change)
            assert _failing(report) == {"erf"}
            assert report.failures[0].error == np.inf


def test_bits_that_depend_on_the_isa_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    isas = _core.isas()["available"]
    if len(isas) < 2:
        pytest.skip("this machine runs only one instruction set")
    right = ops.softmax

    def wrong(x: Any, out: Any = None) -> Any:
        y = right(x, out)
        return np.nextafter(y, y.dtype.type(1)) if _core.isas()["active"] == isas[-1] else y

    monkeypatch.setattr(ops, "softmax", wrong)
    report = verify.verify(dtypes=FEW, quick=True)
    assert report.failures == ()  # an ulp is within the allowance
    assert report.different_bits == (("softmax", "float32"),)
    assert not report.passed


@pytest.mark.parametrize(
    ("got", "expected", "error"),
    [
        ([1.0], [1.0], 0.0),
        ([1.0 + 2**-23], [1.0], 1.0),
        ([np.inf, np.nan], [np.inf, np.nan], 0.0),
        ([np.inf], [3e38], np.inf),
        ([3e38], [np.inf], np.inf),
        ([np.nan], [1.0], np.inf),
        ([2.0**-149], [0.0], 1.0),
        ([1.0], [1e39], np.inf),
        ([np.inf], [1e39], 0.0),
    ],
)
def test_errors_in_ulp(got: list[float], expected: list[float], error: float) -> None:
    found = verify.largest_error(np.array(got, np.float32), np.array(expected), None, "float32")
    assert found == pytest.approx(error)


def test_progress_is_told_from_the_first_case_to_the_last() -> None:
    calls: list[tuple[int, int]] = []
    report = verify.verify(
        isas=["scalar"], dtypes=FEW, quick=True, progress=lambda d, n, _: calls.append((d, n))
    )
    assert calls[0] == (0, report.cases)
    assert calls[-1] == (report.cases, report.cases)
