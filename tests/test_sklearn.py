"""fastbp.sklearn: estimators as scikit-learn's tools use them.

Three oracles. scikit-learn's checks of an estimator's manners. scikit-learn's own MLP: from one
random_state both start alike, so that without shuffling the whole course of training must agree.
And scikit-learn's own tests of its MLP, run on our classes (test_sklearn_own_tests.py).
"""

import copy
import pickle
import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pytest

import fastbp as bp

pytest.importorskip("sklearn")

from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    load_iris,
    make_multilabel_classification,
)
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import (
    GridSearchCV,
    RandomizedSearchCV,
    cross_val_score,
    train_test_split,
)
from sklearn.neural_network import MLPClassifier as TheirClassifier
from sklearn.neural_network import MLPRegressor as TheirRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from fastbp.sklearn import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

Array = np.ndarray[Any, np.dtype[Any]]


def iris() -> tuple[Array, Array]:
    X, y = load_iris(return_X_y=True)
    return StandardScaler().fit_transform(X), y


def digits(classes: int = 10) -> tuple[Array, Array]:
    X, y = load_digits(n_class=classes, return_X_y=True)
    return X / 16, y


@pytest.mark.parametrize("estimator", [MLPClassifier(), MLPRegressor()], ids=repr)
def test_scikit_learns_checks(estimator: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(estimator, on_fail=None)
    wrong = [r for r in results if r["status"] not in ("passed", "skipped")]
    assert not wrong
    assert sum(r["status"] == "passed" for r in results) >= 45


def problem(kind: str) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 5))
    score = X @ rng.normal(size=(5, 3))
    return X, {
        "binary": (score[:, 0] > 0).astype(int),
        "multiclass": score.argmax(axis=1),
        "multilabel": (score > 0).astype(int),
        "one": score[:, 0],
        "several": score,
    }[kind]


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel", "one", "several"])
@pytest.mark.parametrize(
    "solver",
    [
        {"solver": "sgd", "learning_rate_init": 0.05, "momentum": 0.0},
        {"solver": "sgd", "learning_rate_init": 0.02, "nesterovs_momentum": False},
        {
            "solver": "sgd",
            "learning_rate_init": 0.02,
            "learning_rate": "adaptive",
            "momentum": 0.0,
            "tol": 1e-2,
        },
        {"solver": "adam", "epsilon": 1e-12},
        {"solver": "lbfgs", "alpha": 0.3, "tol": 1e-10},
    ],
    ids=["sgd", "momentum", "adaptive", "adam", "lbfgs"],
)
def test_the_course_of_training_is_scikit_learns(kind: str, solver: dict[str, Any]) -> None:
    """Same start, same batches: parameters agree to the rounding of float64, grown in 25 epochs.

    Left out is what scikit-learn does otherwise on purpose or not: Adam's epsilon stands at another
    place (here PyTorch's), so it is made negligible; momentum with a changing rate; and L-BFGS with
    several outputs, where its loss is averaged over the outputs but its gradient is not.
    """
    if kind == "several" and solver["solver"] == "lbfgs":
        pytest.skip("scikit-learn's loss and gradient do not belong together there")
    X, y = problem(kind)
    options = {
        "alpha": 0.0, "hidden_layer_sizes": (7, 4), "activation": "tanh", "batch_size": 17,
        "max_iter": 25, "shuffle": False, "random_state": 3, "n_iter_no_change": 3, "tol": 0.0,
        **solver,
    }  # fmt: skip
    regression = kind in ("one", "several")
    ours = (MLPRegressor if regression else MLPClassifier)(**options).fit(X, y)
    theirs = (TheirRegressor if regression else TheirClassifier)(**options).fit(X, y)
    assert ours.n_iter_ == theirs.n_iter_
    for mine, right in zip(
        ours.coefs_ + ours.intercepts_, theirs.coefs_ + theirs.intercepts_, strict=True
    ):
        np.testing.assert_allclose(mine, right, rtol=1e-6, atol=1e-9)
    if solver["solver"] != "lbfgs" and kind != "several":  # they average its loss, but not its step
        np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-9)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), rtol=1e-6, atol=1e-9)
    if not regression:
        np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-8)


