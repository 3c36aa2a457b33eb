"""Many networks at once, against one after the other and against scikit-learn's processes.

    python bench/many_networks.py [rounds]

32 networks 64-32-10 on the digits, 20 epochs of batches of 32: fits in a row, and one Ensemble. A
grid of 16 candidates on 3 folds, 40 epochs: GridSearchCV in this process and in two, whose workers
have been started and warmed up, and BatchedGridSearchCV. In every round each way runs once, in
turn; the results are compared bit for bit. Medians over the rounds.
"""

import statistics
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV

import fastbp as bp
from fastbp.model_selection import BatchedGridSearchCV
from fastbp.sklearn import MLPClassifier

MEMBERS, EPOCHS = 32, 20
GRID = {"alpha": [1e-5, 1e-4, 1e-3, 1e-2], "learning_rate_init": [1e-3, 3e-3, 1e-2, 3e-2]}


def network(seed: int = 0) -> bp.Sequential:
    model = bp.Sequential([bp.Dense(32, activation="relu"), bp.Dense(10)], seed=seed)
    model.compile(bp.Adam(1e-3), "softmax_cross_entropy", ["accuracy"])
    return model


def in_a_row(X: Any, y: Any) -> Any:
    models = [network(seed) for seed in range(MEMBERS)]
    for model in models:
        model.fit(X, y, epochs=EPOCHS, verbose=0)
    return models


def at_once(X: Any, y: Any) -> Any:
    ensemble = bp.Ensemble(network(), MEMBERS, seed=0)
    ensemble.fit(X, y, epochs=EPOCHS, verbose=0)
    return ensemble


def search(kind: Any, **settings: Any) -> Callable[[Any, Any], Any]:
    def run(X: Any, y: Any) -> Any:
        net = MLPClassifier((32,), max_iter=40, random_state=0, batch_size=32, dtype="float32")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return kind(net, GRID, cv=3, refit=False, **settings).fit(X, y)

    return run


def parameters(models: Any) -> list[Any]:
    return [array for model in models for array in model.parameters().values()]


def scores(found: Any) -> list[Any]:
    return [found.cv_results_[f"split{fold}_test_score"] for fold in range(3)]


def compare(ways: dict[str, Callable[[Any, Any], Any]], result: Any, rounds: int) -> None:
    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32)
    first = [result(way(X, y)) for way in ways.values()]  # warms up, too
    for other in first[1:]:
        assert all(map(np.array_equal, first[0], other)), "results differ"
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way(X, y)
            taken[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(seconds) for name, seconds in taken.items()}
    last = medians[list(ways)[-1]]
    for name, seconds in medians.items():
        low, high = min(taken[name]), max(taken[name])
        spread = f"({low * 1e3:.0f} to {high * 1e3:.0f})"
        print(f"{name:<32} {seconds * 1e3:8.1f} ms {spread:<16} {seconds / last:.2f}x")


def main(rounds: int) -> None:
    print(f"{bp.get_num_threads()} threads, medians of {rounds} rounds; results equal bit for bit")
    compare({f"{MEMBERS} fits in a row": in_a_row, "Ensemble": at_once}, parameters, rounds)
    ways = {
        "GridSearchCV": search(GridSearchCV),
        "GridSearchCV(n_jobs=2)": search(GridSearchCV, n_jobs=2),
        "BatchedGridSearchCV": search(BatchedGridSearchCV),
    }
    compare(ways, scores, rounds)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
