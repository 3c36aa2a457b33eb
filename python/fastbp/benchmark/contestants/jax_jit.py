"""JAX: one jitted step a call, or `lax.scan` over all steps of an epoch in one call.

Both donate the network's state and get their batches already cut: no shuffling, no gathering. The
data are arguments, so nothing of them is folded into the compiled code.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..workloads import JOB_LEARNING_RATE, LEARNING_RATE, WEIGHT_DECAY, Array, Workload
from . import Contestant, task


def prepare(contestant: Contestant, workload: Workload, reference: task.Reference) -> task.Task:
    makers = {"train": _train, "predict": _predict, "job": _job}
    return makers[workload.kind](contestant, workload, reference)


def forward(parameters: Any, x: Any, activation: str = "relu") -> Any:
    between = {"relu": jax.nn.relu, "tanh": jnp.tanh, "gelu_tanh": jax.nn.gelu}[activation]
    for kernel, bias in parameters[:-1]:
        x = between(x @ kernel + bias)
    kernel, bias = parameters[-1]
    return x @ kernel + bias


class Trainer:
    """The two compiled forms of a training step, and the network's state."""

    def __init__(self, workload: Workload, learning_rate: float = LEARNING_RATE) -> None:
        self.workload = workload
        self.learning_rate = learning_rate
        self.state = self.start()
        self.step = jax.jit(self._update, donate_argnums=0)
        self.scan = jax.jit(
            lambda state, xs, ys: lax.scan(
                lambda carry, batch: (self._update(carry, *batch), None), state, (xs, ys)
            )[0],
            donate_argnums=0,
        )

    def start(self) -> Any:
        """Parameters, first and second moments, number of steps."""
        arrays = [jnp.array(array) for array in self.workload.start()]
        parameters = list(zip(arrays[::2], arrays[1::2], strict=True))
        first, second = (jax.tree.map(jnp.zeros_like, parameters) for _ in range(2))
        return parameters, first, second, jnp.zeros((), jnp.float32)

    def _loss(self, parameters: Any, x: Any, y: Any) -> Any:
        z = forward(parameters, x, self.workload.activation)
        if self.workload.binary:
            return jnp.mean(jnp.maximum(z, 0) - z * y + jnp.log1p(jnp.exp(-jnp.abs(z))))
        chosen = jnp.take_along_axis(jax.nn.log_softmax(z), y[:, None], axis=1)
        return -jnp.mean(chosen)

    def _update(self, state: Any, x: Any, y: Any) -> Any:
        parameters, first, second, steps = state
        gradients = jax.grad(self._loss)(parameters, x, y)
        steps = steps + 1
        if self.workload.optimizer == "sgd":
            step = jax.tree.map(lambda w, g: w - self.learning_rate * g, parameters, gradients)
            return step, first, second, steps
        if self.workload.optimizer == "adamw":
            kept = 1 - self.learning_rate * WEIGHT_DECAY
            parameters = jax.tree.map(lambda w: w * kept, parameters)
        rate = self.learning_rate / (1 - 0.9**steps)
        correction = jnp.sqrt(1 - 0.999**steps)
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, gradients)
        second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, second, gradients)
        parameters = jax.tree.map(
            lambda w, m, v: w - rate * m / (jnp.sqrt(v) / correction + 1e-8),
            parameters,
            first,
            second,
        )
        return parameters, first, second, steps

    def parameters(self) -> Iterable[Array]:
        for kernel, bias in self.state[0]:
            yield np.asarray(kernel)
            yield np.asarray(bias)


def batches(workload: Workload, x: Array, y: Array) -> tuple[Any, Any]:
    """Whole batches as arrays (steps, batch, columns) and (steps, batch) of the device."""
    steps = len(x) // workload.batch
    rows = steps * workload.batch
    return (
        jnp.array(x[:rows].reshape(steps, workload.batch, -1)),
        jnp.array(y[:rows].reshape(steps, workload.batch, *y.shape[1:])),
    )


def _train(contestant: Contestant, workload: Workload, reference: task.Reference) -> task.Task:
    by_scan = contestant.form == "scan"
    trainer = Trainer(workload)

    def run(xs: Any, ys: Any) -> None:
        if by_scan:
            trainer.state = trainer.scan(trainer.state, xs, ys)
        else:
            for x, y in zip(xs, ys, strict=True):
                trainer.state = trainer.step(trainer.state, x, y)
        jax.block_until_ready(trainer.state)

    checked = batches(workload, *task.checked_batches(workload))
    run(*(checked if by_scan else map(list, checked)))
    difference = reference.difference(trainer.parameters())
    trainer.state = trainer.start()
    xs, ys = batches(workload, *workload.data())
    pieces = (xs, ys) if by_scan else (list(xs), list(ys))
    return task.Task(lambda: run(*pieces), len(xs), difference)


def _predict(contestant: Contestant, workload: Workload, reference: task.Reference) -> task.Task:
    parameters, *_ = Trainer(workload).state
    rows = task.predicted_rows(workload)
    compiled = jax.jit(forward)

    def predict() -> Any:
        return compiled(parameters, rows).block_until_ready()

    return task.Task(predict, 1, task.apart(predict(), task.logits(workload, rows)))


def _job(contestant: Contestant, workload: Workload, reference: task.Reference) -> task.Task:
    """Shuffled anew in every epoch; compiled beforehand. The last rows of an epoch wait."""
    x, x_test, y, y_test = task.digits()
    trainer = Trainer(workload, JOB_LEARNING_RATE)

    def job() -> None:
        rng = np.random.default_rng(0)
        trainer.state = trainer.start()
        for _ in range(workload.epochs):
            order = rng.permutation(len(x))
            trainer.state = trainer.scan(trainer.state, *batches(workload, x[order], y[order]))
        jax.block_until_ready(trainer.state)

    job()
    return task.Task(job, 1, task.errors(forward(trainer.state[0], x_test), y_test))
