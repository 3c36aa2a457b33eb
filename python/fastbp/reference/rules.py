"""What happens to a gradient between the backward pass and the optimizer's formula.

In this order: the gradients of some batches are averaged; penalties on the parameters are added;
values are cut off; the whole is scaled down to a norm; the optimizer's formula follows, its
learning rate times that of the parameter's range; columns of weights are scaled down to a norm; the
average of the parameters follows them.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from .arrays import F64, Array, as_float64
from .schedules import Piece, rate


class Rules:
    """The rules of one engine, from the dictionary that set_rules takes; none by default.

    clip_norm, clip_value: limits, 0 for none. accumulation: batches to an update.
    average_momentum: of the parameters' moving average, where one is kept. ranges: (begin, end,
    rate, l1, l2) of the flat parameters. column_limits: (begin, rows, cols, limit) of matrices in
    them, whose columns are no longer than the limit after each update. rates, rate_values: a
    schedule (schedules.py).
    """

    def __init__(self, values: Mapping[str, Any], parameters: int) -> None:
        self.clip_norm = float(values.get("clip_norm", 0))
        self.clip_value = float(values.get("clip_value", 0))
        self.accumulation = int(values.get("accumulation", 1))
        self.momentum: float | None = values.get("average_momentum")
        self._column_limits = list(values.get("column_limits", ()))
        self._pieces = [Piece(*row) for row in values.get("rates", ())]
        self._values = list(values.get("rate_values", ()))
        # Per parameter: factor of the learning rate, and the penalties.
        self.rates, self._l1, self._l2 = np.ones(parameters), np.zeros(parameters), np.zeros(1)
        self._l2 = np.zeros(parameters)
        for begin, end, factor, l1, l2 in values.get("ranges", ()):
            part = slice(begin, end)
            self.rates[part], self._l1[part], self._l2[part] = factor, l1, l2

    def update_of(self, step: int) -> int:
        """t of the optimizer's formulas in step number `step`, from 1."""
        return (step - 1) // self.accumulation + 1

    def rate(self, t: int, otherwise: float) -> float:
        """The learning rate of update t, from 1; `otherwise` without a schedule."""
        return rate(self._pieces, t - 1, self._values) if self._pieces else otherwise

    def penalty(self, w: F64) -> float:
        """Sum of l1 |w| + l2 w^2."""
        return float(np.sum(self._l1 * np.abs(w) + self._l2 * w * w))

    def penalty_gradient(self, w: F64) -> F64:
        """Its gradient, l1 sign(w) + 2 l2 w."""
        return as_float64(self._l1 * np.sign(w) + 2 * self._l2 * w)

    def limit(self, g: F64) -> F64:
        """g cut off at +-clip_value, then scaled by clip_norm / (|g| + 1e-6) where that is below 1.

        The factor is that of torch.nn.utils.clip_grad_norm_.
        """
        if self.clip_value:
            g = np.clip(g, -self.clip_value, self.clip_value)
        if self.clip_norm:
            factor = self.clip_norm / (np.sqrt(np.sum(g * g)) + 1e-6)
            g = g if factor >= 1 else g * factor
        return g

    def limit_columns(self, w: F64, used: Array) -> F64:
        """w with columns that are too long times limit / (norm + 1e-7), as torch.renorm does.

        Matrices of which the indices `used` have nothing are frozen and stay.
        """
        w = w.copy()
        for begin, rows, cols, limit in self._column_limits:
            if begin not in used:
                continue
            weights = w[begin : begin + rows * cols].reshape(rows, cols)
            norms = np.sqrt(np.sum(weights * weights, axis=0))
            weights *= np.where(norms > limit, limit / (norms + 1e-7), 1.0)
        return w

    def average(self, average: F64, w: F64, t: int) -> F64:
        """momentum average + (1 - momentum) w; w itself in update 1."""
        assert self.momentum is not None
        momentum = 0.0 if t == 1 else self.momentum
        return as_float64(momentum * average + (1 - momentum) * w)