def test_alpha_decays_as_scikit_learns() -> None:
    """The biases apart, which decay too; so they start at 0 and the data keeps them there."""
    X = np.random.default_rng(0).normal(size=(40, 3))
    X -= X.mean(axis=0)
    y = X @ [1.0, -2.0, 0.5]
    options = {"solver": "sgd", "hidden_layer_sizes": (4,), "activation": "identity", "alpha": 8.0,
               "batch_size": 40, "max_iter": 40, "shuffle": False, "random_state": 0,
               "learning_rate_init": 0.05, "n_iter_no_change": np.inf}  # fmt: skip
    ours, theirs = MLPRegressor(**options), TheirRegressor(**options)
    for estimator in (ours, theirs):
        estimator.set_params(max_iter=1).fit(X, y)
        estimator.set_params(warm_start=True, max_iter=40)
        for bias in estimator.intercepts_:
            bias[...] = 0
        estimator.fit(X, y)
    for mine, right in zip(ours.coefs_, theirs.coefs_, strict=True):
        np.testing.assert_allclose(mine, right, rtol=1e-9, atol=1e-9)


def test_invscaling_slows_down_from_epoch_to_epoch_and_call_to_call() -> None:
    X, y = problem("binary")
    options = {"solver": "sgd", "learning_rate": "invscaling", "power_t": 0.25, "max_iter": 3,
               "warm_start": True, "shuffle": False, "random_state": 0}  # fmt: skip
    ours, theirs = MLPClassifier(**options), TheirClassifier(**options)
    for _ in range(2):
        ours.fit(X, y)
        theirs.fit(X, y)
    np.testing.assert_allclose(
        ours.model_.optimizer.learning_rate, theirs._optimizer.learning_rate, rtol=1e-12
    )
    assert ours.t_ == theirs.t_ == 6 * len(X)
    assert len(ours.loss_curve_) == 6


def test_partial_fit_is_fit_epoch_by_epoch() -> None:
    X, y = digits(3)
    options = {"hidden_layer_sizes": (12,), "random_state": 5, "max_iter": 7, "dtype": "float32"}
    whole = MLPClassifier(**options).fit(X, y)
    parts = MLPClassifier(**options)
    for _ in range(7):
        parts.partial_fit(X, y, classes=[0, 1, 2])
    for one, other in zip(whole.coefs_, parts.coefs_, strict=True):
        np.testing.assert_array_equal(one, other)
    assert whole.loss_curve_ == parts.loss_curve_
    assert parts.n_iter_ == 1 and parts.t_ == 7 * len(X)


def test_partial_fit_of_classes_that_come_later() -> None:
    X, y = iris()
    model = MLPClassifier(random_state=0)
    with pytest.raises(ValueError, match="classes must be passed"):
        model.partial_fit(X, y)
    model.partial_fit(X[y < 2], y[y < 2], classes=[0, 1, 2])
    model.partial_fit(X, y)
    assert model.predict_proba(X).shape == (150, 3)
    with pytest.raises(ValueError, match=r"classes not in `self.classes_`, \[7\]"):
        model.partial_fit(X[:2], [0, 7])
    with pytest.raises(ValueError, match="is not what the first call"):
        model.partial_fit(X, y, classes=[0, 1])
    assert not hasattr(MLPClassifier(solver="lbfgs"), "partial_fit")


def test_early_stopping_on_rows_of_your_own_keeps_the_best() -> None:
    X, y = digits()
    X_train, X_rest, y_train, y_rest = train_test_split(X, y, test_size=0.3, random_state=0)
    model = MLPClassifier(
        (32,), learning_rate_init=0.02, early_stopping=True, n_iter_no_change=4, tol=0.0,
        random_state=0,
    ).fit(X_train, y_train, validation_data=(X_rest, y_rest))  # fmt: skip
    assert model.n_iter_ < model.max_iter
    assert len(model.validation_scores_) == len(model.validation_loss_curve_) == model.n_iter_
    assert model.best_validation_score_ == max(model.validation_scores_)
    assert model.score(X_rest, y_rest) == model.best_validation_score_
    assert model.best_validation_score_ > 0.95
    loss = model.model_.evaluate(X_rest, y_rest)["loss"]
    best = int(np.argmax(model.validation_scores_))
    assert loss == pytest.approx(model.validation_loss_curve_[best], rel=1e-12)


