"""Where parameters start.

A kernel is (inputs, units): fan_in = inputs, fan_out = units, for its bias too. The numbers come
from the counter-based generator (Philox4x32-10, Salmon et al. 2011) keyed by the model's seed:
purpose 1, stream k for the kernel and 2^31 + k for the bias of the k-th dense layer, one counter
value per element. The start is thus the same on every device and does not depend on what else was
drawn. Normal distributions are not truncated.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np

from . import checks
from .errors import lookup
from .spec import Spec

PURPOSE = 1  # of random numbers: initialisation
BIAS_STREAMS = 2**31
MORE_STREAMS = 2**28


class Draw(Protocol):
    """Fills `out` with random numbers of one stream: _core.random_*, or its reference twin."""

    def __call__(
        self, out: Any, a: float, b: float, seed: int, stream: int, purpose: int, /
    ) -> object: ...


class Source:
    """The random functions of one device with the key of one array."""

    def __init__(self, uniform: Draw, normal: Draw, seed: int, stream: int) -> None:
        self._uniform, self._normal = uniform, normal
        self._key = (seed, stream, PURPOSE)

    def another(self, number: int = 1) -> Source:
        """The source of one more array, of up to seven, that belongs to the first one's layer."""
        seed, stream, _ = self._key
        return Source(self._uniform, self._normal, seed, stream + number * MORE_STREAMS)

    def uniform(self, out: Any, low: float, high: float) -> None:
        self._uniform(out, low, high, *self._key)

    def normal(self, out: Any, mean: float, stddev: float) -> None:
        self._normal(out, mean, stddev, *self._key)


class Initializer(Spec):
    """Fills an array of parameters."""

    def fill(self, out: Any, fan_in: int, fan_out: int, source: Source) -> None:
        """Overwrites `out`, a C-contiguous float array."""
        raise NotImplementedError


class Constant(Initializer):
    """Every parameter is `value`."""

    def __init__(self, value: float = 0.0) -> None:
        self._set(value=checks.real("value", value))

    value: float

    def fill(self, out: Any, fan_in: int, fan_out: int, source: Source) -> None:
        out[...] = self.value


class Zeros(Initializer):
    """Every parameter is 0."""

    def fill(self, out: Any, fan_in: int, fan_out: int, source: Source) -> None:
        out[...] = 0


class Ones(Initializer):
    """Every parameter is 1."""

    def fill(self, out: Any, fan_in: int, fan_out: int, source: Source) -> None:
        out[...] = 1


class RandomNormal(Initializer):
    """Normal with the given standard deviation and mean."""

    def __init__(self, stddev: float = 0.05, mean: float = 0.0) -> None:
        self._set(stddev=checks.real("stddev", stddev, 0), mean=checks.real("mean", mean))

    stddev: float
    mean: float

    def fill(self, out: Any, fan_in: int, fan_out: int, source: Source) -> None:
        source.normal(out, self.mean, self.stddev)


class RandomUniform(Initializer):
    """Uniform between low and high."""

    def __init__(self, low: float = -0.05, high: float = 0.05) -> None:
        low, high = checks.real("low", low), checks.real("high", high)
        if low > high:
            raise ValueError(f"low must not exceed high; got low={low!r}, high={high!r}")
        self._set(low=low, high=high)

    low: float
    high: float

    def fill(self, out: Any, fan_in: int, fan_out: int, source: Source) -> None:
        source.uniform(out, self.low, self.high)


class _Scaled(Initializer):
    """Mean 0 and a variance that depends on the fans."""

    def variance(self, fan_in: int, fan_out: int) -> float:
        raise NotImplementedError


class _ScaledUniform(_Scaled):
    def fill(self, out: Any, fan_in: int, fan_out: int, source: Source) -> None:
        limit = math.sqrt(3 * self.variance(fan_in, fan_out))  # variance of uniform: limit^2 / 3
        source.uniform(out, -limit, limit)


class _ScaledNormal(_Scaled):
    def fill(self, out: Any, fan_in: int, fan_out: int, source: Source) -> None:
        source.normal(out, 0.0, math.sqrt(self.variance(fan_in, fan_out)))


