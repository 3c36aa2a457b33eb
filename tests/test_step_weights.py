"""Weights of steps, and lengths= of every method: outputs at every step, sequences that end early.

Compared: losses with masked means in NumPy, gradients with central differences in float64, the
engine with its twin, weights of 0 with steps that are not there, weights of sequences with the same
at all their steps. The CUDA engine's bits are compared in tests/test_cuda_recurrent.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fastbp as bp
from fastbp import _core, reference
from fastbp.layers import Layer
from sweeps import Array

N, STEPS = 21, 6
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, STEPS, 2))
LENGTHS = RNG.integers(1, STEPS + 1, N)
LENGTHS[:2] = STEPS, 1
RUNS = np.arange(STEPS) < LENGTHS[:, None]
WEIGHTS = RNG.integers(0, 4, (N, STEPS)) * RNG.uniform(0.5, 1, (N, STEPS))
LABELS = RNG.integers(0, 3, (N, STEPS))
VALUES = RNG.normal(size=(N, STEPS, 3))


def net(loss: Any = "mse", device: str = "cpu", **settings: Any) -> bp.Sequential:
    layers: list[Layer] = [bp.GRU(4, return_sequences=True), bp.Dense(3)]
    model = bp.Sequential(layers, seed=2)
    settings = {"optimizer": bp.SGD(0.1), "dtype": "float64", **settings}
    model.compile(loss=loss, device=device, **settings)
    model.build(2)
    return model


def spoiled(values: Any) -> Array:
    """The same with NaN behind the ends."""
    array = np.array(values, np.float64)
    array[~RUNS] = np.nan
    return array


def losses(name: str, model: bp.Sequential) -> Array:
    """The loss of each step (n, steps), by its formula."""
    output = model.predict(X, LENGTHS)
    if name == "softmax_cross_entropy":
        log_sum = np.logaddexp.reduce(output, axis=2)
        return log_sum - np.take_along_axis(output, LABELS[:, :, None], axis=2)[:, :, 0]
    return np.square(output - VALUES).mean(axis=2)


@pytest.mark.parametrize("name", ["mse", "softmax_cross_entropy"])
def test_the_loss_is_the_weighted_mean_of_the_steps_that_count(name: str, device: str) -> None:
    y = VALUES if name == "mse" else LABELS
    model = net(name, device)
    weight = np.where(RUNS, WEIGHTS, 0)
    wanted = (losses(name, model) * weight).sum() / weight.sum()
    given: dict[str, Any] = {"sample_weight": spoiled(WEIGHTS), "lengths": LENGTHS}
    assert model.evaluate(X, y, **given)["loss"] == pytest.approx(wanted, rel=1e-12)
    assert model.evaluate(X, y, batch_size=5, **given)["loss"] == pytest.approx(wanted, rel=1e-12)
    assert model.gradients(X, y, **given)[0] == pytest.approx(wanted, rel=1e-12)
    assert model.input_gradient(X, y, WEIGHTS, LENGTHS)[0] == pytest.approx(wanted, rel=1e-12)
    assert model.step(X, y, **given) == pytest.approx(wanted, rel=1e-12)


def test_gradients_are_central_differences(device: str) -> None:
    model = net("softmax_cross_entropy", device)
    given: dict[str, Any] = {"sample_weight": WEIGHTS, "lengths": LENGTHS}
    _, gradient = model.gradients(X, LABELS, **given)
    _, dx = model.input_gradient(X, LABELS, **given)
    start, h = {name: values.copy() for name, values in model.parameters().items()}, 1e-5
    for name, place in (("0.kernel", (1, 5)), ("0.recurrent_kernel", (2, 9)), ("1.bias", (0,))):
        ends = []
        for sign in (1, -1):
            moved = start[name].copy()
            moved[place] += sign * h
            model.set_parameters({**start, name: moved})
            ends.append(model.gradients(X, LABELS, **given)[0])
        assert gradient[name][place] == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=1e-6)
    model.set_parameters(start)
    ends = []
    for sign in (1, -1):
        moved = X.copy()
        moved[0, 2, 1] += sign * h
        ends.append(model.gradients(moved, LABELS, **given)[0])
    assert dx[0, 2, 1] == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=1e-6)
    assert not dx[~RUNS].any()


def test_a_step_without_weight_is_one_that_is_not_there(device: str) -> None:
    """Behind it no gate is seen by a loss: weights of 0 behind the ends are lengths."""
    by_weights, by_lengths = net(device=device), net(device=device)
    one = by_weights.gradients(X, VALUES, sample_weight=RUNS)
    other = by_lengths.gradients(X, VALUES, lengths=LENGTHS)
    assert one[0] == pytest.approx(other[0], rel=1e-12)
    for name, values in other[1].items():
        np.testing.assert_allclose(one[1][name], values, atol=1e-14)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_engine_is_the_twin(dtype: str) -> None:
    layers: list[Any] = [("dense", 12, True), ("scan", "gru", 4, True, True, False)]
    layers.append(("dense", 3, True))
    tolerance = {"rtol": 0, "atol": 1e-11 if dtype == "float64" else 1e-5}
    x, weights = (X.astype(dtype), LENGTHS), np.where(RUNS, WEIGHTS, 0).astype(dtype)
    for loss, y in (("mse", VALUES.astype(dtype)), ("softmax_cross_entropy", LABELS)):
        results: list[list[Any]] = []
        for make in (_core.Engine, reference.Engine):
            engine: Any = make(2, layers, dtype, 3, True)
            engine.parameters[...] = np.random.default_rng(1).normal(size=engine.parameters.shape)
            engine.compile(loss, 0.0, "sgd", {"learning_rate": 0.1})
            value = engine.gradients(x, y, weights)
            results.append([value, engine.gradients_.copy(), engine.evaluate(
                x, y, 8, ["mse"], weights=weights)[0]])  # fmt: skip
            results[-1] += engine.train(x, y, 8, 3, 0, True, 5, ["mse"], weights=weights)
        for ours, theirs in zip(*results, strict=True):
            np.testing.assert_allclose(ours, theirs, **tolerance)


def trained(device: str = "cpu", **given: Any) -> list[Array]:
    """What two epochs make of the parameters, and what they measured."""
    model = net(device=device, metrics=["mae"])
    history = model.fit(y=VALUES, epochs=2, batch_size=8, verbose=0, **given).history
    return [*model.parameters().values(), *map(np.array, history.values())]


def equal(one: list[Array], other: list[Array]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_weight_of_a_sequence_is_that_of_its_steps(device: str) -> None:
    each = RNG.uniform(0.5, 2, N)
    for lengths in (None, LENGTHS):
        given = {"X": X, "lengths": lengths, "device": device}
        plain = trained(**given)
        of_rows = trained(**given, sample_weight=each)
        of_steps = trained(**given, sample_weight=np.repeat(each[:, None], STEPS, axis=1))
        assert equal(of_rows, of_steps) and not equal(of_rows, plain)
        assert equal(plain, trained(**given, sample_weight=np.full((N, STEPS), 3)))


def test_lists_as_long_as_the_sequences() -> None:
    parts = [x[:m] for x, m in zip(X, LENGTHS, strict=True)]
    ragged = [w[:m] for w, m in zip(WEIGHTS, LENGTHS, strict=True)]
    whole = trained(X=X, lengths=LENGTHS, sample_weight=WEIGHTS)
    for weights in (ragged, WEIGHTS.tolist()):
        assert equal(whole, trained(X=bp.Sequences(parts), sample_weight=weights))
    x = bp.Sequences(parts)
    with pytest.raises(ValueError, match=r"sample_weight\[0\] has 5 steps, that of X has 6"):
        net().fit(x, VALUES, sample_weight=[ragged[0][:-1], *ragged[1:]], verbose=0)
    with pytest.raises(ValueError, match="sample_weight has 3 sequences, X has 21"):
        net().fit(x, VALUES, sample_weight=ragged[:3], verbose=0)
    with pytest.raises(ValueError, match=r"y\[0\] has 4 steps, that of X has 6"):
        targets = [v[:m] for v, m in zip(VALUES, LENGTHS, strict=True)]
        net().fit(x, [targets[0][:4], *targets[1:]], verbose=0)


def test_what_is_held_out_keeps_its_weights(device: str) -> None:
    given: dict[str, Any] = {"lengths": LENGTHS, "sample_weight": WEIGHTS, "verbose": 0}
    model = net(device=device)
    seen = model.fit(X, VALUES, validation_split=1 / 3, **given).history["val_loss"][-1]
    held = {"lengths": LENGTHS[14:], "sample_weight": WEIGHTS[14:]}
    assert model.evaluate(X[14:], VALUES[14:], **held)["loss"] == pytest.approx(seen, rel=1e-12)
    other = net(device=device)
    data = bp.Sequences(X[14:], LENGTHS[14:]), VALUES[14:], WEIGHTS[14:]
    rows = {"lengths": LENGTHS[:14], "sample_weight": WEIGHTS[:14], "verbose": 0}
    again = other.fit(X[:14], VALUES[:14], validation_data=data, **rows)
    assert again.history["val_loss"][-1] == seen


def test_batches_have_weights_of_steps() -> None:
    """A list of batches is one epoch in that order; each has the mean of its own weights."""
    batches = [(bp.Sequences(X[i : i + 7], LENGTHS[i : i + 7]), VALUES[i : i + 7],
                WEIGHTS[i : i + 7]) for i in (0, 7, 14)]  # fmt: skip
    by_fit, by_step = net(), net()
    by_fit.fit(batches, verbose=0)
    for x, y, weight in batches:
        by_step.step(x, y, sample_weight=weight)
    for one, other in zip(by_fit.parameters().values(), by_step.parameters().values(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_class_of_a_step_has_a_weight(device: str) -> None:
    factors = {0: 2.0, 2: 0.5}
    weights = np.array([2.0, 1.0, 0.5])[LABELS]
    counts = np.bincount(LABELS[RUNS])
    model = net("softmax_cross_entropy", device)
    for given, same in ((factors, weights), ("balanced", (1 / counts)[LABELS])):
        one = model.gradients(X, LABELS, class_weight=given, lengths=LENGTHS)
        other = model.gradients(X, LABELS, sample_weight=same, lengths=LENGTHS)
        assert one[0] == pytest.approx(other[0], rel=1e-12)
        for name, values in other[1].items():
            np.testing.assert_allclose(one[1][name], values, atol=1e-14)


def test_an_ensemble_takes_weights_of_steps() -> None:
    each = np.stack([WEIGHTS, RNG.uniform(size=WEIGHTS.shape)])
    kinds: dict[str, Any] = {"all": WEIGHTS, "each": each, "each sequence": each[:, :, 0]}
    for what, weights in kinds.items():
        both = bp.Ensemble([net("mse"), net("mse")])
        both.fit(X, VALUES, lengths=LENGTHS, sample_weight=weights, verbose=0)
        for place, member in enumerate(both.members):
            alone = net("mse")
            own = weights if what == "all" else weights[place]
            alone.fit(X, VALUES, lengths=LENGTHS, sample_weight=own, verbose=0)
            for name, values in alone.parameters().items():
                np.testing.assert_array_equal(member.parameters()[name], values)
    output = both.predict(X, lengths=LENGTHS)
    weight = np.where(RUNS, WEIGHTS, 0)
    wanted = (np.square(output - VALUES).mean(axis=2) * weight).sum() / weight.sum()
    measured = both.evaluate(X, VALUES, lengths=LENGTHS, sample_weight=spoiled(WEIGHTS))
    assert measured["loss"] == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("method", ["step", "gradients", "input_gradient", "evaluate"])
def test_lengths_are_those_of_sequences(method: str, device: str) -> None:
    results = []
    for given in ((X, VALUES), (bp.Sequences(X, LENGTHS), VALUES)):
        lengths = None if isinstance(given[0], bp.Sequences) else LENGTHS
        results.append(repr(getattr(net(device=device), method)(*given, lengths=lengths)))
    assert results[0] == results[1]
    model = net(device=device)
    with pytest.raises(ValueError, match="lengths of its own"):
        getattr(model, method)(bp.Sequences(X, LENGTHS), VALUES, lengths=LENGTHS)
    for wrong in (LENGTHS * 0, LENGTHS + STEPS, LENGTHS[:-1]):
        with pytest.raises(ValueError, match="lengths"):
            getattr(model, method)(X, VALUES, lengths=wrong)
    rows = bp.Sequential([bp.Dense(1)], seed=0)
    rows.compile("sgd", "mse", device=device)
    with pytest.raises(ValueError, match="lengths"):
        getattr(rows, method)(np.ones((4, 2)), np.ones((4, 1)), lengths=np.ones(4, int))


def test_wrong_weights_are_refused_and_nothing_changes(device: str) -> None:
    model = net(device=device)
    before = {name: values.copy() for name, values in model.parameters().items()}
    wrong: dict[str, Any] = {
        r"must have shape \(21, 6\), one for each step, or \(21,\)": np.ones((N, STEPS + 1)),
        "row 3, step 0 has -1": np.where(np.arange(N)[:, None] == 3, -1.0, WEIGHTS),
        "row 0 has nan": np.full(N, np.nan),
        "all 0": np.where(RUNS, 0, WEIGHTS + 1),
    }
    for message, weights in wrong.items():
        for method in (model.fit, model.step, model.evaluate, model.gradients):
            with pytest.raises(ValueError, match=message):
                method(X, VALUES, sample_weight=weights, lengths=LENGTHS)
    with pytest.raises(ValueError, match="every step has a target"):
        model.fit(X, VALUES, validation_split=0.5, stratify=True)
    for name, values in model.parameters().items():
        np.testing.assert_array_equal(values, before[name])
