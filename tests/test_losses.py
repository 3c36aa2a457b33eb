"""Losses with their gradients, and metrics, on every instruction set.

Compared: with the oracle, the value within tolerances.loss_value, the gradient within a few
rounded operations (GRADIENT_ROUNDINGS); with == in small integers; bit for bit between label forms,
thread counts, places in memory and instruction sets. Sizes: rows around the 32 of a summed block,
columns around vectors and around the lanes up to which rows of logits share a vector. Metrics are
read off an engine that passes its input through.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

import machine
import sweeps
import tolerances
from fastbp import _core, ops, reference
from sweeps import DTYPES, Array

isa = machine.isa

ENTRIES = {entry["name"]: entry for entry in _core.losses()}
ROWS = {name for name, entry in reference.LOSSES.items() if entry.rows}
HINGES = ("hinge", "squared_hinge")
COUNTS = ("poisson", "poisson_with_log_rate")
SHAPES = tuple(product((1, 2, 7, 31, 32, 33, 65), (1, 2, 3, 7, 8, 9, 15, 16, 17, 33, 100)))
BLOCK_ROWS = 32  # summed together (csrc/kernels/args.h)

# dy of these losses is at most a dozen rounded operations on |y|, |t| and 1; softmax adds the
# rounding of z - max (logits here are at most 30 apart: 30 u of e^z) and of the sum.
GRADIENT_ROUNDINGS = 12


def loss(
    name: str, y: Array, t: Array, dy: Array | None = None, param: float | None = None
) -> tuple[float, Array]:
    dy = np.full_like(y, np.nan) if dy is None else dy
    param = ENTRIES[name]["default_param"] if param is None else param
    return _core.loss(name, y, t, dy, param), dy


def data(name: str, dtype: str, rows: int, cols: int, seed: int = 0) -> tuple[Array, Array]:
    """Outputs and targets that suit the loss: probabilities, logits and class weights, numbers."""
    rng = np.random.default_rng([seed, rows, cols])
    if name == "binary_cross_entropy":
        return rng.uniform(0.01, 0.99, (rows, cols)).astype(dtype), unit_targets(
            rng, dtype, rows, cols
        )
    y = rng.normal(0, 3, (rows, cols)).astype(dtype)
    if name == "binary_cross_entropy_with_logits":
        return y, unit_targets(rng, dtype, rows, cols)
    if name in HINGES:
        return y, rng.choice([-1, 0, 1], (rows, cols)).astype(dtype)
    if name in COUNTS:
        rates = rng.uniform(0.01, 9, (rows, cols))
        y = (rates if name == "poisson" else np.log(rates)).astype(dtype)
        return y, rng.poisson(rates).astype(dtype)
    if name in ROWS:
        weights = rng.uniform(0, 1, (rows, cols)) + 1e-3
        return y, (weights / weights.sum(axis=1, keepdims=True)).astype(dtype)
    return y, rng.normal(0, 3, (rows, cols)).astype(dtype)


def unit_targets(rng: np.random.Generator, dtype: str, rows: int, cols: int) -> Array:
    """Half of them 0 or 1, the others between."""
    t = rng.uniform(0, 1, (rows, cols))
    return np.where(rng.uniform(size=t.shape) < 0.5, np.round(t), t).astype(dtype)


def divisor(name: str, y: Array) -> float:
    if reference.LOSSES[name].sums:
        return 1
    return float(len(y) if name in ROWS else y.size)


def check(
    name: str, y: Array, t: Array, actual: tuple[float, Array], what: str, param: float
) -> None:
    """Value and gradient against the oracle."""
    dtype, u = y.dtype.name, tolerances.unit(y.dtype.name)
    exact = float(y.dtype.type(param))
    targets = t if t.dtype.kind == "i" else t.astype(np.float64)
    function = reference.LOSSES[name].value_and_gradient
    with np.errstate(all="ignore"):
        value, dy = function(y.astype(np.float64), targets, exact, y.dtype)
    weights = reference.losses.one_hot(t, y.shape[1]) if t.ndim == 1 else targets
    if ENTRIES[name]["parameter"] == "label_smoothing":
        weights = weights + exact * ((1 / y.shape[1] if name in ROWS else 0.5) - weights)
    wide = y.astype(np.float64)
    lane_terms = y.shape[1] if name in ROWS else min(len(y), BLOCK_ROWS) * y.shape[1]
    allowance = tolerances.loss_value(
        wide, weights, lane_terms, dtype, log_rates=name == "poisson_with_log_rate"
    ) / divisor(name, y)
    if name in ROWS:
        # |log sum| and |z - max| of each row, times its weight, once for every rounding.
        depth = wide.max(axis=1) - wide.min(axis=1) + np.log(y.shape[1]) + 1
        allowance += (
            float((depth * weights.sum(axis=1)).sum()) / len(y) * 2 * GRADIENT_ROUNDINGS * u
        )
    tolerances.check(actual[0], value, allowance, f"{what}: value")
    scale = np.abs(dy) * GRADIENT_ROUNDINGS
    if name in ROWS:
        total = weights.sum(axis=1, keepdims=True)
        spread = wide.max(axis=1, keepdims=True) - wide + lane_terms + GRADIENT_ROUNDINGS
        soft = reference.losses.softmax(wide) * total
        scale = (soft * spread + weights * GRADIENT_ROUNDINGS) / len(y)
    elif name in COUNTS:
        # 1 - t / y and exp(z) - t cancel; exp multiplies the rounding of z by z.
        rate = wide if name == "poisson" else np.exp(wide)
        scale = (1 + weights / rate + rate * (1 + np.abs(wide)) + weights) * GRADIENT_ROUNDINGS
        scale = scale / y.size
    elif name in HINGES:
        scale = (1 + np.abs(wide)) * GRADIENT_ROUNDINGS / y.size
    elif name.startswith("binary_"):
        slope = np.abs(dy) * divisor(name, y)  # e.g. (p - t) / (p (1 - p)): |p| + |t| cancel
        cancelled = np.where(
            np.abs(wide - weights) > 0, 1 / np.maximum(np.abs(wide - weights), u), 1
        )
        if name == "binary_cross_entropy":
            scale = slope * (1 + cancelled * np.abs(weights)) * GRADIENT_ROUNDINGS / y.size
        else:
            scale = (slope + weights + 1) * GRADIENT_ROUNDINGS / y.size
    tolerances.check(actual[1], dy, scale * u + 4 * tolerances.tiny(dtype), f"{what}: gradient")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ENTRIES)
def test_value_and_gradient(isa: str, dtype: str, name: str) -> None:
    param = ENTRIES[name]["default_param"]
    for rows, cols in SHAPES:
        y, t = data(name, dtype, rows, cols)
        check(name, y, t, loss(name, y, t), f"{isa} {name} {rows}x{cols}", param)
        if name in ROWS:
            labels = np.random.default_rng(rows).integers(0, cols, rows)
            check(
                name, y, labels, loss(name, y, labels), f"{isa} {name} {rows}x{cols} labels", param
            )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("huber", (0.125, 0.7, 3.0, 1e4)),
        ("quantile", (0.01, 0.3, 0.9)),
        ("binary_cross_entropy", (0.1, 0.75)),
        ("binary_cross_entropy_with_logits", (0.1, 0.75)),
        ("softmax_cross_entropy", (0.1, 0.75)),
    ],
)
def test_other_parameters(isa: str, dtype: str, name: str, params: tuple[float, ...]) -> None:
    for param, (rows, cols) in product(params, ((1, 2), (33, 7), (33, 17), (5, 100))):
        y, t = data(name, dtype, rows, cols)
        targets = [t, *([np.arange(rows) % cols] if name in ROWS else [])]
        for target in targets:
            what = f"{isa} {name} {param} {rows}x{cols}"
            actual = loss(name, y, target, param=param)
            check(name, y, target, actual, what, param)
            results = machine.on_every_isa(
                lambda y=y, t=target, param=param: loss(name, y, t, param=param)
            )
            for other, (value, dy) in results.items():
                assert value == actual[0], (other, what)
                sweeps.assert_same_bits(dy, actual[1], f"{other} {what}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [n for n, e in ENTRIES.items() if "smoothing" in e["parameter"]])
def test_label_smoothing_is_smoothed_targets(isa: str, dtype: str, name: str) -> None:
    """The definition: the loss of (1 - s) t + s / K; s = 0 changes no bit."""
    u = tolerances.unit(dtype)
    for rows, cols in ((7, 3), (40, 17)):
        y, t = data(name, dtype, rows, cols)
        for smoothing in (0.25, 0.5):
            even = 1 / cols if name in ROWS else 0.5
            smooth = ((1 - smoothing) * t + smoothing * even).astype(dtype)
            (value, dy), (wanted, expected) = (
                loss(name, y, t, param=smoothing),
                loss(name, y, smooth, param=0.0),
            )
            tolerances.check(value, wanted, 40 * u * (abs(wanted) + 30))
            tolerances.check(dy, expected, 400 * u * (np.abs(expected) + 1 / rows))
    assert loss(name, y, t, param=0.0)[0] == loss(name, y, t)[0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_exact_in_small_integers(isa: str, dtype: str) -> None:
    """Differences, squares and sums of small integers, and means over a power of two."""
    rng = np.random.default_rng(1)
    for rows, cols in ((1, 1), (4, 16), (64, 8), (32, 1)):
        y, t = (rng.integers(-9, 10, (rows, cols)).astype(dtype) for _ in range(2))
        e, n = (y - t).astype(np.float64), rows * cols
        size = np.abs(e)
        expected = {
            "mse": (np.sum(e * e) / n, 2 * e / n),
            "half_sse": (np.sum(e * e) / 2, e),
            "mae": (np.sum(size) / n, np.sign(e) / n),
            "huber": (np.sum(np.where(size > 1, size - 0.5, e * e / 2)) / n, np.clip(e, -1, 1) / n),
            "quantile": (np.sum(size / 2) / n, np.sign(e) / 2 / n),
        }
        s = np.where(t > 0.5, 1.0, -1.0)
        margin = np.maximum(0, 1 - s * y)
        expected["hinge"] = np.sum(margin) / n, -s * (margin > 0) / n
        expected["squared_hinge"] = np.sum(margin**2) / n, -2 * s * margin / n
        for name, (value, gradient) in expected.items():
            actual, dy = loss(name, y, t)
            assert actual == value, (isa, name, rows, cols)
            np.testing.assert_array_equal(dy, gradient, f"{isa} {name}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_mean_and_half_sum_differ_by_two_over_n(isa: str, dtype: str) -> None:
    """mse = half_sse 2 / n, exactly where n is a power of two."""
    y, t = data("mse", dtype, 8, 16)
    value, dy = loss("mse", y, t)
    half, half_dy = loss("half_sse", y, t)
    assert value == half * 2 / y.size
    sweeps.assert_same_bits(dy, half_dy * y.dtype.type(2 / y.size))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ENTRIES)
def test_place_threads_and_isa_change_no_bit(isa: str, dtype: str, name: str) -> None:
    """dy in its own memory or over y, shifted, framed, on any number of threads."""
    for rows, cols in ((1, 1), (33, 3), (65, 17), (130, 33)):
        y, t = data(name, dtype, rows, cols)
        value, dy = loss(name, y, t)
        targets = [t]
        if name in ROWS:
            targets.append(np.random.default_rng(2).integers(0, cols, rows))
        for target in targets:
            value, dy = loss(name, y, target)
            for shift in sweeps.SHIFTS:
                out, intact = sweeps.framed(y.shape, dtype, shift)
                again, _ = loss(name, sweeps.shifted(y, shift), sweeps.shifted(target, shift), out)
                intact()
                assert again == value
                sweeps.assert_same_bits(out, dy, f"{isa} {name} {rows}x{cols}")
                place, intact = sweeps.framed(y.shape, dtype, shift)
                place[...] = y
                again, _ = loss(name, place, target, place)
                intact()
                assert again == value
                sweeps.assert_same_bits(place, dy, f"{isa} {name} {rows}x{cols} over y")
            for threads in machine.THREADS:
                with machine.using_threads(threads):
                    again, out = loss(name, y, target)
                assert again == value
                sweeps.assert_same_bits(out, dy, f"{isa} {name}, {threads} threads")
            for other, (again, out) in machine.on_every_isa(
                lambda y=y, target=target: loss(name, y, target)
            ).items():
                assert again == value, (other, name)
                sweeps.assert_same_bits(out, dy, f"{other} {name}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", sorted(ROWS))
def test_labels_are_one_hot_rows(isa: str, dtype: str, name: str) -> None:
    """A class number and its one-hot row: the same gradient within one rounding, and as rows of
    the batch independent of one another.
    """
    for rows, cols in ((1, 2), (7, 10), (40, 16), (33, 17), (5, 100)):
        y, _ = data(name, dtype, rows, cols)
        labels = np.random.default_rng(3).integers(0, cols, rows)
        one_hot = np.eye(cols, dtype=dtype)[labels]
        (value, dy), (other, other_dy) = loss(name, y, labels), loss(name, y, one_hot)
        u = tolerances.unit(dtype)
        tolerances.check(other, value, 8 * u * (abs(value) + 30))
        tolerances.check(other_dy, dy, 4 * u / rows)
        for i in range(rows):
            _, alone = loss(name, y[i : i + 1], labels[i : i + 1])
            tolerances.check(dy[i] * rows, alone[0], 4 * u)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", sorted(ROWS))
def test_gradients_of_a_row_add_up_to_nothing(isa: str, dtype: str, name: str) -> None:
    """softmax - one-hot: each row sums to 0, within the roundings of its terms, all below 1."""
    y, _ = data(name, dtype, 20, 33)
    _, dy = loss(name, y, np.arange(20))
    tolerances.check(
        dy.astype(np.float64).sum(axis=1) * 20, np.zeros(20), 64 * tolerances.unit(dtype)
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_saturated_outputs(isa: str, dtype: str) -> None:
    """Logits of +-1e4 and of the largest number, probabilities of 0 and 1: finite, and right."""
    for big in (1e4, float(np.finfo(dtype).max) / 4):
        z, t = np.array([[big, -big, big, -big]], dtype), np.array([[1, 0, 0, 1]], dtype)
        value, dz = loss("binary_cross_entropy_with_logits", z, t)
        np.testing.assert_array_equal(dz, np.array([[0, 0, 0.25, -0.25]], dtype))
        assert value == float(z.dtype.type(big)) / 2
        for cols in (3, 40):
            z = np.full((2, cols), -big, dtype)
            z[:, 1] = big
            value, dz = loss("softmax_cross_entropy", z, np.array([1, 0]))
            assert value == float(z.dtype.type(big))  # the mean of 0 and 2 big
            expected = np.zeros((2, cols), dtype)
            expected[1, :2] = -0.5, 0.5
            np.testing.assert_array_equal(dz, expected)
    p, t = np.array([[0, 1, 0, 1]], dtype), np.array([[0, 1, 1, 0]], dtype)
    value, dp = loss("binary_cross_entropy", p, t)
    assert 0 < value < 20 and np.isfinite(dp).all()
    assert dp[0, 2] < 0 < dp[0, 3]


@pytest.mark.parametrize("dtype", DTYPES)
def test_infinite_logits(isa: str, dtype: str) -> None:
    """-inf is a class that cannot be: weight 0 there adds nothing. A row of them alone is NaN."""
    for cols in (4, 20):
        z = np.zeros((1, cols), dtype)
        z[0, 2:] = -np.inf
        value, dz = loss("softmax_cross_entropy", z, np.array([0]))
        tolerances.check(value, np.log(2), 4 * tolerances.unit(dtype))
        np.testing.assert_array_equal(dz[0, :2], [-0.5, 0.5])
        assert (dz[0, 2:] == 0).all()
        soft = np.zeros((1, cols), dtype)
        soft[0, :2] = 0.5
        value, dz = loss("softmax_cross_entropy", z, soft)
        tolerances.check(value, np.log(2), 4 * tolerances.unit(dtype))
        tolerances.check(dz, np.zeros_like(dz), tolerances.unit(dtype))
        value, _ = loss("softmax_cross_entropy", z, np.array([3]))
        assert value == np.inf


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "name", ["mse", "half_sse", "mae", "huber", "quantile", "hinge", "squared_hinge"]
)
def test_infinite_outputs(isa: str, dtype: str, name: str) -> None:
    """Beside any target the loss is what its formula says, infinite or 0, and so is the slope."""
    for output, target in product((-np.inf, np.inf), (0.0, 1.0)):
        y, t = np.full((1, 1), output, dtype), np.full((1, 1), target, dtype)
        value, dy = loss(name, y, t)
        wanted, slope = getattr(reference.ops, name)(y, t)
        assert value == wanted and not np.isnan(value)
        np.testing.assert_array_equal(dy, slope)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ENTRIES)
def test_nan_stays_in_its_row_and_reaches_the_value(isa: str, dtype: str, name: str) -> None:
    """At every lane of two vectors and a tail: an element of the elementwise losses, a row of the
    others, and no other gradient changes a bit.
    """
    cols = len(sweeps.LANE_POSITIONS[dtype])
    for width in (cols, 5):
        y, t = data(name, dtype, 3, width)
        _, plain = loss(name, y, t)
        for position in range(width):
            bad = y.copy()
            bad[1, position] = np.nan
            value, dy = loss(name, bad, t)
            assert np.isnan(value), f"{isa} {name}: NaN at {position} is not in the loss"
            assert np.isnan(dy[1, position])
            if name in ROWS:
                assert np.isnan(dy[1]).all()
            else:
                dy[1, position] = plain[1, position]
                sweeps.assert_same_bits(dy[1], plain[1])
            sweeps.assert_same_bits(dy[[0, 2]], plain[[0, 2]])


@pytest.mark.parametrize("dtype", DTYPES)
def test_reads_no_byte_beyond_its_inputs(isa: str, dtype: str) -> None:
    def work() -> None:
        for name, (rows, cols), at_end in product(ENTRIES, SHAPES[::3], (True, False)):
            y, t = data(name, dtype, rows, cols)
            targets = [t, *([np.arange(rows) % cols] if name in ROWS else [])]
            for target in targets:
                with (
                    sweeps.guarded(y, at_end=at_end) as a,
                    sweeps.guarded(target, at_end=at_end) as b,
                    sweeps.guarded(y, at_end=at_end) as out,
                ):
                    loss(name, a, b, out)

    machine.in_child(work)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ENTRIES)
def test_the_functional_layer_has_the_same_bits(dtype: str, name: str) -> None:
    y, t = data(name, dtype, 12, 10)
    value, dy = loss(name, y, t)
    function = getattr(ops, name)
    for rows, target in (
        (y, t),
        (np.asfortranarray(y), np.asfortranarray(t)),
        (sweeps.unaligned(y), t),
    ):
        again, gradient = function(rows, target)
        assert again == value
        sweeps.assert_same_bits(gradient, dy)
    if name in ROWS:
        labels = np.arange(12) % 10
        expected = loss(name, y, labels)
        for kind in ("int8", "uint8", "int32", "uint64", ">i4"):
            again, gradient = function(y, labels.astype(kind))
            assert again == expected[0]
            sweeps.assert_same_bits(gradient, expected[1])


@pytest.mark.parametrize("label", [-1, 5, 2**31, -(2**63), 2**62])
def test_labels_out_of_range_are_named(label: int) -> None:
    """Position and value are in the message; nothing was written."""
    y, dy = np.zeros((3, 5), np.float32), np.full((3, 5), 7, np.float32)
    with pytest.raises(ValueError, match=rf"\[1\].*{label}"):
        loss("softmax_cross_entropy", y, np.array([0, label, 1]), dy)
    assert (dy == 7).all()


def test_layouts_are_checked() -> None:
    y, t = np.zeros((3, 5), np.float32), np.zeros((3, 5), np.float32)
    frozen = y.copy()
    frozen.flags.writeable = False
    bad = [
        (TypeError, "mse", y, t.astype(np.float64), None),
        (TypeError, "mse", y.astype(">f4"), t, None),
        (TypeError, "softmax_cross_entropy", y, np.zeros(3, np.int32), None),
        (ValueError, "mse", y, t[:2], None),
        (ValueError, "mse", y[0], t[0], None),
        (ValueError, "mse", y, t, frozen),
        (ValueError, "mse", y, np.asfortranarray(t), None),
        (ValueError, "mse", y, sweeps.unaligned(t), None),
        (ValueError, "softmax_cross_entropy", y, np.zeros(2, np.int64), None),
        (ValueError, "mean_cubed", y, t, None),
    ]
    for expected, name, outputs, target, dy in bad:
        with pytest.raises(expected):
            _core.loss(name, outputs, target, np.empty_like(outputs) if dy is None else dy, 0.0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ENTRIES)
@pytest.mark.parametrize("cols", [1, 3, 16, 17, 40])
def test_metrics(isa: str, dtype: str, name: str, cols: int) -> None:
    """accuracy, top 2 and counts exactly; mse and mae, summed in float64, within the rounding of
    softmax at worst. In batches whose size does not divide the rows, on any number of threads.
    """
    metrics = ["mse", "mae", "accuracy", "class_counts"]
    if name in ROWS:
        metrics += ["top_2"]
    for rows in (1, 33, 100):
        y, t = data(name, dtype, rows, cols)
        y[::5] = np.round(y[::5])  # ties, of which the first is the class
        targets = [t]
        if name in ROWS:
            targets = [np.eye(cols, dtype=dtype)[np.arange(rows) % cols], np.arange(rows) % cols]
        for target in targets:
            engines = [
                c(cols, [("activation", "identity", 0.0)], dtype)
                for c in (_core.Engine, reference.Engine)
            ]
            for engine in engines:
                engine.compile(name, ENTRIES[name]["default_param"], "sgd", {"learning_rate": 0.0})
            for batch in (rows, 7):
                value, results = engines[0].evaluate(y, target, batch, metrics)
                _, wanted = engines[1].evaluate(y, target, batch, metrics)
                what = f"{isa} {name} {rows}x{cols} by {batch}"
                tolerances.check(results[2], wanted[2], 1e-15 * rows, f"{what}: accuracy")
                assert results[3:] == wanted[3:], f"{what}: counts"
                allowance = 16 * tolerances.unit(dtype) * (1 + abs(wanted[0]) + abs(wanted[1]))
                tolerances.check(results[:2], wanted[:2], allowance, f"{what}: mse, mae")
                for threads in machine.THREADS if (rows, batch) == (33, 33) else ():
                    with machine.using_threads(threads):
                        again = engines[0].evaluate(y, target, batch, metrics)
                    assert again == (value, results), f"{what}, {threads} threads"
