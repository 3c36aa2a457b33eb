"""A model as an ONNX graph, for ONNX Runtime and whatever else reads it; needs the onnx package.

Activations are spelled out in operators that runtimes have in float32 and in float64. What they
lack in float64 is taken in float32 (relative error 1e-7): erf, for gelu, and recurrent layers.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import durable
from ..arrays import Array
from ..embedding import Embedding
from ..errors import lookup
from ..layers import Activation, Dense, Dropout, Layer, Softmax
from ..normalization import BatchNorm, LayerNorm, Normalize
from ..recurrent import Recurrent
from ..structure import Flatten, Masking, Reshape, Residual
from ..wrappers import Bidirectional, TimeDistributed
from . import onnx_recurrent

if TYPE_CHECKING:
    from ..transferable import Transferable

OPSET, IR_VERSION = 17, 8  # of 2022: everything needed is there, and older runtimes read it
LENGTHS = "lengths"  # the input, beside "x"


class Graph:
    """Nodes and constants, gathered from input to output; values are called by name."""

    def __init__(self, onnx: Any, dtype: np.dtype[Any], sequences: bool = False) -> None:
        self.onnx, self.dtype = onnx, dtype
        self.sequences = sequences  # whether the inputs have an axis of steps
        self.lengths = ""  # the value that holds where they end; none: all steps count
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node; returns the name of its output."""
        name = f"v{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, [name], **attributes))
        return name

    def ops(self, kind: str, count: int, *inputs: str, **attributes: Any) -> list[str]:
        """Adds a node with several outputs; returns their names."""
        names = [f"v{len(self.nodes)}_{k}" for k in range(count)]
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, names, **attributes))
        return names

    def integers(self, values: list[int]) -> str:
        """Adds a constant of integers, such as a shape; returns its name."""
        return self._constant(np.array(values, np.int64))

    def constant(self, value: Array | float, dtype: Any = None) -> str:
        """Adds a constant of the graph's dtype, or of another one; returns its name."""
        return self._constant(np.array(value, dtype or self.dtype, order="C"))

    def _constant(self, array: Array) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(self.onnx.numpy_helper.from_array(array, name))
        return name

    def cast(self, value: str, dtype: str) -> str:
        return self.op("Cast", value, to=getattr(self.onnx.TensorProto, dtype))


def _scaled(graph: Graph, z: str, factor: float) -> str:
    return graph.op("Mul", z, graph.constant(factor))


def _above(graph: Graph, z: str) -> str:
    return graph.op("Max", z, graph.constant(0))


def _below(graph: Graph, z: str) -> str:
    return graph.op("Min", z, graph.constant(0))


def _plus_one(graph: Graph, z: str) -> str:
    return graph.op("Add", z, graph.constant(1))


def _leaky_relu(graph: Graph, z: str, slope: float) -> str:
    return graph.op("Add", _above(graph, z), _scaled(graph, _below(graph, z), slope))


def _elu(graph: Graph, z: str, alpha: float) -> str:
    growth = graph.op("Sub", graph.op("Exp", _below(graph, z)), graph.constant(1))
    return graph.op("Add", _above(graph, z), _scaled(graph, growth, alpha))


def _softplus(graph: Graph, z: str, _: float) -> str:
    """max(z, 0) + log(1 + exp(-|z|)), which does not overflow."""
    small = graph.op("Exp", graph.op("Neg", graph.op("Abs", z)))
    return graph.op("Add", _above(graph, z), graph.op("Log", _plus_one(graph, small)))


def _gelu(graph: Graph, z: str, _: float) -> str:
    inner = _scaled(graph, z, math.sqrt(0.5))
    if graph.dtype == np.float64:
        inner = graph.cast(graph.op("Erf", graph.cast(inner, "FLOAT")), "DOUBLE")
    else:
        inner = graph.op("Erf", inner)
    return graph.op("Mul", z, _scaled(graph, _plus_one(graph, inner), 0.5))


