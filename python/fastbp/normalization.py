"""Normalising layers. A batch is (n, features); gamma and beta are (features,)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from . import arrays, checks, initializers
from .errors import describe, lookup
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
    PyTorch. So is what becomes of features from about 1e18 on in float32, whose squares are beyond
    its range: 0, then NaN. Compile with dtype="float64" for those, or begin with Normalize.

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
    couples_rows = True

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


class Normalize(Layer):
    """y = (x - center) / scale, by columns, with numbers learned from data by `adapt` or given.

    The first layer of a network, as a rule: data goes in as it is, and the model file holds all
    that is needed. A column that is constant has scale 1.

        norm = bp.Normalize().adapt(X)
        model = bp.Sequential([norm, bp.Dense(10)])

    Args:
        method: what `adapt` learns: "standard" the column's mean and standard deviation (divided by
            n, as scikit-learn's StandardScaler), "minmax" its smallest value and its range, so that
            the data lies in [0, 1].
        center, scale: the numbers, one for each column, where they are known already.

    Raises ValueError for an unknown method, numbers that are not finite, a scale of 0, and center
    without scale; TypeError for other kinds.
    """

    method: str
    center: tuple[float, ...] | None
    scale: tuple[float, ...] | None
    owns_state = True
    owns_constants = True

    def __init__(
        self,
        method: str = "standard",
        center: Sequence[float] | None = None,
        scale: Sequence[float] | None = None,
    ) -> None:
        lookup("method", method, _METHODS)
        if (center is None) != (scale is None):
            raise ValueError("give both center and scale, or neither")
        if center is not None and scale is not None:
            center, scale = _numbers("center", center), _numbers("scale", scale)
            if len(center) != len(scale) or 0.0 in scale:
                raise ValueError(
                    f"scale must hold {len(center)} numbers other than 0, one for each of center; "
                    f"got {describe(list(scale))}"
                )
        self._set(method=method, center=center, scale=scale)

    def adapt(self, X: Any) -> Normalize:
        """Learns center and scale from the rows of X (n, columns), and returns the layer itself.

        Numbers of any kind, without a copy of X as floats. A model built before keeps what it has.
        Raises ValueError for NaN, infinity and no rows, TypeError for other kinds.
        """
        array = arrays.as_numbers("X", X)
        if array.ndim != 2 or 0 in array.shape:
            hint = (
                ". Of images behind Flatten take X.reshape(len(X), -1), of sequences "
                "X.reshape(-1, X.shape[-1])" * (array.ndim > 2)
            )
            raise ValueError(f"X must have shape (rows, columns); got shape {array.shape}{hint}")
        with np.errstate(over="ignore", invalid="ignore"):
            center, scale = _METHODS[self.method](array)
        if not np.isfinite(center + scale).all():
            raise ValueError(_without_numbers(array, int(np.argmin(np.isfinite(center + scale)))))
        scale[scale == 0] = 1
        self._set(center=tuple(center.tolist()), scale=tuple(scale.tolist()))
        return self

    def inverse(self, Y: Any) -> Array:
        """x for given y = (x - center) / scale, as float64. Raises ValueError before adapt."""
        center, scale = self._adapted()
        result: Array = np.asarray(Y, np.float64) * scale + center
        return result

    def _adapted(self) -> tuple[Array, Array]:
        if self.center is None or self.scale is None:
            raise ValueError("Normalize knows no data yet: call its adapt(X) with training rows")
        return np.array(self.center), np.array(self.scale)

    def title(self) -> str:
        return f"Normalize {self.method}"

    def specs(self) -> list[tuple[Any, ...]]:
        return [("normalize",)]

    def constants(self, inputs: int) -> dict[str, Array]:
        center, scale = self._adapted()
        if len(center) != inputs:
            raise ValueError(f"Normalize was adapted to {len(center)} columns; got {inputs}")
        with np.errstate(over="ignore"):
            return {"center": center, "factor": 1 / scale}


_CHUNK = 4096  # rows whose float64 deviations are held at a time


def standard(x: Array) -> tuple[Array, Array]:
    """Mean and standard deviation; of a column that is constant its value and 0, exactly."""
    low, high = _extremes(x)
    mean = x.mean(axis=0, dtype=np.float64)
    if np.isinf(mean).any():  # perhaps a sum was, of numbers that are not
        mean = np.ldexp(np.ldexp(x, -64).mean(axis=0, dtype=np.float64), 64)
    # A rounded sum lies beside the value that all rows have; no mean lies outside of its numbers.
    np.clip(mean, low, high, out=mean, where=np.isfinite(mean))
    _, exponent = np.frexp(np.maximum(high - mean, mean - low))
    unit = np.ldexp(1.0, exponent - 1)  # deviations in it are below 2: squares are at hand
    squares = np.zeros_like(mean)
    for start in range(0, len(x), _CHUNK):
        squares += np.square((x[start : start + _CHUNK] - mean) / unit).sum(axis=0)
    return mean, np.sqrt(squares / len(x)) * unit


def _minmax(x: Array) -> tuple[Array, Array]:
    low, high = _extremes(x)
    return low, high - low


def _without_numbers(x: Array, column: int) -> str:
    if np.isfinite(x[:, column]).all():
        return f"X's column {column} spans more than float64 holds: scale it first"
    return f"X has NaN or infinity in column {column}: fill or drop such rows"


def _extremes(x: Array) -> tuple[Array, Array]:
    return x.min(axis=0).astype(np.float64), x.max(axis=0).astype(np.float64)


_METHODS = {"standard": standard, "minmax": _minmax}


def _numbers(name: str, values: Any) -> tuple[float, ...]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be numbers, one for each column; got {describe(values)}")
    return tuple(checks.real(name, value) for value in values)
