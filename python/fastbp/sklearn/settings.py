"""From an estimator's constructor arguments to layers, loss and optimizer, checked."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

from .. import checks, optimizers
from ..arrays import Array
from ..errors import describe, unknown_name
from ..layers import Activation, Dense, Dropout, Layer
from ..losses import Loss
from ..optimizers import SGD, Adam, Optimizer

SCHEDULES = ("constant", "invscaling", "adaptive")

_positive = partial(checks.real, low=0, open_low=True)
_not_negative = partial(checks.real, low=0)
_below_one = partial(checks.real, low=0, high=1, open_high=True)
_RULES: dict[str, Callable[[str, object], object]] = {
    "alpha": _not_negative,
    "learning_rate_init": _positive,
    "power_t": _not_negative,
    "max_iter": checks.integer,
    "max_fun": checks.integer,
    "shuffle": checks.boolean,
    "tol": _not_negative,
    "warm_start": checks.boolean,
    "momentum": _below_one,
    "nesterovs_momentum": checks.boolean,
    "early_stopping": checks.boolean,
    "validation_fraction": partial(checks.real, low=0, high=1, open_low=True, open_high=True),
    "beta_1": _below_one,
    "beta_2": _below_one,
    "epsilon": _positive,
    "dropout": _below_one,
}


class Objective(NamedTuple):
    """What is minimised: the engine's loss times `scale`, averaged over the rows.

    The engine's losses average over the outputs too, scikit-learn's sum over them, and its squared
    error is halved. With the scale, learning rates and alpha mean the same in both.
    """

    loss: Loss
    scale: float


def check(estimator: Any) -> None:
    """Raises TypeError or ValueError for an argument that no training can use."""
    for name, rule in _RULES.items():
        rule(name, getattr(estimator, name))
    if estimator.n_iter_no_change != math.inf:
        checks.integer("n_iter_no_change", estimator.n_iter_no_change)
    if estimator.batch_size != "auto":
        checks.integer("batch_size", estimator.batch_size)
    if isinstance(estimator.learning_rate, str):
        if estimator.learning_rate not in SCHEDULES:
            raise unknown_name("learning_rate", estimator.learning_rate, SCHEDULES)
    else:
        _positive("learning_rate", estimator.learning_rate)
    hidden_units(estimator.hidden_layer_sizes)
    if not is_lbfgs(estimator):
        optimizers.get(estimator.solver)


def is_lbfgs(estimator: Any) -> bool:
    """Whether the whole batch is minimised by L-BFGS instead of by steps on batches."""
    return solver_name(estimator) == "lbfgs"


def solver_name(estimator: Any) -> str | None:
    """In lower case, as fastbp takes optimizers in any; None for an optimizer object."""
    return estimator.solver.lower() if isinstance(estimator.solver, str) else None


def hidden_units(sizes: Any) -> list[int]:
    """hidden_layer_sizes, a number or an iterable of numbers, as a list."""
    found = list(sizes) if isinstance(sizes, Iterable) else [sizes]
    return [checks.integer("hidden_layer_sizes", size) for size in found]


def learning_rate(estimator: Any) -> float:
    """The first rate: `learning_rate` if that is a number, else learning_rate_init."""
    rate = estimator.learning_rate
    return float(estimator.learning_rate_init if isinstance(rate, str) else rate)


def layers(estimator: Any, outputs: int) -> list[Layer]:
    """The chain of dense layers, without an activation at its end."""
    units = hidden_units(estimator.hidden_layer_sizes)
    functions = _activations(estimator.activation, len(units))
    chain: list[Layer] = []
    for width, function in zip(units, functions, strict=True):
        chain.append(Dense(width, function))
        if estimator.dropout:
            chain.append(Dropout(estimator.dropout))
    return [*chain, Dense(outputs)]


def draw_start(estimator: Any, inputs: int, random: Any) -> list[Array]:
    """Kernels and biases to begin with, in the order of the model's parameters.

    As scikit-learn draws them from its RandomState, so that one random_state gives both the same
    start: uniform of Glorot and Bengio's variance, a third of it for the sigmoid.
    """
    factor = 2.0 if estimator.activation == "logistic" else 6.0
    start: list[Array] = []
    widths = [inputs, *hidden_units(estimator.hidden_layer_sizes), estimator.n_outputs_]
    for fan_in, fan_out in pairwise(widths):
        limit = math.sqrt(factor / (fan_in + fan_out))
        start += [
            random.uniform(-limit, limit, (fan_in, fan_out)),
            random.uniform(-limit, limit, fan_out),
        ]
    return start


def _activations(given: Any, count: int) -> list[Activation]:
    """One activation per hidden layer, from one for all or a list."""
    several = [given] * count if isinstance(given, (str, Activation)) else list(given)
    if len(several) != count:
        raise ValueError(
            f"activation lists {len(several)} activations for {count} hidden layers; give one for "
            "all, or one for each"
        )
    found = []
    for item in several:
        if not isinstance(item, (str, Activation)):
            raise TypeError(f"activation must be a name or a layer; got {describe(item)}")
        name = "sigmoid" if item == "logistic" else item
        found.append(name if isinstance(name, Activation) else Activation(name))
    return found


def optimizer(estimator: Any, objective: Objective, batch: float) -> Optimizer:
    """The optimizer for batches of `batch` rows.

    An object given as `solver` counts as it is, in units of the engine's loss. By name, rates and
    decay are in units of the objective: w -= rate * d(scale * loss + alpha / (2 batch) w^2).
    """
    if isinstance(estimator.solver, Optimizer):
        return estimator.solver
    if is_lbfgs(estimator):
        return SGD()  # the engine wants one; it makes no step
    rate, scale = learning_rate(estimator), objective.scale
    decay = estimator.alpha / (batch * scale)
    name = solver_name(estimator)
    if name == "sgd":
        momentum = float(estimator.momentum)
        nesterov = bool(estimator.nesterovs_momentum and momentum > 0)
        return SGD(rate * scale, momentum, nesterov, weight_decay=decay)
    if name == "adam":
        adam = (rate, estimator.beta_1, estimator.beta_2, estimator.epsilon / scale)
        return Adam(*adam, weight_decay=decay)
    found = optimizers.get(estimator.solver, learning_rate=rate)
    found.weight_decay = decay if name != "adamw" else float(estimator.alpha)
    return found