class _Glorot(_Scaled):
    def variance(self, fan_in: int, fan_out: int) -> float:
        return 2 / (fan_in + fan_out)


class _He(_Scaled):
    def variance(self, fan_in: int, fan_out: int) -> float:
        return 2 / fan_in


class _Lecun(_Scaled):
    def variance(self, fan_in: int, fan_out: int) -> float:
        return 1 / fan_in


class GlorotUniform(_Glorot, _ScaledUniform):
    """Uniform of variance 2 / (fan_in + fan_out) (Glorot and Bengio 2010)."""


class GlorotNormal(_Glorot, _ScaledNormal):
    """Normal of variance 2 / (fan_in + fan_out) (Glorot and Bengio 2010)."""


class HeUniform(_He, _ScaledUniform):
    """Uniform of variance 2 / fan_in, for ReLU and its kin (He et al. 2015)."""


class HeNormal(_He, _ScaledNormal):
    """Normal of variance 2 / fan_in, for ReLU and its kin (He et al. 2015)."""


class LecunUniform(_Lecun, _ScaledUniform):
    """Uniform of variance 1 / fan_in (LeCun et al. 1998)."""


class LecunNormal(_Lecun, _ScaledNormal):
    """Normal of variance 1 / fan_in (LeCun et al. 1998)."""


class Orthogonal(Initializer):
    """Rows of length `gain`, at right angles to each other; columns, where there are more rows.

    Normal random numbers, orthonormalized by Gram and Schmidt's method, twice. Saxe, McClelland and
    Ganguli 2013.
    """

    def __init__(self, gain: float = 1.0) -> None:
        self._set(gain=checks.real("gain", gain))

    gain: float

    def fill(self, out: Any, fan_in: int, fan_out: int, source: Source) -> None:
        from . import ops  # as few programs as need it pay for its import

        if out.ndim != 2:
            raise ValueError(f"Orthogonal fills matrices; got one of shape {out.shape}")
        wide = out if out.shape[0] <= out.shape[1] else out.T
        rows = np.empty(wide.shape)
        source.normal(rows, 0.0, 1.0)
        for i, row in enumerate(rows):
            # By the package's own product, whose bits do not depend on the machine.
            for _ in range(2 if i else 0):
                along = ops.matmul(rows[:i], row[:, None])
                row -= ops.matmul(rows[:i], along, transpose_a=True)[:, 0]
            row /= math.sqrt(ops.matmul(row[None], row[:, None]).item())
        wide[...] = self.gain * rows


_NAMED: dict[str, type[Initializer]] = {
    "zeros": Zeros,
    "ones": Ones,
    "constant": Constant,
    "random_normal": RandomNormal,
    "random_uniform": RandomUniform,
    "glorot_uniform": GlorotUniform,
    "glorot_normal": GlorotNormal,
    "he_uniform": HeUniform,
    "he_normal": HeNormal,
    "lecun_uniform": LecunUniform,
    "lecun_normal": LecunNormal,
    "orthogonal": Orthogonal,
}
CLASSES = {cls.__name__: cls for cls in _NAMED.values()}

_HINTS = {
    "normal": "use 'random_normal', or RandomNormal(stddev)",
    "uniform": "use 'random_uniform', or RandomUniform(low, high)",
    "xavier": "use 'glorot_uniform' or 'glorot_normal', the same scheme",
    "xavier_uniform": "use 'glorot_uniform', the same scheme",
    "xavier_normal": "use 'glorot_normal', the same scheme",
    "kaiming_uniform": "use 'he_uniform', the same scheme",
    "kaiming_normal": "use 'he_normal', the same scheme",
    "zero": "use 'zeros'",
    "one": "use 'ones'",
}


def get(initializer: str | Initializer, argument: str = "initializer") -> Initializer:
    """An initializer from itself or its name. Raises ValueError for an unknown name, TypeError."""
    if isinstance(initializer, Initializer):
        return initializer
    if isinstance(initializer, type) and issubclass(initializer, Initializer):
        raise TypeError(f"{argument} must be an object: write {initializer.__name__}()")
    return lookup(argument, initializer, _NAMED, _HINTS)()
