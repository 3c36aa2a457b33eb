"""The activations: y = f(z) elementwise, and the derivative that backpropagation multiplies by.

ACTIVATIONS is the one list; every other place (functions, engine, tests) derives from it. To add an
activation, write its functions and add an entry.

Everything is float64 in, float64 out, any shape. Derivatives are taken from z, where they are most
precise. Where y determines it, the entry also has the derivative as a function of y, for kernels
that keep y instead of z. At a kink the derivative is the left one, as in PyTorch. NaN in, NaN out;
at +-inf the limits, without warnings.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from . import special
from .arrays import F64

Formula = Callable[[F64, float], F64]  # (z or y, param) -> array of the same shape


@dataclass(frozen=True)
class Activation:
    """One activation. `parameter` is the name of param in the functional layer, None if unused."""

    forward: Formula
    derivative: Formula
    derivative_from_output: Formula | None = None
    parameter: str | None = None
    default_param: float = 0.0


def _by_sign(z: F64, above: F64 | float, below: F64 | float) -> F64:
    """`above` where z > 0, `below` where z <= 0, NaN where z is NaN."""
    return np.where(z > 0, above, np.where(z <= 0, below, z))


def _identity(z: F64, _: float) -> F64:
    """z itself."""
    return z


def _identity_derivative(z: F64, _: float) -> F64:
    return _by_sign(z, 1.0, 1.0)


def _relu(z: F64, _: float) -> F64:
    """max(z, 0)."""
    return _by_sign(z, z, 0.0)


def _relu_derivative(z: F64, _: float) -> F64:
    return _by_sign(z, 1.0, 0.0)


def _leaky_relu(z: F64, slope: float) -> F64:
    """z for z > 0, slope z otherwise. Maas, Hannun and Ng 2013."""
    return _by_sign(z, z, slope * z)


def _leaky_relu_derivative(z: F64, slope: float) -> F64:
    return _by_sign(z, 1.0, slope)


def _sigmoid(z: F64, _: float) -> F64:
    """1 / (1 + exp(-z))."""
    return special.sigmoid(z)


def _sigmoid_derivative(z: F64, _: float) -> F64:
    return special.sigmoid_derivative(z)


def _sigmoid_derivative_from_output(y: F64, _: float) -> F64:
    return y * (1 - y)


def _tanh(z: F64, _: float) -> F64:
    """tanh z = (exp(z) - exp(-z)) / (exp(z) + exp(-z))."""
    return np.tanh(z)


def _tanh_derivative(z: F64, _: float) -> F64:
    """1 - tanh(z)^2 = 4 sigmoid'(2 z), which does not cancel for large z."""
    return 4 * special.sigmoid_derivative(2 * z)


def _tanh_derivative_from_output(y: F64, _: float) -> F64:
    return (1 - y) * (1 + y)


def _softplus(z: F64, _: float) -> F64:
    """log(1 + exp(z))."""
    return special.softplus(z)


def _softplus_derivative(z: F64, _: float) -> F64:
    return special.sigmoid(z)


def _softplus_derivative_from_output(y: F64, _: float) -> F64:
    """sigmoid(z) = 1 - exp(-y)."""
    return -np.expm1(-y)


def _elu(z: F64, alpha: float) -> F64:
    """z for z > 0, alpha (exp(z) - 1) otherwise. Clevert, Unterthiner and Hochreiter 2015."""
    return _by_sign(z, z, alpha * np.expm1(np.minimum(z, 0)))


def _elu_derivative(z: F64, alpha: float) -> F64:
    return _by_sign(z, 1.0, alpha * np.exp(np.minimum(z, 0)))


def _elu_derivative_from_output(y: F64, alpha: float) -> F64:
    return _by_sign(y, 1.0, y + alpha)


def _gelu(z: F64, _: float) -> F64:
    """z Phi(z), Phi the normal distribution function. Hendrycks and Gimpel 2016."""
    return np.maximum(z, -_FLAT) * special.normal_cdf(z)


def _gelu_derivative(z: F64, _: float) -> F64:
    """Phi(z) + z phi(z)."""
    return special.normal_cdf(z) + np.clip(z, -_FLAT, _FLAT) * special.normal_pdf(z)


