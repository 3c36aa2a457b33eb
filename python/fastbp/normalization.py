"""Normalising layers. A batch is (n, features); gamma and beta are (features,)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from . import checks, initializers
from .layers import Layer

if TYPE_CHECKING:
    from .arrays import Array


class _Norm(Layer):
    """What the layers have in common: a scale gamma, starting at 1, and a shift beta, at 0."""

    epsilon: float
    center: bool
    scale: bool

    @property
    def owns_parameters(self) -> bool:
        return self.center or self.scale

    def parameter_shapes(self, inputs: int) -> dict[str, tuple[int, ...]]:
        gamma = {"gamma": (inputs,)} if self.scale else {}
        return {**gamma, **({"beta": (inputs,)} if self.center else {})}

    def initialize(
        self, parameters: Mapping[str, Array], sources: tuple[initializers.Source, ...]
    ) -> None:
        for name, array in parameters.items():
            array[...] = 1 if name == "gamma" else 0


class LayerNorm(_Norm):
    """y = (x - mean) / sqrt(variance + epsilon) * gamma + beta, mean and variance those of the row.

    The variance is divided by the number of features. Ba, Kiros and Hinton 2016; epsilon as in
    PyTorch.

    Args:
        epsilon: at least 0; keeps the quotient of a constant row finite.
        center, scale: whether there is a beta, a gamma.

    Raises ValueError for a negative epsilon, TypeError for wrong kinds.
    """

    def __init__(self, epsilon: float = 1e-5, center: bool = True, scale: bool = True) -> None:
        self._set(
            epsilon=checks.real("epsilon", epsilon, 0),
            center=checks.boolean("center", center),
            scale=checks.boolean("scale", scale),
        )

    def specs(self) -> list[tuple[Any, ...]]:
        return [("layer_norm", self.epsilon, self.center, self.scale)]


class BatchNorm(_Norm):
    """y = (x - mean) / sqrt(variance + epsilon) * gamma + beta, by columns.

    In training mean and variance (divided by n) are those of the batch, and after each step

        moving_mean     = (1 - momentum) * moving_mean     + momentum * mean
        moving_variance = (1 - momentum) * moving_variance + momentum * variance * n / (n - 1)

    starting at 0 and 1; of a batch of one row the variance is 0, which counts as it is. predict and
    evaluate use the moving values, and so does training where the layer is frozen. They are the
    model's `state()`. Ioffe and Szegedy 2015; momentum and n / (n - 1) as in PyTorch: Keras'
    momentum is 1 minus this one.

    Args:
        momentum: share of the new batch, 0 to 1.
        epsilon: at least 0.
        center, scale: whether there is a beta, a gamma.

    Raises ValueError for numbers out of range, TypeError for wrong kinds.
    """

    momentum: float
    owns_state = True

    def __init__(
        self,
        momentum: float = 0.1,
        epsilon: float = 1e-5,
        center: bool = True,
        scale: bool = True,
    ) -> None:
        self._set(
            momentum=checks.real("momentum", momentum, 0, 1),
            epsilon=checks.real("epsilon", epsilon, 0),
            center=checks.boolean("center", center),
            scale=checks.boolean("scale", scale),
        )

    def specs(self) -> list[tuple[Any, ...]]:
        return [("batch_norm", self.epsilon, self.center, self.scale, self.momentum)]

    def state_shapes(self, inputs: int) -> dict[str, tuple[int, ...]]:
        return {"moving_mean": (inputs,), "moving_variance": (inputs,)}

    def initialize_state(self, state: Mapping[str, Array]) -> None:
        state["moving_mean"][...] = 0
        state["moving_variance"][...] = 1
