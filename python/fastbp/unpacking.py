"""From the JSON of a model file to layers; every name is looked up in a fixed table."""

from __future__ import annotations

from typing import Any

from . import initializers, regularizers
from .embedding import Embedding
from .layers import Activation, Dense, Dropout, Layer, Softmax
from .normalization import BatchNorm, LayerNorm, Normalize
from .recurrent import GRU, LSTM, SimpleRNN
from .spec import unpack
from .structure import Flatten, Masking, Reshape, Residual
from .wrappers import Bidirectional, TimeDistributed

_DENSE = (Dense, Activation, Softmax, Dropout, LayerNorm, BatchNorm, Normalize, Residual, Flatten)
_SEQUENCES = (Masking, SimpleRNN, LSTM, GRU, Bidirectional, TimeDistributed)
_LAYERS = (*_DENSE, Reshape, Embedding, *_SEQUENCES)
CLASSES: dict[str, type[Layer]] = {layer.packed_class(): layer for layer in _LAYERS}
_INITIALIZERS = (
    "kernel_initializer",
    "recurrent_initializer",
    "bias_initializer",
    "embeddings_initializer",
)


def from_config(data: Any) -> Layer:
    """The layer that `spec.pack` wrote. Raises ValueError or TypeError for anything else."""
    if isinstance(data, dict):
        data = dict(data)
        if isinstance(data.get("activation"), dict):
            data["activation"] = unpack("activation", data["activation"], CLASSES)
        if data.get("class") == "Residual" and isinstance(data.get("layers"), list):
            data["layers"] = [from_config(layer) for layer in data["layers"]]
        if data.get("class") in ("Bidirectional", "TimeDistributed"):
            data["layer"] = from_config(data.get("layer"))
        for name in _INITIALIZERS:
            if name in data:
                data[name] = unpack(name, data[name], initializers.CLASSES)
        if data.get("kernel_regularizer") is not None:
            data["kernel_regularizer"] = unpack(
                "kernel_regularizer", data["kernel_regularizer"], regularizers.CLASSES
            )
    return unpack("layer", data, CLASSES)