def _gelu_tanh_inner(z: F64) -> F64:
    """2 sqrt(2/pi) (z + 0.044715 z^3): as 1 + tanh u = 2 sigmoid(2 u), y = z sigmoid(inner)."""
    return 2 * math.sqrt(2 / math.pi) * (z + 0.044715 * z * z * z)


def _gelu_tanh(z: F64, _: float) -> F64:
    """z/2 (1 + tanh(sqrt(2/pi) (z + 0.044715 z^3))). Hendrycks and Gimpel 2016.

    The left tail is an exponential of `inner`: its relative error is |inner| / 2^53.
    """
    inner = _gelu_tanh_inner(np.clip(z, -_FLAT, _FLAT))
    return np.maximum(z, -_FLAT) * special.sigmoid(inner)


def _gelu_tanh_derivative(z: F64, _: float) -> F64:
    z = np.clip(z, -_FLAT, _FLAT)
    inner = _gelu_tanh_inner(z)
    slope = 2 * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * z * z)
    return special.sigmoid(inner) + z * special.sigmoid_derivative(inner) * slope


def _silu(z: F64, _: float) -> F64:
    """z sigmoid(z). Elfwing, Uchibe and Doya 2017."""
    return np.maximum(z, -_FLAT) * special.sigmoid(z)


def _silu_derivative(z: F64, _: float) -> F64:
    """s + z s (1 - s), s = sigmoid(z)."""
    return special.sigmoid(z) + np.clip(z, -_FLAT, _FLAT) * special.sigmoid_derivative(z)


def _tanh_softplus(z: F64) -> tuple[F64, F64]:
    """t = tanh(log(1 + exp z)) and dt/dz. With n = exp(2z) + 2 exp(z), t = n / (n + 2).

    For z > 0 numerators and denominators are divided by exp(2z) (and its square), so only exp(-|z|)
    occurs: nothing overflows, and all terms are positive, so nothing cancels.
    """
    e = np.exp(-np.abs(z))
    above = 1 + 2 * e + 2 * e * e
    below = e * (e + 2) + 2
    t = np.where(z > 0, (1 + 2 * e) / above, e * (e + 2) / below)
    dt = np.where(z > 0, 4 * e * e * (1 + e) / above**2, 4 * e * (1 + e) / below**2)
    return t, dt


def _mish(z: F64, _: float) -> F64:
    """z tanh(log(1 + exp z)). Misra 2019."""
    return np.maximum(z, -_FLAT) * _tanh_softplus(z)[0]


def _mish_derivative(z: F64, _: float) -> F64:
    t, dt = _tanh_softplus(z)
    return t + np.clip(z, -_FLAT, _FLAT) * dt


# Beyond |z| = 800 the factors of z above are exactly 0 or 1 in float64 (exp(-746) is 0): clipping z
# there changes no value and turns inf * 0 into the limit, 0.
_FLAT = 800.0

ACTIVATIONS: dict[str, Activation] = {
    "identity": Activation(_identity, _identity_derivative, _identity_derivative),
    "relu": Activation(_relu, _relu_derivative, _relu_derivative),
    "leaky_relu": Activation(
        _leaky_relu,
        _leaky_relu_derivative,
        _leaky_relu_derivative,
        parameter="negative_slope",
        default_param=0.01,
    ),
    "sigmoid": Activation(_sigmoid, _sigmoid_derivative, _sigmoid_derivative_from_output),
    "tanh": Activation(_tanh, _tanh_derivative, _tanh_derivative_from_output),
    "softplus": Activation(_softplus, _softplus_derivative, _softplus_derivative_from_output),
    "elu": Activation(
        _elu, _elu_derivative, _elu_derivative_from_output, parameter="alpha", default_param=1.0
    ),
    "gelu": Activation(_gelu, _gelu_derivative),
    "gelu_tanh": Activation(_gelu_tanh, _gelu_tanh_derivative),
    "silu": Activation(_silu, _silu_derivative),
    "mish": Activation(_mish, _mish_derivative),
}