def _gelu_tanh(graph: Graph, z: str, _: float) -> str:
    cubed = graph.op("Mul", graph.op("Mul", z, z), z)
    inner = graph.op("Add", z, _scaled(graph, cubed, 0.044715))
    gate = graph.op("Sigmoid", _scaled(graph, inner, 2 * math.sqrt(2 / math.pi)))
    return graph.op("Mul", z, gate)


def _silu(graph: Graph, z: str, _: float) -> str:
    return graph.op("Mul", z, graph.op("Sigmoid", z))


def _mish(graph: Graph, z: str, _: float) -> str:
    return graph.op("Mul", z, graph.op("Tanh", _softplus(graph, z, 0)))


FORMULAS: dict[str, Callable[[Graph, str, float], str]] = {
    "identity": lambda graph, z, _: z,
    "relu": lambda graph, z, _: graph.op("Relu", z),
    "leaky_relu": _leaky_relu,
    "sigmoid": lambda graph, z, _: graph.op("Sigmoid", z),
    "tanh": lambda graph, z, _: graph.op("Tanh", z),
    "softplus": _softplus,
    "elu": _elu,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "silu": _silu,
    "mish": _mish,
}


def export(
    model: Transferable, path: str | os.PathLike[str], probabilities: bool, lengths: bool
) -> None:
    """Sequential.export_onnx; see there."""
    model._require_built()
    if lengths and not model._reads_sequences:
        raise ValueError("lengths=True is about sequences: no layer of the network reads them")
    link = model._link("export_onnx(probabilities=True)") if probabilities else None
    try:
        import onnx
        import onnx.helper
        import onnx.numpy_helper
    except ImportError as error:
        raise ImportError(
            f"export_onnx needs the onnx package ({error}): pip install 'fastbp[onnx]'"
        ) from error
    graph = Graph(onnx, model._dtype, model._reads_sequences)
    if lengths:
        graph.lengths = graph.cast(LENGTHS, "INT32")
    value = "x"
    for index, layer in enumerate(model.layers):
        value = _layer(graph, model, str(index), layer, value)
    if link in ("softmax", "sigmoid"):
        value = graph.op(link.capitalize(), value)
    graph.nodes.append(onnx.helper.make_node("Identity", [value], ["y"]))
    proto = _proto(graph, model)
    onnx.checker.check_model(proto)
    durable.write_durably(path, [proto.SerializeToString()])


def _layer(graph: Graph, model: Transferable, name: str, layer: Layer, value: str) -> str:
    """Adds one layer; returns the name of its output."""
    if isinstance(layer, (Dropout, Flatten, Reshape)):  # "x" is in the shape that these give
        return value
    if isinstance(layer, Masking):
        if not graph.lengths:
            raise ValueError(
                "Masking has no form in ONNX here: export with lengths=True, which gives the graph "
                "an input for them"
            )
        return value
    if isinstance(layer, Activation):
        formula = lookup("activation in ONNX", layer.name, FORMULAS)
        return formula(graph, value, layer.param)
    if isinstance(layer, Residual):
        inner = value
        for index, part in enumerate(layer.layers):
            inner = _layer(graph, model, f"{name}.{index}", part, inner)
        return graph.op("Add", value, inner)
    if isinstance(layer, TimeDistributed):
        return _layer(graph, model, name, layer.layer, value)
    for kind, make in _MAKERS.items():
        if isinstance(layer, kind):
            own = {
                key.rpartition(".")[2]: array
                for key, array in (model.parameters() | model.state()).items()
                if key.rpartition(".")[0] == name
            }
            value = make(graph, layer, own, value)
            fused = getattr(layer, "activation", None)  # of a SimpleRNN a name, and its own
            if not isinstance(fused, Activation):
                return value
            return _layer(graph, model, name, fused, value)
    raise ValueError(f"layer {name}, {type(layer).__name__}, has no form in ONNX here")


