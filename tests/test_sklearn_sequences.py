"""SequenceClassifier and SequenceRegressor in the hands of scikit-learn."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.exceptions import DataConversionWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score

from fastbp import Sequences
from fastbp.sklearn import SequenceClassifier, SequenceRegressor

Array = NDArray[Any]


def waves(n: int = 90, ragged: bool = True) -> tuple[list[Array], Array, Array]:
    """Sines of two channels with their class (by frequency) and their frequency."""
    rng = np.random.default_rng(0)
    frequency = rng.uniform(0.2, 1.0, n)
    steps = rng.integers(12, 25, n) if ragged else np.full(n, 20)
    phase = rng.uniform(0, 6, n)
    X = [
        np.stack([np.sin(f * np.arange(t) + p), 5 + np.cos(f * np.arange(t) + p)], axis=1)
        for f, t, p in zip(frequency, steps, phase, strict=True)
    ]
    return X, np.where(frequency > 0.6, "fast", "slow"), frequency


def test_classes_of_sequences_of_different_lengths() -> None:
    X, y, _ = waves()
    model = SequenceClassifier("gru", 16, max_iter=60, learning_rate=0.01, random_state=0)
    assert model.fit(X, y).score(X, y) > 0.95
    shares = model.predict_proba(X)
    assert model.classes_.tolist() == ["fast", "slow"] and shares.shape == (90, 2)
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(model.predict(Sequences(X)), model.predict(X))
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(X), shares)
    np.testing.assert_array_equal(clone(model).fit(X, y).predict_proba(X), shares)


def test_quantities_of_sequences() -> None:
    X, _, frequency = waves(ragged=False)
    array = np.stack(X)
    model = SequenceRegressor("lstm", [12, 8], max_iter=80, learning_rate=0.01, random_state=0)
    assert model.fit(array, 1000 * frequency).score(array, 1000 * frequency) > 0.9
    both = np.stack([frequency, 3 * frequency], axis=1)
    assert model.fit(array, both).predict(array).shape == (90, 2)


def test_searches_and_cross_validation() -> None:
    X, y, _ = waves(ragged=False)
    array = np.stack(X)
    model = SequenceClassifier("rnn", 8, max_iter=10, learning_rate=0.02, random_state=0)
    search = GridSearchCV(model, {"units": [2, 8], "bidirectional": [False, True]}, cv=2)
    assert search.fit(array, y).best_score_ > 0.6
    assert cross_val_score(model, X, y, cv=3).mean() > 0.6


def test_options_reach_the_network() -> None:
    X, y, _ = waves(40)
    model = SequenceClassifier(
        "lstm", [5, 4], bidirectional=True, dropout=0.1, recurrent_dropout=0.2, max_iter=3,
        early_stopping=True, validation_fraction=0.25, class_weight="balanced", random_state=1,
    )  # fmt: skip
    model.fit(X, y, sample_weight=np.linspace(0.5, 1, 40))
    first, *_ = model.model_.layers[1:]
    assert "Bidirectional" in repr(first) and "recurrent_dropout=0.2" in repr(first)
    assert model.n_iter_ == len(model.loss_curve_) == len(model.validation_loss_curve_)
    assert model.n_features_in_ == 2


BAD: list[tuple[dict[str, Any], Any, Any, str]] = [
    ({"cell": "transformer"}, None, None, "unknown cell 'transformer'"),
    ({"units": []}, None, None, "at least one recurrent layer"),
    ({"dropout": 1.0}, None, None, "dropout"),
    ({"max_iter": 0}, None, None, "max_iter"),
    ({}, np.zeros((4, 3, 2, 1)), "abab", "list of arrays"),
    ({}, np.where(np.arange(3) > 1, np.nan, np.zeros((4, 3))), "abab",
     "NaN or infinity in sequence 0, step 2, feature 0"),
    ({}, np.zeros((4, 0, 2)), "abab", r"no sequences, steps or features; got shape \(4, 0, 2\)"),
    ({"bidirectional": 2}, None, None, "bidirectional must be True or False"),
    ({}, np.zeros((4, 3)), "aba", r"y must have shape \(4,\)"),
    ({}, np.zeros((4, 3)), "aaaa", "at least two classes"),
    ({}, [np.zeros((3, 2)), np.zeros((0, 2))], "ab", r"X\[1\] is a sequence without a step"),
    ({"early_stopping": True, "validation_fraction": 0.0}, None, None, "validation_fraction must"),
    ({"verbose": "loud"}, None, None, "verbose must be 'auto', 0"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "X", "y", "message"), BAD)
def test_bad_input(arguments: dict[str, Any], X: Any, y: Any, message: str) -> None:
    good = waves(20)
    model = SequenceClassifier(**arguments)
    with pytest.raises((ValueError, TypeError), match=message):
        model.fit(good[0] if X is None else X, good[1] if y is None else np.array([*y]))
    assert not hasattr(model, "model_")


def test_other_features_than_in_training() -> None:
    X, y, frequency = waves(20)
    model = SequenceClassifier(units=2, max_iter=1).fit(X, y)
    with pytest.raises(ValueError, match="X has 3 features a step; 2 were trained on"):
        model.predict(np.zeros((2, 4, 3)))
    assert model.fit(np.stack([x[:9, :1] for x in X]), y).n_features_in_ == 1  # fit begins anew
    with pytest.raises(ValueError, match="unknown loss"):
        SequenceRegressor(loss="hinge").fit(X, frequency)


@pytest.mark.parametrize("method", ["predict", "predict_proba", "score"])
def test_what_was_not_fitted_says_so(method: str) -> None:
    X, y = np.zeros((3, 4, 2)), np.array(["a", "b", "a"])
    given = (X, y) if method == "score" else (X,)
    with pytest.raises(NotFittedError):
        getattr(SequenceClassifier(), method)(*given)
    if method != "predict_proba":
        with pytest.raises(NotFittedError):
            getattr(SequenceRegressor(), method)(*((X, np.zeros(3)) if method == "score" else (X,)))


def test_targets_and_sequences_as_scikit_learn_users_bring_them() -> None:
    X, y, _ = waves(30)
    ragged = np.empty(30, object)
    ragged[:] = X
    model = SequenceClassifier(units=2, max_iter=2, random_state=0)
    shares = model.fit(X, y).predict_proba(X)
    np.testing.assert_array_equal(model.fit(ragged, y).predict_proba(ragged), shares)
    with pytest.warns(DataConversionWarning, match="column-vector"):
        np.testing.assert_array_equal(model.fit(X, y[:, None]).predict_proba(X), shares)
    for estimator in (model, SequenceRegressor()):
        with pytest.raises(ValueError, match="requires y to be passed"):
            estimator.fit(X, None)


def test_a_fit_that_fails_leaves_the_one_before() -> None:
    X, y, _ = waves(30, ragged=False)
    model = SequenceClassifier("rnn", 4, max_iter=2, random_state=0, normalize=False)
    shares = model.fit(X, y).predict_proba(X)
    with pytest.raises(ValueError, match="not finite"), pytest.warns(RuntimeWarning, match="loss"):
        model.set_params(learning_rate=1e38, clip_norm=None).fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), shares)


@pytest.mark.parametrize("size", [1e-300, 1.0, 1e200])
def test_quantities_of_any_size(size: float) -> None:
    X, _, frequency = waves(20)
    models = [SequenceRegressor(units=2, max_iter=1, random_state=0) for _ in range(2)]
    one, other = (
        m.fit(X, frequency * s).predict(X) for m, s in zip(models, (1, size), strict=True)
    )
    np.testing.assert_allclose(other, one * size, rtol=1e-5)
    with pytest.raises(ValueError, match="y spans more than float64 holds"):
        models[0].fit(X, np.where(frequency > frequency.mean(), 1.7e308, -1.7e308))


def test_padded_numbers_are_sequences_of_one_feature() -> None:
    values, lengths = np.random.default_rng(0).normal(size=(12, 5)), np.arange(12) % 5 + 1
    model = SequenceClassifier(units=2, max_iter=2, random_state=0)
    shares = []
    for X in (Sequences(values, lengths), Sequences(values[:, :, None], lengths)):
        shares.append(model.fit(X, np.arange(12) % 2).predict_proba(X))
    np.testing.assert_array_equal(*shares)
