"""What every contestant makes of a workload, and how its result is judged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import fastbp as bp

from ..timing import calibrate, seconds
from ..workloads import Array, Workload

LONG_CALL = 0.005  # seconds that one call of a native training loop shall take, at least
LONG_TRIAL = 1.0  # seconds of a call from which on numbers of threads are not tried out

# What a result may differ from the float64 reference, by kind of workload and dtype.
# Training: of all parameters, relative to the way they have gone since the start. Adam's first
# steps are as long for a gradient that is rounding noise as for any other, hence not 1e-6; the
# furthest is scikit-learn, 1.3e-2, for its epsilon (sklearn_mlp.py).
# Calls: the largest element, relative to the largest. A job: 1 - test accuracy.
ALLOWED = {
    "train": {"float32": 2e-2, "float64": 1e-6, "bfloat16": 0.5},
    "predict": {"float32": 1e-5},
    "matmul": {"float32": 1e-5},
    "job": {"float32": 0.06},
}


@dataclass
class Task:
    """A call to be timed, made ready and verified.

    units: steps (jobs, calls) in one call. difference: of its result from the reference's.
    threads: how many were chosen, where the contestant was tried with several.
    """

    call: Callable[[], object]
    units: int
    difference: float
    threads: int | None = None


@dataclass(frozen=True)
class Reference:
    """Parameters in float64 after the checked steps of a workload, and where they began."""

    path: Path

    def save(self, start: Iterable[Array], end: Iterable[Array]) -> None:
        np.savez(self.path, start=flat(start), end=flat(end))

    def difference(self, parameters: Iterable[Array]) -> float:
        """Distance of parameters from the reference's, relative to the way it has gone."""
        with np.load(self.path) as saved:
            way = np.linalg.norm(saved["end"] - saved["start"])
            return float(np.linalg.norm(flat(parameters) - saved["end"]) / way)


def flat(arrays: Iterable[Any]) -> Array:
    return np.concatenate([np.ravel(array).astype(np.float64) for array in arrays])


def checked_batches(workload: Workload, dtype: str = "float32") -> tuple[Array, Array]:
    """The rows of the steps after which parameters are compared."""
    x, y = workload.data(dtype)
    rows = workload.checked_steps * workload.batch
    return x[:rows], y[:rows]


def logits(workload: Workload, x: Array) -> Array:
    """Of the start's parameters, in float64."""
    z, parameters = x.astype(np.float64), workload.start("float64")
    for i in range(0, len(parameters), 2):
        z = (np.maximum(z, 0) if i else z) @ parameters[i] + parameters[i + 1]
    return z


def softmax(z: Array) -> Array:
    exponentials = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def apart(got: Any, expected: Array) -> float:
    """The largest difference of two arrays, relative to the largest element."""
    return float(np.abs(np.asarray(got, np.float64) - expected).max() / np.abs(expected).max())


def product(workload: Workload, matmul: Callable[..., Any]) -> tuple[Callable[[], object], float]:
    """matmul(a, b, out=out) of the workload's matrices as a call, and its difference."""
    a, b = workload.matrices()
    out = np.empty((a.shape[0], b.shape[1]), a.dtype)

    def call() -> Any:
        return matmul(a, b, out=out)

    return call, apart(call(), a.astype(np.float64) @ b.astype(np.float64))


def predicted_rows(workload: Workload) -> Array:
    return workload.data()[0][: workload.batch]


def digits() -> tuple[Array, Array, Array, Array]:
    """Training images, test images (float32, 0..1), training labels, test labels."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    scaled = (images / 16).astype(np.float32)
    x, x_test, y, y_test = train_test_split(
        scaled, labels, test_size=0.2, stratify=labels, random_state=0
    )
    return x, x_test, y, y_test


def errors(outputs: Any, labels: Array) -> float:
    """The share of rows whose largest output is not the label's."""
    return float(np.mean(np.asarray(outputs).argmax(axis=1) != labels))


def long_enough(call_of: Callable[[int], Callable[[], object]]) -> tuple[Callable[[], object], int]:
    """A call of so many epochs that it takes LONG_CALL, and the number of epochs."""
    one = call_of(1)
    one()
    took = min(seconds(one) for _ in range(3))
    epochs = max(1, min(2000, round(LONG_CALL / max(took, 1e-7))))
    return call_of(epochs), epochs


def fastest(
    call: Callable[[], object], threads: Sequence[int], limit: Callable[[int], object]
) -> int:
    """The number of threads, of those offered, with which the call is fastest; it stays set.

    A call that is LONG_TRIAL seconds long gets the first number untried.
    """
    limit(threads[0])
    call()
    if seconds(call) > LONG_TRIAL:
        return threads[0]
    times = {}
    for count in threads:
        limit(count)
        loops = calibrate(call, 0.01)
        times[count] = min(seconds(call, loops) / loops for _ in range(3))
    best = min(times, key=lambda count: times[count])
    limit(best)
    return best


def fastest_blas(call: Callable[[], object]) -> int | None:
    """The same for NumPy's matrix product: all threads or one. None without threadpoolctl."""
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        return None
    return fastest(call, (bp.get_num_threads(), 1), lambda count: threadpool_limits(count, "blas"))
