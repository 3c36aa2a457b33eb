"""Reads a model file of fastbp and predicts, with NumPy alone: one file to copy and deploy.

    model = NumpyModel("net.safetensors")
    logits = model.predict(X)          # float64; (rows, inputs) in, (rows, outputs) out

The file is a safetensors file: 8 bytes length, a JSON header, the tensors. fastbp adds a SHA-256 of
the whole file, taken with zeros in its own place, and a description of the layers.
"""

import hashlib
import json
import math
import sys
from pathlib import Path

import numpy as np


def sigmoid(z):
    e = np.exp(-np.abs(z))
    return np.where(z >= 0, 1, e) / (1 + e)


def softplus(z):
    return np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))


ACTIVATIONS = {
    "identity": lambda z, _: z,
    "relu": lambda z, _: np.maximum(z, 0),
    "leaky_relu": lambda z, slope: np.where(z > 0, z, slope * z),
    "sigmoid": lambda z, _: sigmoid(z),
    "tanh": lambda z, _: np.tanh(z),
    "softplus": lambda z, _: softplus(z),
    "elu": lambda z, alpha: np.where(z > 0, z, alpha * np.expm1(np.minimum(z, 0))),
    "gelu": lambda z, _: z * (1 + np.vectorize(math.erf)(z * math.sqrt(0.5))) / 2,
    "gelu_tanh": lambda z, _: z * sigmoid(math.sqrt(8 / math.pi) * (z + 0.044715 * z**3)),
    "silu": lambda z, _: z * sigmoid(z),
    "mish": lambda z, _: z * np.tanh(softplus(z)),
}


class NumpyModel:
    """Dense, Activation and Dropout layers; refuses a damaged file and any other layer."""

    def __init__(self, path):
        data = Path(path).read_bytes()
        end = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(data[8:end])
        digest = header["__metadata__"]["sha256"].encode()
        if hashlib.sha256(data.replace(digest, b"0" * 64, 1)).hexdigest().encode() != digest:
            raise ValueError(f"{path} is damaged: its checksum does not match")
        self.layers = json.loads(header.pop("__metadata__")["fastbp"])["layers"]
        self.tensors = {}
        for name, entry in header.items():
            first, last = entry["data_offsets"]
            values = np.frombuffer(data[end + first : end + last], "<" + entry["dtype"].lower()[0]
                                   + {"F32": "4", "F64": "8"}[entry["dtype"]])  # fmt: skip
            self.tensors[name] = values.reshape(entry["shape"]).astype(np.float64)

    def predict(self, x):
        """The last layer's output: logits where the model was trained with a loss of logits."""
        x = np.asarray(x, np.float64)
        for index, layer in enumerate(self.layers):
            if layer["class"] == "Dense":
                x = x @ self.tensors[f"{index}.kernel"] + self.tensors.get(f"{index}.bias", 0.0)
                layer = layer["activation"]
            elif layer["class"] not in ("Activation", "Dropout"):
                raise ValueError(f"layer {index} is {layer['class']}, which this reader lacks")
            if layer and layer["class"] == "Activation":
                x = ACTIVATIONS[layer["name"]](x, layer.get("param", 0.0))
        return x


if __name__ == "__main__":
    rows = np.loadtxt(sys.argv[2], delimiter=",", ndmin=2)
    np.savetxt(sys.stdout, NumpyModel(sys.argv[1]).predict(rows), "%.17g", delimiter=",")
