"""Sums over columns, softmax rows and the search for values that are not finite, on every
instruction set.

Compared: column sums bit for bit with their order carried out in NumPy (chunks of rows, in order,
plain additions), and with the bias row of a matrix product; softmax with the oracle, within the
roundings of its exponent, its sum and its quotient. Sizes: sweeps.SIZES in both directions, and
rows around the 256 of a chunk.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

import machine
import sweeps
import tolerances
from fastbp import _core, ops, reference
from sweeps import DTYPES, SIZES, Array

isa = machine.isa

LONG = (255, 256, 257, 512, 513, 2000)


def column_sum(x: Array, out: Array | None = None) -> Array:
    out = np.full(x.shape[1], np.nan, x.dtype) if out is None else out
    _core.column_sum(x, out)
    return out


def softmax(x: Array, out: Array | None = None) -> Array:
    out = np.full_like(x, np.nan) if out is None else out
    _core.softmax(x, out)
    return out


def in_order(x: Array) -> Array:
    """The promised order of a sum over rows, in the arithmetic of x's dtype."""
    total, start = np.zeros(x.shape[1], x.dtype), 0
    for length in tolerances.chunks_of(len(x)):
        chunk = np.zeros_like(total)
        for row in x[start : start + length]:
            chunk = chunk + row
        total = chunk if start == 0 else total + chunk
        start += length
    return total


