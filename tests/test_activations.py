"""Activations, their derivatives and the vector maths, on every instruction set.

Compared: forward with the oracle in ulp (tolerances.VECTOR_ULP, activation_ulp) at both signs of
every magnitude; backward with the oracle within tolerances.conditioned. Then, bit for bit: every
length of sweeps.SIZES, shift, in-place use and thread count against one long run, every
instruction set against the scalar one, special values at every lane of two vectors and a tail.
All lists are the extension's own: a new activation or function is tested as soon as it is there.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest

import machine
import sweeps
import tolerances
from fastbp import _core, ops, reference
from sweeps import DTYPES, SIZES, Array

isa = machine.isa

ENTRIES = {entry["name"]: entry for entry in _core.activations()}
FUNCTIONS = _core.vector_functions()
# Besides the default: other slopes, other alphas. Activations without a parameter ignore it.
PARAMETERS = {"leaky_relu": (0.01, 0.25, 1.5), "elu": (1.0, 0.25, 1.5)}
CASES = [
    (name, param)
    for name in ENTRIES
    for param in PARAMETERS.get(name, (ENTRIES[name]["default_param"],))
]
POINTS = 4001


def forward(name: str, x: Array, out: Array | None = None, param: float | None = None) -> Array:
    out = np.full_like(x, np.nan) if out is None else out
    _core.activation_forward(
        name, x, out, ENTRIES[name]["default_param"] if param is None else param
    )
    return out


def backward(
    name: str, saved: Array, dy: Array, out: Array | None = None, param: float | None = None
) -> Array:
    out = np.full_like(dy, np.nan) if out is None else out
    param = ENTRIES[name]["default_param"] if param is None else param
    _core.activation_backward(name, saved, dy, out, param)
    return out


def vector_math(name: str, x: Array, out: Array | None = None) -> Array:
    out = np.full_like(x, np.nan) if out is None else out
    _core.vector_math(name, x, out)
    return out


# Every elementwise function of one array: activations and vector maths.
UNARY: dict[str, Callable[..., Array]] = {
    **{f"{name}()": lambda x, out=None, name=name: forward(name, x, out) for name in ENTRIES},
    **{name: lambda x, out=None, name=name: vector_math(name, x, out) for name in FUNCTIONS},
}


def twin(name: str) -> Callable[..., Array]:
    """The oracle of an entry of UNARY."""
    function: Callable[..., Array] = getattr(reference, name.removesuffix("()"))
    return function


def extra_of(name: str, x: Array) -> Array:
    """What an activation's left tail may be off by beside the ulp."""
    dtype = x.dtype.name
    share = tolerances.ACTIVATION_EPS.get(name, 0.0) * float(np.finfo(dtype).eps)
    return np.where(np.abs(x) < 1e3, share + tolerances.tail(x, dtype), 0.0)


def from_y(name: str) -> bool:
    return ENTRIES[name]["saves"] == "output"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_vector_maths_in_ulp(isa: str, dtype: str, name: str) -> None:
    x = sweeps.points(dtype, POINTS)
    expected = twin(name)(x.astype(np.float64))
    tolerances.check_ulp(
        vector_math(name, x), expected, tolerances.VECTOR_ULP[dtype], f"{isa} {name}"
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "param"), CASES)
def test_forward_in_ulp(isa: str, dtype: str, name: str, param: float) -> None:
    x = sweeps.points(dtype, POINTS)
    exact_param = float(np.dtype(dtype).type(param))
    expected = reference.activation_forward(name, x.astype(np.float64), param=exact_param)
    actual = forward(name, x, param=param)
    allowed, extra = tolerances.activation_ulp(name, dtype), extra_of(name, x)
    tolerances.check_ulp(actual, expected, allowed, f"{isa} {name}({param})", extra)


@pytest.mark.parametrize("dtype", DTYPES)
def test_exact_activations(isa: str, dtype: str) -> None:
    """Those that only choose, and a slope that is a power of two."""
    x = sweeps.points(dtype, POINTS)
    sweeps.assert_same_bits(forward("identity", x), x)
    np.testing.assert_array_equal(forward("relu", x), np.maximum(x, 0))
    np.testing.assert_array_equal(forward("leaky_relu", x, param=0.25), np.where(x > 0, x, x / 4))
    saved, dy = np.array([2, 0, -1, 3], dtype), np.array([5, 6, 7, -8], dtype)
    np.testing.assert_array_equal(backward("identity", saved, dy), dy)
    np.testing.assert_array_equal(backward("relu", saved, dy), [5, 0, 0, -8])
    np.testing.assert_array_equal(backward("leaky_relu", saved, dy, param=0.25), [5, 1.5, 1.75, -8])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "param"), CASES)