def test_validation_data_without_early_stopping_is_only_watched() -> None:
    X, y = load_diabetes(return_X_y=True)
    y = y / 100
    blind = MLPRegressor(hidden_layer_sizes=(8,), max_iter=5, random_state=0).fit(X[:300], y[:300])
    model = MLPRegressor(hidden_layer_sizes=(8,), max_iter=5, random_state=0)
    model.fit(X[:300], y[:300], validation_data=(X[300:], y[300:]))
    np.testing.assert_array_equal(model.coefs_[0], blind.coefs_[0])
    assert blind.validation_scores_ is None
    assert model.validation_scores_[-1] == pytest.approx(model.score(X[300:], y[300:]))
    partial = MLPRegressor(hidden_layer_sizes=(8,), early_stopping=True, random_state=0)
    with pytest.raises(ValueError, match="partial_fit does not support early_stopping=True"):
        partial.partial_fit(X, y)
    partial.partial_fit(X, y, validation_data=(X[:50], y[:50]))
    assert len(partial.validation_scores_) == 1


def test_warm_start_goes_on_with_a_fresh_optimizer() -> None:
    X, y = iris()
    model = MLPClassifier((6,), warm_start=True, max_iter=10, random_state=0).fit(X, y)
    before, start = model.loss_, model.coefs_[0].copy()
    model.fit(X, y)
    assert model.loss_ < before and not np.array_equal(start, model.coefs_[0])
    assert len(model.loss_curve_) == 20 and model.n_iter_ == 10
    assert model.model_._require_built().steps == 10
    model.set_params(hidden_layer_sizes=(7,))
    with pytest.raises(ValueError, match="training goes on with the network that was fitted"):
        model.fit(X, y)
    cold = clone(model).set_params(warm_start=False, hidden_layer_sizes=(6,)).fit(X, y)
    assert len(cold.loss_curve_) == 10


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_pickle_keeps_the_bits_and_trains_on(dtype: str) -> None:
    X, y = iris()
    X = X.astype(dtype)
    model = MLPClassifier((9,), max_iter=4, random_state=1).fit(X, y)
    data = pickle.dumps(model)
    assert b'{"__metadata__":{"sha256":"' in data  # the model as a file without code
    for other in (pickle.loads(data), copy.deepcopy(model)):
        np.testing.assert_array_equal(other.predict_proba(X), model.predict_proba(X))
        other.partial_fit(X, y)
        assert other.loss_curve_[:-1] == model.loss_curve_
    twin = pickle.loads(data).partial_fit(X, y)
    model.partial_fit(X, y)
    np.testing.assert_array_equal(twin.coefs_[1], model.coefs_[1])
    damaged = bytearray(data)
    damaged[data.index(b"__metadata__") + 200] ^= 1
    with pytest.raises(bp.ModelFileError):
        pickle.loads(bytes(damaged))


def test_searches_and_pipelines() -> None:
    X, y = load_breast_cancer(return_X_y=True)
    pipe = make_pipeline(MinMaxScaler(), MLPClassifier((16,), max_iter=60, random_state=0))
    assert cross_val_score(pipe, X, y, cv=3).mean() > 0.9
    grid = {"learning_rate": [1e-3, 1e-2, 1e-1], "batch_size": [32, 256]}
    search = GridSearchCV(MLPClassifier((8,), max_iter=15, random_state=0), grid, cv=3, n_jobs=2)
    search.fit(StandardScaler().fit_transform(X), y)
    assert set(search.best_params_) == set(grid) and search.best_score_ > 0.95
    names = {f"mlpclassifier__{name}": values for name, values in grid.items()}
    random = RandomizedSearchCV(pipe, names, n_iter=3, cv=2, random_state=0)
    assert random.fit(X, y).best_score_ > 0.9


def test_a_table_with_two_hidden_layers_reaches_095() -> None:
    X, y = load_breast_cancer(return_X_y=True)
    model = make_pipeline(StandardScaler(), MLPClassifier((128, 64), random_state=0, max_iter=50))
    assert cross_val_score(model, X, y, cv=5).mean() >= 0.95


