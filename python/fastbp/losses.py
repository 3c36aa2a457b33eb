"""Losses: what compile(loss=...) takes, and what each asks of outputs and targets.

y is the network's output (n, outputs), t the target of the same shape, e = y - t.

    mse                                 mean of e^2
    half_sse                            sum of e^2 / 2, over the batch too
    mae                                 mean of |e|
    huber                               mean of e^2 / 2 where |e| <= delta, else
                                        delta (|e| - delta / 2)
    quantile                            mean of q (t - y) where y < t, else (1 - q)(y - t): the
                                        pinball loss, least for the q-quantile of t
    poisson                             mean of y - t log y, counts t >= 0, y the rate, above 0 as
                                        after a softplus (kept off 0 by 1e-7)
    poisson_with_log_rate               the same of the rate exp(y)
    hinge                               mean of max(0, 1 - s y), s = 1 where t > 1/2, else -1
    squared_hinge                       mean of the hinge's square
    binary_cross_entropy                mean of -t log y - (1 - t) log(1 - y), y in (0, 1)
    binary_cross_entropy_with_logits    the same of sigmoid(y)
    softmax_cross_entropy               mean over the rows of -sum t log softmax(y); t may also be
                                        class numbers (n,)

Means are over n * outputs where nothing else is said. Some have a number of their own:
Loss("huber", delta=0.5), Loss("quantile", quantile=0.9), and for the three cross-entropies
Loss("softmax_cross_entropy", label_smoothing=0.1): of K classes the target becomes
(1 - s) t + s / K, of yes or no (1 - s) t + s / 2, in the loss and nowhere else (Szegedy et al.
2016; as torch.nn.CrossEntropyLoss and Keras' BinaryCrossentropy have it).

Several outputs with a binary cross-entropy, or a hinge loss, are several labels of a row, each yes
or no. The targets of a hinge loss may be -1 and 1, or 0 and 1.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from . import checks
from .errors import describe, lookup
from .registry import LOSSES
from .spec import Spec

Link = Literal["softmax", "sigmoid", "identity", "sign"]


class Traits(NamedTuple):
    """What a loss asks for."""

    link: Link | None = None  # from outputs to probabilities; None: not about classes
    class_numbers: bool = False  # targets may be class numbers (n,)
    sums: bool = False  # a batch's loss is the sum over its rows, not the mean


_TRAITS = {
    **dict.fromkeys(LOSSES, Traits()),
    "half_sse": Traits(sums=True),
    **dict.fromkeys(("hinge", "squared_hinge"), Traits(link="sign")),
    "binary_cross_entropy": Traits(link="identity"),
    "binary_cross_entropy_with_logits": Traits(link="sigmoid"),
    "softmax_cross_entropy": Traits(link="softmax", class_numbers=True),
}

_BINARY = (
    "use 'binary_cross_entropy_with_logits' with a last layer without activation, "
    "or 'binary_cross_entropy' after a sigmoid"
)
_SOFTMAX = (
    "use 'softmax_cross_entropy'; it takes class numbers or one-hot rows, "
    "and logits: the last layer has no activation"
)
_HINTS = {
    "categorical_crossentropy": _SOFTMAX,
    "sparse_categorical_crossentropy": _SOFTMAX,
    "cross_entropy": _SOFTMAX,
    "crossentropy": _SOFTMAX,
    "crossentropyloss": _SOFTMAX,
    "log_loss": _SOFTMAX,
    "nll": _SOFTMAX,
    "binary_crossentropy": _BINARY,
    "bce": _BINARY,
    "bceloss": _BINARY,
    "bce_with_logits": "use 'binary_cross_entropy_with_logits'",
    "bcewithlogitsloss": "use 'binary_cross_entropy_with_logits'",
    "mean_squared_error": "use 'mse'",
    "squared_error": "use 'mse' (mean) or 'half_sse' (sum / 2)",
    "mseloss": "use 'mse'",
    "l2": "use 'mse'",
    "sse": "use 'half_sse' (sum / 2)",
    "mean_absolute_error": "use 'mae'",
    "l1": "use 'mae'",
    "l1loss": "use 'mae'",
    "smooth_l1": "use 'huber'",
    "huber_loss": "use 'huber'",
    "pinball": "use 'quantile'",
    "quantile_loss": "use 'quantile'",
    "poissonnllloss": "use 'poisson_with_log_rate', or 'poisson' where the output is the rate",
    "hinge_loss": "use 'hinge'",
    "categorical_hinge": _SOFTMAX,
}


class Loss(Spec):
    """A loss by name: Loss("mse"), Loss("huber", delta=0.5).

    Args:
        name: one of fastbp.registry.LOSSES.
        param: the one number that a loss may have; None for the usual value.
        named: the same by its name: `delta` of huber, above 0, 1 if not given; `quantile` of
            quantile, between 0 and 1, 0.5 if not given; `label_smoothing` of the cross-entropies,
            from 0 and below 1, 0 if not given.

    Raises ValueError for an unknown name, or a number where the loss has none; TypeError for a
    number of another name.
    """

    name: str
    param: float

    def __init__(self, name: str, param: float | None = None, **named: float) -> None:
        entry = lookup("loss", name, LOSSES, _HINTS)
        parameter = entry["parameter"]
        if set(named) - {parameter} or (named and param is not None):
            known = f"{parameter!r}, once" if parameter else "none"
            raise TypeError(f"loss {name!r} takes {known}; got {', '.join(named)}")
        param = named.get(parameter, param)
        default, high = entry["default_param"], entry["param_high"]
        if param is not None and not parameter:
            raise ValueError(f"loss {name!r} has no parameter; got {describe(param)}")
        value = default
        if param is not None:
            value = checks.real(parameter, param, 0, high, open_low=default > 0, open_high=True)
        self._set(name=name, param=value)

    @property
    def kernel(self) -> Any:
        """What the engine's compile takes as the loss."""
        return self.name

    @property
    def traits(self) -> Traits:
        """What this loss asks of targets, and its link."""
        return _TRAITS[self.name]

    def config(self) -> dict[str, object]:
        """The constructor arguments by name; a parameter that the loss lacks is left out."""
        return {
            "name": self.name,
            **({"param": self.param} if LOSSES[self.name]["parameter"] else {}),
        }

    @property
    def targets(self) -> tuple[float, float]:
        """The least and the largest target."""
        low, high = LOSSES[self.name]["targets"]
        return low, high


