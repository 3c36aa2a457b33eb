"""Optimizers: validated hyper-parameters for the update kernels.

g is the gradient of the loss by a parameter w, after g += weight_decay * w (L2; all but AdamW); t
counts updates from 1. A compiled model owns a copy: `model.optimizer.learning_rate = 1e-4` takes
effect at the next step and keeps the state.

learning_rate is a number, a schedule (fastbp.schedules) or a Python function of the number of
updates done. All optimizers take, by name, what happens to a gradient on its way to them:

    clip_norm                     the whole gradient is scaled down to this norm:
                                  g *= min(1, clip_norm / (|g| + 1e-6)), PyTorch's clip_grad_norm_
                                  (Keras' global_clipnorm is without the 1e-6)
    clip_value                    each element is cut off at +-clip_value, before clip_norm
    gradient_accumulation_steps   so many batches make one update, with the mean of their gradients;
                                  a count that an epoch leaves unfinished goes on in the next
    use_ema, ema_momentum         a moving average of the parameters is kept, ema_momentum times the
                                  average plus the rest of the new parameters after every update;
                                  Sequential.averaged() gives a model with it
    layer_rates                   {place of a layer: factor of its learning rate}; -1 is the last
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from . import checks, schedules
from .errors import describe, lookup
from .registry import OPTIMIZERS
from .schedules import Schedule
from .spec import Spec, pack

Rate = float | Schedule | Callable[[int], float]


def _limit(name: str, value: object) -> float | None:
    return None if value is None else checks.real(name, value, 0, open_low=True)


class LayerRates(dict[int, float]):
    """The rates of layers that an optimizer has: they are replaced as a whole, and so checked."""

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError(
            "the rates of layers do not change one by one: assign all of them, for example "
            "optimizer.layer_rates = {**optimizer.layer_rates, 0: 0.1}"
        )

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[type[LayerRates], tuple[dict[int, float]]]:
        return LayerRates, (dict(self),)


def _layer_rates(name: str, value: object) -> LayerRates | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a dict from a layer's place; got {describe(value)}")
    # The keys of JSON are text.
    keys = [int(k) if isinstance(k, str) and k.lstrip("-").isdigit() else k for k in value]
    return LayerRates(
        (checks.integer(f"{name}'s places", key, -(2**31)), checks.real(f"{name}[{key}]", rate, 0))
        for key, rate in zip(keys, value.values(), strict=True)
    )


_RULES: dict[str, Any] = {
    "learning_rate": schedules.check,
    "momentum": partial(checks.real, low=0, high=1, open_high=True),
    "rho": partial(checks.real, low=0, high=1, open_high=True),
    "beta_1": partial(checks.real, low=0, high=1, open_high=True),
    "beta_2": partial(checks.real, low=0, high=1, open_high=True),
    "epsilon": partial(checks.real, low=0, open_low=True),
    "weight_decay": partial(checks.real, low=0),
    "nesterov": checks.boolean,
    "clip_norm": _limit,
    "clip_value": _limit,
    "gradient_accumulation_steps": checks.integer,
    "use_ema": checks.boolean,
    "ema_momentum": partial(checks.real, low=0, high=1, open_high=True),
    "layer_rates": _layer_rates,
    "history_size": partial(checks.integer, high=1000),
    "tolerance": partial(checks.real, low=0),
}
# What makes other state, so that it cannot change while there is some.
_FIXED = ("gradient_accumulation_steps", "use_ema")


@dataclass(repr=False, eq=False, match_args=False)  # each option is time of `import fastbp`
class Optimizer:
    """Base of the optimizers. Every assignment to a hyper-parameter is checked.

    `changed` is set by an assignment and cleared by the model that hands the values to its engine.
    """

    if TYPE_CHECKING:  # each class states its own default
        learning_rate: Any = 0.0
    clip_norm: float | None = field(default=None, kw_only=True)
    clip_value: float | None = field(default=None, kw_only=True)
    gradient_accumulation_steps: int = field(default=1, kw_only=True)
    use_ema: bool = field(default=False, kw_only=True)
    ema_momentum: float = field(default=0.99, kw_only=True)
    layer_rates: Mapping[int, float] | None = field(default=None, kw_only=True)

    by_steps: ClassVar[bool] = True  # whether it updates batch by batch
    changed: bool = field(default=False, init=False, compare=False)
    _bound_kernel: str | None = field(default=None, init=False, compare=False)

    def __setattr__(self, name: str, value: object) -> None:
        if name in _RULES:
            value = _RULES[name](name, value)
            if self._bound_kernel is not None:
                self._refuse_other_state(name, value)
            object.__setattr__(self, "changed", True)
        elif name not in ("changed", "_bound_kernel"):
            known = ", ".join(self.config())
            raise AttributeError(f"{type(self).__name__} has no {name!r}; it has {known}")
        object.__setattr__(self, name, value)

    def _refuse_other_state(self, name: str, value: object) -> None:
        if name in _FIXED and value != getattr(self, name):
            raise ValueError(
                f"{name}={value!r} needs other state than {getattr(self, name)!r}, which the model "
                "is compiled with: call model.compile again, which resets the state"
            )
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
        """The constructor arguments by name; those of all optimizers where they are not default."""
        names = [f.name for f in fields(self) if f.init and f.name not in _COMMON]
        own = {name: getattr(self, name) for name in names}
        common = {name: getattr(self, name) for name in _COMMON}
        return own | {name: v for name, v in common.items() if v != _COMMON[name]}

    def packed(self) -> dict[str, Any]:
        """Class and arguments as JSON data. Raises ValueError for a rate that is a function."""
        config = self.config()
        rate = config.get("learning_rate")
        if isinstance(rate, Spec):
            config["learning_rate"] = pack(rate)
        elif callable(rate):
            raise ValueError(
                "a learning rate that is a Python function cannot be saved: use a schedule of "
                "fastbp.schedules, or set model.optimizer.learning_rate to a number first"
            )
        return {"class": type(self).__name__, **config}

    def hyper(self) -> dict[str, float]:
        """What the kernel takes: every hyper-parameter that applies to it."""
        own = {name: value for name, value in self.config().items() if name not in _COMMON}
        if not isinstance(own["learning_rate"], float):
            own["learning_rate"] = 0.0  # the rates of rules() are taken
        return own

    def rate(self, updates: int) -> float:
        """The learning rate of the update that follows `updates` others."""
        rate: Rate = self.learning_rate
        if isinstance(rate, float):
            return rate
        return checks.real(f"learning_rate({updates})", rate(updates), 0)

    @property
    def asks_python(self) -> bool:
        """Whether the learning rate is a Python function, to be asked for every update."""
        rate = self.learning_rate
        return callable(rate) and not isinstance(rate, Schedule)

    def rules(self, updates: int, ahead: int) -> dict[str, Any]:
        """What the engine's set_rules takes, but for the ranges; {} where there is nothing to say.

        `updates` have been done; a Python function is asked for the rates of the next `ahead`.
        """
        rules: dict[str, Any] = {
            "clip_norm": self.clip_norm,
            "clip_value": self.clip_value,
            "average_momentum": self.ema_momentum if self.use_ema else None,
        }
        rules = {name: value for name, value in rules.items() if value is not None}
        if self.gradient_accumulation_steps > 1:
            rules["accumulation"] = self.gradient_accumulation_steps
        rate = self.learning_rate
        if isinstance(rate, Schedule):
            rules["rates"] = [tuple(piece) for piece in rate.pieces()]
        elif callable(rate):
            values = [self.rate(step) for step in range(updates, updates + ahead)]
            rules["rates"] = [tuple(piece) for piece in schedules.table(updates, values)]
            rules["rate_values"] = values
        return rules

    def bound(self) -> Optimizer:
        """A copy for one compiled model, which refuses changes that would need another kernel."""
        copy = type(self)(**self.config())
        copy._bound_kernel = copy.kernel
        copy.changed = False
        return copy

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.config().items())
        return f"{type(self).__name__}({arguments})"


_COMMON = {f.name: f.default for f in fields(Optimizer) if f.init}


@dataclass(repr=False, match_args=False)
class SGD(Optimizer):
    """Gradient descent: w -= learning_rate * g.

    With momentum: s = momentum * s + g; w -= learning_rate * s (Polyak 1964, in PyTorch's form);
    with nesterov=True w -= learning_rate * (g + momentum * s) (Sutskever et al. 2013).
    """

    learning_rate: Rate = 0.01
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
        return {name: value for name, value in super().hyper().items() if name not in unused}


@dataclass(repr=False, match_args=False)
class RMSprop(Optimizer):
    """v = rho * v + (1 - rho) * g^2; w -= learning_rate * g / (sqrt(v) + epsilon).

    Tieleman and Hinton 2012.
    """

    learning_rate: Rate = 0.001
    rho: float = 0.9
    epsilon: float = 1e-8
    weight_decay: float = 0.0


@dataclass(repr=False, match_args=False)
class Adagrad(Optimizer):
    """v += g^2; w -= learning_rate * g / (sqrt(v) + epsilon) (Duchi, Hazan and Singer 2011)."""

    learning_rate: Rate = 0.01
    epsilon: float = 1e-10
    weight_decay: float = 0.0


@dataclass(repr=False, match_args=False)
class Adam(Optimizer):
    """Kingma and Ba 2015.

    m = beta_1 m + (1 - beta_1) g; v = beta_2 v + (1 - beta_2) g^2;
    w -= learning_rate / (1 - beta_1^t) * m / (sqrt(v) / sqrt(1 - beta_2^t) + epsilon).
    """

    learning_rate: Rate = 0.001
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0


@dataclass(repr=False, match_args=False)
class AdamW(Optimizer):
    """w -= learning_rate * weight_decay * w, then Adam without L2 (Loshchilov and Hutter 2019)."""

    learning_rate: Rate = 0.001
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.01


@dataclass(repr=False, match_args=False)
class LBFGS(Optimizer):
    """L-BFGS over the whole data, by SciPy's L-BFGS-B (Liu and Nocedal 1989), for small data.

    fit makes up to `epochs` iterations, each of a few passes over all rows; batch_size and shuffle
    do not count, and history has the loss behind each iteration. It ends where the largest element
    of the gradient is at most `tolerance`, with stop_reason "converged". history_size pairs of
    steps and gradients are kept, at most 1000. Compile with dtype="float64": in float32 the search
    along a line soon finds nothing better. Needs SciPy (fit raises ImportError); nothing of what
    the other optimizers have in common applies.
    """

    history_size: int = 10
    tolerance: float = 1e-5

    by_steps: ClassVar[bool] = False
    learning_rate = 0.0

    def __post_init__(self) -> None:
        given = [name for name in _COMMON if getattr(self, name) != _COMMON[name]]
        if given:
            raise ValueError(f"LBFGS has no {given[0]}")

    def __setattr__(self, name: str, value: object) -> None:
        if name == "learning_rate":
            raise AttributeError("LBFGS has no learning rate: it searches along lines")
        super().__setattr__(name, value)

    @property
    def kernel(self) -> str:
        return "sgd"  # the engine wants one; it makes no step

    def hyper(self) -> dict[str, float]:
        return {"learning_rate": 0.0, "weight_decay": 0.0}

    @property
    def asks_python(self) -> bool:
        return True


CLASSES: dict[str, type[Optimizer]] = {
    cls.__name__: cls for cls in (SGD, RMSprop, Adagrad, Adam, AdamW, LBFGS)
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
    """How many arrays of state the engine keeps for the optimizer beside the parameters."""
    sums = optimizer.gradient_accumulation_steps > 1
    return OPTIMIZERS[optimizer.kernel]["slots"] + sums + optimizer.use_ema


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
