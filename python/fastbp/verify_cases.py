"""What `fastbp verify` feeds to the kernels, how their errors are scaled, and what is allowed.

The lists of activations, losses and optimizers are the extension's own, so a new one is verified as
soon as it is registered. Units: ulp of the result for vector maths; elsewhere eps (2^-23 or
2^-52) times the sum of the absolute values of the terms that were added, the quantity to which the
rounding errors of a sum are proportional. `k` terms added in any order are off by at most k eps / 2
of that sum [Higham, Accuracy and Stability, section 3.1]; the twin, in float64, may be off as much.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _core, ops, reference

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

ULP = {"float32": 1.0, "float64": 2.0}  # vector maths: 1 ulp; in float64 the twin is off by 1 too
ELEMENTWISE = 8.0  # eps: activations, losses, updates: a handful of roundings each
LIPSCHITZ = 1.2  # no activation is steeper: errors of z reach y at most so much enlarged
SIZES = ((1, 1, 1), (1, 7, 3), (3, 5, 2), (7, 16, 17), (17, 33, 9), (64, 64, 64), (65, 97, 63))
LONG_SIZES = ((2, 10, 400), (33, 65, 1000), (128, 130, 784))  # rows, columns, terms of each sum


@dataclass(frozen=True)
class Library:
    """The compiled library or its twin: functions by name, and the training engine."""

    functions: Any
    engine: Callable[..., Any]
    dtype: str | None  # of engines; None: as the case


def native() -> Library:
    return Library(ops, _core.Engine, None)


def oracle() -> Library:
    """The NumPy twin; it is fed with float64, so that nothing is rounded to float32."""
    return Library(reference, reference.Engine, "float64")


@dataclass(frozen=True)
class Case:
    """One operation on one set of inputs: call(library, *inputs) gives a list of arrays.

    scale(expected) gives, per output, what eps is multiplied by; None: the error counts in ulp.
    """

    group: str
    op: str
    dtype: str
    detail: str
    inputs: tuple[Array, ...]
    call: Callable[..., Sequence[Any]]
    scale: Callable[[list[Floats]], Sequence[Floats | None]]
    allowance: float
    unit: str = "eps"

    def wide(self) -> tuple[Array, ...]:
        """The inputs in float64; class numbers as they are."""
        return tuple(x.astype(np.float64) if x.dtype.kind == "f" else x for x in self.inputs)


def kernel_cases(dtype: str, quick: bool) -> Iterator[Case]:
    """Elementwise functions, products, dense layers, softmax."""
    rng = np.random.default_rng(20)
    yield from _vector_maths(dtype, quick)
    yield from _activations(dtype, quick, rng)
    yield from _matmul(dtype, quick, rng)
    yield from _fused(dtype, rng)
    yield from _dense(dtype, quick, rng)
    yield from _softmax(dtype, quick, rng)


def in_ulp(expected: list[Floats]) -> list[None]:
    return [None] * len(expected)


def of_largest(expected: list[Floats]) -> list[Floats]:
    """Every element is judged by the largest of its array."""
    return [np.full(e.shape, np.max(np.abs(e), initial=0.0)) for e in expected]


def sum_of(terms: Floats, and_result: bool = False) -> Callable[[list[Floats]], list[Floats]]:
    """The one output is a sum of these absolute terms, then perhaps a rounded function of it."""
    if and_result:
        return lambda expected: [terms + np.abs(expected[0])]
    return lambda _: [terms]


def points(dtype: str, quick: bool) -> Array:
    """Both signs of every magnitude, more of them between 1e-6 and 100, and the special values."""
    info = np.finfo(dtype)
    n = 1_001 if quick else 100_003
    small, large = np.log10(float(info.smallest_subnormal)), np.log10(float(info.max))
    size = np.concatenate(
        [
            10 ** np.linspace(small, large, n)[:-1],  # geomspace would overflow on the way to max
            [float(info.smallest_subnormal), float(info.max)],
            np.geomspace(1e-6, 100, n),
            np.linspace(0, 20, n),
            [0.0, 0.5, 1.0, float(info.tiny), np.inf, np.nan],
        ]
    )
    return np.concatenate([size, -size]).astype(dtype)


def _vector_maths(dtype: str, quick: bool) -> Iterator[Case]:
    x = points(dtype, quick)
    for name in _core.vector_functions():

        def call(library: Library, x: Array, name: str = name) -> list[Array]:
            with np.errstate(all="ignore"):
                return [getattr(library.functions, name)(x)]

        detail = f"{x.size} points"
        yield Case("vector maths", name, dtype, detail, (x,), call, in_ulp, ULP[dtype], "ulp")


def _keeps(activation: str) -> str:
    """What the compiled library's backward reads: the activation's input z or its output y."""
    entry = next(e for e in _core.activations() if e["name"] == activation)
    return "y" if entry["saves"] == "output" else "z"


def _activations(dtype: str, quick: bool, rng: np.random.Generator) -> Iterator[Case]:
    z = points(dtype, quick)
    for entry in _core.activations():
        yield _activation_forward(entry["name"], dtype, z)
        yield _activation_backward(entry["name"], dtype, z[~np.isnan(z)], rng)


def _activation_forward(name: str, dtype: str, z: Array) -> Case:
    """A rounded z changes y by eps |z f'(z)| / 2: far out, where y is tiny, that is many ulp of y.

    Where a factor of z is denormal its error counts |z| times.
    """
    exact = z.astype(np.float64)
    with np.errstate(all="ignore"):
        slope = np.abs(exact * reference.activation_backward(name, np.ones_like(exact), z=exact))
    info = np.finfo(dtype)
    denormal = float(info.smallest_subnormal / info.eps) * np.minimum(
        np.abs(exact), float(info.max)
    )

    def call(library: Library, z: Array) -> list[Array]:
        return [library.functions.activation_forward(name, z)]

    def scale(expected: list[Floats]) -> list[Floats]:
        return [np.abs(expected[0]) + np.where(np.isfinite(slope), slope, 0.0) + denormal]

    op = f"{name} forward"
    return Case("activation", op, dtype, f"{z.size} points", (z,), call, scale, ELEMENTWISE)


def _activation_backward(name: str, dtype: str, z: Array, rng: np.random.Generator) -> Case:
    """From the z or y that the compiled library keeps; what follows from NaN is not specified."""
    keeps = _keeps(name)
    saved = z if keeps == "z" else np.asarray(reference.activation_forward(name, z))
    dy = rng.uniform(-2, 2, z.shape).astype(dtype)

    def call(library: Library, dy: Array, saved: Array) -> list[Array]:
        return [library.functions.activation_backward(name, dy, **{keeps: saved})]

    def scale(expected: list[Floats]) -> list[Floats]:
        return [np.abs(expected[0]) + _absolute(dy)]

    op = f"{name} backward"
    return Case("activation", op, dtype, f"{z.size} points", (dy, saved), call, scale, ELEMENTWISE)


def normal(rng: np.random.Generator, dtype: str, *shape: int) -> Array:
    return rng.standard_normal(shape).astype(dtype)


def _absolute(a: Array) -> Floats:
    return np.abs(a.astype(np.float64))


def _matmul(dtype: str, quick: bool, rng: np.random.Generator) -> Iterator[Case]:
    for transpose_a, transpose_b in product((False, True), repeat=2):
        op = f"matmul {'At' if transpose_a else 'A'} {'Bt' if transpose_b else 'B'}"
        for m, n, k in SIZES if quick else SIZES + LONG_SIZES:
            a, b, bias = (normal(rng, dtype, *s) for s in ((m, k), (k, n), (n,)))
            terms = _absolute(a) @ _absolute(b) + _absolute(bias)

            def call(
                library: Library,
                a: Array,
                b: Array,
                bias: Array,
                flip: tuple[bool, bool] = (transpose_a, transpose_b),
            ) -> list[Array]:
                return [
                    library.functions.matmul(
                        a, b, transpose_a=flip[0], transpose_b=flip[1], bias=bias
                    )
                ]

            a = np.ascontiguousarray(a.T) if transpose_a else a
            b = np.ascontiguousarray(b.T) if transpose_b else b
            yield Case(
                "matmul",
                op,
                dtype,
                f"{m}x{k} by {k}x{n}",
                (a, b, bias),
                call,
                sum_of(terms),
                k + 2.0,
            )


def _fused(dtype: str, rng: np.random.Generator) -> Iterator[Case]:
    """Bias and activation applied inside the product."""
    for entry, (m, n, k) in product(_core.activations(), SIZES[3:6]):
        a, b, bias = (normal(rng, dtype, *s) for s in ((m, k), (k, n), (n,)))
        terms = _absolute(a) @ _absolute(b) + _absolute(bias)

        def call(
            library: Library, a: Array, b: Array, bias: Array, name: str = entry["name"]
        ) -> list[Array]:
            return [library.functions.matmul(a, b, bias=bias, activation=name)]

        yield Case(
            "matmul",
            "matmul with activation",
            dtype,
            f"{entry['name']}, {m}x{k} by {k}x{n}",
            (a, b, bias),
            call,
            sum_of(terms, and_result=True),
            LIPSCHITZ * (k + 2) + ELEMENTWISE,
        )


def _dense(dtype: str, quick: bool, rng: np.random.Generator) -> Iterator[Case]:
    sizes = SIZES[3:6] if quick else SIZES[1:] + LONG_SIZES[:2]
    for entry, (rows, units, inputs) in product(_core.activations(), sizes):
        x, kernel, bias, dy = (
            normal(rng, dtype, *shape)
            for shape in ((rows, inputs), (inputs, units), (units,), (rows, units))
        )
        detail = f"{entry['name']}, batch {rows}, {inputs} to {units}"
        yield _dense_forward(entry["name"], dtype, detail, x, kernel, bias)
        yield _dense_backward(entry["name"], dtype, detail, x, kernel, bias, dy)


def _dense_forward(
    name: str, dtype: str, detail: str, x: Array, kernel: Array, bias: Array
) -> Case:
    def call(library: Library, x: Array, kernel: Array, bias: Array) -> list[Array]:
        return [library.functions.dense_forward(x, kernel, bias, name)[0]]

    terms = _absolute(x) @ _absolute(kernel) + _absolute(bias)
    allowance = LIPSCHITZ * (len(kernel) + 2) + ELEMENTWISE
    return Case(
        "dense",
        "dense forward",
        dtype,
        detail,
        (x, kernel, bias),
        call,
        sum_of(terms, and_result=True),
        allowance,
    )


def _dense_backward(
    name: str, dtype: str, detail: str, x: Array, kernel: Array, bias: Array, dy: Array
) -> Case:
    """dx, dkernel and dbias from the same saved array, z or y as the compiled library keeps it.

    The twin's own dense_backward reads z; here it gets dz from the twin's activation_backward.
    """
    keeps = _keeps(name)
    y, z = reference.dense_forward(x, kernel, bias, name)
    saved = np.asarray(y if keeps == "y" else z)
    slope = LIPSCHITZ * _absolute(dy) + _absolute(dy)  # |dz| and the terms it is made of
    scales = [slope @ _absolute(kernel).T, _absolute(x).T @ slope, slope.sum(axis=0)]

    def call(library: Library, x: Array, kernel: Array, saved: Array, dy: Array) -> Sequence[Array]:
        functions, activation = library.functions, name
        if functions is reference:
            dy, activation = functions.activation_backward(name, dy, **{keeps: saved}), "identity"
        gradients: Sequence[Array] = functions.dense_backward(x, kernel, saved, dy, activation)
        return gradients

    allowance = max(x.shape[0], kernel.shape[1]) + 2 + ELEMENTWISE
    inputs = (x, kernel, saved, dy)
    return Case("dense", "dense backward", dtype, detail, inputs, call, lambda _: scales, allowance)


def _softmax(dtype: str, quick: bool, rng: np.random.Generator) -> Iterator[Case]:
    for rows, columns in ((1, 1), (3, 10), (5, 17)) if quick else ((1, 1), (3, 10), (65, 1000)):
        z = (20 * rng.standard_normal((rows, columns))).astype(dtype)
        distance = (
            np.max(z, axis=1, keepdims=True).astype(np.float64) - z
        )  # rounded: relative error

        def call(library: Library, z: Array) -> list[Array]:
            return [library.functions.softmax(z)]

        def scale(expected: list[Floats], distance: Floats = distance) -> list[Floats]:
            return [np.abs(expected[0]) * (1 + distance)]

        detail = f"{rows}x{columns}"
        yield Case(
            "softmax", "softmax", dtype, detail, (z,), call, scale, ELEMENTWISE + columns / 8
        )