def test_sparse_labels_give_sparse_predictions() -> None:
    """As with scikit-learn's, whose first fit decides; the scores and bits are those of dense."""
    X, Y = make_multilabel_classification(n_samples=60, n_classes=4, random_state=0)
    stored = sparse.csr_array(Y)
    for kind in (MLPClassifier, TheirClassifier):
        model = kind(max_iter=3, random_state=0)
        dense = clone(model).fit(X, Y).predict(X)
        found = model.fit(X, stored).predict(X)
        assert type(dense) is np.ndarray
        assert type(found) is sparse.csr_matrix and found.dtype == dense.dtype
        assert np.array_equal(found.toarray(), dense)
        assert model.score(X, stored) == model.score(X, Y)
        steps = kind(random_state=0)
        steps.partial_fit(X, stored, classes=range(4)).partial_fit(X, Y)
        assert type(pickle.loads(pickle.dumps(steps)).predict(X)) is sparse.csr_matrix


def test_several_labels() -> None:
    X, Y = make_multilabel_classification(n_samples=300, n_classes=4, random_state=0)
    X = StandardScaler().fit_transform(X)
    model = MLPClassifier((40,), max_iter=300, random_state=0).fit(X[:200], Y[:200])
    chosen = model.predict(X[200:])
    assert chosen.shape == (100, 4) and set(np.unique(chosen)) == {0, 1}
    assert (chosen == Y[200:]).mean() > 0.75  # always 0: 0.5
    np.testing.assert_array_equal(model.predict_proba(X[200:]) > 0.5, chosen)
    model = MLPClassifier((40,), early_stopping=True, random_state=0).fit(X, Y)
    assert model.best_validation_score_ == max(model.validation_scores_)


def test_text_classes_and_one_class() -> None:
    X, y = iris()
    names = np.array(["setosa", "versicolor", "virginica"], dtype=object)
    model = MLPClassifier((10,), max_iter=100, random_state=0, solver="lbfgs").fit(X, names[y])
    assert set(model.predict(X)) == set(names) and model.score(X, names[y]) > 0.97
    two = MLPClassifier((4,), max_iter=30, random_state=0).fit(X[:100], names[y[:100]])
    assert list(two.classes_) == ["setosa", "versicolor"]
    np.testing.assert_allclose(two.predict_proba(X).sum(axis=1), 1)
    single = MLPClassifier((4,), max_iter=2).fit(X, np.zeros(150))
    assert single.predict_proba(X).shape == (150, 1) and set(single.predict(X)) == {0}
    np.testing.assert_array_equal(single.predict_proba(X), 1)


def test_two_outputs_with_softmax_are_one_with_sigmoid() -> None:
    """Softmax of (0, z) is sigmoid of z: the two ways to tell two classes apart agree."""
    X, y = problem("binary")
    one = MLPClassifier((5,), max_iter=3, random_state=0).fit(X, y)
    two = bp.Sequential([bp.Dense(5, activation="relu"), bp.Dense(2)])
    two.compile(loss="softmax_cross_entropy", dtype="float64")
    two.build(5)
    kernel, bias = one.coefs_[1], one.intercepts_[1]
    two.set_parameters(
        {
            "0.kernel": one.coefs_[0],
            "0.bias": one.intercepts_[0],
            "1.kernel": np.hstack([0 * kernel, kernel]),
            "1.bias": np.hstack([0 * bias, bias]),
        }
    )
    np.testing.assert_allclose(two.predict_proba(X), one.predict_proba(X), rtol=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        {"solver": "rmsprop", "learning_rate_init": 0.01},
        {"solver": "adamw", "alpha": 0.01, "learning_rate": 0.01},
        {"solver": bp.SGD(0.5, momentum=0.9)},
        {"activation": "gelu"},
        {"activation": bp.LeakyReLU(0.2)},
        {"activation": ["relu", "silu"], "hidden_layer_sizes": (10, 8)},
        {"hidden_layer_sizes": 12},
        {"hidden_layer_sizes": (20, 20), "dropout": 0.1},
        {"hidden_layer_sizes": (), "learning_rate": 0.05},
        {"dtype": "float32", "device": "reference", "max_iter": 60},
    ],
    ids=str,
)
def test_what_is_ours(options: dict[str, Any]) -> None:
    X, y = iris()
    model = clone(MLPClassifier(**{"random_state": 0, "learning_rate_init": 0.01, **options})).fit(
        X, y
    )
    assert model.score(X, y) > 0.9
    assert model.model_.device == options.get("device", "cpu")
    assert model.coefs_[0].dtype == options.get("dtype", "float64")


