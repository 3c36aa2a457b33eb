"""Post-training quantisation: the kernels of a dense network as int8, a quarter of the file.

    small = fastbp.quantize(model)
    small.save("small.safetensors")
    small = fastbp.load_quantized("small.safetensors")
    y, bound = small.predict(X, return_bound=True)  # |y - model.predict(X)| <= bound

A kernel W becomes integers V from -127 to 127 and a scale for each column, s = max |W| / 127. A row
x of a layer's input becomes integers u in the same way, when it comes; u V is then a sum of
integers, which is exact, and z = u V (scale of x) s + b. Biases, activations and Normalize stay as
they are.

The bound is worked out with the prediction, for each output: roundings move x by at most half its
scale and W by half of s, and what a layer got wrong goes on to the next by |W| and the activation's
steepest slope. It holds whatever the data, and so is wide of what really happens, by ten times and
more for each layer; `quantize` needs no data, either. Jacob et al. 2018 (arXiv:1712.05877).

The arithmetic runs in NumPy, by products of floats in which integers are exact: what is gained is
the size. fastbp predicts faster with the model itself.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from . import durable, files
from .arrays import Array, as_numbers
from .errors import ModelFileError, describe
from .layers import Activation, Dense, Dropout
from .normalization import Normalize
from .reference.activations import ACTIVATIONS
from .structure import Flatten

if TYPE_CHECKING:
    from .model import Sequential

FORMAT = 1
LARGEST = 127
# The steepest slope of each activation, rounded up (gelu's is 1.1290, silu's 1.0998, mish's
# 1.0885); those with a parameter are as steep as that where it is above 1.
_SLOPES = {
    "identity": 1.0,
    "relu": 1.0,
    "leaky_relu": 1.0,
    "sigmoid": 0.25,
    "tanh": 1.0,
    "softplus": 1.0,
    "elu": 1.0,
    "gelu": 1.13,
    "gelu_tanh": 1.13,
    "silu": 1.1,
    "mish": 1.09,
}


class _Layer(NamedTuple):
    """Dense and its activation: kernel (inputs, units) int8, scale and bias (units,) float32."""

    kernel: Array
    scale: Array
    bias: Array
    activation: str
    param: float


class Quantized:
    """A dense network with int8 kernels, as `quantize` or `load_quantized` made it.

    Attributes: inputs, outputs: columns of X and of a prediction; nbytes: of the arrays.
    """

    def __init__(self, layers: list[_Layer], center: Array, factor: Array) -> None:
        self._layers, self._center, self._factor = layers, center, factor
        self.inputs, self.outputs = len(layers[0].kernel), len(layers[-1].scale)

    @property
    def nbytes(self) -> int:
        """Bytes of kernels, scales, biases, and of what normalises the inputs."""
        return sum(array.nbytes for array in self._tensors().values())

    def predict(self, X: Any, return_bound: bool = False) -> Any:
        """The last layer's output (n, outputs), float32; with return_bound (outputs, bound).

        No output is further from that of the model's predict in float32 than the bound says, of
        the same shape. Raises TypeError and ValueError for other data than (n, inputs), finite.
        """
        x = as_numbers("X", X).astype(np.float64)
        x = x.reshape(len(x), -1) if x.ndim > 2 else x
        if x.ndim != 2 or x.shape[1] != self.inputs:
            raise ValueError(f"X must have shape (n, {self.inputs}); got {np.shape(X)}")
        if not np.isfinite(x).all():
            raise ValueError("X has NaN or infinity: fill or drop such rows first")
        rounding = float(np.finfo(np.float32).eps)
        x = (x - self._center) * self._factor
        error = 4 * rounding * (np.abs(x) + np.abs(self._center * self._factor))
        for layer in self._layers:
            x, error = _through(layer, x, error, rounding)
        y = x.astype(np.float32)
        error = error + rounding * np.abs(x)
        return (y, error.astype(np.float32) * np.float32(1.0001)) if return_bound else y

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a safetensors file with a checksum, as Sequential.save does: whole or not."""
        described = {
            "quantized": FORMAT,
            "layers": [
                [*layer.kernel.shape, layer.activation, layer.param] for layer in self._layers
            ],
        }
        tensors = self._tensors()
        head = files.header(described, tensors, {})
        content = [tensor.reshape(-1).view(np.uint8).data for tensor in tensors.values()]
        durable.write_durably(path, [head, *content], files.DIGEST_AT)

    def _tensors(self) -> dict[str, Array]:
        found = {"center": self._center, "factor": self._factor}
        for number, layer in enumerate(self._layers):
            named = {"kernel": layer.kernel, "scale": layer.scale, "bias": layer.bias}
            found.update({f"{number}.{name}": array for name, array in named.items()})
        return found

    def __repr__(self) -> str:
        widths = [self.inputs, *(len(layer.scale) for layer in self._layers)]
        return f"Quantized({'-'.join(map(str, widths))}, {self.nbytes} bytes)"


def _through(layer: _Layer, x: Array, error: Array, rounding: float) -> tuple[Array, Array]:
    """The layer's output of rows x, and how far it may be from that of the rows they stand for."""
    largest = np.abs(x).max(axis=1, keepdims=True)
    step = np.where(largest > 0, largest / LARGEST, 1.0)
    integers = np.rint(x / step)
    error = error + step / 2  # of what stands in the place of x
    kernel = layer.kernel.astype(np.float64)
    z = (integers @ kernel) * step * layer.scale + layer.bias
    sizes, half = np.abs(kernel) * layer.scale, layer.scale / 2
    taken = np.abs(integers) * step
    wrong = error @ (sizes + half) + taken.sum(axis=1, keepdims=True) * half
    # The model's own sum, of float32.
    wrong += (len(kernel) + 2) * rounding * ((taken + error) @ (sizes + half) + np.abs(layer.bias))
    y = ACTIVATIONS[layer.activation].forward(z, layer.param)
    slope = max(_SLOPES[layer.activation], abs(layer.param))
    return y, slope * wrong + 8 * rounding * (np.abs(y) + slope * wrong) + 1e-30


