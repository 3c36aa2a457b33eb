"""bfloat16: products of float32 matrices whose elements are rounded, where that is fast.

Compared: the rounding with its definition (nearest of the two neighbours, ties to even); the
product with the oracle, which rounds the operands in the same way and sums in float64, within
tolerances.bfloat16_gemm; the engine with its NumPy twin, and with float32 where accuracy counts.
Where the processor cannot, the refusal is tested, and what needs the kernel is skipped.
"""

from __future__ import annotations

import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

import fastbp as bp
import machine
import sweeps
import tolerances
from fastbp import _core, ops, reference
from fastbp.cli import main
from fastbp.reference.bfloat16 import round_to_bfloat16
from sweeps import Array

PROBLEM = _core.bfloat16_problem()
FORMS = tuple(product((False, True), repeat=2))  # transpose_a, transpose_b
# Around pairs, vectors, tiles, panels.
SIZES = (1, 2, 5, 6, 7, 12, 13, 16, 17, 33, 64, 65, 97)
# Around a pair, the vector of pairs, and one group of 1024, whose sums go on in C.
LONG_K = (0, 1, 2, 3, 31, 32, 33, 1023, 1024, 1025, 2047, 2050, 3001)
# Many rows and columns: blocks of A, panels that are kept and that are not.
LARGE = ((300, 40, 100), (61, 1500, 40), (700, 530, 70), (33, 600, 1100), (1030, 65, 1030))


@pytest.fixture(autouse=True)
def fast(request: pytest.FixtureRequest) -> None:
    if PROBLEM and "anywhere" not in request.node.keywords:
        pytest.skip(f"no bfloat16 here: {PROBLEM}")


anywhere = pytest.mark.anywhere


def matmul(a: Array, b: Array, bias: Array | None = None, activation: str | None = None) -> Array:
    out = np.full((1, a.shape[0], b.shape[1]), np.nan, np.float32)
    param = next((e["default_param"] for e in _core.activations() if e["name"] == activation), 0.0)
    _core.matmul(a[None], b[None], bias, activation, param, out, True)
    return out[0]


def stored(a: Array, transposed: bool) -> Array:
    return np.ascontiguousarray(a.T).T if transposed else a


def check_product(a: Array, b: Array, bias: Array, form: tuple[bool, bool], what: str) -> None:
    x, y = round_to_bfloat16(a), round_to_bfloat16(b)
    actual = matmul(stored(a, form[0]), stored(b, form[1]), bias)
    allowance = tolerances.bfloat16_gemm(np.abs(x) @ np.abs(y) + np.abs(bias), a.shape[1])
    tolerances.check(actual, x @ y + bias, allowance, what)


