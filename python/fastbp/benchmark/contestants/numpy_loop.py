"""Training a chain of dense layers in NumPy, written as one would: the peer that everybody has.

relu, tanh or gelu_tanh between the layers; Adam and AdamW as in the papers, or SGD; buffers are
allocated as NumPy does. It shares no code with fastbp. In float64 it is the reference that all
results are compared with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from ..workloads import JOB_LEARNING_RATE, LEARNING_RATE, WEIGHT_DECAY, Array, Workload
from . import Contestant, task


def _gelu_inner(z: Array) -> Array:
    """tanh of gelu_tanh, z (1 + tanh) / 2."""
    return np.asarray(np.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z * z * z)))


def _gelu_slope(z: Array, _: Array) -> Array:
    inner = _gelu_inner(z)
    slope = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * z * z)
    return np.asarray(0.5 * (1 + inner) + 0.5 * z * (1 - inner * inner) * slope)


# The function of z, and its derivative by z and the function's value.
ACTIVATIONS: dict[str, tuple[Callable[[Array], Array], Callable[[Array, Array], Array]]] = {
    "relu": (lambda z: np.maximum(z, 0), lambda _, y: y > 0),
    "tanh": (np.tanh, lambda _, y: 1 - y * y),
    "gelu_tanh": (lambda z: 0.5 * z * (1 + _gelu_inner(z)), _gelu_slope),
}


class NumpyNet:
    """Logits by dense layers; softmax cross-entropy, or binary with one output."""

    def __init__(
        self,
        parameters: Sequence[Array],
        learning_rate: float = LEARNING_RATE,
        activation: str = "relu",
        optimizer: str = "adam",
    ) -> None:
        """parameters: kernel (inputs, units) and bias (units,) of each layer in turn; copied."""
        self.parameters = [p.copy() for p in parameters]
        self.first = [np.zeros_like(p) for p in self.parameters]
        self.second = [np.zeros_like(p) for p in self.parameters]
        self.learning_rate = learning_rate
        self.forward, self.slope = ACTIVATIONS[activation]
        self.optimizer = optimizer
        self.steps = 0

    def train(
        self, x: Array, y: Array, batch: int, epochs: int, rng: np.random.Generator | None
    ) -> None:
        """`rng` shuffles the rows anew in every epoch; None keeps their order."""
        for _ in range(epochs):
            order = np.arange(len(x)) if rng is None else rng.permutation(len(x))
            for start in range(0, len(x), batch):
                rows = order[start : start + batch]
                self.step(x[rows], y[rows])

    def step(self, x: Array, y: Array) -> None:
        inputs, sums = self._forward(x)
        dz = self._loss_gradient(sums[-1], y)
        gradients: list[Array] = []
        for i in reversed(range(len(inputs))):
            gradients[:0] = [inputs[i].T @ dz, dz.sum(axis=0)]
            if i > 0:
                dz = dz @ self.parameters[2 * i].T
                dz *= self.slope(sums[i - 1], inputs[i])
        self._update(gradients)

    def predict(self, x: Array) -> Array:
        return self._forward(x)[1][-1]

    def _forward(self, x: Array) -> tuple[list[Array], list[Array]]:
        """Inputs of each layer; its sums, of which the last are the logits."""
        inputs = [x]
        sums: list[Array] = []
        for i in range(0, len(self.parameters), 2):
            if i > 0:
                inputs.append(self.forward(sums[-1]))
            sums.append(inputs[-1] @ self.parameters[i] + self.parameters[i + 1])
        return inputs, sums

    @staticmethod
    def _loss_gradient(z: Array, y: Array) -> Array:
        rows = z.dtype.type(len(z))
        if z.shape[1] == 1:
            return np.asarray((1 / (1 + np.exp(-z)) - y) / rows)
        probability = np.exp(z - z.max(axis=1, keepdims=True))
        probability /= probability.sum(axis=1, keepdims=True)
        probability[np.arange(len(z)), y] -= 1
        return np.asarray(probability / rows)

    def _update(self, gradients: list[Array]) -> None:
        if self.optimizer == "sgd":
            for w, g in zip(self.parameters, gradients, strict=True):
                w -= self.learning_rate * g
            return
        if self.optimizer == "adamw":
            for w in self.parameters:
                w *= 1 - self.learning_rate * WEIGHT_DECAY
        self._adam(gradients)

    def _adam(self, gradients: list[Array]) -> None:
        self.steps += 1
        rate = self.learning_rate / (1 - 0.9**self.steps)
        correction = (1 - 0.999**self.steps) ** 0.5
        for w, g, m, v in zip(self.parameters, gradients, self.first, self.second, strict=True):
            m *= 0.9
            m += 0.1 * g
            v *= 0.999
            v += 0.001 * g * g
            w -= rate * m / (np.sqrt(v) / correction + 1e-8)


def prepare(contestant: Contestant, workload: Workload, reference: task.Reference) -> task.Task:
    makers = {"train": _train, "predict": _predict, "matmul": _matmul, "job": _job}
    return makers[workload.kind](contestant, workload, reference)


def save_reference(workload: Workload, reference: task.Reference) -> None:
    """Trains the checked steps in float64 for the others to compare with."""
    if workload.kind == "train":
        net = _checked(workload, "float64")
        reference.save(workload.start("float64"), net.parameters)


def _started(workload: Workload, dtype: str) -> NumpyNet:
    start = workload.start(dtype)
    return NumpyNet(start, activation=workload.activation, optimizer=workload.optimizer)


def _checked(workload: Workload, dtype: str) -> NumpyNet:
    net = _started(workload, dtype)
    x, y = task.checked_batches(workload, dtype)
    net.train(x, y, workload.batch, 1, None)
    return net


def _train(contestant: Contestant, workload: Workload, reference: task.Reference) -> task.Task:
    difference = reference.difference(_checked(workload, contestant.dtype).parameters)
    x, y = workload.data(contestant.dtype)
    net = _started(workload, contestant.dtype)
    rng = np.random.default_rng(0)

    def one_step() -> None:
        net.step(x[: workload.batch], y[: workload.batch])

    def epoch() -> None:
        net.train(x, y, workload.batch, 1, rng)

    threads = task.fastest_blas(one_step)
    return task.Task(epoch, workload.steps, difference, threads)


def _predict(contestant: Contestant, workload: Workload, reference: task.Reference) -> task.Task:
    net, x = NumpyNet(workload.start()), task.predicted_rows(workload)
    difference = task.apart(net.predict(x), task.logits(workload, x))
    return task.Task(lambda: net.predict(x), 1, difference)


def _matmul(contestant: Contestant, workload: Workload, reference: task.Reference) -> task.Task:
    call, difference = task.product(workload, np.matmul)
    return task.Task(call, 1, difference, task.fastest_blas(call))


def _job(contestant: Contestant, workload: Workload, reference: task.Reference) -> task.Task:
    x, x_test, y, y_test = task.digits()

    def job() -> NumpyNet:
        net = NumpyNet(workload.start(), JOB_LEARNING_RATE)
        net.train(x, y, workload.batch, workload.epochs, np.random.default_rng(0))
        return net

    threads = task.fastest_blas(job)
    return task.Task(job, 1, task.errors(job().predict(x_test), y_test), threads)
