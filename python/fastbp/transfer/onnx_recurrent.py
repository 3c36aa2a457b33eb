"""Recurrent layers as ONNX's operators RNN, LSTM and GRU, which put steps in front of rows.

ONNX Runtime has them in float32 alone: a network in float64 takes them in float32 there, which
changes its results by about 1e-7.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ..arrays import Array
from ..layers import Layer
from ..recurrent import GRU, LSTM, Recurrent, SimpleRNN
from ..wrappers import Bidirectional

if TYPE_CHECKING:
    from .onnx_graph import Graph

# Blocks of columns of the operator by their place here: i o f c of our i f g o; z r h of z r n.
_GATES = {"SimpleRNN": (0,), "LSTM": (0, 3, 1, 2), "GRU": (0, 1, 2)}


def add(graph: Graph, layer: Layer, parameters: Mapping[str, Array], value: str) -> str:
    """Adds the layer, which reads `value` (rows, steps, features); returns its output's name."""
    both = isinstance(layer, Bidirectional)
    cell = layer.layer if isinstance(layer, Bidirectional) else layer
    assert isinstance(cell, Recurrent)
    direction = "bidirectional" if both else "reverse" if cell.go_backwards else "forward"
    attributes: dict[str, object] = {"hidden_size": cell.units, "direction": direction}
    if isinstance(cell, GRU):
        attributes["linear_before_reset"] = 1
    if isinstance(cell, SimpleRNN):
        attributes["activations"] = [cell.activation.capitalize()] * (2 if both else 1)
    kind = {SimpleRNN: "RNN", LSTM: "LSTM", GRU: "GRU"}[type(cell)]
    weights = [
        graph.constant(array, np.float32) for array in _weights(cell, parameters, 2 if both else 1)
    ]
    if graph.lengths:  # behind the biases, which have a place where there are none
        weights += [""] * (3 - len(weights)) + [graph.lengths]
    wide = graph.dtype == np.float64
    steps = graph.op("Transpose", graph.cast(value, "FLOAT") if wide else value, perm=[1, 0, 2])
    every, last = graph.ops(kind, 2, steps, *weights, **attributes)
    if cell.return_sequences:  # (steps, ways, rows, units)
        out, axis, shape = graph.op("Transpose", every, perm=[2, 0, 1, 3]), 2, [0, 0, -1]
    else:  # (ways, rows, units)
        out, axis, shape = graph.op("Transpose", last, perm=[1, 0, 2]), 1, [0, -1]
    out = graph.cast(out, "DOUBLE") if wide else out
    if both and layer.merge_mode == "sum":  # type: ignore[attr-defined]
        return graph.op("ReduceSum", out, graph.integers([axis]), keepdims=0)
    return graph.op("Reshape", out, graph.integers(shape))


def _weights(cell: Recurrent, parameters: Mapping[str, Array], ways: int) -> list[Array]:
    """W (ways, columns, features), R (ways, columns, units) and, if there are biases, B."""
    wide, w, r, b = cell.gates * cell.units, [], [], []
    for way, prefix in zip(range(ways), ("", "backward_"), strict=False):
        columns = slice(way * wide, (way + 1) * wide)
        w.append(_sorted(cell, parameters["kernel"][:, columns].T))
        r.append(_sorted(cell, parameters[f"{prefix}recurrent_kernel"].T))
        if cell.use_bias:
            bias = parameters["bias"][columns]
            second = parameters.get(f"{prefix}recurrent_bias", np.zeros_like(bias))
            b.append(np.concatenate([_sorted(cell, bias), _sorted(cell, second)]))
    return [np.stack(w), np.stack(r), *([np.stack(b)] if b else [])]


def _sorted(cell: Recurrent, rows: Array) -> Array:
    """Rows by gates in the operator's order."""
    blocks = np.split(rows, cell.gates)
    return np.concatenate([blocks[place] for place in _GATES[type(cell).__name__]])