def test_backward(isa: str, dtype: str, name: str, param: float) -> None:
    """From the same saved z or y, in the same precision, as the kernel has it."""
    z = sweeps.points(dtype, POINTS)
    dy = np.random.default_rng(1).uniform(-2, 2, z.size).astype(dtype)
    saved = forward(name, z, param=param) if from_y(name) else z
    keep = np.isfinite(saved)
    saved, dy = saved[keep], dy[keep]
    keyword, exact_param = "y" if from_y(name) else "z", float(np.dtype(dtype).type(param))

    def exact(s: Array, g: Array) -> list[Array]:
        return [reference.activation_backward(name, g, **{keyword: s}, param=exact_param)]

    inputs = saved.astype(np.float64), dy.astype(np.float64)
    (allowance,) = tolerances.conditioned(exact, inputs, dtype)
    allowance += tolerances.tail(saved, dtype) * np.abs(inputs[1])
    actual = backward(name, saved, dy, param=param)
    tolerances.check(actual, exact(*inputs)[0], allowance, f"{isa} {name}({param}) backward")


@pytest.mark.slow
@pytest.mark.parametrize("name", UNARY)
def test_a_64th_of_all_floats(name: str) -> None:
    """67 million float32 arguments, every 64th bit pattern: within the bounds, and the same bits on
    every instruction set.
    """
    x = np.arange(0, 2**32, 64, dtype=np.uint64).astype(np.uint32).view(np.float32)
    activation = name.removesuffix("()") if name.endswith("()") else None
    allowed = tolerances.VECTOR_ULP["float32"]
    if activation:
        allowed = tolerances.activation_ulp(activation, "float32")
    for part in np.array_split(x, 256):
        with np.errstate(all="ignore"):
            expected = twin(name)(part.astype(np.float64))
            extra = extra_of(activation, part) if activation else 0.0
        results = machine.on_every_isa(lambda part=part: UNARY[name](part))
        tolerances.check_ulp(results["scalar"], expected, allowed, name, extra)
        for other, result in results.items():
            sweeps.assert_same_bits(result, results["scalar"], f"{other} {name}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", UNARY)
def test_length_place_and_threads_change_no_bit(isa: str, dtype: str, name: str) -> None:
    """f(x)[i] depends on x[i] alone. Also in place, and without a trace outside the output."""
    function = UNARY[name]
    x = np.random.default_rng(2).normal(0, 4, 4096 + 5).astype(dtype)
    whole = function(x)
    for size, shift in product(SIZES, sweeps.SHIFTS):
        source = sweeps.shifted(x[:size], shift)
        out, intact = sweeps.framed(size, dtype, shift)
        sweeps.assert_same_bits(function(source, out), whole[:size], f"{isa} {name} {size}+{shift}")
        intact()
        sweeps.assert_same_bits(source, x[:size])
        place, intact = sweeps.framed(size, dtype, shift)
        place[...] = source
        sweeps.assert_same_bits(function(place, place), whole[:size], f"{isa} {name} in place")
        intact()
    for threads in machine.THREADS:
        with machine.using_threads(threads):
            sweeps.assert_same_bits(function(x), whole, f"{isa} {name}, {threads} threads")
    for rows in (x[:4000].reshape(40, 100), x[:0], x[:1].reshape(())):
        assert function(rows).shape == rows.shape


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ENTRIES)
def test_backward_length_place_and_threads_change_no_bit(isa: str, dtype: str, name: str) -> None:
    """The same of dz, written to its own memory, over dy, and over what was saved."""
    z, dy = (sweeps.normal(seed, dtype, 4096 + 5) * 3 for seed in (1, 2))
    saved = forward(name, z) if from_y(name) else z
    whole = backward(name, saved, dy)
    for size, shift in product(SIZES, sweeps.SHIFTS):
        kept, gradient = (sweeps.shifted(v[:size], shift) for v in (saved, dy))
        out, intact = sweeps.framed(size, dtype, shift)
        sweeps.assert_same_bits(backward(name, kept, gradient, out), whole[:size])
        intact()
        sweeps.assert_same_bits(backward(name, kept, gradient, gradient), whole[:size], "over dy")
        gradient[...] = dy[:size]
        sweeps.assert_same_bits(backward(name, kept, gradient, kept), whole[:size], "over saved")
    for threads in machine.THREADS:
        with machine.using_threads(threads):
            sweeps.assert_same_bits(backward(name, saved, dy), whole, f"{isa}, {threads} threads")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", UNARY)
