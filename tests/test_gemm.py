"""The matrix product, C = A B + bias with an activation on top, on every instruction set.

Compared: with the oracle in float64 (long double for float64 kernels), per element within the
bound of tolerances.gemm, which follows from the order of summation; with == where the numbers are
small integers or powers of two; and, for float32, bit for bit with that order carried out in NumPy,
fused multiply-add by fused multiply-add. Strided, stacked, transposed, shifted and threaded
products must have the bits of the plain one. Sizes: every m, n, k of sweeps.SIZES, which lie around
vectors, register tiles and panels; k also around the 256 terms of a chunk and the four chunks of
a packed panel. Outputs are framed, inputs end at pages that fault.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pytest

import machine
import sweeps
import tolerances
from fastbp import _core, ops
from sweeps import DTYPES, SIZES, Array

isa = machine.isa

LARGEST = max(SIZES)
FORMS = tuple(product((False, True), repeat=2))  # transpose_a, transpose_b
ACTIVATIONS = [entry["name"] for entry in _core.activations()]
# Around one chunk, where one becomes two, and around the three chunks of a packed panel.
LONG_K = (255, 256, 257, 511, 512, 513, 1023, 1024, 1025, 2000)


def matmul(
    a: Array,
    b: Array,
    bias: Array | None = None,
    activation: str | None = None,
    out: Array | None = None,
) -> Array:
    """The extension's own product of two matrices, without the checks of fastbp.ops."""
    if out is None:
        out = np.full((a.shape[0], b.shape[1]), np.nan, a.dtype)
    param = next((e["default_param"] for e in _core.activations() if e["name"] == activation), 0.0)
    _core.matmul(a[None], b[None], bias, activation, param, out[None])
    return out


def stored(a: Array, transposed: bool) -> Array:
    """The same matrix, its columns contiguous where `transposed`."""
    return np.ascontiguousarray(a.T).T if transposed else a


def wide(dtype: str) -> Any:
    """The type in which the products of that dtype count as exact."""
    return np.float64 if dtype == "float32" else np.longdouble


@pytest.fixture(scope="module")
def tables() -> dict[str, Any]:
    """For each dtype A, B, bias, and for each k the exact product of the first k columns and rows,
    and that of the absolute values: the expected values of every smaller m and n at once.
    """
    result = {}
    for dtype in DTYPES:
        a, b = (sweeps.normal(seed, dtype, LARGEST, LARGEST) for seed in (1, 2))
        bias = sweeps.normal(3, dtype, LARGEST)
        x, y, z = (v.astype(wide(dtype)) for v in (a, b, bias))
        sums = {
            k: (x[:, :k] @ y[:k] + z, np.abs(x[:, :k]) @ np.abs(y[:k]) + np.abs(z)) for k in SIZES
        }
        result[dtype] = (a, b, bias, sums)
    return result


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS, ids=["NN", "NT", "TN", "TT"])
def test_every_size(isa: str, dtype: str, form: tuple[bool, bool], tables: dict[str, Any]) -> None:
    """Each m, n, k; operands are corners of larger matrices, so rows are farther apart than long.
    The form without transposes goes through all sizes, the others through every third.
    """
    a, b, bias, sums = tables[dtype]
    a, b = stored(a, form[0]), stored(b, form[1])
    sizes = list(product(SIZES, repeat=3))
    for m, n, k in sizes if form == (False, False) else sizes[sum(form) :: 3]:
        expected, terms = (table[:m, :n] for table in sums[k])
        actual = matmul(a[:m, :k], b[:k, :n], bias[:n])
        allowance = tolerances.gemm(terms, k, dtype)
        tolerances.check(actual, expected, allowance, f"{isa} {m}x{k} by {k}x{n}")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS, ids=["NN", "NT", "TN", "TT"])
def test_every_size_to_67(isa: str, dtype: str, form: tuple[bool, bool]) -> None:
    """All 300,763 products of at most 67 rows, columns and terms."""
    a, b = (sweeps.normal(seed, dtype, 67, 67) for seed in (4, 5))
    x, y = (v.astype(wide(dtype)) for v in (a, b))
    a, b = stored(a, form[0]), stored(b, form[1])
    for k in range(1, 68):
        expected, terms = x[:, :k] @ y[:k], np.abs(x[:, :k]) @ np.abs(y[:k])
        allowance = tolerances.gemm(terms, k, dtype)
        for m, n in product(range(1, 68), repeat=2):
            actual = matmul(a[:m, :k], b[:k, :n])
            what = f"{isa} {m}x{k} by {k}x{n}"
            tolerances.check(actual, expected[:m, :n], allowance[:m, :n], what)


