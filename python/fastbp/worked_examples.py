"""The worked examples of the source articles: networks small enough to calculate by hand.

Only what is given is here; `fastbp explain NAME` calculates the rest. Weights are (units, inputs),
as in the articles, the loss is half the sum of squares, the update plain gradient descent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .layers import Dense
from .model import Sequential
from .optimizers import SGD

Matrix = Sequence[Sequence[float]]


class Example(NamedTuple):
    """One network, one row, one step."""

    about: str
    activation: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    weights: Sequence[Matrix]
    biases: Matrix
    learning_rate: float

    def model(self) -> Sequential:
        """The network in float64, compiled for the step."""
        layers = [Dense(len(bias), self.activation) for bias in self.biases]
        model = Sequential(layers, seed=0)
        model.compile(SGD(self.learning_rate), "half_sse", dtype="float64")
        model.build(len(self.x))
        for place, (weights, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            kernel = np.transpose(np.array(weights))
            model.set_parameters({f"{place}.kernel": kernel, f"{place}.bias": bias})
        return model


_FIRST = [[0.1, 0.2], [0.3, 0.4]]
_SECOND = [[0.5, 0.6], [0.7, 0.8]]
_THIRD = [[0.9, 1.0], [1.1, 1.2]]
_ONES = [[1.0, 1.0], [1.0, 1.0]]
_ROWS = [[0.1, 0.2], [0.1, 0.2]]
_DIAGONAL = [[0.1, 0.0], [0.0, 0.2]]
_X = (1.0, 2.0)

EXAMPLES = {
    "s0_4.3_two_layers": Example(
        "first article, 4.3: two layers of ReLU, no biases given",
        "relu", _X, (3.0, 4.0), [_FIRST, _SECOND], [[0.0, 0.0]] * 2, 0.1,
    ),
    "s0_4.3_three_layers": Example(
        "the same with the third matrix that the article lists",
        "relu", _X, (3.0, 4.0), [_FIRST, _SECOND, _THIRD], [[0.0, 0.0]] * 3, 0.1,
    ),
    "s1_4.4_T0": Example(
        "second article, 4.4: linear, weights 1, target 0",
        "identity", _X, (0.0,), [_ONES, [[1.0, 1.0]]], [[0.0, 0.0], [0.0]], 0.1,
    ),
    "s1_4.4_T1": Example(
        "the same with target 1",
        "identity", _X, (1.0,), [_ONES, [[1.0, 1.0]]], [[0.0, 0.0], [0.0]], 0.1,
    ),
    "s1_4.4_two_outputs": Example(
        "the same with two outputs, targets 0 and 1",
        "identity", _X, (0.0, 1.0), [_ONES, _ONES], [[0.0, 0.0]] * 2, 0.1,
    ),
    "s1_4.4_W2_half": Example(
        "the same with the weights 1/2 that the article's output asks for",
        "identity", _X, (0.0,), [_ONES, [[0.5, 0.5]]], [[0.0, 0.0], [0.0]], 0.1,
    ),
    "s3_4.4_dense_rows": Example(
        "fourth article, 4.4: three layers of sigmoid, each neuron with weights 0.1, 0.2",
        "sigmoid", _X, (0.0, 1.0), [_ROWS] * 3, [[0.1, 0.2]] * 3, 0.01,
    ),
    "s3_4.4_diagonal": Example(
        "the same read element by element; only the diagonals of dW and W count",
        "sigmoid", _X, (0.0, 1.0), [_DIAGONAL] * 3, [[0.1, 0.2]] * 3, 0.01,
    ),
}  # fmt: skip