@pytest.mark.parametrize("dtype", DTYPES)
def test_column_sums_have_the_promised_order(isa: str, dtype: str) -> None:
    for rows, cols in [*product(SIZES, SIZES[::3]), *product(LONG, (1, 17))]:
        x = sweeps.normal(rows, dtype, rows, cols)
        sweeps.assert_same_bits(column_sum(x), in_order(x), f"{isa} {rows}x{cols}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_column_sum_is_a_product_with_ones(isa: str, dtype: str) -> None:
    """The bias gradient of the engine is such a product: the same bits."""
    for rows, cols in ((1, 1), (33, 9), (256, 17), (2000, 65)):
        x = sweeps.normal(rows, dtype, rows, cols)
        product_ = np.empty((1, 1, cols), dtype)
        _core.matmul(np.ones((1, 1, rows), dtype), x[None], None, None, 0.0, product_)
        sweeps.assert_same_bits(column_sum(x), product_[0, 0], f"{isa} {rows}x{cols}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_column_sums_wherever_they_lie(isa: str, dtype: str) -> None:
    for (rows, cols), shift in product(product((1, 7, 400), SIZES), sweeps.SHIFTS):
        x = sweeps.normal(rows, dtype, rows, cols)
        expected = in_order(x)
        out, intact = sweeps.framed(cols, dtype, shift)
        sweeps.assert_same_bits(column_sum(sweeps.shifted(x, shift), out), expected)
        intact()
        for threads in machine.THREADS:
            with machine.using_threads(threads):
                sweeps.assert_same_bits(column_sum(x), expected, f"{isa} {threads} threads")
    assert (column_sum(np.empty((0, 5), dtype)) == 0).all()
    assert column_sum(np.empty((5, 0), dtype)).shape == (0,)


@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax(isa: str, dtype: str) -> None:
    """y_i = e^(x_i - max) / sum. Rounding x_i - max costs |x_i - max| u of the exponential, which
    is good to 2 u itself; the sum of `cols` terms in lanes, and the quotient, one u more.
    """
    u = tolerances.unit(dtype)
    for rows, cols in [*product((1, 3), SIZES), (2, 1000), (33, 10)]:
        x = sweeps.normal(cols, dtype, rows, cols) * np.dtype(dtype).type(10)
        expected = reference.losses.softmax(x.astype(np.float64))
        depth = x.max(axis=1, keepdims=True).astype(np.float64) - x
        roundings = 2 * depth + 8 + tolerances.lane_sum(cols, dtype) / u
        actual = softmax(x)
        tolerances.check(
            actual, expected, roundings * u * expected + tolerances.tiny(dtype), f"{isa}"
        )
        sums = actual.astype(np.float64).sum(axis=1)
        tolerances.check(sums, np.ones(rows), (cols + 4) * u, f"{isa} rows sum to 1")


@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_wherever_it_lies(isa: str, dtype: str) -> None:
    """A row is the same at any place of the batch, in place, shifted, on any number of threads."""
    for cols, shift in product(SIZES, sweeps.SHIFTS):
        x = sweeps.normal(cols, dtype, 9, cols)
        whole = softmax(x)
        for i in range(9):
            sweeps.assert_same_bits(softmax(x[i : i + 1].copy()), whole[i : i + 1])
        out, intact = sweeps.framed(x.shape, dtype, shift)
        sweeps.assert_same_bits(softmax(sweeps.shifted(x, shift), out), whole)
        intact()
        out[...] = x
        sweeps.assert_same_bits(softmax(out, out), whole, "in place")
        intact()
        for threads in machine.THREADS:
            with machine.using_threads(threads):
                sweeps.assert_same_bits(softmax(x), whole, f"{isa} {threads} threads")
        sweeps.assert_same_bits(np.asarray(ops.softmax(x)), whole)


@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_of_extremes(isa: str, dtype: str) -> None:
    """Any finite logits give finite probabilities; -inf gives 0; two classes are the sigmoid of
    their difference; adding a constant that loses no bits changes none.
    """
    largest = float(np.finfo(dtype).max)
    for cols in (2, 3, 17, 40):
        x = np.full((4, cols), -1e4, dtype)
        x[0, 1], x[1] = 1e4, 1e4
        x[2, 0], x[2, 1] = largest, -largest
        x[3] = -np.inf
        x[3, 0] = 0
        y = softmax(x)
        assert np.isfinite(y).all()
        np.testing.assert_array_equal(y[0], np.arange(cols) == 1)
        np.testing.assert_array_equal(y[1], np.full(cols, np.dtype(dtype).type(1) / cols))
        np.testing.assert_array_equal(y[[2, 3]], np.tile(np.arange(cols) == 0, (2, 1)))
    z = sweeps.normal(1, dtype, 50, 2)
    z = np.round(z * 64) / 64
    sweeps.assert_same_bits(softmax(z + np.dtype(dtype).type(8)), softmax(z))
    difference = (z[:, 0] - z[:, 1]).astype(np.float64)
    sigmoid = reference.sigmoid(difference)
    tolerances.check(softmax(z)[:, 0], sigmoid, 16 * tolerances.unit(dtype) * sigmoid)


@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_of_nan(isa: str, dtype: str) -> None:
    """NaN at any lane makes its row NaN, and leaves the other rows alone; so does +inf."""
    cols = len(sweeps.LANE_POSITIONS[dtype])
    x = sweeps.normal(2, dtype, 3, cols)
    plain = softmax(x)
    for position, value in product(range(cols), (np.nan, np.inf)):
        bad = x.copy()
        bad[1, position] = value
        y = softmax(bad)
        assert np.isnan(y[1, position])
        if np.isnan(value):
            assert np.isnan(y[1]).all()
        sweeps.assert_same_bits(y[[0, 2]], plain[[0, 2]])


@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_are_those_of_every_isa(dtype: str) -> None:
    for rows, cols in ((1, 1), (3, 15), (400, 33), (5, 1000)):
        x = sweeps.normal(rows, dtype, rows, cols)
        for function in (softmax, column_sum):
            results = machine.on_every_isa(lambda f=function, x=x: f(x))
            for name, result in results.items():
                sweeps.assert_same_bits(result, results["scalar"], f"{name} {function.__name__}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_first_value_that_is_not_finite(isa: str, dtype: str) -> None:
    """At every place of every size, the first of two, none; the largest numbers are finite."""
    largest = np.finfo(dtype).max
    for size in SIZES:
        x = np.full(size, largest, dtype)
        x[::2] = -largest
        assert _core.all_finite(x) == -1
        for position, value in product(range(size), (np.nan, np.inf, -np.inf)):
            bad = x.copy()
            bad[position] = value
            assert _core.all_finite(bad) == position
            bad[-1] = np.nan
            assert _core.all_finite(bad) == position
    assert _core.all_finite(np.empty((0, 3), dtype)) == -1
    matrix = np.zeros((5, 7), dtype)
    matrix[3, 2] = np.inf
    assert _core.all_finite(matrix) == 3 * 7 + 2


@pytest.mark.parametrize("dtype", DTYPES)
def test_reads_no_byte_beyond_its_inputs(isa: str, dtype: str) -> None:
    def work() -> None:
        for (rows, cols), at_end in product(product((1, 7, 33), SIZES), (True, False)):
            values = sweeps.normal(1, dtype, rows, cols)
            with (
                sweeps.guarded(values, at_end=at_end) as x,
                sweeps.guarded(values, at_end=at_end) as y,
                sweeps.guarded(values[0], at_end=at_end) as sums,
            ):
                column_sum(x, sums)
                softmax(x, y)
                assert _core.all_finite(x) == -1

    machine.in_child(work)


def test_layouts_are_checked() -> None:
    x = np.ones((3, 4), np.float32)
    for bad in (x.T, sweeps.unaligned(x), x[0]):
        with pytest.raises(ValueError, match="x"):
            _core.softmax(bad, x)
        with pytest.raises(ValueError, match="x"):
            _core.column_sum(bad, x[0])
    with pytest.raises(ValueError, match="out"):
        _core.softmax(x, np.empty((4, 3), np.float32))
    with pytest.raises(ValueError, match="out"):
        _core.column_sum(x, np.empty(3, np.float32))
    with pytest.raises(TypeError, match="dtype"):
        _core.softmax(x, np.empty((3, 4)))
    with pytest.raises(TypeError, match="float"):
        _core.all_finite(np.ones(3, np.int64))
