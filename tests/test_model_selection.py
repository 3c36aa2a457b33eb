"""BatchedGridSearchCV gives GridSearchCV's results, with the estimators trained side by side."""

import threading
import time
from typing import Any, ClassVar

import numpy as np
import pytest

import fastbp as bp
import machine

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fastbp.model_selection import BatchedGridSearchCV
from fastbp.sklearn import MLPClassifier, MLPRegressor, SequenceClassifier

RNG = np.random.default_rng(0)
X = RNG.normal(size=(150, 5))
Y = np.array(["a", "b", "c"])[(X[:, 0] > 0).astype(int) + (X[:, 1] > 0.5)]

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(params=[1, 3], autouse=True)
def threads(request: pytest.FixtureRequest) -> Any:
    before = bp.get_num_threads()
    bp.set_num_threads(request.param)
    yield request.param
    bp.set_num_threads(before)


def classifier(**settings: Any) -> MLPClassifier:
    return MLPClassifier((8,), **{"max_iter": 6, "random_state": 3, **settings})


def require_same(batched: Any, usual: Any) -> None:
    mine, theirs = batched.cv_results_, usual.cv_results_
    assert list(mine) == list(theirs)
    for name, values in theirs.items():
        if not name.endswith("_time"):
            np.testing.assert_array_equal(mine[name], values, err_msg=name)
    assert batched.best_params_ == usual.best_params_
    assert batched.best_score_ == usual.best_score_
    assert batched.best_index_ == usual.best_index_ and batched.n_splits_ == usual.n_splits_


GRID = {"alpha": [1e-5, 1e-1], "learning_rate_init": [1e-3, 1e-2]}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"cv": StratifiedKFold(4, shuffle=True, random_state=1), "return_train_score": True},
        {"cv": 2, "scoring": ["accuracy", "neg_log_loss"], "refit": "neg_log_loss"},
    ],
)
def test_results_are_those_of_grid_search(settings: dict[str, Any]) -> None:
    settings = {"cv": 3, **settings}
    batched = BatchedGridSearchCV(classifier(), GRID, **settings).fit(X, Y)
    usual = GridSearchCV(classifier(), GRID, **settings).fit(X, Y)
    require_same(batched, usual)
    ours, theirs = batched.best_estimator_, usual.best_estimator_
    assert all(map(np.array_equal, ours.coefs_, theirs.coefs_))
    assert np.array_equal(batched.predict(X), usual.predict(X))