def test_losses_of_the_regressor() -> None:
    """A tenth of the rows is far off: mae and huber mind it less than the squared error."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(400, 3))
    clean = X @ [1.0, 2.0, -1.0]
    y = clean + np.where(rng.random(400) < 0.1, 30.0, 0.0)
    errors = {}
    for loss in ("squared_error", "mae", bp.Loss("huber", 0.5)):
        model = MLPRegressor(loss, (), learning_rate=0.02, random_state=0).fit(X, y)
        errors[str(loss)] = np.abs(model.predict(X) - clean).mean()
    squared, mae, huber = errors.values()
    assert mae < squared / 5 and huber < squared / 5
    with pytest.raises(ValueError, match="is about classes: use MLPClassifier"):
        MLPRegressor("softmax_cross_entropy").fit(X, y)


@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
@pytest.mark.parametrize("kind", ["binary", "multiclass", "one"])
def test_weights_of_rows_are_scikit_learns(kind: str, solver: str) -> None:
    """Where a batch is all rows; in smaller ones the mean weight is that of all of them."""
    X, y = problem(kind)
    weight = np.random.default_rng(1).integers(0, 4, len(X)).astype(float)
    options = {"hidden_layer_sizes": (5,), "activation": "tanh", "solver": solver, "max_iter": 30,
               "learning_rate_init": 0.02, "momentum": 0.0, "shuffle": False, "random_state": 0,
               "alpha": 0.1 if solver == "lbfgs" else 0.0, "epsilon": 1e-12,
               "tol": 1e-10, "n_iter_no_change": np.inf}  # fmt: skip
    regression = kind == "one"
    ours = (MLPRegressor if regression else MLPClassifier)(**options)
    theirs = (TheirRegressor if regression else TheirClassifier)(**options)
    ours.fit(X, y, sample_weight=weight)
    theirs.fit(X, y, sample_weight=weight)
    for mine, right in zip(ours.coefs_, theirs.coefs_, strict=True):
        np.testing.assert_allclose(mine, right, rtol=1e-6, atol=1e-9)
    assert ours.loss_ == pytest.approx(theirs.loss_, rel=1e-6)


def test_class_weights_help_the_rare_class() -> None:
    """One row in twenty is fraud, and hard to tell: unweighted, few are found."""
    rng = np.random.default_rng(0)
    y = np.where(rng.random(2000) < 0.05, "fraud", "fine")
    X = rng.normal(size=(2000, 4)) + (y == "fraud")[:, None] * 0.7
    found = {}
    for weight in (None, "balanced", {"fraud": 19.0}):
        model = MLPClassifier((8,), class_weight=weight, max_iter=30, random_state=0).fit(X, y)
        found[str(weight)] = (model.predict(X[y == "fraud"]) == "fraud").mean()
    plain, balanced, given = found.values()
    assert plain < 0.3 and balanced > 0.6 and given > 0.6
    factors = np.where(y == "fraud", 19.0, 1.0)
    twin = MLPClassifier((8,), max_iter=30, random_state=0).fit(X, y, sample_weight=factors)
    np.testing.assert_array_equal(twin.coefs_[0], model.coefs_[0])
    with pytest.raises(ValueError, match="needs all rows at once"):
        MLPClassifier(class_weight="balanced").partial_fit(X, y, classes=["fine", "fraud"])


def test_weights_of_validation_rows_count_in_the_score() -> None:
    X, y = iris()
    weight = np.where(y == 0, 0.0, 1.0)
    model = MLPClassifier((5,), max_iter=3, random_state=0)
    model.fit(X, y, validation_data=(X, y, weight))
    assert model.validation_scores_[-1] == model.score(X, y, sample_weight=weight)
    for bad in (-np.ones(150), np.ones(149), np.zeros(150)):
        with pytest.raises(ValueError, match="sample_weight"):
            model.fit(X, y, sample_weight=bad)


def test_counts_follow_scikit_learns_poisson_loss() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(80, 2))
    y = rng.poisson(np.exp(0.5 * X[:, 0] + 1)).astype(float)
    options = {"loss": "poisson", "hidden_layer_sizes": (5,), "activation": "tanh", "alpha": 0.0,
               "solver": "sgd", "learning_rate_init": 0.01, "momentum": 0.0, "max_iter": 20,
               "shuffle": False, "random_state": 0, "n_iter_no_change": np.inf}  # fmt: skip
    ours, theirs = MLPRegressor(**options).fit(X, y), TheirRegressor(**options).fit(X, y)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), rtol=1e-9)
    assert ours.score(X, y) == pytest.approx(theirs.score(X, y))
    with pytest.raises(ValueError, match="must not be negative"):
        ours.fit(X, y - 10)


def test_parameters_can_be_read_and_written() -> None:
    X, y = iris()
    model = MLPClassifier((5,), max_iter=3, random_state=0).fit(X, y)
    model.coefs_[0][...] = 0  # a live view
    model.intercepts_ = [np.zeros(5), np.array([0.0, 5.0, 0.0])]
    assert set(model.predict(X)) == {1}
    with pytest.raises(ValueError, match="2 arrays are needed"):
        model.coefs_ = [np.zeros((4, 5))]
    assert not hasattr(MLPClassifier(), "coefs_")
    with pytest.raises(NotFittedError):
        MLPClassifier().predict(X)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("alpha", -1.0, "alpha must be"),
        ("learning_rate", "cosine", "unknown learning_rate 'cosine'"),
        ("learning_rate", 0.0, "learning_rate must be"),
        ("batch_size", 0, "batch_size must be"),
        ("max_iter", 0, "max_iter must be"),
        ("hidden_layer_sizes", (5, -1), "hidden_layer_sizes must be"),
        ("activation", "softmax", "unknown activation 'softmax'"),
        ("activation", ["relu", "tanh"], "lists 2 activations for 1 hidden"),
        ("solver", "newton", "unknown optimizer 'newton'"),
        ("dtype", "float128", "dtype must be"),
        ("validation_fraction", 1.0, "validation_fraction must be"),
        ("n_iter_no_change", 0, "n_iter_no_change must be"),
    ],
)
def test_wrong_arguments_name_themselves(name: str, value: object, message: str) -> None:
    X, y = iris()
    with pytest.raises(ValueError, match=message):
        MLPClassifier(**{name: value}).fit(X, y)


def test_wrong_data_leaves_the_fitted_model_alone() -> None:
    X, y = iris()
    model = MLPClassifier((5,), max_iter=3, random_state=0).fit(X, y)
    before = model.predict_proba(X)
    broken = X.copy()
    broken[7, 2] = np.nan
    for call in (
        lambda: model.fit(broken, y),
        lambda: model.fit(X, y[:-1]),
        lambda: model.partial_fit(X[:, :2], y),
        lambda: model.fit(X, y, validation_data=(X, np.where(y == 0, 9, y))),
        lambda: model.fit(X, y, validation_data=X),
    ):
        with pytest.raises((ValueError, TypeError)):
            call()
        np.testing.assert_array_equal(model.predict_proba(X), before)


class Fails(bp.Callback):
    """Raises behind the second epoch."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if epoch == 1:
            raise RuntimeError("a callback's error")


