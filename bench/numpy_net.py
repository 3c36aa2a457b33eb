"""Training a chain of dense layers in NumPy, written as one would: the peer that everybody has.

float32 throughout, relu between the layers, Adam as in the paper; buffers are allocated as NumPy
does. It shares no code with fastbp, and bench_step.py checks that both reach the same parameters.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class NumpyNet:
    """Logits by dense layers and relu; softmax cross-entropy, or binary with one output."""

    def __init__(self, parameters: list[Array], learning_rate: float = 1e-3) -> None:
        """parameters: kernel (inputs, units) and bias (units,) of each layer in turn; copied."""
        self.parameters = [p.astype(np.float32) for p in parameters]
        self.first = [np.zeros_like(p) for p in self.parameters]
        self.second = [np.zeros_like(p) for p in self.parameters]
        self.learning_rate = learning_rate
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
        inputs, z = [x], x
        layers = len(self.parameters) // 2
        for i in range(layers):
            kernel, bias = self.parameters[2 * i : 2 * i + 2]
            z = inputs[-1] @ kernel + bias
            if i + 1 < layers:
                inputs.append(np.maximum(z, 0))
        dz = self._loss_gradient(z, y)
        gradients: list[Array] = []
        for i in reversed(range(layers)):
            gradients[:0] = [inputs[i].T @ dz, dz.sum(axis=0)]
            if i > 0:
                dz = (dz @ self.parameters[2 * i].T) * (inputs[i] > 0)
        self._adam(gradients)

    @staticmethod
    def _loss_gradient(z: Array, y: Array) -> Array:
        if z.shape[1] == 1:
            probability = 1 / (1 + np.exp(-z))
            return (probability - y) / np.float32(len(z))
        probability = np.exp(z - z.max(axis=1, keepdims=True))
        probability /= probability.sum(axis=1, keepdims=True)
        probability[np.arange(len(z)), y] -= 1
        return probability / np.float32(len(z))

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