@pytest.mark.parametrize("allowed", [0, 2, 5])
def test_as_few_threads_as_the_system_gives(
    allowed: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the caller's alone too; joblib's pool needs three besides its workers."""
    usual = GridSearchCV(classifier(), GRID, cv=2).fit(X, Y)
    start, begun = threading.Thread.start, list[threading.Thread]()

    def few(thread: threading.Thread) -> None:
        if sum(each.is_alive() for each in begun) >= allowed:
            raise RuntimeError("can't start new thread")
        start(thread)
        begun.append(thread)

    monkeypatch.setattr(threading.Thread, "start", few)
    require_same(BatchedGridSearchCV(classifier(), GRID, cv=2).fit(X, Y), usual)
    tried = {0: 0, 2: 2, 5: 5 + 5}[allowed]  # to see how many there are, and the pool's
    assert len(begun) == (tried if threads > 1 else 0)


def test_pipelines_regressors_and_sequences() -> None:
    cases: list[tuple[Any, dict[str, Any], Any, Any]] = [
        (
            make_pipeline(StandardScaler(), classifier(early_stopping=True)),
            {"mlpclassifier__dropout": [0, 0.3]},
            X,
            Y,
        ),
        (MLPRegressor(max_iter=4, random_state=0), {"activation": ["relu", "tanh"]}, X, X[:, 0]),
        (
            SequenceClassifier("gru", 4, max_iter=2, random_state=0),
            {"learning_rate": [1e-3, 1e-2]},
            X[:, :, None],
            Y,
        ),
    ]
    for estimator, grid, x, y in cases:
        batched = BatchedGridSearchCV(clone(estimator), grid, cv=2).fit(x, y)
        require_same(batched, GridSearchCV(estimator, grid, cv=2).fit(x, y))


def test_starts_are_more_splits_of_each_candidate() -> None:
    pipe = make_pipeline(StandardScaler(), classifier())
    grid = {"mlpclassifier__alpha": [1e-5, 10.0]}
    batched = BatchedGridSearchCV(pipe, grid, cv=2, starts=3).fit(X, Y)
    for start in range(3):
        pipe = make_pipeline(StandardScaler(), classifier(random_state=3 + start))
        usual = GridSearchCV(pipe, grid, cv=2).fit(X, Y)
        for fold in range(2):
            mine = batched.cv_results_[f"split{2 * start + fold}_test_score"]
            np.testing.assert_array_equal(mine, usual.cv_results_[f"split{fold}_test_score"])
    splits = np.stack([batched.cv_results_[f"split{k}_test_score"] for k in range(6)])
    np.testing.assert_allclose(batched.cv_results_["mean_test_score"], splits.mean(axis=0))
    assert batched.cv_results_["params"] == [{"mlpclassifier__alpha": a} for a in (1e-5, 10.0)]
    alone = make_pipeline(StandardScaler(), classifier(alpha=1e-5)).fit(X, Y)
    if batched.best_params_ == {"mlpclassifier__alpha": 1e-5}:
        assert np.array_equal(batched.predict_proba(X), alone.predict_proba(X))


def test_starts_need_a_state_to_count_up() -> None:
    with pytest.raises(ValueError, match="leave it out of the grid"):
        BatchedGridSearchCV(classifier(), {"random_state": [0, 1]}, starts=2).fit(X, Y)
    drawn = classifier(random_state=np.random.RandomState(0))
    with pytest.raises(ValueError, match="is an integer; got"):
        BatchedGridSearchCV(drawn, GRID, starts=2).fit(X, Y)
    with pytest.raises(ValueError, match="none in the estimator"):
        BatchedGridSearchCV(StandardScaler(), {"with_mean": [True]}, scoring=lambda *_: 0.0,
                            starts=2).fit(X, Y)  # fmt: skip
    with pytest.raises(ValueError, match="starts must"):
        BatchedGridSearchCV(classifier(), GRID, starts=0).fit(X, Y)


@pytest.mark.filterwarnings("ignore:One or more of the test scores")
def test_a_failing_candidate_scores_nan_as_usual() -> None:
    grid = {"learning_rate_init": [1e-2, -1.0]}
    with pytest.warns(Warning, match="fits failed"):
        batched = BatchedGridSearchCV(classifier(), grid, cv=2).fit(X, Y)
    assert np.isnan(batched.cv_results_["mean_test_score"]).tolist() == [False, True]
    assert batched.best_params_ == {"learning_rate_init": 1e-2}


class Counting(MLPClassifier):
    """Notes the threads that its training has, and those of Python that are at it."""

    seen: ClassVar[set[tuple[int, int]]] = set()
    expected: ClassVar[int] = 1

    def fit(self, X: Any, y: Any, **settings: Any) -> Any:
        self.seen.add((bp.get_num_threads(), threading.get_ident()))
        patience = time.monotonic() + 60
        while len(self.threads()) < self.expected and time.monotonic() < patience:
            time.sleep(0.002)  # one thread may be through with all before the next has begun
        return super().fit(X, y, **settings)

    @classmethod
    def threads(cls) -> set[int]:
        return {thread for _, thread in cls.seen.copy()}


def test_each_network_has_one_thread(threads: int) -> None:
    Counting.seen.clear()
    Counting.expected = threads
    search = BatchedGridSearchCV(Counting((4,), max_iter=1), GRID, cv=3, refit=False).fit(X, Y)
    assert len(Counting.threads()) == threads
    assert {count for count, _ in Counting.seen} == {1}
    assert bp.get_num_threads() == threads
    assert search.n_splits_ == 3


def test_ctrl_c_ends_the_search() -> None:
    slow = Counting((300, 300), max_iter=10**6, tol=0, n_iter_no_change=10**6)
    Counting.seen.clear()
    Counting.expected = 1
    with (
        pytest.raises(KeyboardInterrupt),
        machine.ctrl_c_when(lambda: len(Counting.seen) > 0, 0.2) as sent,
    ):
        BatchedGridSearchCV(slow, GRID, cv=2).fit(X, Y)
    assert time.perf_counter() - sent[0] < 20
    fitted = classifier().fit(X, Y)  # nothing is left over that would hold it up
    assert fitted.n_iter_ == 6