@anywhere
def test_rounding_is_to_nearest_even() -> None:
    """Every pattern of the upper half's last bits against a search among both neighbours."""
    words = np.arange(0, 2**32, 2**32 // 200_003, dtype=np.uint64).astype(np.uint32)
    ties = (np.arange(1 << 16, dtype=np.uint32) << 16) | np.uint32(0x8000)
    values = np.concatenate([words, ties, ties + np.uint32(1), ties - np.uint32(1)])
    values = values.view(np.float32)
    with np.errstate(invalid="ignore"):
        exact = values.astype(np.float64)
    rounded = round_to_bfloat16(exact)
    np.testing.assert_array_equal(np.isnan(rounded), np.isnan(exact))
    finite = np.isfinite(exact)
    size, value = np.abs(rounded[finite]), np.abs(exact[finite])
    bits = values[finite].view(np.uint32) & np.uint32(0x7FFF0000)
    low = bits.view(np.float32).astype(np.float64)
    high = (bits + np.uint32(0x10000)).view(np.float32).astype(np.float64)
    high = np.where(np.isinf(high), 2.0**128, high)  # where overflow begins
    even = (bits >> np.uint32(16)) % 2 == 0
    up = (value - low > high - value) | ((value - low == high - value) & ~even)
    nearest = np.where(up, np.where(high == 2.0**128, np.inf, high), low)
    np.testing.assert_array_equal(size, nearest)
    np.testing.assert_array_equal(np.signbit(rounded[finite]), np.signbit(exact[finite]))


@pytest.mark.parametrize("form", FORMS, ids=["NN", "NT", "TN", "TT"])
def test_every_size(form: tuple[bool, bool]) -> None:
    sizes = list(product(SIZES, repeat=3))
    for m, n, k in sizes[sum(form) :: 2]:
        a, b = sweeps.normal(1, "float32", m, k), sweeps.normal(2, "float32", k, n)
        check_product(a, b, sweeps.normal(3, "float32", n), form, f"{m}x{k} by {k}x{n}")


@pytest.mark.parametrize("form", FORMS, ids=["NN", "NT", "TN", "TT"])
def test_long_sums_and_large_matrices(form: tuple[bool, bool]) -> None:
    shapes = [(m, n, k) for k in LONG_K for m, n in ((1, 1), (7, 65), (13, 17))]
    for m, n, k in (*shapes, *LARGE):
        a, b = sweeps.normal(k, "float32", m, k), sweeps.normal(k + 1, "float32", k, n)
        check_product(a, b, sweeps.normal(3, "float32", n), form, f"{m}x{k} by {k}x{n}")


def test_what_bfloat16_holds_is_multiplied_exactly() -> None:
    """Integers of 8 bits, whose sums float32 holds too."""
    rng = np.random.default_rng(7)
    for m, n, k in ((5, 65, 385), (70, 130, 1), (1, 1, 2000), (70, 200, 1030)):
        a, b = rng.integers(-64, 65, (m, k)), rng.integers(-64, 65, (k, n))
        bias = rng.integers(-64, 65, n)
        for form in FORMS:
            left, right = (v.astype(np.float32) for v in (a, b))
            actual = matmul(stored(left, form[0]), stored(right, form[1]), bias.astype(np.float32))
            np.testing.assert_array_equal(actual, a @ b + bias)


def test_position_strides_and_threads_change_no_bit() -> None:
    for m, n, k in ((1, 1, 1), (5, 3, 2), (19, 70, 33), (70, 19, 400), (130, 140, 1100)):
        a, b = sweeps.normal(1, "float32", m, k), sweeps.normal(2, "float32", k, n)
        bias = sweeps.normal(3, "float32", n)
        whole = matmul(a, b, bias)
        for i in range(0, m, 7):
            sweeps.assert_same_bits(matmul(a[i : i + 1], b, bias), whole[i : i + 1], f"row {i}")
        for j in range(0, n, 5):
            column = matmul(a, b[:, j : j + 1], bias[j : j + 1])
            sweeps.assert_same_bits(column, whole[:, j : j + 1], f"column {j}")
        for threads in machine.THREADS:
            with machine.using_threads(threads):
                for form in FORMS:
                    actual = matmul(stored(a, form[0]), stored(b, form[1]), bias)
                    sweeps.assert_same_bits(actual, whole, f"{threads} threads")


def test_fused_activation_is_the_activation_of_the_product() -> None:
    for m, n, k in ((1, 1, 1), (7, 33, 5), (9, 64, 17), (20, 65, 1100)):
        a, b = sweeps.normal(1, "float32", m, k), sweeps.normal(2, "float32", k, n)
        z = matmul(a, b)
        sweeps.assert_same_bits(matmul(a, b, activation="tanh"), ops.tanh(z))


def test_writes_its_output_and_nothing_else() -> None:
    for (m, n, k), shift in product(product((1, 7, 33, 65), repeat=3), sweeps.SHIFTS):
        a = sweeps.shifted(sweeps.normal(1, "float32", m, k), shift)
        b = sweeps.shifted(sweeps.normal(2, "float32", k, n), shift)
        expected = matmul(a, b)
        out, intact = sweeps.framed((m, n), "float32", shift)
        _core.matmul(a[None], b[None], None, None, 0.0, out[None], True)
        intact()
        sweeps.assert_same_bits(out, expected)


def test_reads_no_byte_beyond_its_inputs() -> None:
    """A and B end, then begin, at a page that faults; run in a child, which may die."""

    def work() -> None:
        for (m, n, k), form in product(product((1, 7, 17, 33), repeat=3), FORMS):
            a, b = sweeps.normal(1, "float32", m, k), sweeps.normal(2, "float32", k, n)
            expected = matmul(a, b)
            left = np.ascontiguousarray(a.T if form[0] else a)
            right = np.ascontiguousarray(b.T if form[1] else b)
            for at_end in (True, False):
                with (
                    sweeps.guarded(left, at_end=at_end) as x,
                    sweeps.guarded(right, at_end=at_end) as y,
                ):
                    actual = matmul(x.T if form[0] else x, y.T if form[1] else y)
                    sweeps.assert_same_bits(actual, expected, f"{m}x{k} by {k}x{n}")

    machine.in_child(work)


def test_special_values() -> None:
    """NaN and infinity stay in their row and column; what rounds beyond the range is infinite;
    NaN of every payload stays NaN; denormals count as 0.
    """
    a, b = sweeps.normal(1, "float32", 9, 11), sweeps.normal(2, "float32", 11, 40)
    plain = matmul(a, b)
    largest = np.finfo(np.float32).max
    payload = np.array([0x7F800001], np.uint32).view(np.float32)[0]  # its upper half is infinity's
    for value, form in product((np.nan, np.inf, -np.inf, payload, largest), FORMS):
        for i, p in product(range(9), (0, 5, 10)):
            bad = a.copy()
            bad.view(np.uint32)[i, p] = np.float32(value).view(np.uint32)
            actual = matmul(stored(bad, form[0]), stored(b, form[1]))
            assert not np.isfinite(actual[i]).any()
            if np.isnan(value):
                assert np.isnan(actual[i]).all()
            others = np.delete(np.arange(9), i)
            sweeps.assert_same_bits(actual[others], plain[others])
    small = np.full((2, 3), np.finfo(np.float32).smallest_normal / 2, np.float32)
    np.testing.assert_array_equal(matmul(small, np.full((3, 4), 2.0**100, np.float32)), 0)


def test_the_functional_layer() -> None:
    a, b = sweeps.normal(1, "float32", 3, 5, 9), sweeps.normal(2, "float32", 9, 17)
    x, y = round_to_bfloat16(a), round_to_bfloat16(b)
    got, want = (library.matmul(a, b, precision="bfloat16") for library in (ops, reference))
    allowance = tolerances.bfloat16_gemm(np.abs(x) @ np.abs(y), 9)
    tolerances.check(got, x @ y, allowance)
    tolerances.check(want, x @ y, allowance)
    sweeps.assert_same_bits(ops.matmul(a[0], b, precision="bfloat16"), got[0])
    for library in (ops, reference):
        with pytest.raises(TypeError, match="float32"):
            library.matmul(a, b.astype(np.float64), precision="bfloat16")
        with pytest.raises(ValueError, match="precision"):
            library.matmul(a, b, precision="float16")


def digits() -> tuple[Array, Array]:
    data = load_digits()
    return (data.data / 16).astype(np.float32), data.target


def trained(dtype: str, device: str = "cpu", epochs: int = 15) -> Any:
    x, y = digits()
    model = bp.Sequential([bp.Dense(128, activation="relu"), bp.Dense(10)], seed=0)
    model.compile(bp.Adam(1e-3), "softmax_cross_entropy", ["accuracy"], device, dtype)
    model.fit(x[:1500], y[:1500], epochs=epochs, batch_size=32, verbose=0)
    return model


def test_digits_are_learnt_as_well_as_in_float32() -> None:
    x, y = digits()
    scores = {
        dtype: trained(dtype).evaluate(x[1500:], y[1500:]) for dtype in ("float32", "bfloat16")
    }
    gap = scores["bfloat16"]["loss"] - scores["float32"]["loss"]
    print(f"loss float32 {scores['float32']['loss']:.4f}, bfloat16 {gap:+.4f}")
    assert abs(gap) < 0.02
    assert scores["bfloat16"]["accuracy"] >= scores["float32"]["accuracy"] - 0.01
    assert scores["bfloat16"]["accuracy"] > 0.9


def test_training_has_the_same_bits_for_any_number_of_threads() -> None:
    results = []
    for threads in machine.THREADS:
        with machine.using_threads(threads):
            results.append(
                {k: v.copy() for k, v in trained("bfloat16", epochs=1).parameters().items()}
            )
    for other in results[1:]:
        for name, value in results[0].items():
            sweeps.assert_same_bits(other[name], value, name)


def test_gradients_are_those_of_the_twin() -> None:
    """A number that falls between two bfloat16 may be rounded the other way by an engine whose
    sums differ in the last bit of float32: then that operand is off by 2^-8 of itself. Of 2^15
    operands about one in 2^15 / 2^8 sums does so; in the norm that is far below 2^-8.
    """
    x, y = digits()
    models = [trained("bfloat16", device, epochs=0) for device in ("cpu", "reference")]
    for model in models:
        model.build(64)
    losses, gradients = zip(*(model.gradients(x[:256], y[:256]) for model in models), strict=True)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for name, value in gradients[0].items():
        assert tolerances.norm_error(value, gradients[1][name]) < 2.0**-10, name


def test_data_and_files_are_float32(tmp_path: Any) -> None:
    model = trained("bfloat16", epochs=1)
    x, _ = digits()
    assert model.dtype == "bfloat16"
    assert {v.dtype.name for v in model.parameters().values()} == {"float32"}
    assert model.predict(x).dtype == np.float32
    model.save(tmp_path / "model")
    for device in ("cpu", "reference"):
        again = bp.load(tmp_path / "model", device)
        assert again.dtype == "bfloat16"
        np.testing.assert_allclose(again.predict(x), model.predict(x), atol=1e-2)
    sweeps.assert_same_bits(bp.load(tmp_path / "model", "cpu").predict(x), model.predict(x))


def test_the_peak_is_probed() -> None:
    assert _core.probe_peak("bfloat16", 1, 0.01) > 0
    assert bp.info()["bfloat16"] is True


@anywhere
def test_the_twin_runs_everywhere() -> None:
    x, y = digits()
    model = trained("bfloat16", "reference", epochs=2)
    assert model.evaluate(x[1500:], y[1500:])["accuracy"] > 0.7


@anywhere
def test_other_kernels_refuse(tmp_path: Any) -> None:
    model = bp.Sequential([bp.Dense(3), bp.Dense(1)])
    twin = trained("bfloat16", "reference", epochs=0)
    twin.build(64)
    twin.save(tmp_path / "model")
    with machine.using_isa("scalar"):
        assert bp.info()["bfloat16"] is False
        for refused in (
            lambda: model.compile("adam", "mse", dtype="bfloat16"),
            lambda: bp.load(tmp_path / "model", "cpu"),
            lambda: ops.matmul(np.ones((2, 2), "f"), np.ones((2, 2), "f"), precision="bfloat16"),
        ):
            with pytest.raises(bp.DeviceNotAvailableError, match="bfloat16") as caught:
                refused()
            assert caught.value.reason == "no_bfloat16"
            for word in ("Zen 4", "float32", "reference"):
                assert word in str(caught.value)
        with pytest.raises(RuntimeError, match="bfloat16"):
            _core.Engine(2, [("dense", 1, True)], "bfloat16")
        with pytest.raises(RuntimeError, match="bfloat16"):
            _core.probe_peak("bfloat16", 1, 0.01)
    assert model.dtype == "float32"


@anywhere
def test_the_command_line_refuses_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    with machine.using_isa("scalar"):
        assert main(["demo", "--dtype", "bfloat16", "--epochs", "1"]) == 2
    assert "no_bfloat16" not in (message := capsys.readouterr().err)
    assert "bfloat16" in message and "Zen 4" in message


SMALL_SIGNAL_STACK = """
import ctypes
class Stack(ctypes.Structure):
    _fields_ = [("place", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]
memory = ctypes.create_string_buffer(4096)
stack = Stack(ctypes.addressof(memory), 0, 4096)
assert ctypes.CDLL(None).sigaltstack(ctypes.byref(stack), None) == 0
import fastbp as bp
try:
    bp.Sequential([bp.Dense(3)]).compile("adam", "mse", dtype="bfloat16")
except bp.DeviceNotAvailableError as error:
    print(error.reason, error)
model = bp.Sequential([bp.Dense(3)])
model.compile("adam", "mse")
print(model.dtype)
"""


def test_where_the_system_refuses_the_tiles_it_is_told() -> None:
    """Linux gives no leave to use AMX where a signal would not find room for its registers."""
    if "amx_bf16" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("no AMX here")
    said = subprocess.run(
        [sys.executable, "-c", SMALL_SIGNAL_STACK], capture_output=True, text=True, check=True
    ).stdout
    assert "no_bfloat16" in said and "signal stack" in said
    assert said.splitlines()[-1] == "float32"