def quantize(model: Sequential) -> Quantized:
    """The model with its kernels as int8; the model itself stays as it is.

    For chains of Dense layers with activations, behind Flatten and Normalize where they stand; what
    Dropout leaves out is not left out in prediction. Raises RuntimeError for a model without
    parameters, ValueError for other layers, TypeError for what is no Sequential.
    """
    from .model import Sequential

    given: object = model
    if not isinstance(given, Sequential):
        raise TypeError(f"quantize takes a Sequential; got {describe(given)}")
    model._require_built()
    parameters, inputs = model.parameters(), model.inputs or 0
    center, factor = np.zeros(inputs), np.ones(inputs)
    layers: list[_Layer] = []
    for place, layer in enumerate(model.layers):
        if isinstance(layer, Dense):
            bias = parameters.get(f"{place}.bias", np.zeros(layer.units))
            layers.append(_quantized(parameters[f"{place}.kernel"], bias))
            last = layer.activation
        elif isinstance(layer, Activation) and layers and layers[-1].activation == "identity":
            last = layer
        elif isinstance(layer, Normalize) and not layers:
            constants = layer.constants(inputs)
            center, factor = constants["center"], constants["factor"]
            continue
        elif isinstance(layer, (Dropout, Flatten)):
            continue
        else:
            raise ValueError(
                f"layer {place}, {layer.title()}, cannot be quantised: Dense layers with "
                "activations can, behind Flatten and Normalize"
            )
        if last is not None:
            name, param = last.specs()[0][1:]
            layers[-1] = layers[-1]._replace(activation=name, param=float(param))
    return Quantized(layers, center, factor)


def _quantized(kernel: Array, bias: Array) -> _Layer:
    largest = np.abs(kernel).max(axis=0).astype(np.float64)
    scale = np.where(largest > 0, largest / LARGEST, 1.0).astype(np.float32)
    integers = np.clip(np.rint(kernel / scale), -LARGEST, LARGEST).astype(np.int8)
    return _Layer(integers, scale, bias.astype(np.float32), "identity", 0.0)


def load_quantized(path: str | os.PathLike[str]) -> Quantized:
    """The network that Quantized.save wrote. Raises ModelFileError for any other content."""
    data, source = files.read(path), repr(os.fspath(path))
    end = 8 + int.from_bytes(data[:8], "little")
    try:
        return _from(files.parse(data[8:end]), data[end:])
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise ModelFileError(f"{source} holds no quantised network: {reason}") from error


def _from(table: dict[str, Any], data: bytes) -> Quantized:
    described = files.parse(table.pop("__metadata__")["fastbp"].encode())
    if "layers" in described and "quantized" not in described:
        raise ValueError("it is a model, which fastbp.load reads")
    if described["quantized"] != FORMAT:
        raise ValueError(f"its format is {described['quantized']!r}; {FORMAT} can be read")
    sizes = [
        (int(rows), int(cols), str(name), float(param))
        for rows, cols, name, param in described["layers"]
    ]
    if not sizes or any(a[1] != b[0] for a, b in itertools.pairwise(sizes)):
        raise ValueError("its layers do not follow each other")
    wanted: dict[str, tuple[tuple[int, ...], str]] = {
        "center": ((sizes[0][0],), "float64"),
        "factor": ((sizes[0][0],), "float64"),
    }
    for number, (rows, cols, name, param) in enumerate(sizes):
        if name not in _SLOPES or not math.isfinite(param) or min(rows, cols) < 1:
            raise ValueError(f"layer {number} is {name!r} with {param!r}")
        wanted[f"{number}.kernel"] = ((rows, cols), "int8")
        wanted[f"{number}.scale"] = wanted[f"{number}.bias"] = ((cols,), "float32")
    found = _tensors_of(table, wanted, data)
    layers = [
        _Layer(found[f"{i}.kernel"], found[f"{i}.scale"], found[f"{i}.bias"], name, param)
        for i, (_, _, name, param) in enumerate(sizes)
    ]
    return Quantized(layers, found["center"], found["factor"])


def _tensors_of(
    table: dict[str, Any], wanted: dict[str, tuple[tuple[int, ...], str]], data: bytes
) -> dict[str, Array]:
    """The tensors, which must be exactly those wanted, one after the other."""
    found, offset = {}, 0
    for name, (shape, kind) in wanted.items():
        end = offset + math.prod(shape) * np.dtype(kind).itemsize
        entry = {
            "dtype": files.TENSOR_DTYPES[kind],
            "shape": list(shape),
            "data_offsets": [offset, end],
        }
        if json.dumps(table.pop(name), sort_keys=True) != json.dumps(entry, sort_keys=True):
            raise ValueError(f"tensor {name!r} is not {entry}")
        if end > len(data):
            raise ValueError("it is cut short")
        flat = np.frombuffer(data, np.dtype(kind).newbyteorder("<"), math.prod(shape), offset)
        found[name], offset = flat.reshape(shape).astype(kind), end
        if kind != "int8" and not np.isfinite(found[name]).all():
            raise ValueError(f"tensor {name!r} has NaN or infinity")
    if table or offset != len(data):
        raise ValueError("it holds more than its layers")
    return found
