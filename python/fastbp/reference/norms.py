"""Layer and batch normalisation in NumPy; names as in stages.py."""

from dataclasses import dataclass

import numpy as np

from .arrays import F64
from .stages import Pass, Stage


@dataclass(frozen=True)
class Norm(Stage):
    """y = n gamma + beta with n = (x - mean) / sqrt(variance + epsilon).

    The statistics go over `axis`: a row's features (-1) or a column's rows (0).
    """

    epsilon: float = 0.0
    axis: int = -1

    def gamma_beta(self, flat: F64) -> tuple[F64 | float, F64 | float]:
        """gamma and beta, or 1 and 0 where the layer has none."""
        gamma, beta = self.views(flat)
        return (gamma[0] if self.rows else 1.0), (beta if self.has_bias else 0.0)

    def statistics(self, x: F64, run: Pass) -> tuple[F64, F64]:
        """Mean and variance, to be broadcast against x."""
        return x.mean(self.axis, keepdims=True), x.var(self.axis, keepdims=True)

    def normal(self, x: F64, run: Pass) -> tuple[F64, F64]:
        """n, and what x - mean was multiplied by."""
        mean, variance = self.statistics(x, run)
        scale = 1 / np.sqrt(variance + self.epsilon)
        return (x - mean) * scale, scale

    def forward(self, x: F64, run: Pass) -> F64:
        gamma, beta = self.gamma_beta(run.parameters)
        return self.normal(x, run)[0] * gamma + beta

    def backward(self, x: F64, d: F64, run: Pass, gradient: F64) -> F64:
        n, scale = self.normal(x, run)
        dgamma, dbeta = self.views(gradient)
        dgamma[...] = (d * n).reshape(-1, self.outputs).sum(axis=0)
        if self.has_bias:
            dbeta[...] = d.reshape(-1, self.outputs).sum(axis=0)
        return self.through_statistics(d * self.gamma_beta(run.parameters)[0], n, scale, run)

    def through_statistics(self, g: F64, n: F64, scale: F64, run: Pass) -> F64:
        """dx from g = dn: mean and variance depend on x too, which takes out the part of g along
        constants and along n.
        """
        along = g.mean(self.axis, keepdims=True)
        dx: F64 = scale * (g - along - n * (g * n).mean(self.axis, keepdims=True))
        return dx


@dataclass(frozen=True)
class BatchNorm(Norm):
    """The statistics are the batch's in training, and else the moving ones of the flat state."""

    momentum: float = 0.0

    def learns(self, run: Pass) -> bool:
        """Whether the statistics are the batch's."""
        return run.training and self not in run.frozen

    def statistics(self, x: F64, run: Pass) -> tuple[F64, F64]:
        if self.learns(run):
            return super().statistics(x, run)
        mean, variance = self.state(run.state)
        return mean, variance

    def through_statistics(self, g: F64, n: F64, scale: F64, run: Pass) -> F64:
        return super().through_statistics(g, n, scale, run) if self.learns(run) else g * scale

    def update_state(self, x: F64, run: Pass, state: F64) -> None:
        if not self.learns(run):
            return
        mean, variance = (part[0] for part in self.statistics(x, run))
        unbiased = len(x) / max(len(x) - 1, 1)
        seen = np.stack([mean, variance * unbiased])
        moving = self.state(state)
        moving += self.momentum * (seen - moving)


@dataclass(frozen=True)
class Normalize(Stage):
    """y = (x - center) factor, both in the flat state, which no step changes."""

    def forward(self, x: F64, run: Pass) -> F64:
        center, factor = self.state(run.state)
        y: F64 = (x - center) * factor
        return y

    def backward(self, x: F64, d: F64, run: Pass, gradient: F64) -> F64:
        dx: F64 = d * self.state(run.state)[1]
        return dx