@pytest.mark.parametrize("dtype", DTYPES)
def test_few_rows_and_columns_have_the_bits_of_many(isa: str, dtype: str) -> None:
    """Few rows, few columns and both are made by kernels of their own; k around one chunk, around
    the lanes of chunks that they take side by side, with a last chunk that is shorter, and where
    rows lie whole pages apart; sides around the groups of lanes that are transposed at once.
    """
    sides = [(1, 1), (1, 40), (40, 1), (3, 5), (9, 12), (12, 9), (2, 2), (33, 1), (2, 25), (6, 17)]
    for k in (3, 20, 513, 1024, 2047, 4097, 4700):
        a, b = sweeps.normal(k, dtype, 40, k), sweeps.normal(k + 1, dtype, k, 40)
        bias = sweeps.normal(k + 2, dtype, 40)
        whole = matmul(a, b, bias)
        for (m, n), form in product(sides, FORMS):
            part = matmul(stored(a[:m], form[0]), stored(b[:, :n], form[1]), bias[:n])
            assert np.array_equal(part, whole[:m, :n]), f"{isa} {m}x{k} by {k}x{n} {form}"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
def test_thousands_of_rows_of_few_values_have_the_bits_of_a_few(
    isa: str, dtype: str, k: int
) -> None:
    """A by rows and B by columns without gaps, and with; made in several turns."""
    a, b = sweeps.normal(k, dtype, 5003, k), sweeps.normal(k + 1, dtype, k, 3)
    gaps = sweeps.normal(k, dtype, 5003, k + 2)[:, :k]
    bias = sweeps.normal(k + 2, dtype, 5003)
    for left, n in product((a, gaps), (1, 2, 3)):
        whole = matmul(left, b[:, :n], bias[:n], "relu")
        turned = matmul(b.T[:n], left.T, bias)
        for rows in (slice(0, 7), slice(2047, 2050), slice(4990, 5003)):
            part = np.concatenate([matmul(row[None], b[:, :n], bias[:n]) for row in left[rows]])
            assert np.array_equal(whole[rows], np.maximum(part, 0)), f"{isa} {rows}"
            part = matmul(b.T[:n], stored(left[rows], True).T, bias[rows])
            assert np.array_equal(turned[:, rows], part), f"{isa} {rows}"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", [1, 5, 32, 100])
def test_a_large_product_of_short_sums_has_the_bits_of_a_small_one(
    isa: str, dtype: str, k: int
) -> None:
    a, b = sweeps.normal(1, dtype, 1030, k), sweeps.normal(2, dtype, k, 2100)
    bias = sweeps.normal(3, dtype, 2100)
    for form in FORMS:
        whole = matmul(stored(a, form[0]), stored(b, form[1]), bias, "relu")
        for rows in (slice(0, 7), slice(1023, 1030)):
            part = matmul(a[rows], b, bias, "relu")
            assert np.array_equal(whole[rows], part), f"{isa} {form}"


