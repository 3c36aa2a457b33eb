"""fastbp: `fit` (many steps in a native call), `step` (one call each), `predict`, `ops.matmul`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

import fastbp as bp
from fastbp import ops

from ..workloads import JOB_LEARNING_RATE, LEARNING_RATE, WEIGHT_DECAY, Array, Workload
from . import Contestant, task


def prepare(contestant: Contestant, workload: Workload, reference: task.Reference) -> task.Task:
    makers = {"train": _train, "predict": _predict, "matmul": _matmul, "job": _job}
    return makers[workload.kind](contestant, workload, reference)


def accepts(dtype: str) -> bool:
    """Whether this version trains in a dtype on this processor."""
    model = bp.Sequential([bp.Dense(1)], seed=0)
    try:
        model.compile(loss="mse", device="cpu", dtype=dtype)
        model.fit(np.ones((1, 1), np.float32), np.ones((1, 1), np.float32), verbose=0)
    except (ValueError, TypeError, RuntimeError):
        return False
    return True


def compiled(
    sizes: Sequence[int],
    dtype: str = "float32",
    activation: str = "relu",
    learning_rate: float = LEARNING_RATE,
    optimizer: str = "adam",
) -> bp.Sequential:
    """A network that is described and compiled, not built."""
    layers = [bp.Dense(units, activation=activation) for units in sizes[1:-1]]
    model = bp.Sequential([*layers, bp.Dense(sizes[-1])], seed=0)
    loss = "binary_cross_entropy_with_logits" if sizes[-1] == 1 else "softmax_cross_entropy"
    rule = {
        "adam": bp.Adam(learning_rate),
        "adamw": bp.AdamW(learning_rate, weight_decay=WEIGHT_DECAY),
        "sgd": bp.SGD(learning_rate),
    }[optimizer]
    model.compile(optimizer=rule, loss=loss, device="cpu", dtype=dtype)
    return model


def started(workload: Workload, dtype: str) -> bp.Sequential:
    """A network at the workload's start."""
    model = compiled(workload.sizes, dtype, workload.activation, optimizer=workload.optimizer)
    model.build(workload.sizes[0])
    model.set_parameters(dict(zip(model.parameters(), workload.start(), strict=True)))
    return model


def _train(contestant: Contestant, workload: Workload, reference: task.Reference) -> task.Task:
    by_step = contestant.form == "step"
    x, y = workload.data(_data_dtype(contestant.dtype))
    batch = workload.batch
    model = started(workload, contestant.dtype)
    rows = workload.checked_steps * batch
    if by_step:
        for at in range(0, rows, batch):
            model.step(x[at : at + batch], y[at : at + batch])
    else:
        model.fit(x[:rows], y[:rows], batch_size=batch, shuffle=False, verbose=0)
    difference = reference.difference(model.parameters().values())
    model = started(workload, contestant.dtype)
    if by_step:
        one_x, one_y = x[:batch], y[:batch]
        return task.Task(lambda: model.step(one_x, one_y), 1, difference)

    def fit(epochs: int) -> Callable[[], object]:
        return lambda: model.fit(x, y, epochs=epochs, batch_size=batch, verbose=0)

    call, epochs = task.long_enough(fit)
    return task.Task(call, epochs * -(-len(x) // batch), difference)


def _data_dtype(dtype: str) -> str:
    """Of the arrays that a user hands over."""
    return "float64" if dtype == "float64" else "float32"


def _predict(contestant: Contestant, workload: Workload, reference: task.Reference) -> task.Task:
    model, x = started(workload, contestant.dtype), task.predicted_rows(workload)
    difference = task.apart(model.predict(x), task.logits(workload, x))
    return task.Task(lambda: model.predict(x), 1, difference)


def _matmul(contestant: Contestant, workload: Workload, reference: task.Reference) -> task.Task:
    call, difference = task.product(workload, ops.matmul)
    return task.Task(call, 1, difference)


def _job(contestant: Contestant, workload: Workload, reference: task.Reference) -> task.Task:
    x, x_test, y, y_test = task.digits()

    def job() -> bp.Sequential:
        model = compiled(workload.sizes, learning_rate=JOB_LEARNING_RATE)
        model.fit(x, y, epochs=workload.epochs, batch_size=workload.batch, verbose=0)
        return model

    outputs: Array = job().predict(x_test)
    return task.Task(job, 1, task.errors(outputs, y_test))