def _dense(graph: Graph, _: Any, own: dict[str, Array], value: str) -> str:
    """x kernel (+ bias); of sequences, which Gemm does not take, by other operators."""
    kernel, *bias = [graph.constant(array) for array in own.values()]
    if not graph.sequences:
        return graph.op("Gemm", value, kernel, *bias)
    value = graph.op("MatMul", value, kernel)
    return graph.op("Add", value, *bias) if bias else value


def _scale_and_shift(graph: Graph, own: dict[str, Array], value: str) -> str:
    """Times gamma, plus beta, where there are such."""
    if "gamma" in own:
        value = graph.op("Mul", value, graph.constant(own["gamma"]))
    return graph.op("Add", value, graph.constant(own["beta"])) if "beta" in own else value


def _layer_norm(graph: Graph, layer: Any, own: dict[str, Array], value: str) -> str:
    def mean(x: str) -> str:
        return graph.op("ReduceMean", x, axes=[-1], keepdims=1)

    deviation = graph.op("Sub", value, mean(value))
    variance = mean(graph.op("Mul", deviation, deviation))
    spread = graph.op("Sqrt", graph.op("Add", variance, graph.constant(layer.epsilon)))
    return _scale_and_shift(graph, own, graph.op("Div", deviation, spread))


def _batch_norm(graph: Graph, layer: Any, own: dict[str, Array], value: str) -> str:
    """By the moving statistics."""
    value = graph.op("Sub", value, graph.constant(own["moving_mean"]))
    variance = own["moving_variance"].astype(np.float64)
    factor = graph.constant(1 / np.sqrt(variance + layer.epsilon))
    return _scale_and_shift(graph, own, graph.op("Mul", value, factor))


def _normalize(graph: Graph, layer: Any, _: dict[str, Array], value: str) -> str:
    numbers = layer.constants(len(layer.center))
    value = graph.op("Sub", value, graph.constant(numbers["center"]))
    return graph.op("Mul", value, graph.constant(numbers["factor"]))


def _softmax(graph: Graph, _: Any, own: dict[str, Array], value: str) -> str:
    return graph.op("Softmax", value, axis=-1)


def _embedding(graph: Graph, layer: Any, own: dict[str, Array], value: str) -> str:
    table = graph.constant(own["embeddings"])
    entries = graph.op("Gather", table, graph.cast(value, "INT64"), axis=0)
    return graph.op("Reshape", entries, graph.integers([0, 0, -1] if graph.sequences else [0, -1]))


_MAKERS: dict[type[Layer], Callable[[Graph, Any, dict[str, Array], str], str]] = {
    Dense: _dense,
    LayerNorm: _layer_norm,
    BatchNorm: _batch_norm,
    Normalize: _normalize,
    Embedding: _embedding,
    Softmax: _softmax,
    Recurrent: onnx_recurrent.add,
    Bidirectional: onnx_recurrent.add,
}


def _proto(graph: Graph, model: Transferable) -> Any:
    helper = graph.onnx.helper
    kind = helper.np_dtype_to_tensor_dtype(graph.dtype)
    reads = ["steps"] if model._reads_sequences else []
    gives = ["steps"] if model._gives_sequences() else []
    x = [helper.make_tensor_value_info("x", kind, ["rows", *reads, model.inputs])]
    if graph.lengths:
        int64 = graph.onnx.TensorProto.INT64
        x.append(helper.make_tensor_value_info(LENGTHS, int64, ["rows"]))
    y = helper.make_tensor_value_info("y", kind, ["rows", *gives, model.outputs])
    content = helper.make_graph(graph.nodes, "fastbp", x, [y], graph.constants)
    opset = [helper.make_opsetid("", OPSET)]
    return helper.make_model(
        content, opset_imports=opset, ir_version=IR_VERSION, producer_name="fastbp"
    )
