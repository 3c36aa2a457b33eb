"""Metrics of outputs at every step that are computed from all of them, where they count."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

import fastbp as bp
from sweeps import Array

ROWS, STEPS = 30, 7
RNG = np.random.default_rng(4)
X = RNG.normal(size=(ROWS, STEPS, 3)).astype(np.float32)
LENGTHS = RNG.integers(1, STEPS + 1, ROWS)
NUMBERS = RNG.normal(size=(ROWS, STEPS, 2)).astype(np.float32)
CLASSES = RNG.integers(0, 3, (ROWS, STEPS))
BITS = RNG.integers(0, 2, (ROWS, STEPS, 1)).astype(np.float32)


def model_for(outputs: int, loss: str, names: list[str], device: str = "cpu") -> bp.Sequential:
    layers = [bp.GRU(5, return_sequences=True), bp.Dense(outputs)]
    model = bp.Sequential(layers, seed=1)
    model.compile(bp.Adam(0.01), loss, names, device=device)
    return model


def of_steps(values: Array, lengths: Array | None) -> Array:
    """The rows of (sequences, steps, ...) in front of the ends, by a loop."""
    ends = np.full(ROWS, STEPS) if lengths is None else lengths
    return np.concatenate([values[i, : ends[i]] for i in range(ROWS)])


@pytest.mark.parametrize("device", ["cpu", "reference"])
@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_scores_are_those_of_the_steps(device: str, lengths: Array | None) -> None:
    """Against scikit-learn, of evaluate and of validation."""
    cases: list[tuple[int, str, Array, str, Any]] = [
        (2, "mse", NUMBERS, "r2", sklearn_metrics.r2_score),
        (1, "binary_cross_entropy_with_logits", BITS, "auc", sklearn_metrics.roc_auc_score),
        (1, "binary_cross_entropy_with_logits", BITS, "pr_auc",
         sklearn_metrics.average_precision_score),
    ]  # fmt: skip
    for outputs, loss, y, name, score in cases:
        model = model_for(outputs, loss, [name], device)
        run = model.fit(
            X, y, lengths=lengths, epochs=2, batch_size=8, verbose=0,
            validation_data=(X if lengths is None else bp.Sequences(X, lengths), y),
        )  # fmt: skip
        want = score(of_steps(y, lengths), of_steps(model.predict(X, lengths=lengths), lengths))
        found = model.evaluate(X, y, lengths=lengths, batch_size=11)[name]
        assert found == pytest.approx(want, abs=1e-6), name
        assert run.history[f"val_{name}"][-1] == pytest.approx(want, abs=1e-6)


def test_an_epoch_in_any_order_is_measured_by_its_own_lengths() -> None:
    """With a learning rate of 0 all epochs measure the same model, whatever their order."""
    model = bp.Sequential([bp.GRU(5, return_sequences=True), bp.Dense(2)], seed=1)
    model.compile(bp.SGD(1e-30), "mse", ["r2"])
    history = model.fit(X, NUMBERS, lengths=LENGTHS, epochs=3, batch_size=8, verbose=0).history
    whole = model.evaluate(X, NUMBERS, lengths=LENGTHS)["r2"]
    np.testing.assert_allclose(history["r2"], whole, rtol=1e-6)


def test_classes_of_steps_have_an_area() -> None:
    model = model_for(3, "softmax_cross_entropy", ["auc", "accuracy"])
    model.fit(X, CLASSES, lengths=LENGTHS, epochs=1, verbose=0)
    found = model.evaluate(X, CLASSES, lengths=LENGTHS)
    outputs = of_steps(model.predict_proba(X, lengths=LENGTHS), LENGTHS)
    truth = of_steps(CLASSES, LENGTHS)
    want = sklearn_metrics.roc_auc_score(truth, outputs, multi_class="ovr")
    assert found["auc"] == pytest.approx(want, abs=1e-6)
    assert found["accuracy"] == pytest.approx((outputs.argmax(axis=1) == truth).mean())
