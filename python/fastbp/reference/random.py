"""Random numbers that depend on nothing but (seed, stream, purpose, element): Philox4x32-10.

The twin of csrc/core/random.h, equal to it in every bit on every machine: integers, and float64
operations that IEEE 754 rounds exactly (+ - * / sqrt; no libm). One 64-bit seed is the key; the
counter is (block, stream, purpose), where stream is a layer or an epoch and a block is four 32-bit
words. Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from .arrays import F64, as_float64, rounded

U64 = NDArray[np.uint64]

INIT: Final = 1
SHUFFLE: Final = 2
DROPOUT: Final = 3
SPLIT: Final = 4

_WORD = 0xFFFFFFFF


def philox4x32(counter: tuple[Any, Any, Any, Any], key: tuple[int, int]) -> U64:
    """Ten rounds of Philox: four counter words (ints or equally long arrays) to words (4, n)."""
    c0, c1, c2, c3 = (
        np.asarray(c, dtype=np.uint64) for c in np.broadcast_arrays(*map(np.atleast_1d, counter))
    )
    k0, k1 = key
    mask, half = np.uint64(_WORD), np.uint64(32)
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1 = (p1 >> half) ^ c1 ^ np.uint64(k0), p1 & mask
        c2, c3 = (p0 >> half) ^ c3 ^ np.uint64(k1), p0 & mask
        k0, k1 = (k0 + 0x9E3779B9) & _WORD, (k1 + 0xBB67AE85) & _WORD
    return np.stack([c0, c1, c2, c3])


def random_words(n: int, seed: int, stream: int, purpose: int) -> U64:
    """The words of elements 0 .. n-1: element e is word e % 4 of block e // 4."""
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed must be in 0 .. 2^64 - 1, got {seed}")
    if not 0 <= stream <= _WORD or not 0 <= purpose <= _WORD:
        raise ValueError(f"stream and purpose must be in 0 .. 2^32 - 1, got {stream}, {purpose}")
    block = np.arange((n + 3) // 4, dtype=np.uint64)
    counter = (block & np.uint64(_WORD), block >> np.uint64(32), stream, purpose)
    words: U64 = philox4x32(counter, (seed & _WORD, seed >> 32)).T.reshape(-1)[:n]
    return words


def dropout_words(rows: int, cols: int, seed: int, layer: int, step: int) -> U64:
    """The word (rows, cols) that decides whether dropout keeps an element of a batch.

    A row draws in groups of 64 columns; column 16 w + l of the row's group g is word w of block
    16 g + l, counted through the rows. The step stands in the place of the block's upper half.
    """
    groups = -(-cols // 64)
    block = np.arange(rows * groups * 16, dtype=np.uint64) & np.uint64(_WORD)
    purpose = (DROPOUT + (step >> 32 << 8)) & _WORD
    words = philox4x32((block, step & _WORD, layer, purpose), (seed & _WORD, seed >> 32))
    grouped = words.reshape(4, rows, groups, 16).transpose(1, 2, 0, 3)
    return grouped.reshape(rows, groups * 64)[:, :cols]


def uniform01(words: U64) -> F64:
    """32-bit words to 2^24 equidistant numbers strictly inside (0, 1), symmetric about 1/2."""
    return as_float64(words >> np.uint64(8)) * 2.0**-24 + 2.0**-25


def _horner(x: F64, coefficients: tuple[float, ...]) -> F64:
    """c[0] + c[1] x + c[2] x^2 + ...; every product and sum is rounded."""
    value = np.full_like(x, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        value = value * x + c
    return value


# log((1 + s) / (1 - s)) = 2 s (1 + s^2/3 + s^4/5 + ...). For s^2 <= (sqrt(2) - 1)^4 = 0.0295 the
# first term left out is below 1e-18. Quotients of small integers are the same in any language.
_LOG_SERIES = tuple(1 / k for k in range(1, 23, 2))
_LN2 = 0.693147180559945309417  # rounded to float64


def exact_log(x: F64) -> F64:
    """Natural logarithm of normal x > 0, within 2 ulp away from 1, without libm."""
    mantissa, exponent = np.frexp(x)  # x = mantissa 2^exponent, 1/2 <= mantissa < 1; exact
    small = mantissa < math.sqrt(0.5)
    mantissa = np.where(small, mantissa * 2, mantissa)
    exponent = np.where(small, exponent - 1, exponent)
    s = (mantissa - 1) / (mantissa + 1)
    return as_float64(exponent * _LN2 + 2 * s * _horner(s * s, _LOG_SERIES))


# Rational approximations of the normal quantile: algorithm AS 241, PPND16 (Wichura, Applied
# Statistics 37, 1988), relative error about 1e-16. Numerator and denominator in 0.180625 - q^2, and
# in r - 1.6 or r - 5 with r = sqrt(-log tail).
_CENTRE = (
    (
        3.3871328727963666080e0,
        1.3314166789178437745e2,
        1.9715909503065514427e3,
        1.3731693765509461125e4,
        4.5921953931549871457e4,
        6.7265770927008700853e4,
        3.3430575583588128105e4,
        2.5090809287301226727e3,
    ),
    (
        1.0,
        4.2313330701600911252e1,
        6.8718700749205790830e2,
        5.3941960214247511077e3,
        2.1213794301586595867e4,
        3.9307895800092710610e4,
        2.8729085735721942674e4,
        5.2264952788528545610e3,
    ),
)
_TAIL = (
    (
        1.42343711074968357734e0,
        4.63033784615654529590e0,
        5.76949722146069140550e0,
        3.64784832476320460504e0,
        1.27045825245236838258e0,
        2.41780725177450611770e-1,
        2.27238449892691845833e-2,
        7.74545014278341407640e-4,
    ),
    (
        1.0,
        2.05319162663775882187e0,
        1.67638483018380384940e0,
        6.89767334985100004550e-1,
        1.48103976427480074590e-1,
        1.51986665636164571966e-2,
        5.47593808499534494600e-4,
        1.05075007164441684324e-9,
    ),
)
_FAR_TAIL = (
    (
        6.65790464350110377720e0,
        5.46378491116411436990e0,
        1.78482653991729133580e0,
        2.96560571828504891230e-1,
        2.65321895265761230930e-2,
        1.24266094738807843860e-3,
        2.71155556874348757815e-5,
        2.01033439929228813265e-7,
    ),
    (
        1.0,
        5.99832206555887937690e-1,
        1.36929880922735805310e-1,
        1.48753612908506148525e-2,
        7.86869131145613259100e-4,
        1.84631831751005468180e-5,
        1.42151175831644588870e-7,
        2.04426310338993978564e-15,
    ),
)


def _ratio(x: F64, polynomials: tuple[tuple[float, ...], tuple[float, ...]]) -> F64:
    return _horner(x, polynomials[0]) / _horner(x, polynomials[1])


def normal_quantile(odd: NDArray[np.int64]) -> F64:
    """The z with Phi(z) = 1/2 + odd / 2^54, for odd numbers between -2^53 and 2^53.

    Both q = odd / 2^54 and the tail 1/2 - |q| are exact in float64: the normals are as precise in
    the tails as in the centre, exactly symmetric, and reach to |z| = 8.29.
    """
    q = odd.astype(np.float64) * 2.0**-54
    tail = (2**53 - np.abs(odd)).astype(np.float64) * 2.0**-54
    r = np.sqrt(-exact_log(tail))
    outer = np.where(r <= 5, _ratio(r - 1.6, _TAIL), _ratio(r - 5, _FAR_TAIL))
    centre = q * _ratio(0.180625 - q * q, _CENTRE)
    return np.where(np.abs(q) <= 0.425, centre, np.where(q < 0, -outer, outer))


def normal(n: int, seed: int, stream: int, purpose: int) -> F64:
    """Standard normals 0 .. n-1: element e takes words 2 (e % 2), 2 (e % 2) + 1 of block e // 2."""
    words = random_words(2 * n, seed, stream, purpose)
    bits = (words[0::2] >> np.uint64(5) << np.uint64(26)) | (words[1::2] >> np.uint64(6))
    return normal_quantile(2 * bits.astype(np.int64) + (1 - 2**53))


def random_uniform(
    out: NDArray[Any], low: float, high: float, seed: int, stream: int, purpose: int
) -> None:
    """Fills out (flat order) with low + (high - low) u, computed in float64 and rounded once."""
    u = uniform01(random_words(out.size, seed, stream, purpose))
    rounded((low + (high - low) * u).reshape(out.shape), out.dtype, out)


def random_normal(
    out: NDArray[Any], mean: float, stddev: float, seed: int, stream: int, purpose: int
) -> None:
    """Fills out (flat order) with mean + stddev z, computed in float64 and rounded once."""
    z = normal(out.size, seed, stream, purpose)
    rounded((mean + stddev * z).reshape(out.shape), out.dtype, out)


def permutation(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """A random order of 0 .. n-1 by Fisher and Yates: for i = n-1 .. 1 swap i with one of 0 .. i.

    That one is (word_i (i + 1)) >> 32, exact for n < 2^32, with a bias below i / 2^32.
    """
    words = random_words(n, seed, epoch, SHUFFLE)
    reach = np.arange(1, n + 1, dtype=np.uint64)
    chosen = (words * reach >> np.uint64(32)).tolist()
    order = list(range(n))
    for i in range(n - 1, 0, -1):
        j = chosen[i]
        order[i], order[j] = order[j], order[i]
    return np.array(order, dtype=np.int64)
