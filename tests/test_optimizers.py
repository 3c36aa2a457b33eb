"""The parameter updates, on every instruction set.

Compared: one step, element by element, with the oracle within tolerances.conditioned, at step
numbers from the first to the millionth, with and without weight decay; with == where powers of two
make every operation exact; twenty steps in a row with the oracle's; bit for bit between lengths,
places in memory, thread counts, instruction sets. All names, slots and hyper-parameters are the
extension's own lists: a new optimizer is tested as soon as it is there.
"""

from __future__ import annotations

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

ENTRIES = {entry["name"]: entry for entry in _core.optimizers()}
HYPER = {
    "learning_rate": 0.01,
    "momentum": 0.9,
    "rho": 0.9,
    "beta_1": 0.9,
    "beta_2": 0.999,
    "epsilon": 1e-8,
    "weight_decay": 0.02,
}


def hyper_of(name: str, **changes: float) -> dict[str, float]:
    values = {**HYPER, **changes}
    return {key: values[key] for key in ENTRIES[name]["hyper"]}


def state(name: str, dtype: str, size: int, seed: int = 0) -> list[Array]:
    """w, g and slots as in the middle of a training: sums of squares are positive."""
    rng = np.random.default_rng([seed, size])
    w, g = rng.normal(0, 1, (2, size)).astype(dtype)
    slots = [rng.normal(0, 1, size).astype(dtype) for _ in range(ENTRIES[name]["slots"])]
    if slots and name not in ("momentum", "nesterov"):
        slots[-1] = np.square(slots[-1])
    return [w, g, *slots]


def update(name: str, arrays: list[Array], hyper: dict[str, float], step: int = 3) -> list[Array]:
    """w and the slots after one step on copies; g must come back as it was."""
    w, g, *slots = (a.copy() for a in arrays)
    _core.update(name, w, g, slots, hyper, step)
    sweeps.assert_same_bits(g, arrays[1])
    return [w, *slots]


# 1 / (1 - beta) magnifies a change of these, which no kernel makes: they count as given.
FIXED = ("rho", "beta_1", "beta_2")


def exact_update(name: str, hyper: dict[str, float], step: int) -> Callable[..., list[Array]]:
    """The oracle's step as a function of w, g, the slots, and the hyper-parameters that vary."""
    free = [key for key in hyper if key not in FIXED]

    def function(w: Array, g: Array, *rest: Any) -> list[Array]:
        count = len(rest) - len(free)
        values = hyper | dict(zip(free, rest[count:], strict=True))
        new_w, slots = reference.OPTIMIZERS[name].update(w, g, list(rest[:count]), values, step)
        return [new_w, *slots]

    return function


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ENTRIES)
@pytest.mark.parametrize("step", [1, 2, 1000, 10**6])
def test_one_step(isa: str, dtype: str, name: str, step: int) -> None:
    """Hyper-parameters are rounded to the kernel's dtype only after those of the step are made of
    them (1 - beta, bias corrections), so the oracle takes them as they are; what their rounding
    does is in the allowance.
    """
    for decay in (0.0, 0.02):
        hyper = hyper_of(name, weight_decay=decay)
        arrays = state(name, dtype, 1000, step)
        function = exact_update(name, hyper, step)
        inputs = [a.astype(np.float64) for a in arrays]
        inputs += [value for key, value in hyper.items() if key not in FIXED]
        allowances = tolerances.conditioned(function, inputs, dtype)
        expected = function(*inputs)
        actual = update(name, arrays, hyper, step)
        for place, (got, want, allowed) in enumerate(
            zip(actual, expected, allowances, strict=True)
        ):
            tolerances.check(
                got, want, allowed, f"{isa} {name} step {step}: {'wsv'[min(place, 2)]}"
            )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ENTRIES)