@pytest.mark.parametrize("dtype", DTYPES)
def test_few_rows_beside_a_large_matrix_have_the_bits_of_fewer(isa: str, dtype: str) -> None:
    """Beyond 8 MiB, with rows of pages, it may be packed for them; for up to four it is not."""
    a, b = sweeps.normal(1, dtype, 14, 1900), sweeps.normal(2, dtype, 1900, 1111)
    right = np.concatenate([matmul(a[i : i + 2], b) for i in range(0, 14, 2)])
    for m in (5, 7, 14):
        sweeps.assert_same_bits(matmul(a[:m], b), right[:m], f"{isa}, {m} rows")


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_row_beside_long_rows_has_the_bits_of_a_row_among_others(isa: str, dtype: str) -> None:
    """From rows of 1 KiB on, if B is more than L1, it may be read by whole rows for one of A."""
    for n, k in ((256, 33), (300, 130), (517, 16), (1023, 600)):
        a, b = sweeps.normal(1, dtype, 8, k), sweeps.normal(2, dtype, k, n)
        bias = sweeps.normal(3, dtype, n)
        whole = matmul(a, b, bias, "relu")
        for i in (0, 7):
            one = matmul(a[i : i + 1], b, bias, "relu")
            sweeps.assert_same_bits(one, whole[i : i + 1], f"{isa} {n} {k}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_short_sums_have_the_bits_of_tiles(isa: str, dtype: str) -> None:
    """An activation on top asks for tiles, and of positive numbers relu changes none; shapes around
    strips of 16 rows and blocks of two vectors, wide enough for A by columns to be packed.
    """
    shapes = [(1, 3), (1, 40), (5, 17), (13, 33), (17, 64), (40, 101)]
    for k in (1, 2, 7, 8, 9, 12, 13, 16, 17):
        a, b = (np.abs(sweeps.normal(k + i, dtype, 40, 101)) for i in range(2))
        bias = np.abs(sweeps.normal(k, dtype, 101))
        for (m, n), form in product(shapes, FORMS):
            left, right = stored(a[:m, :k], form[0]), stored(b[:k, :n], form[1])
            short, tiles = (matmul(left, right, bias[:n], on_top) for on_top in (None, "relu"))
            assert np.array_equal(short, tiles), f"{isa} {m}x{k} by {k}x{n} {form}"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS, ids=["NN", "NT", "TN", "TT"])