def test_bits_are_those_of_every_isa(dtype: str, name: str) -> None:
    x = sweeps.points(dtype, POINTS)
    results = machine.on_every_isa(lambda: UNARY[name](x))
    for other, result in results.items():
        sweeps.assert_same_bits(result, results["scalar"], f"{other} {name}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ENTRIES)
def test_backward_bits_are_those_of_every_isa(dtype: str, name: str) -> None:
    z = sweeps.points(dtype, POINTS)
    dy = np.random.default_rng(3).uniform(-2, 2, z.size).astype(dtype)
    saved = machine.on_every_isa(lambda: forward(name, z))["scalar"] if from_y(name) else z
    results = machine.on_every_isa(lambda: backward(name, saved, dy))
    for other, result in results.items():
        sweeps.assert_same_bits(result, results["scalar"], f"{other} {name}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", UNARY)
def test_special_values_at_every_lane(isa: str, dtype: str, name: str) -> None:
    """NaN goes through, infinities and zeros give what the oracle gives (the vector maths the sign
    of zero too), wherever they stand, and the other lanes do not notice.
    """
    info = np.finfo(dtype)
    values = [np.nan, np.inf, -np.inf, 0.0, -0.0, info.smallest_subnormal, -info.tiny / 4, info.max]
    positions = sweeps.LANE_POSITIONS[dtype]
    x = np.random.default_rng(4).normal(0, 2, len(positions)).astype(dtype)
    plain = UNARY[name](x)
    for value in np.array(values, dtype):
        expected = np.asarray(twin(name)(np.array([value]))).astype(dtype)
        alone = UNARY[name](np.array([value]))
        assert np.isnan(alone[0]) == np.isnan(expected[0]), (name, value, alone, expected)
        if not np.isfinite(value) or value == 0:
            np.testing.assert_array_equal(alone, expected, f"{isa} {name}({value})")
        if value == 0 and name in FUNCTIONS:
            sweeps.assert_same_bits(alone, expected, f"{isa} {name}({value})")
        for position in positions:
            changed = x.copy()
            changed[position] = value
            actual = UNARY[name](changed)
            sweeps.assert_same_bits(actual[position : position + 1], alone, f"{name}({value})")
            actual[position] = plain[position]
            sweeps.assert_same_bits(actual, plain, f"{isa} {name}: lanes beside {position}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ENTRIES)
def test_special_gradients(isa: str, dtype: str, name: str) -> None:
    """NaN in dy gives NaN, and so does NaN in z where the derivative there is NaN; at the ends and
    at zero the derivative is the oracle's.
    """
    dy = np.array([1.0, -2.0], dtype)
    for value in np.array([np.inf, -np.inf, 0.0, -0.0], dtype):
        z = np.array([value, value])
        saved = forward(name, z) if from_y(name) else z
        expected = reference.activation_backward(name, dy, z=z)
        actual = backward(name, saved, dy)
        allowance = tolerances.ROUNDINGS * tolerances.unit(dtype) * np.abs(expected)
        tolerances.check(actual, expected, allowance, f"{isa} {name}'({value})")
    size = len(sweeps.LANE_POSITIONS[dtype])
    z, ones = sweeps.normal(5, dtype, size), np.ones(size, dtype)
    saved = forward(name, z) if from_y(name) else z
    plain = backward(name, saved, ones)
    for position in range(size):
        bad = ones.copy()
        bad[position] = np.nan
        actual = backward(name, saved, bad)
        # relu'(z) = 0 drops dy where z <= 0, and NaN with it.
        assert np.isnan(actual[position]) or plain[position] == 0
        actual[position] = plain[position]
        sweeps.assert_same_bits(actual, plain, f"{isa} {name}: lanes beside {position}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_ranges_and_order(isa: str, dtype: str) -> None:
    """What a user takes for granted: probabilities in [0, 1], tanh and erf in [-1, 1], nothing
    decreases where the function does not, odd functions are odd bit for bit.
    """
    x = np.sort(sweeps.points(dtype, POINTS))
    for name in ("exp", "expm1", "log", "log1p", "tanh", "sigmoid", "softplus", "erf"):
        domain = x[x > {"log": 0, "log1p": -1}.get(name, -np.inf)]
        y = vector_math(name, domain)
        assert (y[1:] >= y[:-1]).all(), name
    for name in ("sigmoid", "tanh", "erf", "exp", "softplus"):
        y = vector_math(name, x)
        low, high = (-1, 1) if name in ("tanh", "erf") else (0, 1 if name == "sigmoid" else np.inf)
        assert (y >= low).all() and (y <= high).all(), name
    for name in ("tanh", "erf"):
        sweeps.assert_same_bits(vector_math(name, -x), -vector_math(name, x), name)


@pytest.mark.parametrize("dtype", DTYPES)
def test_reads_no_byte_beyond_its_inputs(isa: str, dtype: str) -> None:
    """Every function on arrays that end, or begin, at a page that faults; in a child."""

    def work() -> None:
        for size, at_end in product(SIZES, (True, False)):
            values = sweeps.normal(1, dtype, size)
            with (
                sweeps.guarded(values, at_end=at_end) as x,
                sweeps.guarded(values, at_end=at_end) as y,
                sweeps.guarded(values, at_end=at_end) as out,
            ):
                for function in UNARY.values():
                    function(x, out)
                for name in ENTRIES:
                    backward(name, x, y, out)

    machine.in_child(work)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", UNARY)
def test_the_functional_layer_has_the_same_bits(dtype: str, name: str) -> None:
    """Strided, reversed, misaligned and byte-swapped arrays give what their plain copies give."""
    function = getattr(ops, name.removesuffix("()"))
    assert next(iter(inspect.signature(function).parameters)) == "x"
    x = sweeps.normal(6, dtype, 12, 10)
    whole = UNARY[name](x)
    sweeps.assert_same_bits(function(x), whole)
    sweeps.assert_same_bits(function(x[::-2, 1::3]), np.ascontiguousarray(whole[::-2, 1::3]))
    sweeps.assert_same_bits(function(x.T), np.ascontiguousarray(whole.T))
    sweeps.assert_same_bits(function(sweeps.unaligned(x)), whole)
    sweeps.assert_same_bits(function(x.astype(x.dtype.newbyteorder())), whole)
    out = np.full((12, 30), np.nan, dtype)
    function(x, out=out[:, ::3])
    sweeps.assert_same_bits(np.ascontiguousarray(out[:, ::3]), whole)
    assert np.isnan(out[:, 1::3]).all() and np.isnan(out[:, 2::3]).all()


def test_layouts_are_checked() -> None:
    x = np.ones(8, np.float32)
    frozen = np.ones(8, np.float32)
    frozen.flags.writeable = False
    calls: list[tuple[type[Exception], Callable[[], Any]]] = [
        (ValueError, lambda: forward("relu", x[::2], np.empty(4, np.float32))),
        (ValueError, lambda: forward("relu", x, np.empty(7, np.float32))),
        (ValueError, lambda: forward("relu", x, frozen)),
        (ValueError, lambda: forward("relu", sweeps.unaligned(x), x)),
        (ValueError, lambda: vector_math("exp", x, sweeps.unaligned(x))),
        (ValueError, lambda: backward("relu", x[:7], x, x)),
        (TypeError, lambda: forward("relu", x, np.empty(8))),
        (TypeError, lambda: forward("relu", x.astype(">f4"), x)),
        (TypeError, lambda: backward("relu", x.astype(np.float64), x, x)),
        (TypeError, lambda: vector_math("exp", x.astype(np.float16), x)),
        (ValueError, lambda: _core.activation_forward("swish", x, x, 0.0)),
        (ValueError, lambda: vector_math("sin", x)),
    ]
    for expected, call in calls:
        with pytest.raises(expected):
            call()
    assert (x == 1).all() and (frozen == 1).all()