def test_twenty_steps_follow_the_oracle(isa: str, dtype: str, name: str) -> None:
    """From slots of zero. A step moves w by at most about the learning rate times |g| or times 1,
    and is off by 8 roundings of that and one of w; twenty of them add up.
    """
    hyper = hyper_of(name)
    rng = np.random.default_rng(5)
    w, gradients = rng.normal(0, 1, 257).astype(dtype), rng.normal(0, 1, (20, 257)).astype(dtype)
    states = [np.zeros_like(w) for _ in range(ENTRIES[name]["slots"])]
    exact_w, exact = w.astype(np.float64), [s.astype(np.float64) for s in states]
    moved = np.zeros(257)
    for step, g in enumerate(gradients, start=1):
        _core.update(name, w, g, states, hyper, step)
        before = exact_w
        exact_w, exact = reference.OPTIMIZERS[name].update(
            exact_w, g.astype(np.float64), exact, hyper, step
        )
        moved += np.abs(exact_w - before) + HYPER["learning_rate"]
    allowance = tolerances.unit(dtype) * (
        20 * (np.abs(exact_w) + 1) + 20 * tolerances.ROUNDINGS * moved
    )
    tolerances.check(w, exact_w, allowance, f"{isa} {name}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_exact_in_powers_of_two(isa: str, dtype: str) -> None:
    w, g = np.array([1.0, -2, 0.5, 8], dtype), np.array([0.5, 1, -4, 0], dtype)
    s = np.array([2.0, -1, 0, 4], dtype)
    rate, mu, decay = 0.25, 0.5, 0.125
    decayed = g + decay * w
    moved = mu * s + decayed
    base = {"learning_rate": rate, "weight_decay": decay}
    hyper = {**base, "momentum": mu}
    np.testing.assert_array_equal(update("sgd", [w, g], base)[0], w - rate * decayed)
    actual = update("momentum", [w, g, s], hyper)
    np.testing.assert_array_equal(actual, [w - rate * moved, moved])
    actual = update("nesterov", [w, g, s], hyper)
    np.testing.assert_array_equal(actual, [w - rate * (decayed + mu * moved), moved])
    v = np.array([0.0, 3, 9, 16], dtype)
    h = {"learning_rate": rate, "epsilon": 0.0, "weight_decay": 0.0}
    three = np.array([2.0, 1, 4, 3], dtype)  # v + g^2 = 4, 4, 25, 25
    actual = update("adagrad", [w, three, v], h)
    np.testing.assert_array_equal(actual[1], [4, 4, 25, 25])
    np.testing.assert_array_equal(actual[0][:2], w[:2] - rate * three[:2] / 2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ENTRIES)
def test_length_place_and_threads_change_no_bit(isa: str, dtype: str, name: str) -> None:
    hyper = hyper_of(name)
    arrays = state(name, dtype, 4096 + 5)
    whole = update(name, arrays, hyper)
    for size, shift in product(SIZES, sweeps.SHIFTS):
        framed = [sweeps.framed(size, dtype, shift) for _ in arrays]
        for (place, _), values in zip(framed, arrays, strict=True):
            place[...] = values[:size]
        w, g, *slots = (place for place, _ in framed)
        _core.update(name, w, g, slots, hyper, 3)
        for _, intact in framed:
            intact()
        for got, want in zip([w, *slots], whole, strict=True):
            sweeps.assert_same_bits(got, want[:size], f"{isa} {name} {size}+{shift}")
        sweeps.assert_same_bits(g, arrays[1][:size])
    for threads in machine.THREADS:
        with machine.using_threads(threads):
            for got, want in zip(update(name, arrays, hyper), whole, strict=True):
                sweeps.assert_same_bits(got, want, f"{isa} {name}, {threads} threads")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ENTRIES)
