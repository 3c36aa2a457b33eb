"""Losses: what compile(loss=...) takes, and what each asks of outputs and targets.

y is the network's output (n, outputs), t the target of the same shape, e = y - t.

    mse                                 mean of e^2
    half_sse                            sum of e^2 / 2, over the batch too
    mae                                 mean of |e|
    huber                               mean of e^2 / 2 where |e| <= delta, else
                                        delta (|e| - delta / 2)
    binary_cross_entropy                mean of -t log y - (1 - t) log(1 - y), y in (0, 1)
    binary_cross_entropy_with_logits    the same of sigmoid(y)
    softmax_cross_entropy               mean over the rows of -sum t log softmax(y); t may also be
                                        class numbers (n,)

Means are over n * outputs where nothing else is said.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from . import checks
from .errors import describe, lookup
from .registry import LOSSES
from .spec import Spec

Link = Literal["softmax", "sigmoid", "identity"]


class Traits(NamedTuple):
    """What a loss asks for."""

    link: Link | None = None  # from outputs to probabilities; None: not about classes
    unit_targets: bool = False  # targets lie in [0, 1]
    class_numbers: bool = False  # targets may be class numbers (n,)


_TRAITS = {
    **dict.fromkeys(LOSSES, Traits()),
    "binary_cross_entropy": Traits(link="identity", unit_targets=True),
    "binary_cross_entropy_with_logits": Traits(link="sigmoid", unit_targets=True),
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
}


class Loss(Spec):
    """A loss by name: Loss("mse"), Loss("huber", 0.5).

    Args:
        name: one of fastbp.registry.LOSSES.
        param: the one number that a loss may have (delta of huber); None for the usual value.

    Raises ValueError for an unknown name, or a parameter where the loss has none.
    """

    name: str
    param: float

    def __init__(self, name: str, param: float | None = None) -> None:
        default = lookup("loss", name, LOSSES, _HINTS)["default_param"]
        if param is not None and default == 0:
            raise ValueError(f"loss {name!r} has no parameter; got {describe(param)}")
        value = default if param is None else checks.real("param", param, 0, open_low=True)
        self._set(name=name, param=value)

    @property
    def traits(self) -> Traits:
        """What this loss asks of targets, and its link."""
        return _TRAITS[self.name]

    def config(self) -> dict[str, object]:
        """The constructor arguments by name; a parameter that the loss lacks is left out."""
        return {
            "name": self.name,
            **({"param": self.param} if LOSSES[self.name]["default_param"] else {}),
        }


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
    if loss.name == "binary_cross_entropy" and last_activation != "sigmoid":
        return (
            "loss 'binary_cross_entropy' takes probabilities, but the network ends in "
            f"{last_activation!r}: outputs are clipped to [0, 1]. End in a sigmoid, or use "
            "'binary_cross_entropy_with_logits'"
        )
    if loss.traits.link in ("sigmoid", "softmax") and last_activation == "sigmoid":
        return (
            f"loss {loss.name!r} takes logits, but the network ends in a sigmoid: leave the last "
            "layer without an activation"
        )
    return None