def test_long_sums(isa: str, dtype: str, form: tuple[bool, bool]) -> None:
    for k in LONG_K:
        for m, n in ((1, 1), (7, 65), (13, 17)):
            a, b = sweeps.normal(k, dtype, m, k), sweeps.normal(k + 1, dtype, k, n)
            x, y = (v.astype(wide(dtype)) for v in (a, b))
            actual = matmul(stored(a, form[0]), stored(b, form[1]))
            allowance = tolerances.gemm(np.abs(x) @ np.abs(y), k, dtype)
            tolerances.check(actual, x @ y, allowance, f"{isa} {m}x{k} by {k}x{n}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS, ids=["NN", "NT", "TN", "TT"])
def test_packed_in_place_and_wide(isa: str, dtype: str, form: tuple[bool, bool]) -> None:
    """B read in place, and packed because its rows are far apart and A's are many; several panels
    of columns; A packed because its columns are, in one block and in several; a short last register
    tile. Exact, in small integers.
    """
    rng = np.random.default_rng(6)
    shapes = (
        *((3, 5, 1500), (61, 40, 1500), (130, 129, 300), (50, 400, 200), (49, 1160, 140)),
        *((266, 33, 68), (1031, 300, 72), (395, 515, 133)),
    )
    for m, k, n in shapes:
        a, b = (rng.integers(-8, 9, shape).astype(dtype) for shape in ((m, k), (k, n)))
        bias = rng.integers(-8, 9, n).astype(dtype)
        actual = matmul(stored(a, form[0]), stored(b, form[1]), bias)
        right = a.astype(np.float64) @ b.astype(np.float64) + bias
        np.testing.assert_array_equal(actual, right, f"{isa} {m}x{k} by {k}x{n}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS, ids=["NN", "NT", "TN", "TT"])
def test_small_integers_and_powers_of_two_are_exact(
    isa: str, dtype: str, form: tuple[bool, bool]
) -> None:
    """No sum of 385 products of integers up to 64 leaves the 24 bits of float32; nor do sums of
    powers of two whose exponents lie within 23.
    """
    rng = np.random.default_rng(7)
    for m, n, k in [*product((1, 8, 17, 33), repeat=3), (5, 65, 385)]:
        a, b = (rng.integers(-64, 65, shape) for shape in ((m, k), (k, n)))
        p, q = (2.0 ** rng.integers(-3, 4, shape) for shape in ((m, k), (k, n)))
        for left, right in ((a, b), (p, q)):
            actual = matmul(
                stored(left.astype(dtype), form[0]), stored(right.astype(dtype), form[1])
            )
            np.testing.assert_array_equal(actual, left @ right, f"{isa} {m}x{k} by {k}x{n}")


def fused(a: Array, b: Array, c: Array) -> Array:
    """a b + c in float32, rounded once: the product is exact in float64, and their sum is rounded
    to an odd last bit where it is inexact, which makes the second rounding right.
    """
    p, c = a.astype(np.float64) * b.astype(np.float64), c.astype(np.float64)
    s = p + c
    back = s - p
    lost = (p - (s - back)) + (c - back)
    even = (s.view(np.uint64) & np.uint64(1)) == 0
    odd = np.where((lost != 0) & even, np.nextafter(s, np.copysign(np.inf, lost)), s)
    return odd.astype(np.float32)


def in_order(a: Array, b: Array, bias: Array) -> Array:
    """The promised order: the sum of chunks, each by fused multiply-add, the first on the bias."""
    total, start = np.broadcast_to(bias, (len(a), len(bias))), 0
    for length in tolerances.chunks_of(a.shape[1]):
        chunk = total if start == 0 else np.zeros_like(total)
        for p in range(start, start + length):
            chunk = fused(a[:, p, None], b[p], chunk)
        total = chunk if start == 0 else total + chunk
        start += length
    return total


@pytest.mark.parametrize("k", [1, 2, 17, 97, *LONG_K])
def test_float32_has_the_promised_order(isa: str, k: int) -> None:
    a, b = sweeps.normal(k, "float32", 7, k), sweeps.normal(k + 1, "float32", k, 37)
    bias = sweeps.normal(9, "float32", 37)
    sweeps.assert_same_bits(matmul(a, b, bias), in_order(a, b, bias), f"{isa} k={k}")


def test_float64_has_the_promised_order(isa: str) -> None:
    """The same in exact fractions: rounding one to the nearest float64 is what an FMA does."""
    k = 771
    a, b = sweeps.normal(1, "float64", 2, k), sweeps.normal(2, "float64", k, 3)
    expected = np.empty((2, 3))
    for i, j in product(range(2), range(3)):
        total, start = 0.0, 0
        for length in tolerances.chunks_of(k):
            chunk = 0.0
            for p in range(start, start + length):
                term = Fraction(float(a[i, p])) * Fraction(float(b[p, j]))
                chunk = float(term + Fraction(chunk))
            total, start = total + chunk, start + length
        expected[i, j] = total
    sweeps.assert_same_bits(matmul(a, b), expected, isa)


@pytest.mark.parametrize("dtype", DTYPES)
def test_position_strides_and_threads_change_no_bit(isa: str, dtype: str) -> None:
    """A row of C has the bits it has alone; so has a column, any stored form, and any thread count
    with threads forced upon products that are too small for them.
    """
    for m, n, k in ((1, 1, 1), (5, 3, 2), (19, 70, 33), (70, 19, 400)):
        a, b = sweeps.normal(1, dtype, m, k), sweeps.normal(2, dtype, k, n)
        bias = sweeps.normal(3, dtype, n)
        whole = matmul(a, b, bias)
        for i in range(m):
            sweeps.assert_same_bits(matmul(a[i : i + 1], b, bias), whole[i : i + 1], f"row {i}")
        for j in range(n):
            column = matmul(a, b[:, j : j + 1], bias[j : j + 1])
            sweeps.assert_same_bits(column, whole[:, j : j + 1], f"column {j}")
        forms = {
            "transposed": lambda v: stored(v, True),
            "both strides": lambda v: np.repeat(np.repeat(v, 2, 0), 3, 1)[::2, ::3],
            "backwards": lambda v: v[::-1, ::-1].copy()[::-1, ::-1],
            "rows backwards": lambda v: v[::-1].copy()[::-1],
            "one byte off": sweeps.unaligned,
        }
        for left, right in product(forms, repeat=2):
            actual = matmul(forms[left](a), forms[right](b), bias)
            sweeps.assert_same_bits(actual, whole, f"{isa}: A {left}, B {right}")
        for threads in machine.THREADS:
            with machine.using_threads(threads):
                for form in FORMS:
                    actual = matmul(stored(a, form[0]), stored(b, form[1]), bias)
                    sweeps.assert_same_bits(actual, whole, f"{isa}: {threads} threads")


@pytest.mark.parametrize("dtype", DTYPES)
def test_bits_are_those_of_every_isa(dtype: str) -> None:
    for m, n, k in ((1, 1, 1), (3, 97, 65), (33, 31, 9), (17, 63, 1153)):
        a, b = sweeps.normal(1, dtype, m, k), sweeps.normal(2, dtype, k, n)
        results = machine.on_every_isa(lambda a=a, b=b: matmul(a, b))
        for name, result in results.items():
            sweeps.assert_same_bits(result, results["scalar"], f"{name}, {m}x{k} by {k}x{n}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_fused_activation_is_the_activation_of_the_product(
    isa: str, dtype: str, activation: str
) -> None:
    entry = next(e for e in _core.activations() if e["name"] == activation)
    for m, n, k in ((1, 1, 1), (7, 33, 5), (9, 64, 17), (20, 65, 800)):
        a, b = sweeps.normal(1, dtype, m, k), sweeps.normal(2, dtype, k, n)
        bias = sweeps.normal(3, dtype, n)
        z = matmul(a, b, bias)
        expected = np.empty_like(z)
        _core.activation_forward(activation, z, expected, entry["default_param"])
        sweeps.assert_same_bits(matmul(a, b, bias, activation), expected, f"{isa} {m}x{k}x{n}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_writes_its_output_and_nothing_else(isa: str, dtype: str) -> None:
    """C starts as NaN, which must not be read, in a frame that must not change; A, B and the bias
    begin 0, 1 and 3 elements beyond a cache line.
    """
    for (m, n, k), shift in product(product((1, 3, 8, 17, 33, 65), repeat=3), sweeps.SHIFTS):
        a = sweeps.shifted(sweeps.normal(1, dtype, m, k), shift)
        b = sweeps.shifted(sweeps.normal(2, dtype, k, n), shift)
        bias = sweeps.shifted(sweeps.normal(3, dtype, n), shift)
        expected = matmul(a, b, bias, "relu")
        assert np.isfinite(expected).all()
        out, intact = sweeps.framed((m, n), dtype, shift)
        matmul(a, b, bias, "relu", out)
        intact()
        sweeps.assert_same_bits(out, expected, f"{isa} {m}x{k} by {k}x{n} shifted by {shift}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_reads_no_byte_beyond_its_inputs(isa: str, dtype: str) -> None:
    """A, B and bias end, then begin, at a page that faults; run in a child, which may die."""

    def work() -> None:
        for (m, n, k), form in product(product((1, 7, 17, 33), repeat=3), FORMS):
            a, b = sweeps.normal(1, dtype, m, k), sweeps.normal(2, dtype, k, n)
            bias = sweeps.normal(3, dtype, n)
            expected = matmul(a, b, bias)
            left = np.ascontiguousarray(a.T if form[0] else a)
            right = np.ascontiguousarray(b.T if form[1] else b)
            for at_end in (True, False):
                with (
                    sweeps.guarded(left, at_end=at_end) as x,
                    sweeps.guarded(right, at_end=at_end) as y,
                    sweeps.guarded(bias, at_end=at_end) as z,
                    sweeps.guarded(expected, at_end=at_end) as out,
                ):
                    matmul(x.T if form[0] else x, y.T if form[1] else y, z, None, out)
                    sweeps.assert_same_bits(out.copy(), expected, f"{m}x{k} by {k}x{n}")

    machine.in_child(work)


@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_to_add_or_to_make(isa: str, dtype: str) -> None:
    """No terms give the bias or zeros, through an activation too; no rows or columns, nothing."""
    bias = sweeps.normal(1, dtype, 19)
    empty_a, empty_b = np.empty((5, 0), dtype), np.empty((0, 19), dtype)
    np.testing.assert_array_equal(matmul(empty_a, empty_b), np.zeros((5, 19)))
    np.testing.assert_array_equal(matmul(empty_a, empty_b, bias), np.tile(bias, (5, 1)))
    relu = np.tile(np.maximum(bias, 0), (5, 1))
    np.testing.assert_array_equal(matmul(empty_a, empty_b, bias, "relu"), relu)
    for m, n in ((0, 19), (5, 0), (0, 0)):
        assert matmul(np.ones((m, 3), dtype), np.ones((3, n), dtype)).shape == (m, n)


@pytest.mark.parametrize("dtype", DTYPES)
def test_stacks_and_broadcasts(isa: str, dtype: str) -> None:
    """Stacks of any stride, 0 and negative too, are the products of their matrices."""
    a, b = sweeps.normal(1, dtype, 6, 5, 9), sweeps.normal(2, dtype, 6, 9, 17)
    single = np.stack([matmul(x, y) for x, y in zip(a, b, strict=True)])
    out = np.empty((6, 5, 17), dtype)
    _core.matmul(a, b, None, None, 0.0, out)
    sweeps.assert_same_bits(out, single)
    _core.matmul(a[::-2], b[::-2], None, None, 0.0, out[:3])
    sweeps.assert_same_bits(out[:3], single[::-2])
    everywhere = np.broadcast_to(b[0], b.shape)
    _core.matmul(a, everywhere, None, None, 0.0, out)
    sweeps.assert_same_bits(out, np.stack([matmul(x, b[0]) for x in a]))
    sweeps.assert_same_bits(np.asarray(ops.matmul(a, b[0])), out)


@pytest.mark.parametrize("dtype", DTYPES)
def test_special_values_stay_in_their_row_and_column(isa: str, dtype: str) -> None:
    """NaN in A spoils a row of C, in B a column, wherever it stands in the vectors; infinity
    likewise; the rest keeps its bits. Zero times infinity is NaN.
    """
    m, k, n = 9, 11, 3 * sweeps.LANES[dtype] - 1
    a, b = sweeps.normal(1, dtype, m, k), sweeps.normal(2, dtype, k, n)
    plain = matmul(a, b)
    for value in (np.nan, np.inf, -np.inf):
        for i, p in product(range(m), (0, 5, k - 1)):
            bad = a.copy()
            bad[i, p] = value
            actual = matmul(bad, b)
            assert not np.isfinite(actual[i]).any()
            others = np.delete(np.arange(m), i)
            sweeps.assert_same_bits(actual[others], plain[others])
        for j in range(n):
            bad = b.copy()
            bad[j % k, j] = value
            actual = matmul(a, bad)
            assert not np.isfinite(actual[:, j]).any()
            others = np.delete(np.arange(n), j)
            sweeps.assert_same_bits(actual[:, others], plain[:, others])
    assert np.isnan(matmul(np.zeros((1, 1), dtype), np.full((1, 1), np.inf, dtype)))[0, 0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_signed_zeros_and_denormals(isa: str, dtype: str) -> None:
    """A sum starts at +0, so that -0 never comes out of terms alone, but a bias of -0 stays where
    -0 is all that is added. Denormals count: fastbp.ops does not flush them.
    """
    minus, zero = np.full((1, 1), -0.0, dtype), np.zeros((1, 1), dtype)
    one = np.ones((1, 1), dtype)
    sweeps.assert_same_bits(matmul(minus, one), zero)
    sweeps.assert_same_bits(matmul(minus, one, minus[0]), minus)
    small = np.full((2, 3), np.finfo(dtype).smallest_subnormal * 5, dtype)
    np.testing.assert_array_equal(
        matmul(small, np.ones((3, 4), dtype)), np.full((2, 4), 15 * small[0, 0] / 5)
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_layouts_are_checked(dtype: str) -> None:
    a, b, out = np.ones((2, 3), dtype), np.ones((3, 4), dtype), np.empty((2, 4), dtype)
    frozen = out.copy()
    frozen.flags.writeable = False
    other = "float64" if dtype == "float32" else "float32"
    for bad_out in (frozen, out.T, np.empty((4, 2), dtype).T, sweeps.unaligned(out)):
        with pytest.raises(ValueError, match=r"out|shape"):
            matmul(a, b, out=bad_out)
    with pytest.raises(ValueError, match="bias"):
        matmul(a, b, sweeps.unaligned(np.ones(4, dtype)))
    with pytest.raises(ValueError, match="bias"):
        matmul(a, b, np.ones(5, dtype))
    with pytest.raises(TypeError, match="dtype"):
        matmul(a, b.astype(other))
    with pytest.raises(TypeError, match="dtype"):
        matmul(a, b.astype(b.dtype.newbyteorder()))
    with pytest.raises(ValueError, match="shapes"):
        matmul(a, b[:2])


@pytest.mark.slow
def test_more_than_2_to_the_31_terms() -> None:
    """One row of 2^31 + 5 terms, each the same float: 8 bytes of memory, 2^31 + 5 strides of 0.
    Every sum along the way is an integer that float64 holds.
    """
    k = 2**31 + 5
    a = np.lib.stride_tricks.as_strided(np.ones(1), (1, 1, k), (0, 0, 0))
    b = np.lib.stride_tricks.as_strided(np.ones(1), (1, k, 1), (0, 0, 0))
    out = np.empty((1, 1, 1))
    _core.matmul(a, b, None, None, 0.0, out)
    assert out[0, 0, 0] == k