def changed(model: Any, before: dict[str, Any]) -> list[str]:
    """Names of attributes that are not what they were."""
    now = vars(model)
    return [name for name in {**now, **before} if now.get(name) is not before.get(name)]


@pytest.mark.parametrize(
    ("options", "arguments", "message"),
    [
        ({}, {"sample_weight": np.ones(3)}, "sample_weight must have shape"),
        ({}, {"sample_weight": np.zeros(150)}, "sample_weight is zero in every row"),
        ({}, {"validation_data": (np.ones((9, 4)), np.zeros(9))}, "X has 4 features"),
        ({}, {"y": np.linspace(0, 1, 150)}, "continuous"),
        ({}, {"callbacks": Fails()}, "a callback's error"),
        ({"class_weight": {0: 0, 1: 0, 2: 0}}, {}, "class_weight leaves no row a weight"),
        ({"activation": "relo"}, {}, "relu"),
        ({"dtype": "float16"}, {}, "float16"),
        ({"solver": "lbfgs"}, {"callbacks": Fails()}, "lbfgs"),
        ({"solver": bp.LBFGS(), "dropout": 0.5}, {}, "LBFGS"),
        ({"solver": "sgd", "learning_rate": 1e300}, {}, "non-finite"),
    ],
)
@pytest.mark.filterwarnings("ignore:the loss is nan:RuntimeWarning")
def test_an_error_leaves_every_attribute_as_it_was(
    options: dict[str, Any], arguments: dict[str, Any], message: str
) -> None:
    X, y = iris()
    model = MLPClassifier((5,), max_iter=3, random_state=0).fit(X, np.where(y == 0, "a", "b"))
    shares = model.predict_proba(X)
    before = dict(vars(model.set_params(**options)))
    with pytest.raises((ValueError, RuntimeError), match=message):
        model.fit(X[:, :3], arguments.pop("y", y), **arguments)
    assert changed(model, before) == []
    np.testing.assert_array_equal(model.predict_proba(X), shares)


