"""Optimizers: validated hyper-parameters for the update kernels.

g is the gradient of the loss by a parameter w, after g += weight_decay * w (L2; all but AdamW); t
counts steps from 1. A compiled model owns a copy: `model.optimizer.learning_rate = 1e-4` takes
effect at the next step and keeps the state.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial
from typing import Any

from . import checks
from .errors import lookup
from .registry import OPTIMIZERS

_RULES: dict[str, Any] = {
    "learning_rate": partial(checks.real, low=0),
    "momentum": partial(checks.real, low=0, high=1, open_high=True),
    "rho": partial(checks.real, low=0, high=1, open_high=True),
    "beta_1": partial(checks.real, low=0, high=1, open_high=True),
    "beta_2": partial(checks.real, low=0, high=1, open_high=True),
    "epsilon": partial(checks.real, low=0, open_low=True),
    "weight_decay": partial(checks.real, low=0),
    "nesterov": checks.boolean,
}


class Optimizer:
    """Base of the optimizers. Every assignment to a hyper-parameter is checked.

    `changed` is set by an assignment and cleared by the model that hands the values to its engine.
    """

    learning_rate: float
    changed: bool = False
    _bound_kernel: str | None = None

    def __setattr__(self, name: str, value: object) -> None:
        if name in _RULES:
            value = _RULES[name](name, value)
            if self._bound_kernel is not None:
                self._refuse_other_kernel(name, value)
            object.__setattr__(self, "changed", True)
        elif name not in ("changed", "_bound_kernel"):
            known = ", ".join(self.config())
            raise AttributeError(f"{type(self).__name__} has no {name!r}; it has {known}")
        object.__setattr__(self, name, value)

    def _refuse_other_kernel(self, name: str, value: object) -> None:
        trial = type(self)(**{**self.config(), name: value})
        if trial.kernel != self._bound_kernel:
            raise ValueError(
                f"{name}={value!r} needs the update {trial.kernel!r}, but the model is compiled "
                f"with {self._bound_kernel!r}: call model.compile again, which resets the state"
            )

    @property
    def kernel(self) -> str:
        """The name of the update in the engine."""
        return type(self).__name__.lower()

    def config(self) -> dict[str, Any]:
        """The constructor arguments by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]

    def hyper(self) -> dict[str, float]:
        """What the kernel takes: every hyper-parameter that applies to it."""
        return self.config()

    def bound(self) -> Optimizer:
        """A copy for one compiled model, which refuses changes that would need another kernel."""
        copy = type(self)(**self.config())
        copy._bound_kernel = copy.kernel
        copy.changed = False
        return copy


@dataclass
class SGD(Optimizer):
    """Gradient descent: w -= learning_rate * g.

    With momentum: s = momentum * s + g; w -= learning_rate * s (Polyak 1964, in PyTorch's form);
    with nesterov=True w -= learning_rate * (g + momentum * s) (Sutskever et al. 2013).
    """

    learning_rate: float = 0.01
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov=True needs momentum above 0; got momentum=0.0")

    @property
    def kernel(self) -> str:
        if self.momentum == 0:
            return "sgd"
        return "nesterov" if self.nesterov else "momentum"

    def hyper(self) -> dict[str, float]:
        unused = ("nesterov", "momentum") if self.momentum == 0 else ("nesterov",)
        return {name: value for name, value in self.config().items() if name not in unused}


@dataclass
class RMSprop(Optimizer):
    """v = rho * v + (1 - rho) * g^2; w -= learning_rate * g / (sqrt(v) + epsilon).

    Tieleman and Hinton 2012.
    """

    learning_rate: float = 0.001
    rho: float = 0.9
    epsilon: float = 1e-8
    weight_decay: float = 0.0


@dataclass
class Adagrad(Optimizer):
    """v += g^2; w -= learning_rate * g / (sqrt(v) + epsilon) (Duchi, Hazan and Singer 2011)."""

    learning_rate: float = 0.01
    epsilon: float = 1e-10
    weight_decay: float = 0.0


@dataclass
class Adam(Optimizer):
    """Kingma and Ba 2015.

    m = beta_1 m + (1 - beta_1) g; v = beta_2 v + (1 - beta_2) g^2;
    w -= learning_rate / (1 - beta_1^t) * m / (sqrt(v) / sqrt(1 - beta_2^t) + epsilon).
    """

    learning_rate: float = 0.001
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0


@dataclass
class AdamW(Optimizer):
    """w -= learning_rate * weight_decay * w, then Adam without L2 (Loshchilov and Hutter 2019)."""

    learning_rate: float = 0.001
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.01


CLASSES: dict[str, type[Optimizer]] = {
    cls.__name__: cls for cls in (SGD, RMSprop, Adagrad, Adam, AdamW)
}
_NAMED = {name.lower(): cls for name, cls in CLASSES.items()}
_HINTS = {
    "momentum": "use SGD(momentum=0.9)",
    "nesterov": "use SGD(momentum=0.9, nesterov=True)",
    "gd": "use 'sgd' with batch_size=len(X)",
    "gradient_descent": "use 'sgd' with batch_size=len(X)",
    "rms_prop": "use 'rmsprop'",
    "ada_grad": "use 'adagrad'",
}


def slots(optimizer: Optimizer) -> int:
    """How many arrays of state the optimizer keeps beside the parameters."""
    return OPTIMIZERS[optimizer.kernel]["slots"]


def check_hyper(name: str, value: object) -> float:
    """A hyper-parameter by the rule of its name. Raises TypeError or ValueError."""
    checked: float = _RULES[name](name, value)
    return checked


def kernel_defaults(kernel: str) -> dict[str, float]:
    """The usual hyper-parameters of an update kernel; the forms of SGD have to be told theirs."""
    cls = _NAMED.get(kernel)
    if cls is None or cls is SGD:
        return {"weight_decay": 0.0}
    return cls().hyper()


def get(optimizer: str | Optimizer, **hyper: Any) -> Optimizer:
    """An optimizer from itself or its name in any case: get("adam", learning_rate=0.01).

    Raises ValueError for an unknown name or value, TypeError for another kind or an unknown
    hyper-parameter.
    """
    if isinstance(optimizer, Optimizer):
        return type(optimizer)(**{**optimizer.config(), **hyper}) if hyper else optimizer
    if isinstance(optimizer, type) and issubclass(optimizer, Optimizer):
        raise TypeError(
            f"optimizer must be an object; write {optimizer.__name__}() or "
            f"{optimizer.__name__.lower()!r}"
        )
    given: object = optimizer
    name = given.lower() if isinstance(given, str) else given
    return lookup("optimizer", name, _NAMED, _HINTS)(**hyper)