def get(loss: str | Loss) -> Loss:
    """A loss from itself or its name. Raises ValueError for an unknown name, or TypeError."""
    return loss if isinstance(loss, Loss) else Loss(loss)


def check_outputs(loss: Loss, outputs: int, last_activation: str) -> str | None:
    """Raises ValueError where the network's end cannot be trained with this loss.

    Returns a warning where it can, but hardly as meant: a sigmoid taken twice, or probabilities
    that are none.
    """
    if loss.name == "softmax_cross_entropy" and outputs < 2:
        raise ValueError(
            "loss 'softmax_cross_entropy' needs one output per class, at least 2; the last Dense "
            "layer has 1. For two classes use loss='binary_cross_entropy_with_logits'"
        )
    probabilities = ("sigmoid", "softmax")
    if loss.name == "binary_cross_entropy" and last_activation not in probabilities:
        return (
            "loss 'binary_cross_entropy' takes probabilities, but the network ends in "
            f"{last_activation!r}: outputs are clipped to [0, 1]. End in a sigmoid, or use "
            "'binary_cross_entropy_with_logits'"
        )
    if loss.name == "poisson" and last_activation not in ("softplus", *probabilities):
        return (
            "loss 'poisson' takes rates, which are above 0, but the network ends in "
            f"{last_activation!r}: outputs are cut off at 1e-7. End in a softplus, or use "
            "'poisson_with_log_rate'"
        )
    if loss.traits.link in ("sigmoid", "softmax", "sign") and last_activation in probabilities:
        return (
            f"loss {loss.name!r} takes logits, but the network ends in a {last_activation}: leave "
            "the last layer without an activation"
        )
    return None
