"""Reads a model file of fastbp and predicts, with NumPy alone: one file to copy and deploy.

    model = NumpyModel("net.safetensors")
    logits = model.predict(X)          # float64; (rows, inputs) in, (rows, outputs) out
    model.predict(X, lengths)          # of sequences (rows, steps, inputs); lengths may be left out

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


def norm(x, mean, variance, layer, own):
    y = (x - mean) / np.sqrt(variance + layer["epsilon"])
    return y * own.get("gamma", 1.0) + own.get("beta", 0.0)


def rnn(z, r, h, c, layer):
    return ACTIVATIONS[layer["activation"]](z + r, 0.0), c


def lstm(z, r, h, c, layer):
    i, f, g, o = np.split(z + r, 4, axis=1)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def gru(z, r, h, c, layer):
    (zu, zs, zn), (ru, rs, rn) = np.split(z, 3, axis=1), np.split(r, 3, axis=1)
    update = sigmoid(zu + ru)
    return update * h + (1 - update) * np.tanh(zn + sigmoid(zs + rs) * rn), c


CELLS = {"SimpleRNN": rnn, "LSTM": lstm, "GRU": gru}


class NumpyModel:
    """Every layer of fastbp but functions of one's own; refuses a damaged file."""

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
            if name.startswith(("optimizer.", "run.")):  # to train on, not to predict
                continue
            first, last = entry["data_offsets"]
            values = np.frombuffer(data[end + first : end + last], "<" + entry["dtype"].lower()[0]
                                   + {"F32": "4", "F64": "8"}[entry["dtype"]])  # fmt: skip
            self.tensors[name] = values.reshape(entry["shape"]).astype(np.float64)

    def predict(self, x, lengths=None):
        """The last layer's output: logits where the model was trained with a loss of logits."""
        self.lengths = lengths
        return self._chain(self.layers, "", np.asarray(x, np.float64))

    def _chain(self, layers, prefix, x):
        for index, layer in enumerate(layers):
            x = self._layer(layer, f"{prefix}{index}.", x)
        return x

    def _layer(self, layer, prefix, x):
        kind = layer["class"]
        own = {
            name[len(prefix) :]: a for name, a in self.tensors.items() if name.startswith(prefix)
        }
        if kind == "Activation":
            return ACTIVATIONS[layer["name"]](x, layer.get("param", 0.0))
        if kind == "Dense":
            x = x @ own["kernel"] + own.get("bias", 0.0)
            return self._layer(layer["activation"], prefix, x) if layer["activation"] else x
        if kind == "LayerNorm":
            return norm(x, x.mean(-1, keepdims=True), x.var(-1, keepdims=True), layer, own)
        if kind == "BatchNorm":
            return norm(x, own["moving_mean"], own["moving_variance"], layer, own)
        if kind == "Normalize":
            return (x - np.array(layer["center"])) / np.array(layer["scale"])
        if kind == "Embedding":
            return own["embeddings"][x.astype(int)].reshape(*x.shape[:-1], -1)
        if kind == "Residual":
            return x + self._chain(layer["layers"], prefix, x)
        if kind in ("Flatten", "Reshape"):
            return x.reshape(len(x), *layer.get("target_shape", [-1]))
        if kind == "TimeDistributed":
            return self._layer(layer["layer"], prefix, x)
        if kind in CELLS:
            return self._walk(layer, own, "", x, layer["go_backwards"])
        if kind == "Bidirectional":
            ways = [self._walk(layer["layer"], own, way, x, bool(way)) for way in ("", "backward_")]
            return sum(ways) if layer["merge_mode"] == "sum" else np.concatenate(ways, axis=-1)
        if kind == "Masking":
            if self.lengths is None:
                self.lengths = (x != layer["mask_value"]).any(-1).sum(-1)
            return x
        if kind == "Softmax":
            shares = np.exp(x - x.max(-1, keepdims=True))
            return shares / shares.sum(-1, keepdims=True)
        if kind == "Dropout":
            return x
        raise ValueError(f"layer {prefix[:-1]} is {kind}, which this reader lacks")

    def _walk(self, layer, own, way, x, backwards):
        """One recurrent layer over the steps; a sequence that has ended keeps its state."""
        recurrent = own[way + "recurrent_kernel"]
        first = recurrent.shape[1] if way else 0  # column of the second direction's weights
        columns = slice(first, first + recurrent.shape[1])
        z = x @ own["kernel"][:, columns] + own.get("bias", np.zeros(columns.stop))[columns]
        h = c = np.zeros((len(x), layer["units"]))
        ends = np.full(len(x), x.shape[1]) if self.lengths is None else np.asarray(self.lengths)
        every = np.empty((*x.shape[:2], layer["units"]))
        for step in range(x.shape[1])[:: -1 if backwards else 1]:
            r = h @ recurrent + own.get(way + "recurrent_bias", 0.0)
            made = CELLS[layer["class"]](z[:, step], r, h, c, layer)
            h, c = np.where((step < ends)[:, None], made, (h, c))
            every[:, step] = h
        return every if layer["return_sequences"] else h


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: numpy_reader.py MODEL NUMBERS.csv > PREDICTIONS.csv")
    rows = np.loadtxt(sys.argv[2], delimiter=",", ndmin=2)
    np.savetxt(sys.stdout, NumpyModel(sys.argv[1]).predict(rows), "%.17g", delimiter=",")
