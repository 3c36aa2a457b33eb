"""Every tolerance of the kernel and engine tests, with its derivation; and the comparison that
names the worst element, its place and the share of the allowance it has used.

u = 2^-24 (2^-53) is half the distance of 1 to the next number: a rounded operation is off by at
most u times its result. Expected values come from the oracle, which computes in float64; for
float64 kernels the exact sums are made in long double where the oracle would be no better than
what it judges. No number here was raised to make a test pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sweeps import LANES, Array

Wide = NDArray[Any]  # float64 or long double

MAX_CHUNK = 256  # of a GEMM's sum over k (csrc/kernels/kernel_table.h)


def unit(dtype: str) -> float:
    """u, the unit roundoff."""
    return float(np.finfo(dtype).eps) / 2


def tiny(dtype: str) -> float:
    """The smallest denormal: what a rounding in the denormal range may be off by."""
    return float(np.finfo(dtype).smallest_subnormal)


def chunks_of(k: int) -> list[int]:
    """The lengths of the pieces in which a GEMM sums over k: part of the numerics promise."""
    pieces = -(-k // MAX_CHUNK)
    length = -(-k // (16 * pieces)) * 16 if pieces > 1 else k
    return [min(length, k - start) for start in range(0, k, length)] if k else []


def gemm(terms: Wide, k: int, dtype: str) -> Wide:
    """Per element of C = A B + bias, from terms = |A| |B| + |bias|.

    A chunk of L products is L fused multiply-adds, one rounding each; n chunks are n - 1 additions
    more. A term goes through at most L + n - 1 roundings, so the error is at most gamma(L + n - 1)
    terms, gamma(i) = i u / (1 - i u) [Higham, Accuracy and Stability, 3.1]: a bound, not an
    estimate. Rounding in the denormal range adds at most half the smallest denormal each time.
    """
    lengths = chunks_of(k) or [0]
    roundings = max(lengths) + len(lengths) - 1
    share = roundings * unit(dtype)
    return terms * (share / (1 - share)) + (roundings + 1) * tiny(dtype)


def bfloat16_gemm(terms: Wide, k: int) -> Wide:
    """The same for rounded operands, whose products float32 holds exactly (8 bits by 8).

    In whatever order they are added, a term is rounded at most k + 1 times. What is below
    the smallest normal number counts as 0, each time. Two values of k may be added in either order.
    """
    share = (k + 1) * unit("float32")
    flushed = (k + 1) * float(np.finfo(np.float32).smallest_normal)
    return terms * (share / (1 - share)) + flushed


# Elementwise functions, in ulp of the result, as csrc/ops/math.h and activations.h state them
# (tests/cpp measures each against long double). In float64 the oracle, which is made of NumPy's
# functions, adds its own: 1 ulp for one libm call, 5 for composed formulas.
VECTOR_ULP = {"float32": 1.0, "float64": 1.1 + 1.0}


def activation_ulp(name: str, dtype: str) -> float:
    return {"mish": 3.5}.get(name, 2.0) + (5.0 if dtype == "float64" else 0.0)


# In eps of 1, besides: the left tails of these are exponentials of powers of z, whose rounding they
# magnify; they are stated to be good to 0.2 eps there.
ACTIVATION_EPS = {"gelu": 0.2, "gelu_tanh": 0.2}

# Backward passes, loss gradients and updates are a handful of rounded operations on each element.
# Every rounding is the same as a relative change of at most u of what it rounds; what a change of
# an input does is measured on the oracle (`conditioned`), so a cancellation is allowed exactly what
# it costs. 8 roundings on the way from each input, none of the formulas has more.
ROUNDINGS = 8


def conditioned(
    function: Callable[..., Sequence[Array]], inputs: Sequence[Any], dtype: str
) -> list[Wide]:
    """What ROUNDINGS relative changes by u of every input and of the result do to each output.

    function(*inputs) -> arrays, elementwise, in float64. The sensitivities are central differences
    of 2^-20, far above float64's u and small enough for smooth formulas.
    """
    step = 2.0**-20
    expected = [np.asarray(e, np.float64) for e in function(*inputs)]
    sums = [np.abs(e) for e in expected]
    with np.errstate(all="ignore"):
        for i, value in enumerate(inputs):
            ends = []
            for factor in (1 + step, 1 - step):
                changed = [v * factor if i == j else v for j, v in enumerate(inputs)]
                ends.append(function(*changed))
            assert value is not None
            for total, upper, lower in zip(sums, *ends, strict=True):
                change = np.abs(np.asarray(upper) - np.asarray(lower)) / (2 * step)
                total += np.where(np.isfinite(change), change, 0.0)
    return [total * (ROUNDINGS * unit(dtype)) + 4 * tiny(dtype) for total in sums]


def tail(z: Wide, dtype: str) -> Wide:
    """Absolute error of a derivative whose exponential factor is denormal, per unit of dy.

    The factor is off by half the smallest denormal; the formulas multiply it by polynomials in z of
    degree 3 at most (gelu_tanh). Beyond |z| = 110 (800) it is 0 exactly.
    """
    size = np.minimum(np.abs(np.asarray(z, np.float64)), 110 if dtype == "float32" else 800)
    return tiny(dtype) * (1 + size**3)


def lane_sum(count: int, dtype: str) -> float:
    """Relative error of a kernel's sum of `count` values, of the sum of their sizes.

    Lane l adds every L-th value: count / L roundings, then log2(L) of the tree, and one for the
    value itself.
    """
    lanes = LANES[dtype]
    return (-(-count // lanes) + int(np.log2(lanes)) + 1) * unit(dtype)


def loss_value(y: Wide, t: Wide, count: int, dtype: str, *, log_rates: bool = False) -> float:
    """Absolute error of a loss that averages `count` elementwise values at a time in lanes.

    No loss here is made of terms larger than (|y| + 1)^2 + (y - t)^2 + |y| (1 + |t|) + |t| + 1
    (probabilities are clipped at 1e-7, whose logarithm is -16: 16 |t| more), nor e^y more where the
    outputs are log rates. Each is rounded up to ROUNDINGS times before the sum; the oracle's own
    float64 sum adds a few u of float64.
    """
    terms = (np.abs(y) + 1) ** 2 + (y - t) ** 2 + np.abs(y) * (1 + np.abs(t)) + 17 * np.abs(t) + 1
    if log_rates:
        terms = terms + np.exp(y)
    return float(np.sum(terms)) * (lane_sum(count, dtype) + ROUNDINGS * unit(dtype))


def describe(
    actual: Wide, expected: Wide, error: Wide, allowance: Wide, index: tuple[int, ...]
) -> str:
    share = 100 * error[index] / allowance[index] if allowance[index] > 0 else np.inf
    return (
        f"at {index}: got {actual[index]!r}, expected {expected[index]!r}; error "
        f"{float(error[index]):.4g} is {share:.4g} % of the allowed {float(allowance[index]):.4g}"
    )


def check(actual: Any, expected: Any, allowance: Any, what: object = "") -> float:
    """Fails unless |actual - expected| <= allowance everywhere; NaN must meet NaN and infinity
    the same infinity. Returns the largest share of the allowance that was used.
    """
    kind = np.longdouble if np.asarray(expected).dtype == np.longdouble else np.float64
    with np.errstate(invalid="ignore"):
        got, want = np.asarray(actual).astype(kind), np.asarray(expected).astype(kind)
    assert got.shape == want.shape, f"{what}: shape {got.shape}, expected {want.shape}"
    allowed = np.broadcast_to(np.asarray(allowance, kind), want.shape)
    with np.errstate(invalid="ignore"):
        same = (got == want) | (np.isnan(got) & np.isnan(want))
        error = np.where(same, 0, np.abs(got - want))
        error = np.where(np.isnan(error), np.inf, error)
    wrong = ~(error <= allowed)
    if wrong.any():
        with np.errstate(all="ignore"):
            ratio = np.where(wrong, error / np.maximum(allowed, np.finfo(np.float64).tiny), -1)
        index = tuple(int(i) for i in np.unravel_index(int(np.argmax(ratio)), want.shape))
        message = describe(got, want, error, allowed, index)
        raise AssertionError(f"{what}: {int(wrong.sum())} of {want.size} wrong; worst {message}")
    with np.errstate(all="ignore"):
        shares = np.where(error > 0, error / allowed, 0)
    return float(np.max(shares, initial=0))


def ulp(expected: Wide, dtype: str) -> Wide:
    """The distance of the numbers of `dtype` around each expected value."""
    info = np.finfo(dtype)
    size = np.minimum(np.abs(np.asarray(expected, np.float64)), float(info.max))
    _, exponent = np.frexp(np.maximum(size, float(info.tiny)))
    return np.ldexp(1.0, exponent - (info.nmant + 1))


def check_ulp(
    actual: Array, expected: Wide, allowed: float, what: object = "", extra: Wide | float = 0.0
) -> float:
    """check() in ulp, and `extra`. A value close to overflow may be infinite or finite."""
    dtype = actual.dtype.name
    limit = float(np.finfo(dtype).max)
    with np.errstate(all="ignore"):  # converting a signalling NaN raises a flag
        want = np.asarray(expected, np.float64 if dtype == "float32" else None)
        overflowing = np.isfinite(want) & (np.abs(want) > limit)
        want = np.where(overflowing, np.copysign(np.inf, want), want)
        near = np.isinf(actual) & np.isfinite(want) & (np.abs(want) >= limit * (1 - 2e-7))
        seen = np.where(near, want, actual.astype(want.dtype))
    return check(seen, want, allowed * ulp(want, dtype) + extra, what)


def norm_error(actual: Array, expected: Array) -> float:
    """|actual - expected| / |expected| in the Euclidean norm; 0 where both are 0."""
    got, want = actual.astype(np.float64), expected.astype(np.float64)
    size = float(np.linalg.norm(want))
    error = float(np.linalg.norm(got - want))
    return error / size if size else error
