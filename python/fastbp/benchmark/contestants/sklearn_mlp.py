"""scikit-learn: `MLPClassifier`, by `partial_fit` (one epoch a call) or, for a job, by `fit`."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from ..workloads import JOB_LEARNING_RATE, LEARNING_RATE, Array, Workload
from . import Contestant, task

# scikit-learn adds its epsilon before the bias correction; in the steps that are compared with the
# reference this one does what 1e-8 does after it.
EPSILON = 1e-8 * (1 - 0.999**4) ** 0.5


def prepare(contestant: Contestant, workload: Workload, reference: task.Reference) -> task.Task:
    makers = {"train": _train, "predict": _predict, "job": _job}
    return makers[workload.kind](contestant, workload, reference)


def started(workload: Workload, **options: Any) -> tuple[Any, Array]:
    """A classifier at the workload's start, and the classes that partial_fit asks for."""
    model = MLPClassifier(
        workload.sizes[1:-1],
        alpha=0,
        activation=workload.activation,
        batch_size=workload.batch,
        learning_rate_init=LEARNING_RATE,
        epsilon=EPSILON,
        **options,
    )
    classes = np.arange(max(2, workload.sizes[-1]))
    x, y = workload.data()
    model.partial_fit(x[: workload.batch], labels(y[: workload.batch]), classes=classes)
    parameters = workload.start()
    model.coefs_, model.intercepts_ = parameters[::2], parameters[1::2]
    del model._optimizer  # holds the parameters of before; partial_fit makes a new one
    return model, classes


def labels(y: Array) -> Array:
    return y.reshape(-1).astype(np.int64)


def _train(contestant: Contestant, workload: Workload, reference: task.Reference) -> task.Task:
    checked, classes = started(workload, shuffle=False)
    x, y = task.checked_batches(workload)
    checked.partial_fit(x, labels(y), classes=classes)
    parameters = zip(checked.coefs_, checked.intercepts_, strict=True)
    difference = reference.difference(array for layer in parameters for array in layer)
    model, classes = started(workload)
    x, y = workload.data()
    targets = labels(y)

    def epoch() -> None:
        model.partial_fit(x, targets, classes=classes)

    threads = task.fastest_blas(epoch)
    return task.Task(epoch, workload.steps, difference, threads)


def _predict(contestant: Contestant, workload: Workload, reference: task.Reference) -> task.Task:
    model, _ = started(workload)
    x = task.predicted_rows(workload)
    expected = task.softmax(task.logits(workload, x))
    difference = task.apart(model.predict_proba(x), expected)
    return task.Task(lambda: model.predict_proba(x), 1, difference)


def _job(contestant: Contestant, workload: Workload, reference: task.Reference) -> task.Task:
    """alpha=0: no L2 term; n_iter_no_change above max_iter: never stops early."""
    x, x_test, y, y_test = task.digits()

    def job() -> Any:
        model = MLPClassifier(
            workload.sizes[1:-1],
            alpha=0,
            batch_size=workload.batch,
            max_iter=workload.epochs,
            n_iter_no_change=workload.epochs + 1,
            learning_rate_init=JOB_LEARNING_RATE,
            random_state=0,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return model.fit(x, y)

    threads = task.fastest_blas(job)
    return task.Task(job, 1, task.errors(job().predict_proba(x_test), y_test), threads)