def test_bits_are_those_of_every_isa(dtype: str, name: str) -> None:
    arrays = state(name, dtype, 1003)
    results = machine.on_every_isa(lambda: update(name, arrays, hyper_of(name)))
    for other, result in results.items():
        for got, want in zip(result, results["scalar"], strict=True):
            sweeps.assert_same_bits(got, want, f"{other} {name}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ENTRIES)
def test_nan_and_infinity_stay_where_they_are(isa: str, dtype: str, name: str) -> None:
    """A bad gradient spoils its own parameter and slots, at every lane, and nothing beside."""
    positions = sweeps.LANE_POSITIONS[dtype]
    arrays, hyper = state(name, dtype, len(positions)), hyper_of(name)
    plain = update(name, arrays, hyper)
    for position, value in product(positions, (np.nan, np.inf)):
        bad = [a.copy() for a in arrays]
        bad[1][position] = value
        actual = update(name, bad, hyper)
        assert not np.isfinite(actual[0][position])
        assert all(not np.isfinite(slot[position]) for slot in actual[1:])
        for got, want in zip(actual, plain, strict=True):
            got[position] = want[position]
            sweeps.assert_same_bits(got, want, f"{isa} {name}: beside {position}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ENTRIES)
def test_no_gradient_no_change(isa: str, dtype: str, name: str) -> None:
    """Padding stays 0, whatever the decay; without decay, so does everything that stands still."""
    zeros = [np.zeros(19, dtype) for _ in range(2 + ENTRIES[name]["slots"])]
    for result in update(name, zeros, hyper_of(name)):
        assert (result == 0).all()
    arrays = [sweeps.normal(1, dtype, 19), *zeros[1:]]
    actual = update(name, arrays, hyper_of(name, weight_decay=0.0))
    sweeps.assert_same_bits(actual[0], arrays[0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_decoupled_decay_is_not_in_the_gradient(isa: str, dtype: str) -> None:
    """adamw shrinks w and then does adam's step without decay; adam puts the decay into g."""
    arrays = state("adam", dtype, 100)
    plain = update("adam", arrays, hyper_of("adam", weight_decay=0.0))
    decoupled = update("adamw", arrays, hyper_of("adamw"))
    coupled = update("adam", arrays, hyper_of("adam"))
    for got, want in zip(decoupled[1:], plain[1:], strict=True):
        sweeps.assert_same_bits(got, want)
    shrunk = plain[0] - HYPER["learning_rate"] * HYPER["weight_decay"] * arrays[0]
    tolerances.check(decoupled[0], shrunk, 8 * tolerances.unit(dtype) * (np.abs(shrunk) + 1))
    assert not np.array_equal(coupled[1], plain[1])


@pytest.mark.parametrize("dtype", DTYPES)
def test_reads_no_byte_beyond_its_inputs(isa: str, dtype: str) -> None:
    def work() -> None:
        for name, size, at_end in product(ENTRIES, SIZES[::2], (True, False)):
            w, g, *slots = state(name, dtype, size)
            slots += [w] * (2 - len(slots))
            with (
                sweeps.guarded(w, at_end=at_end) as a,
                sweeps.guarded(g, at_end=at_end) as b,
                sweeps.guarded(slots[0], at_end=at_end) as c,
                sweeps.guarded(slots[1], at_end=at_end) as d,
            ):
                _core.update(name, a, b, [c, d][: ENTRIES[name]["slots"]], hyper_of(name), 1)

    machine.in_child(work)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ENTRIES)
def test_the_functional_layer_has_the_same_bits(dtype: str, name: str) -> None:
    """Also on strided and misaligned arrays, which are updated where they lie."""
    function, hyper = getattr(ops, f"{name}_update"), hyper_of(name)
    arrays = state(name, dtype, 60)
    step = {"step": 3} if "beta_1" in hyper else {}
    expected = update(name, arrays, hyper)
    layouts: list[Callable[[Array], Array]] = [
        lambda a: a.copy(),
        lambda a: np.repeat(a, 3)[::3],
        sweeps.unaligned,
        lambda a: a.copy().reshape(3, 4, 5),
    ]
    for layout in layouts:
        w, g, *slots = (layout(a) for a in arrays)
        function(w, g, *slots, **step, **hyper)
        for got, want in zip([w, *slots], expected, strict=True):
            sweeps.assert_same_bits(np.ascontiguousarray(got).reshape(-1), want)


def test_arguments_are_checked() -> None:
    w, g, m, v = (np.ones(4, np.float32) for _ in range(4))
    frozen = np.ones(4, np.float32)
    frozen.flags.writeable = False
    hyper = hyper_of("adam")
    bad: list[tuple[type[Exception], tuple[Any, ...]]] = [
        (ValueError, ("adam", w, g, [m], hyper, 1)),
        (ValueError, ("adam", w, g, [m, v, v], hyper, 1)),
        (ValueError, ("adam", w, g, [m, v], hyper, 0)),
        (ValueError, ("adam", w, g, [m, v], {"speed": 1.0}, 1)),
        (ValueError, ("adam", frozen, g, [m, v], hyper, 1)),
        (ValueError, ("adam", w, g, [frozen, v], hyper, 1)),
        (ValueError, ("adam", w, g[:3], [m, v], hyper, 1)),
        (ValueError, ("adam", w, g, [m[:3], v], hyper, 1)),
        (ValueError, ("adam", np.ones(8, np.float32)[::2], g, [m, v], hyper, 1)),
        (ValueError, ("adam", sweeps.unaligned(w), g, [m, v], hyper, 1)),
        (ValueError, ("adamax", w, g, [m, v], hyper, 1)),
        (TypeError, ("adam", w, g.astype(np.float64), [m, v], hyper, 1)),
        (TypeError, ("adam", w, g, [m.astype(np.float64), v], hyper, 1)),
        (TypeError, ("adam", w.astype(">f4"), g, [m, v], hyper, 1)),
    ]
    for expected, arguments in bad:
        with pytest.raises(expected):
            _core.update(*arguments)
    for array in (w, g, m, v, frozen):
        assert (array == 1).all()
