"""The optimizers: how a gradient changes the parameters. Formulas as in PyTorch's torch.optim.

OPTIMIZERS is the one list; functions, engine and tests derive from it. Per element: w parameter,
g gradient, t = 1, 2, ... the step. weight_decay adds weight_decay * w to g before anything else (L2
regularisation), except in adamw, which shrinks w itself.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .arrays import F64

Hyper = dict[str, float]
States = list[F64]


@dataclass(frozen=True)
class Optimizer:
    """One optimizer.

    update(w, g, states, hyper, t) returns the new (w, states) and changes none of its arguments;
    all float64, one shape. slots: names of the states, which start at 0. hyper: the names and
    defaults of the hyper-parameters, None where one has to be given. uses_step: whether t matters.
    """

    update: Callable[[F64, F64, States, Hyper, int], tuple[F64, States]]
    slots: tuple[str, ...]
    hyper: dict[str, float | None]
    uses_step: bool = False

    def complete(self, hyper: Hyper, name: str) -> Hyper:
        """hyper with defaults filled in; ValueError for unknown or missing ones."""
        unknown = sorted(set(hyper) - set(self.hyper))
        if unknown:
            raise ValueError(
                f"{name} has no hyper-parameter {unknown[0]!r}; it has {', '.join(self.hyper)}"
            )
        complete = {}
        for key, default in self.hyper.items():
            value = hyper.get(key, default)
            if value is None:
                raise ValueError(f"{name} needs the hyper-parameter {key!r}")
            complete[key] = float(value)
        return complete


def _sgd(w: F64, g: F64, states: States, h: Hyper, _: int) -> tuple[F64, States]:
    """w -= lr g."""
    g = g + h["weight_decay"] * w
    return w - h["learning_rate"] * g, states


def _momentum(w: F64, g: F64, states: States, h: Hyper, _: int) -> tuple[F64, States]:
    """s = momentum s + g;  w -= lr s."""
    g = g + h["weight_decay"] * w
    s = h["momentum"] * states[0] + g
    return w - h["learning_rate"] * s, [s]


def _nesterov(w: F64, g: F64, states: States, h: Hyper, _: int) -> tuple[F64, States]:
    """s = momentum s + g;  w -= lr (g + momentum s)."""
    g = g + h["weight_decay"] * w
    s = h["momentum"] * states[0] + g
    return w - h["learning_rate"] * (g + h["momentum"] * s), [s]


def _rmsprop(w: F64, g: F64, states: States, h: Hyper, _: int) -> tuple[F64, States]:
    """v = rho v + (1 - rho) g^2;  w -= lr g / (sqrt(v) + eps). Tieleman and Hinton 2012."""
    g = g + h["weight_decay"] * w
    v = h["rho"] * states[0] + (1 - h["rho"]) * g * g
    return w - h["learning_rate"] * g / (np.sqrt(v) + h["epsilon"]), [v]


def _adagrad(w: F64, g: F64, states: States, h: Hyper, _: int) -> tuple[F64, States]:
    """v += g^2;  w -= lr g / (sqrt(v) + eps). Duchi, Hazan and Singer 2011."""
    g = g + h["weight_decay"] * w
    v = states[0] + g * g
    return w - h["learning_rate"] * g / (np.sqrt(v) + h["epsilon"]), [v]


def _adam(w: F64, g: F64, states: States, h: Hyper, t: int) -> tuple[F64, States]:
    """Kingma and Ba 2014, with bias correction:

    m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2
    w -= lr / (1 - b1^t) m / (sqrt(v / (1 - b2^t)) + eps)
    """
    g = g + h["weight_decay"] * w
    m = h["beta_1"] * states[0] + (1 - h["beta_1"]) * g
    v = h["beta_2"] * states[1] + (1 - h["beta_2"]) * g * g
    rate = h["learning_rate"] / (1 - h["beta_1"] ** t)
    return w - rate * m / (np.sqrt(v / (1 - h["beta_2"] ** t)) + h["epsilon"]), [m, v]


def _adamw(w: F64, g: F64, states: States, h: Hyper, t: int) -> tuple[F64, States]:
    """w -= lr weight_decay w, then adam without decay. Loshchilov and Hutter 2017."""
    w = w - h["learning_rate"] * h["weight_decay"] * w
    return _adam(w, g, states, h | {"weight_decay": 0.0}, t)


_ADAM: dict[str, float | None] = {
    "learning_rate": 0.001,
    "beta_1": 0.9,
    "beta_2": 0.999,
    "epsilon": 1e-8,
}

OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": Optimizer(_sgd, (), {"learning_rate": None, "weight_decay": 0.0}),
    "momentum": Optimizer(
        _momentum, ("s",), {"learning_rate": None, "momentum": None, "weight_decay": 0.0}
    ),
    "nesterov": Optimizer(
        _nesterov, ("s",), {"learning_rate": None, "momentum": None, "weight_decay": 0.0}
    ),
    "rmsprop": Optimizer(
        _rmsprop,
        ("v",),
        {"learning_rate": 0.001, "rho": 0.9, "epsilon": 1e-8, "weight_decay": 0.0},
    ),
    "adagrad": Optimizer(
        _adagrad, ("v",), {"learning_rate": 0.01, "epsilon": 1e-10, "weight_decay": 0.0}
    ),
    "adam": Optimizer(_adam, ("m", "v"), _ADAM | {"weight_decay": 0.0}, uses_step=True),
    "adamw": Optimizer(_adamw, ("m", "v"), _ADAM | {"weight_decay": 0.01}, uses_step=True),
}