def test_a_first_partial_fit_that_is_refused_leaves_nothing() -> None:
    model = MLPClassifier((5,))
    before = dict(vars(model))
    with pytest.raises(ValueError, match="NaN"):
        model.partial_fit(np.full((4, 2), np.nan), [0, 1, 1, 0], classes=[0, 1, 2])
    assert changed(model, before) == []


def test_training_on_keeps_what_an_error_leaves_of_it() -> None:
    X, y = iris()
    model = MLPClassifier((5,), max_iter=3, random_state=0, warm_start=True).fit(X, y)
    with pytest.raises(RuntimeError, match="a callback's error"):
        model.fit(X, y, callbacks=Fails())
    assert model.n_iter_ == 2 and len(model.loss_curve_) == 5
    regressor = MLPRegressor(hidden_layer_sizes=(5,), max_iter=3).fit(X, X[:, 0])
    with pytest.raises(ValueError, match="the number of outputs have changed"):
        regressor.partial_fit(X, X[:, :2])
    assert regressor.n_outputs_ == 1


def test_names_of_solvers_in_any_case() -> None:
    X, y = iris()
    for name in ("adam", "sgd", "lbfgs"):
        same = [
            MLPClassifier((5,), solver=spelled, max_iter=3, random_state=0).fit(X, y)
            for spelled in (name, name.upper())
        ]
        np.testing.assert_array_equal(same[0].predict_proba(X), same[1].predict_proba(X))


@pytest.mark.parametrize("rows", [slice(None, None, 6), slice(49, 150)])
def test_early_stopping_where_classes_are_too_many_or_too_rare_to_hold_out(rows: slice) -> None:
    X, y = (array[rows] for array in iris())
    model = MLPClassifier((5,), early_stopping=True, max_iter=2, random_state=0).fit(X, y)
    assert len(model.validation_scores_) == 2


def test_callbacks_and_warnings() -> None:
    X, y = iris()
    seen: list[int] = []

    class Watch(bp.Callback):
        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            seen.append(epoch)
            self.model.stop_training = epoch == 2

    model = MLPClassifier((5,), random_state=0).fit(X, y, callbacks=Watch())
    assert seen == [0, 1, 2] and model.n_iter_ == 3
    with pytest.warns(ConvergenceWarning, match="max_iter=2 epochs are done"):
        MLPClassifier((5,), max_iter=2).fit(X, y)
    with pytest.warns(UserWarning, match="batch_size=1000 exceeds the 150 rows"):
        MLPClassifier((5,), max_iter=2, batch_size=1000).fit(X, y)


def test_fastbp_imports_without_scikit_learn() -> None:
    program = (
        "import sys\n"
        "sys.modules['sklearn'] = None\n"
        "import fastbp\n"
        "try:\n"
        "    import fastbp.sklearn\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=True
    )
    assert "pip install 'fastbp[sklearn]'" in done.stdout
