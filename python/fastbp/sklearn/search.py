"""BatchedGridSearchCV: GridSearchCV whose networks are trained side by side in one process."""

from __future__ import annotations

from multiprocessing.pool import ThreadPool
from typing import Any

import joblib
import numpy as np
from joblib.parallel import ThreadingBackend
from sklearn.model_selection import GridSearchCV, ParameterGrid

from .. import _core, checks
from ..errors import describe
from ..pool import threads_to_be_had
from .base import BaseMLP
from .sequences import _BaseSequence

POOL_THREADS = 3  # that a ThreadPool needs besides its workers


class SideBySide(ThreadingBackend):
    """joblib's threads, each held to one thread of the engine's team (see fastbp.pool)."""

    _terms: _core.PoolTerms | None = None
    _pool: ThreadPool | None

    def configure(self, n_jobs: int = 1, parallel: Any = None, **settings: Any) -> int:
        """As the base does; but no more threads than the system gives, and with one none at all."""
        wanted = self.effective_n_jobs(n_jobs)
        if wanted > 1:
            wanted = max(1, threads_to_be_had(wanted + POOL_THREADS) - POOL_THREADS)
        configured: int = super().configure(wanted, parallel, **settings)
        return configured

    def _get_pool(self) -> ThreadPool:
        if self._pool is None:
            self._terms = _core.PoolTerms()
            self._pool = ThreadPool(self._n_jobs, self._terms.__enter__)
        return self._pool

    def terminate(self) -> None:
        """Ends what is in progress between two steps; nothing is where all has gone well."""
        if self._terms is not None:
            self._terms.stop()
        super().terminate()


class BatchedGridSearchCV(GridSearchCV):
    """scikit-learn's GridSearchCV for fastbp's estimators, all candidates and folds at once.

    Arguments, attributes and results are GridSearchCV's, and equal to those that it gives, bit for
    bit but for the times: the networks of the grid and of the folds are trained side by side on
    threads, each on one, without processes to start or data to send. The estimator may be a
    pipeline, or anything else with estimators of fastbp in it.

    Args:
        n_jobs: how many at a time; None: fastbp.get_num_threads().
        starts: every candidate is trained on every fold from so many random starts, with the
            random_state of fastbp's estimators, an integer or None for 0, and the integers that
            follow on it. The results have starts * folds splits: split k is fold k % folds of start
            k // folds; the mean over them is what decides. best_estimator_ has the first start.

    Raises what GridSearchCV raises; with starts ValueError where random_state is in the grid.
    """

    def __init__(
        self,
        estimator: Any,
        param_grid: Any,
        *,
        scoring: Any = None,
        n_jobs: int | None = None,
        refit: Any = True,
        cv: Any = None,
        verbose: int = 0,
        pre_dispatch: Any = "2*n_jobs",
        error_score: Any = np.nan,
        return_train_score: bool = False,
        starts: int = 1,
    ) -> None:
        super().__init__(
            estimator,
            param_grid,
            scoring=scoring,
            n_jobs=n_jobs,
            refit=refit,
            cv=cv,
            verbose=verbose,
            pre_dispatch=pre_dispatch,
            error_score=error_score,
            return_train_score=return_train_score,
        )
        self.starts = starts

    def fit(self, X: Any, y: Any = None, **params: Any) -> BatchedGridSearchCV:
        """Trains and scores every candidate on every fold, then the best one on all rows.

        Arguments as GridSearchCV.fit. Ctrl-C stops all networks between two steps.
        """
        checks.integer("starts", self.starts)
        threads = _core.get_num_threads()
        with joblib.parallel_config(SideBySide(), n_jobs=threads):
            super().fit(X, y, **params)
        return self

    def _run_search(self, evaluate_candidates: Any, *, callback_ctx: Any = None) -> None:
        """Hands the candidates, with all starts, to GridSearchCV's evaluation."""
        if self.starts == 1:
            context = {} if callback_ctx is None else {"callback_ctx": callback_ctx}
            super()._run_search(evaluate_candidates, **context)
            return
        states = _random_states(self.estimator)
        candidates = list(ParameterGrid(self.param_grid))
        for name in states:
            if any(name in candidate for candidate in candidates):
                raise ValueError(f"starts={self.starts} counts {name} up: leave it out of the grid")
        evaluate_candidates(
            [
                {**candidate, **{name: first + start for name, first in states.items()}}
                for candidate in candidates
                for start in range(self.starts)
            ]
        )

    def _format_results(
        self, candidate_params: list[Any], n_splits: int, out: Any, more_results: Any = None
    ) -> Any:
        """The starts of a candidate are so many more splits of it, and lie side by side."""
        if self.starts > 1:
            states = _random_states(self.estimator)
            candidate_params = [
                {name: value for name, value in candidate.items() if name not in states}
                for candidate in candidate_params[:: self.starts]
            ]
            n_splits *= self.starts
        return super()._format_results(candidate_params, n_splits, out, more_results)


def _random_states(estimator: Any) -> dict[str, int]:
    """The first random_state of each of fastbp's estimators, by the name of the parameter."""
    found = {"": estimator, **estimator.get_params(deep=True)}
    states: dict[str, int] = {}
    for name, part in found.items():
        if isinstance(part, (BaseMLP, _BaseSequence)):
            given = part.random_state
            if given is not None and not isinstance(given, (int, np.integer)):
                raise ValueError(
                    f"starts needs a random_state that is an integer; got {describe(given)}"
                )
            states[f"{name}__random_state" if name else "random_state"] = int(given or 0)
    if not states:
        raise ValueError("starts is about estimators of fastbp; there is none in the estimator")
    return states
